"""The whole analysis: which sections there are, in their order, and where they come from.

Owns the order. Each section is its own module's; the page is `vhserve.report.analysis_page`'s.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from calibrate.ablation.results import Ablation
from calibrate.analysis.ablation_section import ablation_section
from calibrate.analysis.accuracy_section import accuracy_section
from calibrate.analysis.attention import answers_section, attention_section, drawn_section
from calibrate.analysis.document import Report
from calibrate.analysis.findings import findings
from calibrate.analysis.heads import layers_section, scatter_section, top_section
from calibrate.analysis.lens_section import lens_section
from calibrate.analysis.section import Section
from calibrate.analysis.similarity_sections import families_section, models_section
from calibrate.analysis.tallies import Measured
from calibrate.datasets import Dataset
from calibrate.models.loading import LoadedModel
from profiles.head_profile import HeadProfile
from profiles.provenance import git_commit, versions


def _ablation(ablation: Ablation) -> dict[str, Any]:
    """What the ablation was measured on and with, which an earlier run may have been."""
    document = ablation.model_dump()
    shown = ("profile_digest", "dataset", "samples", "granularity", "rank_by", "treatment", "commit")
    return {name: document[name] for name in shown}


def make_report(
    loaded: LoadedModel,
    dataset: Dataset,
    measured: Measured,
    *,
    ablation: Ablation | None = None,
    variants: Mapping[str, HeadProfile] | None = None,
    others: Mapping[str, HeadProfile] | None = None,
    more: Sequence[Section] = (),
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """Work everything out.

    Parameters
    ----------
    ablation
        Of this model, on families of the dataset.
    variants, others
        Head profiles, by name, of variants of this model and of models of other families.
    more
        Sections that others have made; they come last.
    settings
        Flags of the run, for the provenance.
    """
    variants, others = variants or {}, others or {}
    sections = [
        accuracy_section(measured),
        attention_section(measured),
        drawn_section(measured),
        answers_section(measured),
        layers_section(measured),
        scatter_section(measured),
        top_section(measured, loaded.geometry.group_size),
        lens_section(measured),
        families_section(measured, ablation),
        models_section(loaded.ref.name, measured, variants, others),
        None if ablation is None else ablation_section(ablation),
        *more,
    ]
    samples, skipped = measured.tally.samples, len(dataset.broken)
    about = f"{samples:,} samples of {dataset.name}, {len(measured.families)} question families"
    return Report(
        title=f"How {loaded.ref.name} looks at images",
        lead=about + (f", {skipped} skipped as broken" if skipped else ""),
        findings=findings(measured, ablation, variants, others),
        sections=[section for section in sections if section is not None],
        provenance={
            "model": loaded.ref.model_dump(),
            "geometry": loaded.geometry.model_dump(),
            "dataset": dataset.ref().model_dump(),
            "samples": samples,
            "skipped": list(dataset.broken),
            "compared": {name: one.digest for name, one in {**variants, **others}.items()},
            "ablation": None if ablation is None else _ablation(ablation),
            "settings": dict(settings or {}),
            "versions": versions("vhserve", "torch", "transformers", "numpy", "scipy", "matplotlib"),
            "commit": git_commit(),
        },
    )
