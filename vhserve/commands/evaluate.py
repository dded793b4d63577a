"""`vhserve evaluate`: its help, and what it prints at the end.

Does not know how to ask, score, pair or write: that, and the options, are in `vhserve.evaluation`.
"""

from pydantic import Field

from vhserve.evaluation.options import EvaluationOptions
from vhserve.notes import print_note
from vhserve.option_types import JSON


class Evaluate(EvaluationOptions):
    """Measure accuracy through an OpenAI-compatible endpoint, of one server or of two on the same samples.

    Every sample is one chat request with its picture. Figures come per question family with a 95% Wilson interval; two
    arms add paired flips, an interval of the difference and McNemar's exact test. A request that fails is counted and
    named, never scored as a wrong answer. Exit code 1: a server answered nothing.
    """

    json_: bool = Field(False, alias="json", description=JSON)

    def cli_cmd(self) -> None:
        """Check everything that can be wrong, ask, then write and print."""
        from rich.console import Console

        from calibrate.datasets import check_name

        check_name(self.dataset)  # before the client's library is imported, which takes a second

        from vhserve.evaluation.failures import failed_requests, never_right, silent
        from vhserve.evaluation.run import evaluate
        from vhserve.evaluation.tables import accuracy_table, paired_table, published_table

        evaluation = evaluate(self)
        if self.json_:
            print(evaluation.model_dump_json(indent=1))
        else:
            console = Console(highlight=False, soft_wrap=True)
            console.print(accuracy_table(evaluation.arms, f"{evaluation.dataset.name}, seed {evaluation.seed}"))
            if (of_authors := published_table(evaluation.arms)) is not None:
                console.print(of_authors)
            if evaluation.paired:
                console.print(paired_table(evaluation.paired))
        if (line := failed_requests(evaluation.arms)) is not None:
            print_note(line, "warning")
        if (line := never_right(evaluation.arms[0])) is not None:
            print_note(line, "warning")
        if silent(evaluation.arms):
            raise SystemExit(1)
