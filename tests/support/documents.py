"""Profiles and plans for the tests of this folder: one fixed of each, and hypothesis strategies for any."""

import base64
import re
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from profiles.chat_template import TemplateRef
from profiles.geometry import ModelGeometry, ModelRef
from profiles.head_profile import DatasetRef, HeadProfile, ScoreFormula
from profiles.measurement import Measurement
from profiles.names import KNOWN_RANKINGS
from profiles.pruning_plan import Compensation, PruningPlan
from profiles.ranking import RANGES, Ranking
from profiles.selection import Selection
from profiles.treatments import TREATMENTS

MODEL = ModelRef(
    name="llava-hf/llava-1.5-7b-hf",
    revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
    architecture="LlavaForConditionalGeneration",
)
# Every axis has another length, so that swapping two fails.
GEOMETRY = ModelGeometry(layers=3, query_heads=4, kv_heads=2, head_size=1, hidden_size=5, image_tokens=6)
FORMULA = ScoreFormula(name="layer*weight*concentration", layer_function="inverse", epsilon=1e-9)
TEMPLATE = TemplateRef(
    digest="sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    source="processor",
    content_format="openai",
)
VERSIONS = {"python": "3.11.7", "vhserve": "0.1.0"}

# Few examples, because two cores run everything; a busy machine must not fail a test for being slow.
brief = settings(max_examples=25, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

FORMAT_PAGE = Path(__file__).parents[2] / "profiles" / "FORMAT.md"


def format_examples() -> tuple[str, str]:
    """The text of the two examples in FORMAT.md: a profile, and the plan made from it."""
    profile, plan = re.findall(r"```json\n(.*?)```", FORMAT_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return profile, plan


def example_profile() -> HeadProfile:
    """The profile that FORMAT.md shows."""
    return HeadProfile(
        model=MODEL,
        geometry=GEOMETRY,
        dataset=DatasetRef(name="synthetic", digest=None, split="calibration", settings={"families": "object,super"}),
        samples=8,
        samples_skipped=1,
        samples_with_box=4,
        seed=0,
        formula=FORMULA,
        settings={"dtype": "float32", "device": "cpu", "batch_size": 2, "processes": 1},
        versions=VERSIONS,
        rankings={
            "score": Ranking.of(
                [[0.25, 0.125, 0.75, 0.125], [0.25, 0.03125, 0.0625, 0.0], [0.125, 0.0625, 0.015625, 0.03125]]
            ),
            "image_weight": Ranking.of([[0.5, 0.25, 0.75, 0.5], [0.5, 0.125, 0.25, 0.0], [0.5, 0.25, 0.125, 0.25]]),
            "concentration": Ranking.of([[0.5, 0.5, 1.0, 0.25], [1.0, 0.5, 0.5, 0.0], [0.75, 0.75, 0.5, 0.25]]),
            "box_weight": Ranking.of([[0.25, 0.125, 0.5, 0.125], [0.25, 0.0, 0.125, 0.0], [0.25, 0.125, 0.0, 0.0]]),
            "effect": Ranking(
                tables={
                    "removed": [[0.5, 0.25, 1.5, 0.125], [2.0, 0.0, 0.25, 0.5], [1.0, 0.125, 0.0625, 3.0]],
                    "text_only": [[0.5, 0.125, 1.0, 0.0], [0.25, 0.0, 0.125, 0.0], [0.0, 0.125, 0.0, 0.5]],
                },
                block_size=32,
            ),
            "gradient": Ranking.of([[0.25, 0.125, 0.75, 0.0], [1.0, 0.0, 0.125, 0.25], [0.5, 0.0, 0.0, 1.5]]),
            "sparsemm": Ranking.of(
                [[0.0, 0.0, 0.25, 0.0], [0.125, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0625]],
                source="llava-v1.6.json",
                digest="sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
        },
        mean_output=np.arange(12, dtype=np.float32).reshape(3, 4, 1) / 8,
    )


def example_plan() -> PruningPlan:
    """The plan that FORMAT.md shows."""
    full = ["full"] * 4
    return PruningPlan(
        model=MODEL,
        geometry=GEOMETRY,
        profile_digest=example_profile().digest,
        selection=Selection(method="bottom", stage="late", remove=2, protect_top=10.0, protected=[(0, 0), (0, 2)]),
        granularity="kv_group",
        treatments=[full, full, ["full", "full", "removed", "removed"]],
        compensation=Compensation(method="mean", means=np.array([[1.25], [1.375]], dtype=np.float32)),
        measured=[
            Measurement(
                dataset="synthetic", arm="baseline", family="all", samples=100, correct=90, accuracy=0.9,
                low=0.8256, high=0.9448,
            ),
            Measurement(
                dataset="synthetic", arm="pruned", family="all", samples=100, correct=88, accuracy=0.88,
                low=0.8022, high=0.93, block_size=32, dtype="float32",
            ),
        ],
        block_size=32,
        chat_template=TEMPLATE,
        image_backend="torchvision",
        versions=VERSIONS,
    )  # fmt: skip


def profile_of(scores: np.ndarray, kv_heads: int | None = None, *, means: bool = True) -> HeadProfile:
    """A profile with the given scores ``(layers, query_heads)``; mean outputs count upwards."""
    layers, heads = scores.shape
    head_size = 3
    size = (layers, heads, head_size)
    geometry = ModelGeometry(
        layers=layers,
        query_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        hidden_size=heads * head_size + 1,
        image_tokens=144,
    )
    zeros = Ranking.of(np.zeros(scores.shape))
    return HeadProfile(
        model=MODEL,
        geometry=geometry,
        dataset=DatasetRef(name="synthetic", digest=None, split=None, settings={}),
        samples=1,
        samples_skipped=0,
        samples_with_box=0,
        seed=0,
        formula=FORMULA,
        settings={},
        versions={},
        rankings={"image_weight": zeros, "concentration": zeros, "score": Ranking.of(scores)},
        mean_output=np.arange(np.prod(size), dtype=np.float32).reshape(size) if means else None,
    )


text = st.text(max_size=8)
names = st.text(min_size=1, max_size=8)
ranking_names = st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name != "box_weight")
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text


@st.composite
def geometries(draw: st.DrawFn) -> ModelGeometry:
    kv_heads = draw(st.integers(1, 3))
    return ModelGeometry(
        layers=draw(st.integers(1, 5)),
        query_heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_size=draw(st.integers(1, 3)),
        hidden_size=draw(st.integers(1, 99)),
        image_tokens=draw(st.integers(0, 99)),
    )


def model_refs() -> st.SearchStrategy[ModelRef]:
    return st.builds(ModelRef, name=names, revision=names, architecture=names)


def arrays(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """Any finite float32 values, negative zero and subnormals among them."""
    return hnp.arrays(np.float32, shape, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@st.composite
def profiles(draw: st.DrawFn) -> HeadProfile:
    geometry = draw(geometries())
    samples = draw(st.integers(1, 10**9))
    boxes = draw(st.integers(0, samples))

    def table(entries: st.SearchStrategy[float]) -> list[list[float]]:
        shape = (geometry.layers, geometry.query_heads)
        rows: list[list[float]] = draw(hnp.arrays(np.float64, shape, elements=entries)).tolist()
        return rows

    def ranking(name: str) -> Ranking:
        low, high = RANGES.get(name, (-1e9, 1e9))
        entries = st.floats(low, min(high, 1e9))
        keys = draw(st.sampled_from([["all"], ["removed"], ["removed", "text_only"]][: 1 if name == "score" else 3]))
        source = draw(st.none() | names)
        return Ranking(
            tables={key: table(entries) for key in keys},
            block_size=draw(st.none() | st.just(16)),
            source=source,
            digest=source and draw(names),
        )

    usual = [name for name in KNOWN_RANKINGS if name != "box_weight" or boxes]
    others = draw(st.lists(st.sampled_from(usual) | ranking_names, max_size=4))
    return HeadProfile(
        model=draw(model_refs()),
        geometry=geometry,
        dataset=DatasetRef(
            name=draw(names),
            digest=draw(st.none() | text),
            split=draw(st.none() | text),
            settings=draw(st.dictionaries(text, scalars, max_size=3)),
        ),
        samples=samples,
        samples_skipped=draw(st.integers(0, 9)),
        samples_with_box=boxes,
        seed=draw(st.integers()),
        formula=FORMULA,
        settings=draw(st.dictionaries(text, scalars, max_size=3)),
        versions=draw(st.dictionaries(text, text, max_size=3)),
        commit=draw(st.none() | text),
        rankings={name: ranking(name) for name in ("score", *others)},
        mean_output=draw(
            st.none() | arrays((geometry.layers, geometry.query_heads, geometry.head_size)),
        ),
    )


@st.composite
def plans(draw: st.DrawFn) -> PruningPlan:
    """Plans by hand: any treatments, at most some of them protected, with and without means and measurements."""
    geometry = draw(geometries())
    treatment = st.sampled_from(list(TREATMENTS))
    row = st.lists(treatment, min_size=geometry.query_heads, max_size=geometry.query_heads)
    treatments = draw(st.lists(row, min_size=geometry.layers, max_size=geometry.layers))
    heads = [(layer, head) for layer in range(geometry.layers) for head in range(geometry.query_heads)]
    full = [head for head in heads if treatments[head[0]][head[1]] == "full"]
    removed = sum(row.count("removed") for row in treatments)
    means = draw(st.none() | arrays((removed, geometry.head_size)))
    return PruningPlan(
        model=draw(model_refs()),
        geometry=geometry,
        profile_digest=draw(st.none() | text),
        selection=Selection(
            method="manual",
            stage=draw(st.sampled_from(["early", "middle", "late", "all"])),
            remove=removed,
            protect_top=draw(st.floats(0, 100)),
            protected=draw(st.lists(st.sampled_from(full), max_size=3)) if full else [],
            seed=draw(st.none() | st.integers()),
        ),
        granularity="query_head",
        treatments=treatments,
        compensation=Compensation() if means is None else Compensation(method="mean", means=means),
        block_size=draw(st.none() | st.just(16)),
        chat_template=draw(st.none() | st.just(TEMPLATE)),
        image_backend=draw(st.none() | names),
        measured=draw(st.lists(measurements(), max_size=2)),
        versions=draw(st.dictionaries(text, text, max_size=3)),
        commit=draw(st.none() | text),
    )


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    samples = draw(st.integers(1, 10**6))
    correct = draw(st.integers(0, samples))
    accuracy = correct / samples
    return Measurement(
        dataset=draw(names),
        arm=draw(st.sampled_from(["baseline", "pruned"])),
        family=draw(names),
        samples=samples,
        correct=correct,
        accuracy=accuracy,
        low=draw(st.floats(0, accuracy)),
        high=draw(st.floats(accuracy, 1)),
        block_size=draw(st.none() | st.just(16)),
        dtype=draw(st.none() | names),
    )


def to_base64(*values: float) -> str:
    """Little-endian float32 values as base64."""
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


PROFILE_V1 = Path(__file__).parents[1] / "profiles" / "head_profile_v1.json"
"""The profile of `example_profile`, as a release of version 1 wrote it."""
