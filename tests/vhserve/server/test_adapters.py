"""LoRA adapters that a server is to start with: what vLLM would not load is one line, before vLLM is imported."""

import json
from pathlib import Path

from command_host import Command
from oracle import TinyModel

from vhserve.server.preflight.adapters import _DEFAULT_RANK, check_adapters
from vhserve.server.preflight.flags import read_flags


def adapter(folder: Path, *, tensors: bool = True, **fields: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "bias": "none", "r": 8, **fields}))
    if tensors:
        (folder / "adapter_model.safetensors").touch()
    return folder


def test_adapters_that_vllm_would_not_load(
    command: Command, models: dict[str, TinyModel], plan_of_removed: Path, tmp_path: Path
) -> None:
    whole, high = adapter(tmp_path / "whole"), adapter(tmp_path / "high", r=32)
    layer = adapter(tmp_path / "layer", rank_pattern={"q_proj": 64})
    empty, bias = adapter(tmp_path / "empty", tensors=False), adapter(tmp_path / "bias", bias="all")
    (tmp_path / "none").mkdir()
    cases = (
        ([f"a={whole}"], ["LoRA is not enabled", "give --enable-lora"]),
        (["--no-enable-lora", f"a={whole}"], ["LoRA is not enabled"]),
        (["--enable-lora", f"a={tmp_path / 'nowhere'}"], ["nowhere: there is no such folder", "adapter_config.json"]),
        (["--enable-lora", "a=owner/adapter"], ["owner/adapter: ", "the Hub has no such adapter"]),
        (["--enable-lora", f"a={tmp_path / 'none'}"], ["adapter_config.json: no such file"]),
        (["--enable-lora", f"a={empty}"], [f"{empty}: has no adapter_model.safetensors"]),
        (["--enable-lora", f"a={bias}"], [f"{bias} has bias", "merge it"]),
        (["--enable-lora", f"a={whole}", f"b={high}"], [f"{high} is of rank 32, above --max-lora-rank 16"]),
        (["--enable-lora", "--max-lora-rank", "32", f"a={layer}"], ["of rank 64, above --max-lora-rank 32"]),
        (["--enable-lora", str(whole)], [f"--lora-modules {whole};", "a name and a folder"]),
        (["--enable-lora", '{"name": "a"}'], ["a name and a folder"]),
    )
    for given, saying in cases:
        at = next(i for i, word in enumerate(given) if "=" in word or "{" in word or word == str(whole))
        flags = [*given[:at], "--lora-modules", *given[at:]]
        command.refuses("serve", models["gqa"].path, "--plan", plan_of_removed, "--port", "0", *flags, saying=saying)


def test_adapters_that_vllm_loads(tmp_path: Path) -> None:
    first, second = adapter(tmp_path / "first"), adapter(tmp_path / "second", r=32)
    both = [f"a={first}", json.dumps({"name": "b", "path": str(second), "base_model_name": "base"})]
    for after in (["--max-lora-rank", "32"], ["--max-lora-rank=64", "-tp", "1"]):
        flags = read_flags(["--enable-lora", "--lora-modules", *both, *after])
        assert list(flags.several("--lora-modules")) == both
        check_adapters(flags, lambda repository, file: False)
    asked = []
    hub = read_flags(["--enable-lora", "--lora-modules", "a=owner/adapter"])
    check_adapters(hub, lambda *what: bool(asked.append(what) or True))
    assert asked == [("owner/adapter", "adapter_config.json")]


def test_the_highest_rank_is_vllm_s_unless_another_is_given() -> None:
    from vllm.config import LoRAConfig

    assert LoRAConfig().max_lora_rank == _DEFAULT_RANK
