"""`vhserve demo`: its help, and the table at the end.

Does not know what the steps do: that, and the options, are in `vhserve.demo`.
"""

from typing import TYPE_CHECKING

from vhserve.commands.measuring import decoder_sizes
from vhserve.demo.options import DemoOptions
from vhserve.notes import print_note

if TYPE_CHECKING:
    from vhserve.demo.results import DemoResults


class Demo(DemoOptions):
    """Calibrate the demo model, prune it, serve it beside its unpruned self and a random control, and compare them.

    Everything runs on this machine, servers on loopback one after the other. The output folder gets the profile, the
    plan, the results, the logs, and report.html. Exit code 1: a server answered nothing.
    """

    def cli_cmd(self) -> None:
        """Run the steps, then print the table."""
        from rich.console import Console

        from vhserve.demo.checks import check_options
        from vhserve.server.installation import check_vllm

        check_vllm()
        check_options(self, decoder_sizes(self.model))

        from profiles.torchvision_import import ensure_torchvision
        from vhserve.demo.run import run

        ensure_torchvision()
        conclude(run(self, Console(stderr=True)))


def conclude(results: "DemoResults") -> None:
    """Print what was found; exit code 1 where a server answered nothing."""
    from rich.console import Console

    from vhserve.demo.answered import shortcomings, unanswered
    from vhserve.demo.headline import headline
    from vhserve.demo.summary import summary_table

    console = Console(highlight=False, soft_wrap=True)
    console.print(summary_table(results))
    if (found := headline(results)) is not None:
        console.print(found.sentence, markup=False)
    for line in shortcomings(results):
        print_note(line, "warning")
    if unanswered(results):
        raise SystemExit(1)
