"""`vhserve evaluate`: the flags, and the order of the steps.

Owns what is checked before the first request. How to ask, score, pair and write is in `vhserve.evaluation`.
"""

from pathlib import Path

from pydantic import BaseModel, Field


class Evaluate(BaseModel):
    """Measure accuracy through an OpenAI-compatible endpoint, of one server or of two on the same samples.

    Every sample is one chat request with its picture. Figures come per question family with a 95% Wilson interval; two
    arms add paired flips, an interval of the difference and McNemar's exact test. A request that fails is counted and
    named, never scored as a wrong answer.
    """

    base_url: str = Field("http://127.0.0.1:8000/v1", description="address of the server, with its /v1")
    compare: str | None = Field(None, description="address of a second server, asked the same samples after the first")
    against: Path | None = Field(None, description="earlier results on the same samples, to compare with as first arm")
    dataset: str = Field(
        "synthetic",
        description="`synthetic`, a .jsonl file, or a published dataset and where it is, such as pope:/data/pope",
    )
    split: str | None = Field(None, description="part of the dataset, where it has parts")
    samples: int = Field(200, gt=0, description="how many samples to ask")
    families: list[str] | None = Field(None, description="question families to ask, comma-separated; all by default")
    seed: int = Field(0, ge=0, description="seed of the samples' choice")
    concurrency: int = Field(8, gt=0, le=1024, description="requests at a time")
    timeout: float = Field(120.0, gt=0, description="seconds until a request counts as failed")
    max_tokens: int = Field(8, gt=0, le=1024, description="length of a reply, in tokens")
    model: str | None = Field(None, description="served model's name; the only one by default")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the API key, if any")
    out: Path | None = Field(None, description="write everything, each reply included, to this JSON file")
    attach: Path | None = Field(None, description="write the accuracies into this pruning plan, which the server runs")
    json_: bool = Field(False, alias="json", description="print the results as JSON instead of a table")

    def cli_cmd(self) -> None:
        """Check everything that can be wrong, ask, then write and print."""
        from rich.console import Console

        from vhserve.evaluation.run import evaluate
        from vhserve.evaluation.tables import accuracy_table, paired_table, published_table

        evaluation = evaluate(self)
        if self.json_:
            print(evaluation.model_dump_json(indent=1))
        else:
            console = Console()
            console.print(accuracy_table(evaluation.arms, f"{evaluation.dataset.name}, seed {evaluation.seed}"))
            if (of_authors := published_table(evaluation.arms)) is not None:
                console.print(of_authors)
            if evaluation.paired:
                console.print(paired_table(evaluation.paired))
        errors = [answer for arm in evaluation.arms for answer in arm.answers if answer.error]
        if errors:
            Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(
                f"{len(errors)} requests failed and are in no accuracy; the first, {errors[0].id}: {errors[0].error}"
            )
