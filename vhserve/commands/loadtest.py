"""`vhserve loadtest`: its help, what it prints at the end, and its exit code.

Does not know how to send, count or draw: that, and the options, are in `vhserve.loadtest`.
"""

from pydantic import Field

from vhserve.loadtest.options import LoadtestOptions
from vhserve.option_types import JSON


class Loadtest(LoadtestOptions):
    """Load an OpenAI-compatible endpoint with pictures and text, and time every token; or two, in turns.

    Requests arrive at random (Poisson) at --rate, whatever became of earlier ones, and latencies count from when each
    was due; --concurrency instead keeps a number of streams busy. Replies have a fixed length, pictures are new to
    every cache. --compare URL_A URL_B gives both endpoints the same requests, in the order A B, B A, and prints the
    ratios. Exit code 1: a --fail-if condition holds, or nothing succeeded.
    """

    json_: bool = Field(False, alias="json", description=JSON)

    def cli_cmd(self) -> None:
        """Check everything that can be wrong, send, then write and print."""
        from rich.console import Console

        from vhserve.loadtest.run import loadtest
        from vhserve.loadtest.tables import print_tables, print_warnings

        document = loadtest(self).document
        if self.json_:
            print(document.model_dump_json(indent=1))
        else:
            print_tables(document, Console(highlight=False, soft_wrap=True))
        print_warnings(document, Console(stderr=True, soft_wrap=True, highlight=False, markup=False))
        nothing = any(not one.figures.succeeded for one in document.endpoints)
        if nothing or any(one.violated for one in document.conditions):
            raise SystemExit(1)
