"""The small parts of the engine that need no engine: the plan's travel, the refusals, the plugin's manners.

Each in a process without vLLM, which also shows that they are as light as they say.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vhserve
from profiles.errors import UserError
from profiles.geometry import ModelGeometry, ModelRef
from profiles.measurement import Measurement
from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks import plan_transport
from vhserve.engine.checks.architectures import served_by, stock_architecture
from vhserve.errors import PlanAltered, PlanMissing

PLAN = PruningPlan.manual(
    ModelRef(name="m", revision="r", architecture="LlavaForConditionalGeneration"),
    ModelGeometry(layers=3, query_heads=4, kv_heads=4, head_size=32, hidden_size=100, image_tokens=9),
    removed=[(1, 2)],
)


def test_a_plan_travels_as_its_content():
    config = {"theirs": 1, plan_transport.KEY: plan_transport.pack_plan(PLAN)}
    assert plan_transport.unpack_plan(config) == PLAN
    assert plan_transport.require_plan(config) == PLAN


def test_what_was_measured_stays_behind():
    measured = Measurement(
        dataset="d", arm="pruned", family="all", samples=4, correct=2, accuracy=0.5, low=0.1, high=0.9
    )
    assert plan_transport.pack_plan(PLAN.model_copy(update={"measured": [measured]})) == plan_transport.pack_plan(PLAN)


def test_it_prints_short_but_is_a_dict():
    packed = plan_transport.pack_plan(PLAN)
    assert len(repr(packed)) < 120
    assert PLAN.digest in repr(packed)
    assert dict(packed) == {
        "digest": PLAN.digest,
        "plan": PLAN.model_dump(mode="json"),
        "release": vhserve.__version__,
    }


def test_another_release_packs_a_plan_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed is in the key of vLLM's compile cache."""
    packed = plan_transport.pack_plan(PLAN)
    monkeypatch.setattr(vhserve, "__version__", "another", raising=False)
    assert plan_transport.pack_plan(PLAN) != packed
    assert plan_transport.unpack_plan({plan_transport.KEY: packed}) == PLAN


@pytest.mark.parametrize("config", [{}, {"other": 1}, None])
def test_no_plan_is_no_plan(config: object):
    assert plan_transport.unpack_plan(config) is None
    with pytest.raises(PlanMissing, match="vhserve serve MODEL --plan"):
        plan_transport.require_plan(config)


def test_an_altered_plan_is_refused():
    packed = plan_transport.pack_plan(PLAN)
    packed["plan"]["treatments"][1][2] = "full"
    packed["plan"]["selection"]["remove"] = 0
    with pytest.raises(PlanAltered, match=PLAN.digest):
        plan_transport.unpack_plan({plan_transport.KEY: packed})
    packed["plan"]["surprise"] = 1
    with pytest.raises(UserError, match="surprise"):
        plan_transport.unpack_plan({plan_transport.KEY: packed})


def test_architectures_there_and_back():
    stock = "Qwen2_5_VLForConditionalGeneration"
    assert stock_architecture([served_by(stock)]) == stock_architecture([stock]) == stock
    assert stock_architecture([]) == "unknown"


def test_the_entry_point_is_declared():
    declared = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    module, function = declared["project"]["entry-points"]["vllm.general_plugins"]["vhserve"].split(":")
    assert (module, function) == ("vhserve.engine.plugin", "register")


def test_importing_the_plugin_imports_neither_vllm_nor_torch():
    code = (
        "import sys, vhserve.engine.plugin, vhserve.engine.checks.plan_transport\n"
        "import vhserve.engine.checks.unsupported_options, vhserve.commands.serve\n"
        "print([name for name in ('torch', 'vllm', 'transformers', 'calibrate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
