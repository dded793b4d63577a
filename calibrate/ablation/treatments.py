"""What an ablation does to heads: every treatment that a plan chooses heads for, and some that only an ablation has.

Owns the registry: what each means for masking, and which plan it corresponds to. Does not know which heads are treated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from profiles.names import Ablated, CompensationMethod, TreatmentName
from profiles.treatments import REMOVED, budgeted


@dataclass(frozen=True, kw_only=True)
class AblationTreatment:
    """One value of ``vhserve ablate --treatment``.

    Attributes
    ----------
    name
        The flag's value.
    phrase
        Behind "heads" in titles.
    plan
        Treatment of the heads in the plan that serving them so would need; for an ablation that no server has, the
        nearest.
    compensation
        Of that plan.
    masking
        Name for `calibrate.masking`: a treatment, or one of `calibrate.masking.ablations`.
    """

    name: Ablated
    phrase: str
    plan: TreatmentName
    compensation: CompensationMethod = "none"
    masking: str


MEAN: Final = AblationTreatment(
    name="mean", phrase="replaced by their mean", plan=REMOVED.name, compensation="mean", masking=REMOVED.name
)
UNIFORM: Final = AblationTreatment(
    name="uniform", phrase="attending uniformly", plan=REMOVED.name, masking="uniform"
)  # the paper's own masking, which cannot be served

ABLATION_TREATMENTS: Final[Mapping[Ablated, AblationTreatment]] = {
    **{
        one.name: AblationTreatment(name=one.name, phrase=one.phrase, plan=one.name, masking=one.name)
        for one in budgeted()
    },
    MEAN.name: MEAN,
    UNIFORM.name: UNIFORM,
}
"""By name."""


def phrase_of(name: Ablated) -> str:
    """What stands behind "heads" in titles."""
    return ABLATION_TREATMENTS[name].phrase
