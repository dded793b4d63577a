"""The arms of the demo: what is served and compared, baseline first.

This is the one place to add an arm. Knows flags of `vhserve plan`, not what they do.
"""

from dataclasses import dataclass

from vhserve.demo.options import DemoOptions


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


def demo_arms(options: DemoOptions) -> list[DemoArm]:
    """Return the arms; every one is compared with the first, and a random choice stands beside the ranking's."""
    baseline = DemoArm("baseline", None, "the model as it is, in stock vLLM")
    return [baseline, _pruned("pruned", options, options.select), _pruned("random", options, "random")]


def _pruned(name: str, options: DemoOptions, select: str) -> DemoArm:
    flags = (
        *("--remove", str(options.remove), "--text-only", str(options.text_only), "--stage", options.stage),
        *("--select", select, "--rank-by", options.rank_by),
        *("--protect-top", f"{options.protect_top:g}", "--seed", str(options.seed)),
    )
    where = "" if options.stage == "all" else f"{options.stage} "
    chosen = _CHOSEN[select].format(options.rank_by.replace("_", " "))
    about = (
        f"{options.remove} {where}heads are neither computed nor cached and {options.text_only} keep no image, "
        f"{chosen}; the {options.protect_top:g}% of all heads that rank highest are protected"
    )
    return DemoArm(name, flags, about)
