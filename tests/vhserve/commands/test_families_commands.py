"""calibrate, plan, ablate and analyze on models beside LLaVA, in this process: DeepStack and MoE."""

import pytest
from tiny_families import FAMILIES

from profiles.store import load_plan, load_profile
from vhserve.cli import main

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["qwen3-vl", "qwen3-vl-moe"])
def test_a_model_is_measured_and_a_plan_made(name, tmp_path):
    model, profile, plan = FAMILIES[name].make(tmp_path / name), tmp_path / "profile.json", tmp_path / "plan.json"
    common = ["--device", "cpu", "--dtype", "float32", "--samples", "6"]
    assert main(["calibrate", "--model", str(model), *common, "--effects", "--out", str(profile)]) == 0
    found = load_profile(profile)
    group = str(found.geometry.query_heads // found.geometry.kv_heads)
    assert {"score", "effect"} <= set(found.rankings)
    assert main(["plan", str(profile), "--remove", group, "--text-only", group, "--out", str(plan)]) == 0
    assert load_plan(plan).model == found.model
    data = ["--model", str(model), "--dataset", "synthetic", *common, "-k", group]
    assert main(["ablate", str(profile), *data, "--draws", "1", "--out", str(tmp_path / "ablation")]) == 0
    assert main(["analyze", *data, "--draws", "1", "--out", str(tmp_path / "analysis")]) == 0
