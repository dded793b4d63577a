"""`vhserve demo`: the flags, and the table at the end.

What the steps do is in `vhserve.demo`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, PositiveInt

from profiles.names import AttentionRanking, StageOrAll


class Demo(BaseModel):
    """Calibrate the demo model, prune it, serve it beside its unpruned self and a random control, and compare them.

    Everything runs on this machine, servers on loopback one after the other. The output folder gets the profile, the
    plan, the results, the logs, and report.html.
    """

    out: Path = Field(Path("demo-out"), description="folder for everything that the demo writes")
    model: str = Field("demo", description="model to show it on")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="number format of the servers")
    samples: int = Field(240, gt=0, description="held-out samples that every arm is asked")
    calibration_samples: int = Field(256, gt=0, description="samples to score the heads on")
    remove: int = Field(8, ge=0, description="heads to remove")
    text_only: int = Field(24, ge=0, description="heads that keep their text and drop the image")
    stage: StageOrAll = Field("all", description="layers to take them from")
    rank_by: Literal[AttentionRanking, "effect"] = Field("effect", description="what heads are ranked by")
    select: Literal["bottom", "top"] = Field("bottom", description="which heads: lowest or highest ranked first")
    protect_top: float = Field(10.0, ge=0, le=100, description="percentage of heads, the highest ranked, to protect")
    concurrency: list[PositiveInt] = Field([1, 8], min_length=1, description="streams at a time, for the latencies")
    requests: int = Field(24, gt=0, description="requests for each latency, at least four times the concurrency")
    output_tokens: int = Field(32, gt=1, le=256, description="tokens of each reply, for the latencies")
    kv_cache_gib: int = Field(1, gt=0, description="GiB of KV cache for each server")
    seed: int = Field(0, ge=0, description="seed of samples, of pictures and of the random control")
    start_limit: float = Field(300.0, gt=0, description="seconds that a server may take to start")

    def cli_cmd(self) -> None:
        """Run the steps, then print the table."""
        from rich.console import Console

        from profiles.files import check_writable
        from profiles.torchvision_import import ensure_torchvision
        from vhserve.demo.arms import Pruning, demo_arms
        from vhserve.demo.run import run
        from vhserve.demo.steps import DemoSettings
        from vhserve.report.summary import summary_table

        ensure_torchvision()
        self._make_folder()
        for name in ("profile.json", "results.json", "report.html"):
            check_writable(self.out / name)
        settings = DemoSettings(
            out=self.out,
            model=self.model,
            dtype=self.dtype,
            samples=self.samples,
            calibration_samples=self.calibration_samples,
            seed=self.seed,
            concurrency=tuple(self.concurrency),
            requests=self.requests,
            output_tokens=self.output_tokens,
            kv_cache_gib=self.kv_cache_gib,
            start_limit=self.start_limit,
        )
        pruning = Pruning(self.remove, self.text_only, self.stage, self.rank_by, self.protect_top, self.seed)
        arms = demo_arms(pruning, self.select)
        results = run(settings, arms, self.model_dump(mode="json"), Console(stderr=True))
        console = Console()
        if not console.is_terminal:
            console.width = max(console.width, 150)  # a log has no width; rich assumes 80, which folds the cells
        console.print(summary_table(results))
        console.print(f"Report: {self.out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)

    def _make_folder(self) -> None:
        from profiles.errors import FileUnwritable

        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileUnwritable(
                f"cannot make folder {self.out}: {error.strerror}",
                expected="a folder that can be written",
                fix="give another --out",
            ) from error
