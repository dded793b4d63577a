"""The ablation run: accuracy after treating heads, against the untreated model on the same samples.

Owns what a run's results depend on, and their document. Which heads are treated is `ablation_plans`', the passes are
`masked_runs`', the figures `ablation_results`'.
"""

from collections.abc import Sequence
from typing import Any

from calibrate.ablation.plans import Configuration
from calibrate.ablation.results import Ablation, AblationRow, compared, figures, published
from calibrate.datasets import Dataset
from calibrate.masking.masked_runs import Answers, MaskedRunSettings, answer_variants, masked_run_identity
from calibrate.masking.prefix_sharing import Variant
from calibrate.models.loading import LoadedModel
from calibrate.runs.interrupts import defer_signals
from calibrate.runs.loop import ResumableLoop
from calibrate.runs.settings import execution
from profiles.head_profile import HeadProfile
from profiles.overlap import shared_pictures
from profiles.provenance import git_commit, versions
from profiles.store import save


def ablate(
    loaded: LoadedModel, profile: HeadProfile, dataset: Dataset, chosen: Sequence[Configuration], run: MaskedRunSettings
) -> Ablation:
    """Measure the model untreated and under every configuration, and write the results.

    Continues an interrupted run of the same settings.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    OutOfDeviceMemory, DatasetBroken, FileUnwritable
    """
    loop = ResumableLoop(loaded, dataset, run, masked_run_identity(profile, run) | _identity(chosen))
    variants = [Variant(one.treatments, one.plan.compensation.means) for one in chosen]
    with defer_signals() as interrupts:
        answers = answer_variants(loop, variants, run, interrupts, "ablating")
        result = _results(loaded, profile, dataset, chosen, run, answers)
        save(result, run.out)
        loop.discard_state()
    return result


def _identity(chosen: Sequence[Configuration]) -> dict[str, Any]:
    return {
        "treatment": chosen[0].how,
        "ranked by": chosen[0].plan.selection.rank_by,
        "heads": [[one.select, one.stage, one.k, one.seed, one.heads] for one in chosen],
    }


def _results(
    loaded: LoadedModel,
    profile: HeadProfile,
    dataset: Dataset,
    chosen: Sequence[Configuration],
    run: MaskedRunSettings,
    answers: Answers,
) -> Ablation:
    families, baseline = answers.families, answers.right[0]
    size = chosen[0].plan.heads_together
    return Ablation(
        model=loaded.ref,
        profile_digest=profile.digest,
        dataset=dataset.ref(),
        samples=len(families),
        broken=list(dataset.broken),
        granularity=chosen[0].plan.granularity,
        heads_together=size if size > 1 else None,
        rank_by=chosen[0].plan.selection.rank_by,
        treatment=chosen[0].how,
        block_size=run.block_size,
        metric=dataset.metric,
        baseline=figures(families, baseline),
        baseline_published=published(dataset.metric, answers.counted(loaded, None)),
        rows=[
            AblationRow(
                select=one.select,
                stage=one.stage,
                k=one.k,
                share=one.share,
                seed=one.seed,
                heads=[list(head) for head in one.heads],
                figures=compared(families, baseline, right),
                published=published(dataset.metric, answers.counted(loaded, number)),
            )
            for number, (one, right) in enumerate(zip(chosen, answers.right[1:], strict=True))
        ],
        settings={
            **execution(loaded),
            "batch_size": run.batch_size,
            "shared_pictures": shared_pictures(profile.dataset, dataset.ref()),
        },
        versions=versions("vhserve", "torch", "transformers", "numpy"),
        commit=git_commit(),
    )
