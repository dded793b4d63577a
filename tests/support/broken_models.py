"""Ways in which a model's folder can be broken, each a function that breaks a copy of a good one.

Owns the breakage only; what becomes of it is for the tests. Knows the files of a tiny checkpoint.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

QUANTISED = {
    "AWQ": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "GPTQ": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "_load_in_4bit": True},
    "FP8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
}
"""What a quantised checkpoint's configuration says, by the name of the method in errors."""


def cut(file: str, share: float) -> Callable[[Path], None]:
    def breakage(folder: Path) -> None:
        raw = (folder / file).read_bytes()
        (folder / file).write_bytes(raw[: int(len(raw) * share)])

    return breakage


def overwrite(file: str, at: int, raw: bytes) -> Callable[[Path], None]:
    def breakage(folder: Path) -> None:
        whole = bytearray((folder / file).read_bytes())
        whole[at : at + len(raw)] = raw
        (folder / file).write_bytes(whole)

    return breakage


def remove(*files: str) -> Callable[[Path], None]:
    def breakage(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return breakage


def write(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text) and None


def change_config(change: dict[str, Any], part: str | None = None) -> Callable[[Path], None]:
    def breakage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (config if part is None else config[part]).update(change)
        (folder / "config.json").write_text(json.dumps(config))

    return breakage


def lose_shard(folder: Path) -> None:
    """The weights as one of two shards, the other of which the index only names."""
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def index_of_another_model(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"other.weight": WEIGHTS}}))


BROKEN: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no config": (remove("config.json"), ["config.json"]),
    "config cut off": (cut("config.json", 0.5), ["config.json"]),
    "config of no model": (write("config.json", "[1]"), ["config.json", "no object"]),
    "no weights": (remove(WEIGHTS), ["has no weights"]),
    "empty weights": (cut(WEIGHTS, 0), [WEIGHTS, "cut off (0 bytes)"]),
    "weights cut off in the header": (cut(WEIGHTS, 0.001), [WEIGHTS, "cut off"]),
    "weights cut off in a tensor": (cut(WEIGHTS, 0.5), [WEIGHTS, "is cut off"]),
    "header overwritten": (overwrite(WEIGHTS, 8, b"x" * 99), [WEIGHTS, "header is damaged"]),
    "header of absurd length": (overwrite(WEIGHTS, 0, b"\xff" * 8), [WEIGHTS, "header is damaged"]),
    "a page of HTML for weights": (write(WEIGHTS, "<html>404 not found</html>"), [WEIGHTS, "header is damaged"]),
    "a pointer of Git LFS for weights": (
        write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        [WEIGHTS, "header is damaged"],
    ),
    "a shard lost": (lose_shard, ["model-00002-of-00002.safetensors", "missing"]),
    "another model's index": (index_of_another_model, ["other.weight"]),
    "index cut off": (write(INDEX, '{"weight_map": {'), [INDEX]),
    "weights of another width": (change_config({"intermediate_size": 400}, "text_config"), ["[400, 120]", "mlp"]),
    "weights of another vocabulary": (change_config({"vocab_size": 7}, "text_config"), ["embed_tokens", "[7, 120]"]),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), ["no tokenizer", "tokenizer.json"]),
    "tokenizer cut off": (cut("tokenizer.json", 0.7), ["tokenizer.json", "cut off"]),
    "tokenizer of nothing": (write("tokenizer.json", "{}"), ["tokenizer.json", "no tokenizer"]),
    "no processor": (remove("processor_config.json"), ["no image processor", "preprocessor_config.json"]),
    "processor cut off": (cut("processor_config.json", 0.5), ["processor_config.json"]),
} | {
    f"{method} in {part or 'the configuration'}": (
        change_config({"quantization_config": entry}, part),
        ["quantised", method, "quantization_config"],
    )
    for method, entry in QUANTISED.items()
    for part in (None, "text_config")
}
"""By name: what breaks the folder, and words that its one line has to have."""
