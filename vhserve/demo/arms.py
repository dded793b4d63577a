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


_CHOSEN = {"bottom": "ranked lowest by {}", "top": "ranked highest by {}", "random": "chosen at random, the control"}


@dataclass(frozen=True)
class Pruning:
    """What is pruned, as flags of `vhserve plan` call it; see there."""

    remove: int
    text_only: int
    stage: str
    rank_by: str
    protect_top: float
    seed: int

    def arm(self, name: str, select: str) -> DemoArm:
        """An arm whose heads are chosen in one way."""
        flags = (
            *("--remove", str(self.remove), "--text-only", str(self.text_only), "--stage", self.stage),
            *("--select", select, "--rank-by", self.rank_by),
            *("--protect-top", f"{self.protect_top:g}", "--seed", str(self.seed)),
        )
        where = "" if self.stage == "all" else f"{self.stage} "
        chosen = _CHOSEN[select].format(self.rank_by.replace("_", " "))
        about = (
            f"{self.remove} {where}heads are neither computed nor cached and {self.text_only} keep no image, {chosen}; "
            f"the {self.protect_top:g}% of all heads that rank highest are protected"
        )
        return DemoArm(name, flags, about)


def demo_arms(pruning: Pruning, select: str) -> list[DemoArm]:
    """Return the arms; every one is compared with the first, and a random choice stands beside the ranking's."""
    baseline = DemoArm("baseline", None, "the model as it is, in stock vLLM")
    return [baseline, pruning.arm("pruned", select), pruning.arm("random", "random")]
