"""The analysis' ablation: the paper's table, with heads chosen by the scores that the analysis has measured itself.

Owns the head profile that is made of a tally, and when an earlier run's results will do. The run is
`calibrate.ablation.run`'s.
"""

from collections.abc import Sequence
from pathlib import Path

from calibrate.ablation.plans import configurations
from calibrate.ablation.results import Ablation
from calibrate.ablation.run import ablate
from calibrate.analysis.tallies import Measured
from calibrate.datasets import Dataset
from calibrate.masking.masked_runs import MaskedRunSettings
from calibrate.models.loading import LoadedModel
from calibrate.scoring.scorers.base import EPSILON
from profiles.head_profile import HeadProfile, ScoreFormula
from profiles.provenance import versions
from profiles.ranking import Ranking
from profiles.store import load_as


def head_profile(loaded: LoadedModel, dataset: Dataset, measured: Measured) -> HeadProfile:
    """What `vhserve calibrate` would write of these samples, without mean outputs.

    Raises
    ------
    ValueError
        Nothing was measured.
    """
    means = measured.means()
    if means is None:
        raise ValueError("nothing was measured")
    tables = {
        "score": means.score,
        "image_weight": means.image_weight,
        "concentration": means.concentration,
        "box_weight": means.box_weight,
    }
    return HeadProfile(
        model=loaded.ref,
        geometry=loaded.geometry,
        dataset=dataset.ref(),
        samples=means.samples,
        samples_skipped=len(dataset.broken),
        samples_with_box=means.with_box,
        seed=0,
        formula=ScoreFormula(name="layer*weight*concentration", layer_function="inverse", epsilon=EPSILON),
        settings={},
        versions=versions("vhserve", "torch", "transformers"),
        rankings={name: Ranking.of(table) for name, table in tables.items() if table is not None},
    )


def run_ablation(
    loaded: LoadedModel,
    profile: HeadProfile,
    dataset: Dataset,
    out: Path,
    budgets: Sequence[str],
    *,
    draws: int,
    batch_size: int,
    restart: bool = False,
) -> Ablation:
    """Measure the table and write it; an earlier run's results of the same settings are taken as they are.

    Raises
    ------
    As `calibrate.ablation.run.ablate`.
    """
    chosen = configurations(profile, budgets, draws=draws, seed=0, granularity=loaded.geometry.granularity)
    if out.exists() and not restart:
        earlier = load_ablation(out)
        heads = [[list(head) for head in one.heads] for one in chosen]
        if earlier.dataset == dataset.ref() and [row.heads for row in earlier.rows] == heads:
            return earlier
    return ablate(loaded, profile, dataset, chosen, MaskedRunSettings(out, batch_size, restart=restart))


def load_ablation(path: Path) -> Ablation:
    """Read what `vhserve ablate` wrote.

    Raises
    ------
    FileUnreadable, WrongVersion, MissingField, WrongValue
        And the other errors of `profiles.store.load_profile`.
    """
    return load_as(Ablation, "vhserve.ablation", path)
