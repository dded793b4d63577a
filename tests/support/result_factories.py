"""Factories of small results: arms, latencies, a profile, a plan and a demo, every figure different."""

from collections.abc import Sequence

from profiles.geometry import ModelGeometry, ModelRef
from profiles.head_profile import DatasetRef, HeadProfile, ScoreFormula
from profiles.pruning_plan import PruningPlan
from profiles.ranking import Ranking
from profiles.selection import Selection
from vhserve.demo.results import DemoArmResult, DemoResults
from vhserve.evaluation.latency import LatencyFigures, Quantiles
from vhserve.evaluation.pairing import pair
from vhserve.evaluation.results import Answer, Arm, Server
from vhserve.evaluation.scoring import figures

GEOMETRY = ModelGeometry(layers=6, query_heads=4, kv_heads=4, head_size=32, hidden_size=96, image_tokens=9)
MODEL = ModelRef(name="made/up <model>", revision="sha256:" + "ab" * 32, architecture="LlavaForConditionalGeneration")
DATASET = DatasetRef(name="synthetic", digest=None, split="measuring", settings={"seed": 3})
DIGEST = "sha256:" + "cd" * 32


def arm(outcomes: Sequence[str], name: str = "baseline", plan_digest: str | None = None) -> Arm:
    """An arm whose samples have these outcomes: c correct, w wrong, o off list, e error; families a and b in turn."""
    words = {"c": "correct", "w": "wrong", "o": "off_list", "e": "error"}
    answers = [
        Answer(
            id=f"sample/{number}",
            family="ab"[number % 2],
            answer="3",
            reply=None if letter == "e" else {"c": "3", "w": "4", "o": "red"}[letter],
            outcome=words[letter],
            error="status 500: no" if letter == "e" else None,
            seconds=0.5,
        )
        for number, letter in enumerate("".join(outcomes))
    ]
    server = Server(base_url="http://127.0.0.1:1/v1", model="m", plan_digest=plan_digest)
    return Arm(name=name, server=server, seconds=2.0, figures=figures(answers), answers=answers)


def profile() -> HeadProfile:
    """A profile whose scores fall with layer and head."""
    rows = [[(24 - 4 * layer - head) / 30 for head in range(4)] for layer in range(6)]
    return HeadProfile(
        model=MODEL,
        geometry=GEOMETRY,
        dataset=DATASET,
        samples=17,
        samples_skipped=0,
        samples_with_box=0,
        seed=3,
        formula=ScoreFormula(name="layer*weight*concentration", layer_function="inverse", epsilon=1e-9),
        settings={"dtype": "float32"},
        versions={},
        rankings=dict.fromkeys(("image_weight", "concentration", "score"), Ranking.of(rows)),
    )


def grouped_profile() -> HeadProfile:
    """The same with two query heads for each KV head, and effects, which rank groups otherwise than heads."""
    rows = [[float(24 - 4 * layer - head) for head in range(4)] for layer in range(6)]
    groups = [[float(2 * layer + group) for group in range(2)] for layer in range(6)]
    effect = Ranking(
        tables=dict.fromkeys(("removed", "text_only"), rows),
        group_tables={"removed": groups, "text_only": groups[::-1]},
    )
    geometry = GEOMETRY.model_copy(update={"kv_heads": 2})
    one = profile()
    return one.model_copy(update={"geometry": geometry, "rankings": one.rankings | {"effect": effect}})


def grouped_plan() -> PruningPlan:
    """A late KV group removed, one protected."""
    treatments = [["full"] * 4 for _ in range(6)]
    treatments[5][2:] = ["removed"] * 2
    return PruningPlan(
        model=MODEL,
        geometry=grouped_profile().geometry,
        profile_digest=grouped_profile().digest,
        selection=Selection(method="bottom", stage="late", remove=2, protect_top=4.0, protected=[(0, 0), (0, 1)]),
        granularity="kv_group",
        treatments=treatments,
    )


def plan() -> PruningPlan:
    """Two late heads removed, one protected."""
    treatments = [["full"] * 4 for _ in range(6)]
    treatments[4][1] = treatments[5][3] = "removed"
    return PruningPlan(
        model=MODEL,
        geometry=GEOMETRY,
        profile_digest=profile().digest,
        selection=Selection(method="bottom", stage="late", remove=2, protect_top=4.0, protected=[(0, 0)]),
        granularity="query_head",
        treatments=treatments,
    )


def demo_results() -> DemoResults:
    """A demo of two arms, every figure different."""
    arms = [arm("ccccccwwow"), arm("cwcccccwwe", "pruned <b>", plan().digest)]
    measured = [
        DemoArmResult(
            name=one.name,
            about=f"about {one.name} & more",
            plan=None if number == 0 else "plan.json",
            heads={"full": 24 - 2 * number, "text_only": 0, "removed": 2 * number},
            startup_seconds=31.5 + number,
            kv_bytes_per_token=6144.0 - 512 * number,
            kv_bytes_source="server",
            capacity_tokens=43_680 + 3_968 * number,
            capacity_image_prompts=200.0 + 50 * number,
            accuracy=one,
            latency=[latency(1, number), latency(8, number)],
        )
        for number, one in enumerate(arms)
    ]
    return DemoResults(
        model=MODEL.name,
        revision=MODEL.revision,
        dataset=DATASET,
        profile_digest=profile().digest,
        kv_cache_gib=1,
        arms=measured,
        paired=pair(arms[0], arms[1]),
        arguments={"samples": 10, "out": "demo-<out>"},
        machine={"processors": 2},
        versions={"vhserve": "0.1.0"},
        commit="0123abc",
        started="2026-01-02T03:04:05+00:00",
        seconds=321.0,
    )


def latency(concurrency: int, number: int) -> LatencyFigures:
    """Latency figures that depend on the concurrency and the arm's number."""
    return LatencyFigures(
        concurrency=concurrency,
        requests=24 + 8 * (concurrency > 1),
        failed=0,
        output_tokens=768,
        seconds=7.0,
        ttft_ms=Quantiles(p50=71.25 * concurrency - number, p90=91.5 * concurrency),
        tpot_ms=Quantiles(p50=12.5 + concurrency - number, p90=19.75 + concurrency),
        output_tokens_per_second=101.5 + 10 * concurrency + number,
        first_error=None,
    )
