"""Where rows of image blocks may not leave, by vLLM's own configurations and modules; no engine is started."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from oracle import TinyModel
from tiny_families import FAMILIES
from torch import nn
from transformers import LlamaConfig
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.models.gemma3 import Gemma3Model
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaModel
from vllm.model_executor.models.mistral import MistralDecoderLayer, MistralModel
from vllm.model_executor.models.utils import PPMissingLayer
from vllm.platforms.interface import UnspecifiedPlatform

from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan
from vhserve.engine.attention.lane_attention import PartialAttention
from vhserve.engine.image_exit import choice, stage
from vhserve.engine.image_exit.choice import DECODERS, chosen_exit

pytestmark = pytest.mark.vllm

LAYERS, HEADS, EXIT = 6, 4, 3

MakeConfig = Callable[..., VllmConfig]


def plan_with_exit(first: int = EXIT) -> PruningPlan:
    """No head from layer `first` on sees an image."""
    geometry = ModelGeometry(
        layers=LAYERS, query_heads=HEADS, kv_heads=HEADS, head_size=32, hidden_size=120, image_tokens=81
    )
    late = [(layer, head) for layer in range(first, LAYERS) for head in range(HEADS)]
    ref = ModelRef(name="m", revision="sha256:12", architecture="LlavaForConditionalGeneration")
    return PruningPlan.manual(ref, geometry, text_only=[(0, 0), *late])


def bare(kind: type[nn.Module], **attributes: Any) -> nn.Module:
    """A module of vLLM's or ours that was not built, with some attributes."""
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.fixture(scope="module")
def config_of(models: dict[str, TinyModel], tmp_path_factory: pytest.TempPathFactory) -> MakeConfig:
    """vLLM's configuration of a tiny model of some kind, with some of its options."""

    @cache
    def folder(kind: str) -> Path:
        path = tmp_path_factory.mktemp("models") / kind
        return models[kind].path if kind in models else FAMILIES[kind].make(path)

    def make(kind: str = "mha", **options: Any) -> VllmConfig:
        return EngineArgs(model=str(folder(kind)), dtype="float32", max_model_len=256, **options).create_engine_config()

    return make


def drafter(folder: Path) -> str:
    """The configuration of a drafter that reads the hidden states of a Llama."""
    sizes = {"hidden_size": 160, "num_attention_heads": 5, "num_hidden_layers": 1, "head_dim": 32}
    LlamaConfig(vocab_size=201, architectures=["LlamaForCausalLM"], **sizes).save_pretrained(folder)
    return str(folder)


STAY: dict[str, tuple[dict[str, Any], str]] = {
    "adapters": ({"enable_lora": True}, "adapters are chosen by the row"),
    "data-parallel experts": ({"kind": "qwen3-vl-moe", "data_parallel_size": 2}, "data-parallel experts count rows"),
    "pooling": ({"runner": "pooling"}, "a pooling model reads every row"),
    "graphs of parts": (
        {"compilation_config": {"use_inductor_graph_partition": True}},
        "CUDA graphs are not split in front of it",
    ),
}
LEAVE: dict[str, dict[str, Any]] = {
    "nothing asked for": {},
    "experts on one device": {"kind": "qwen3-vl-moe"},
    "data parallel without experts": {"data_parallel_size": 2},
    "words of the prompt as drafts": {
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    },
}


@pytest.mark.parametrize("case", STAY)
def test_rows_stay_where_something_reads_them(case: str, config_of: MakeConfig) -> None:
    options, reason = STAY[case]
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config_of(**options)) == (None, reason)


@pytest.mark.parametrize("case", LEAVE)
def test_rows_leave_elsewhere(case: str, config_of: MakeConfig) -> None:
    config = config_of(**LEAVE[case])
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config) == (EXIT, "")


def test_rows_stay_where_a_drafter_reads_hidden_states(config_of: MakeConfig, tmp_path: Path) -> None:
    speculation = {"method": "eagle", "model": drafter(tmp_path / "drafter"), "num_speculative_tokens": 2}
    config = config_of(speculative_config=speculation)
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config) == (None, "a drafter of kind eagle reads every row")


def test_a_plan_without_an_exit_needs_no_reason(config_of: MakeConfig) -> None:
    plan = PruningPlan.manual(plan_with_exit().model, plan_with_exit().geometry, text_only=[(0, 0)])
    assert chosen_exit(bare(LlamaModel), plan, config_of(enable_lora=True)) == (None, "")


