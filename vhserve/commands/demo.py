"""`vhserve demo`: its help, and the table at the end.

Does not know what the steps do: that, and the options, are in `vhserve.demo`.
"""

from vhserve.demo.options import DemoOptions


class Demo(DemoOptions):
    """Calibrate the demo model, prune it, serve it beside its unpruned self and a random control, and compare them.

    Everything runs on this machine, servers on loopback one after the other. The output folder gets the profile, the
    plan, the results, the logs, and report.html.
    """

    def cli_cmd(self) -> None:
        """Run the steps, then print the table."""
        from rich.console import Console

        from profiles.torchvision_import import ensure_torchvision
        from vhserve.demo.run import run
        from vhserve.demo.summary import summary_table

        ensure_torchvision()
        results = run(self, Console(stderr=True))
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, 150)  # a log has no width; rich assumes 80, which folds the cells
        console.print(summary_table(results))
        console.print(f"Report: {self.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
