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


def demo_arms(remove: int, stage: str, protect_top: float) -> list[DemoArm]:
    """Return the arms; every one is compared with the first."""
    return [
        DemoArm("baseline", None, "the model as it is, in stock vLLM"),
        DemoArm(
            "pruned",
            ("--remove", str(remove), "--stage", stage, "--protect-top", f"{protect_top:g}"),
            f"the {remove} {stage} heads that look least at the picture are neither computed nor cached; "
            f"the {protect_top:g}% of all heads that look most are protected",
        ),
    ]