def test_rows_stay_where_a_batch_is_computed_in_two_parts(config_of: MakeConfig) -> None:
    config = config_of()
    config.parallel_config.enable_dbo = True  # vLLM takes the flag back on CPUs
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config) == (None, "a batch is computed in two parts")


def test_rows_stay_with_breakable_graphs(config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    monkeypatch.setenv("VLLM_USE_BREAKABLE_CUDAGRAPH", "1")
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config)[1] == "CUDA graphs are not split in front of it"


@pytest.mark.parametrize("runner", ["0", "1"])
def test_on_a_gpu_the_runner_must_know_which_rows_are_kept(
    runner: str, config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of()
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config) == (EXIT, "")
    monkeypatch.setattr(choice, "current_platform", UnspecifiedPlatform())  # no CPU
    first, reason = chosen_exit(bare(LlamaModel), plan_with_exit(), config)
    assert (first, "V1" in reason) == ((None, True) if runner == "0" else (EXIT, False))


def test_rows_stay_in_a_decoder_that_is_not_known(config_of: MakeConfig) -> None:
    config = config_of()
    assert "what Gemma3Model does" in chosen_exit(bare(Gemma3Model), plan_with_exit(), config)[1]
    timed = bare(MistralDecoderLayer, ada_rms_norm_t_cond=nn.Identity())
    layers = nn.ModuleList([bare(MistralDecoderLayer, ada_rms_norm_t_cond=None), timed])
    assert "are given a time" in chosen_exit(bare(MistralModel, layers=layers), plan_with_exit(), config)[1]
    assert chosen_exit(bare(MistralModel, layers=layers[:1]), plan_with_exit(), config) == (EXIT, "")


def test_decoders_are_known_by_names_that_vllm_has() -> None:
    from vllm.model_executor.models import glm4, llama, mistral, qwen2, qwen3, qwen3_moe, qwen3_vl, qwen3_vl_moe

    modules = (glm4, llama, mistral, qwen2, qwen3, qwen3_moe, qwen3_vl, qwen3_vl_moe)
    assert {name for module in modules for name in DECODERS if name in vars(module)} == DECODERS


def test_rows_leave_behind_the_layers_that_get_visual_features(config_of: MakeConfig) -> None:
    config = config_of("qwen3-vl")
    levels = len(config.model_config.hf_config.vision_config.deepstack_visual_indexes)
    assert 0 < levels < EXIT
    exits = [chosen_exit(bare(LlamaModel), plan_with_exit(first), config)[0] for first in range(LAYERS)]
    assert exits == [max(first, levels) for first in range(LAYERS)]
    config.model_config.hf_config.vision_config.deepstack_visual_indexes = list(range(LAYERS))
    assert chosen_exit(bare(LlamaModel), plan_with_exit(), config) == (None, "every layer gets visual features")


def part_of_pipeline(start: int, end: int) -> Any:
    """A decoder of `LAYERS` layers of which this process has some."""

    def layer(index: int) -> nn.Module:
        if not start <= index < end:
            return PPMissingLayer()
        return bare(LlamaDecoderLayer, attn=bare(PartialAttention, layer_name=f"layers.{index}.attn"))

    layers = nn.ModuleList(map(layer, range(LAYERS)))
    return bare(LlamaModel, layers=layers, start_layer=start, end_layer=end)


@pytest.mark.parametrize(
    ("start", "end", "behind"),
    [
        pytest.param(0, 3, [], id="in front of the exit"),
        pytest.param(2, 5, [3, 4], id="with the exit"),
        pytest.param(4, 6, [4, 5], id="behind the exit"),
    ],
)
def test_each_part_of_a_pipeline_has_its_own_layers_behind_the_exit(
    start: int, end: int, behind: Sequence[int], config_of: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans in pipelines are refused; what a part would do is held all the same."""
    decoder, config = part_of_pipeline(start, end), config_of()
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")  # whose model state, not the runner, knows who reads all rows
    before = [type(layer) for layer in decoder.layers]
    with set_current_vllm_config(config):
        assert stage.leave_images(decoder, plan_with_exit(), config) == (EXIT if behind else None)
    changed = [index for index, layer in enumerate(decoder.layers) if type(layer) is not before[index]]
    assert changed == list(behind)
    if behind:
        assert [one.layer_name for one in stages_of(decoder)] == [f"layers.{behind[0]}.attn"]


def stages_of(decoder: nn.Module) -> list[Any]:
    """Attention by which a stage is found."""
    return [one for one in decoder.modules() if isinstance(one, PartialAttention) and "exit_stage" in vars(one)]
