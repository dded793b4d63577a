"""The arms of the demo: what is served and compared, baseline first.

This is the one place to add an arm. Knows flags of `vhserve plan`, not what they do.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoArm:
    """A server to measure.

    Attributes
    ----------
    name
        What tables and files call it.
    plan
        Flags for `vhserve plan`; `None` serves the model as it is.
    about
        One sentence for the report.
    """

    name: str
    plan: tuple[str, ...] | None
    about: str


_CHOSEN = {
    "bottom": "with the lowest scores, which look least at the picture",
    "top": "with the highest scores, which look most at the picture",
    "random": "chosen at random, the control",
}


def demo_arms(*, remove: int, stage: str, select: str, protect_top: float, seed: int) -> list[DemoArm]:
    """Return the arms; every one is compared with the first, and a random choice stands beside the score's."""
    heads = "heads" if stage == "all" else f"{stage} heads"

    def pruned(name: str, select: str) -> DemoArm:
        budget = ("--remove", str(remove), "--stage", stage, "--select", select, "--seed", str(seed))
        about = (
            f"{remove} {heads} {_CHOSEN[select]}, are neither computed nor cached; "
            f"the {protect_top:g}% of all heads with the highest scores are protected"
        )
        return DemoArm(name, (*budget, "--protect-top", f"{protect_top:g}"), about)

    baseline = DemoArm("baseline", None, "the model as it is, in stock vLLM")
    return [baseline, pruned("pruned", select), pruned("random", "random")]
