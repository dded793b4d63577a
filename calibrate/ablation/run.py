"""The ablation run: accuracy after treating heads, against the untreated model on the same samples.

Owns what a run's results depend on, and their document. Which heads are treated is `ablation_plans`', the passes are
`masked_runs`', the figures `ablation_results`'.
"""

from collections.abc import Sequence
from typing import Any

from calibrate.ablation.plans import Configuration
from calibrate.ablation.results import Ablation, Row, compared, figures, published
from calibrate.datasets import Dataset
from calibrate.masking.masked_runs import Answers, Run, answer_variants
from calibrate.masking.prefix_sharing import Variant
from calibrate.models.loading import LoadedModel
from calibrate.runs.interrupts import held_back
from calibrate.runs.processes import ALONE
from calibrate.runs.settings import same_run
from calibrate.runs.state import SavedState
from profiles.head_profile import HeadProfile
from profiles.provenance import git_commit, versions
from profiles.store import save

__all__ = ["Run", "ablate"]


def ablate(
    loaded: LoadedModel, profile: HeadProfile, dataset: Dataset, chosen: Sequence[Configuration], run: Run
) -> Ablation:
    """Measure the model untreated and under every configuration, and write the results.

    Continues an interrupted run of the same settings.

    Raises
    ------
    Stopped
        By a signal; the state has been saved.
    StateMismatch
        The saved state belongs to other settings.
    DatasetBroken, AnswersAlike, FileUnwritable
    """
    state = SavedState(run.out, ALONE, _settings(loaded, profile, dataset, chosen, run))
    variants = [Variant(one.treatments, one.plan.compensation.means) for one in chosen]
    with held_back() as interrupts:
        answers = answer_variants(loaded, dataset, variants, run, state, interrupts, "ablating")
        result = _results(loaded, profile, dataset, chosen, run, answers)
        save(result, run.out)
        state.discard()
    return result


def run_settings(loaded: LoadedModel, profile: HeadProfile, dataset: Dataset, run: Run) -> dict[str, Any]:
    """All that the answers depend on beyond float error, but for the variants."""
    return same_run(loaded, dataset) | {"profile": profile.digest, "block size": run.block_size}


def _settings(
    loaded: LoadedModel, profile: HeadProfile, dataset: Dataset, chosen: Sequence[Configuration], run: Run
) -> dict[str, Any]:
    return run_settings(loaded, profile, dataset, run) | {
        "treatment": chosen[0].how,
        "ranked by": chosen[0].plan.selection.rank_by,
        "heads": [[one.select, one.stage, one.k, one.seed, one.heads] for one in chosen],
    }


def _results(
    loaded: LoadedModel,
    profile: HeadProfile,
    dataset: Dataset,
    chosen: Sequence[Configuration],
    run: Run,
    answers: Answers,
) -> Ablation:
    families, baseline = answers.families, answers.right[0]
    return Ablation(
        model=loaded.ref,
        profile_digest=profile.digest,
        dataset=dataset.ref(),
        samples=len(families),
        broken=list(dataset.broken),
        granularity=chosen[0].plan.granularity,
        rank_by=chosen[0].plan.selection.rank_by,
        treatment=chosen[0].how,
        block_size=run.block_size,
        metric=dataset.metric,
        baseline=figures(families, baseline),
        baseline_published=published(dataset.metric, answers.counted(loaded, None)),
        rows=[
            Row(
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
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "device": loaded.device.type,
            "batch_size": run.batch_size,
        },
        versions=versions("vhserve", "torch", "transformers", "numpy"),
        commit=git_commit(),
    )
