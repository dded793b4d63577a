"""Flags that `vhserve serve` can know to be wrong are one line and exit code 2, before vLLM or torch is imported.

Every case runs through the real command, `vhserve.cli.main`; all in one process, so that a run costs one start-up.
"""

import json
import socket
from pathlib import Path

import pytest
from command_host import Command
from oracle import TinyModel

from profiles.store import load_plan
from vhserve.engine.kv_cache.pool import Pool
from vhserve.errors import FlagRefused, MemoryTooSmall
from vhserve.server.preflight import flags as flag_reader
from vhserve.server.preflight.flags import read_flags
from vhserve.server.preflight.kv_cache import check_kv_cache
from vhserve.server.preflight.memory import check_memory
from vhserve.server.preflight.plan_options import check_plan_options
from vhserve.server.preflight.weights import WITHOUT_KERNEL, check_quantisation

ADDRESSES = {
    "out of range": (["--port", "65536"], ["--port 65536", "65535"]),
    "negative": (["--port=-1"], ["--port -1"]),
    "no number": (["--port", "http"], ["--port http", "whole number"]),
    "no address of this machine": (["--host", "203.0.113.7", "--port", "0"], ["203.0.113.7"]),
    "no host": (["--host", "no-such-host.invalid", "--port", "0"], ["--host no-such-host.invalid"]),
    "a socket in no folder": (["--uds", "/no/such/folder/socket"], ["/no/such/folder"]),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_an_address_that_cannot_be_listened_on(
    case: str, command: Command, models: dict[str, TinyModel], plan_of_removed: Path
) -> None:
    flags, saying = ADDRESSES[case]
    command.refuses("serve", models["gqa"].path, "--plan", plan_of_removed, *flags, saying=saying)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use(host: str, command: Command, models: dict[str, TinyModel], plan_of_removed: Path) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        port = taken.getsockname()[1]
        flags = ["--host", host, "--port", port]
        command.refuses(
            "serve", models["gqa"].path, "--plan", plan_of_removed, *flags, saying=[f"port {port} of {host}", "in use"]
        )


ROOM = ["--kv-cache-memory-bytes", "--max-model-len"]
"""What a user can change."""

FLAGS = {
    "unknown": (["--prot", "8000"], ["--prot", "--port"]),
    "no such choice": (["--dtype", "float31"], ["--dtype float31", "bfloat16"]),
    "no number": (["--max-num-seqs", "many"], ["--max-num-seqs many"]),
    "with an underscore": (["--max_num_seqs=many"], ["--max-num-seqs many"]),
    "more memory than there is": (["--kv-cache-memory-bytes", "999T"], ["KV cache of 1022976.00 GiB", "are free"]),
    "too little for one request": (["--kv-cache-memory-bytes", "9k", "--max-model-len", "99"], ["99 tokens", "9000"]),
    "too little for the model's length": (["--kv-cache-memory-bytes", "9k"], ["the model's 2048 tokens", *ROOM]),
    "too few blocks": (["--num-gpu-blocks-override", "9"], ["the model's 2048 tokens", "--num-gpu-blocks-override"]),
    "more offloaded than there is": (
        ["--kv-offloading-size", "1e6"],
        ["--kv-offloading-size asks for 1000000.00 GiB", "are free"],
    ),
    "offloaded by no number": (["--kv-offloading-size", "much"], ["--kv-offloading-size much", "a number"]),
    "nothing offloaded": (["--kv-offloading-size", "0"], ["--kv-offloading-size (0)", "no memory"]),
    "less than nothing offloaded": (["--kv-offloading-size", "-1"], ["--kv-offloading-size (-1)", "no memory"]),
    "longer than the memory": (["--max-model-len", "1T"], ["--max-model-len 1099511627776", "are free"]),
    "longer than the model": (["--max-model-len", "4k"], ["--max-model-len is 4000", "has 2048 positions"]),
    "of no length": (["--max-model-len", "0"], ["--max-model-len is 0", "1 at least"]),
    "of less than no length": (["--max-model-len", "-5"], ["--max-model-len is -5", "1 at least"]),
    "no length": (["--max-model-len", "2kk"], ["--max-model-len 2kk", "4k, or auto"]),
    "no size": (["--max-num-batched-tokens", "many"], ["--max-num-batched-tokens many", "4096 or 4k;"]),
    "no whole number or none": (["--max-cpu-loras", "1.5"], ["--max-cpu-loras 1.5", "a whole number"]),
    "limits as before JSON": (
        ["--limit-mm-per-prompt", "image=3,video=1"],
        ["--limit-mm-per-prompt image=3,video=1", """give --limit-mm-per-prompt '{"image": 3, "video": 1}'"""],
    ),
    "no JSON": (["--limit-mm-per-prompt", '{"image": 3'], ['--limit-mm-per-prompt {"image": 3;', "expected JSON"]),
    "limits of nothing": (["--limit-mm-per-prompt", '{"images": 3}'], ["'images' is no kind", "did you mean image?"]),
    "less than nothing": (["--limit-mm-per-prompt", '{"image": -1}'], ["image is -1", "from 0 up"]),
    "less of nothing": (["--limit-mm-per-prompt", '{"image": {"count": -1}}'], ["image is -1", "from 0 up"]),
    "no limits": (["--limit-mm-per-prompt", "3"], ["--limit-mm-per-prompt 3", "each kind"]),
    "no template": (["--chat-template", "nowhere.jinja"], ["--chat-template nowhere.jinja"]),
    "no configuration": (["--config", "nowhere.yaml"], ["--config nowhere.yaml"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags_that_vllm_would_refuse(
    case: str, command: Command, models: dict[str, TinyModel], plan_of_removed: Path
) -> None:
    flags, saying = FLAGS[case]
    command.refuses("serve", models["gqa"].path, "--plan", plan_of_removed, "--port", "0", *flags, saying=saying)
    if case != "too few blocks":  # of which vLLM chooses the size without a plan
        command.refuses("serve", models["gqa"].path, "--port", "0", *flags, saying=saying)


BESIDE_A_PLAN = {
    "two ranks": (["--tensor-parallel-size", "2"], ["--tensor-parallel-size (2)", "expected 1"]),
    "two ranks, by the short name": (["-tp", "2"], ["--tensor-parallel-size (2)", "expected 1"]),
    "two stages": (["-pp=2"], ["--pipeline-parallel-size (2)"]),
    "another connector": (
        ["--kv-transfer-config", '{"kv_connector": "Other"}'],
        ['--kv-transfer-config ({"kv_connector": "Other"})'],
    ),
    "a draft model": (["--speculative-config", '{"method": "eagle"}'], ["--speculative-config (given)"]),
    "weights elsewhere": (["--cpu-offload-gb", "1"], ["--cpu-offload-gb (1.0)"]),
    "adapters where heads are cut out": (["--enable-lora", "--surgery", "slice"], ["--enable-lora", "gather"]),
    "quantised where heads are cut out": (
        ["-q", "fp8_per_channel", "--surgery", "slice"],
        ["--quantization does", "gather"],
    ),
}


@pytest.mark.parametrize("case", BESIDE_A_PLAN)
def test_flags_that_do_not_go_together_with_a_plan(
    case: str, command: Command, models: dict[str, TinyModel], plan_of_removed: Path
) -> None:
    flags, saying = BESIDE_A_PLAN[case]
    command.refuses("serve", models["gqa"].path, "--plan", plan_of_removed, "--port", "0", *flags, saying=saying)


def test_flags_that_go_together_with_a_plan_are_left_to_vllm(plan_of_removed: Path) -> None:
    given = ["--no-enable-lora", "-tp=1", "--speculative-config", '{"method": "ngram"}', "--kv-transfer-config", "None"]
    flags = read_flags([*given, "--speculative-config.method", "eagle", "--cpu-offload-gb", "0"])
    arguments = vars(flags.arguments())
    assert arguments == {
        "enable_lora": False, "tensor_parallel_size": 1, "kv_transfer_config": None, "cpu_offload_gb": 0.0
    }  # fmt: skip
    check_plan_options(flags, load_plan(plan_of_removed), "slice")


@pytest.mark.parametrize("kind", ["int4_per_token_head", "int8_per_token_head", "fp8_per_token_head"])
@pytest.mark.parametrize("with_plan", [True, False])
def test_a_kv_cache_type_that_cpus_have_no_attention_for(
    kind: str, with_plan: bool, command: Command, models: dict[str, TinyModel], plan_of_removed: Path
) -> None:
    plan = ["--plan", plan_of_removed] if with_plan else []
    given = ["--port", "0", "--kv-cache-dtype", kind]
    for end in ([], ["--dry-run"]):
        command.refuses("serve", models["gqa"].path, *plan, *given, *end, saying=[kind, "Triton", "nonsense"])


def test_a_kv_cache_is_not_offloaded_on_cpus_without_a_plan(command: Command, models: dict[str, TinyModel]) -> None:
    words = ["serve", models["gqa"].path, "--port", "0", "--kv-offloading-size", "0.25"]
    command.refuses(*words, saying=["--kv-offloading-size needs a plan on CPUs", "--kv-cache-memory-bytes"])


QUANTISED = {
    **{name: (["--quantization", name], name) for name in WITHOUT_KERNEL},
    "short": (["-q", "fp8"], "fp8"),
    "online": (["-q", "online", "--quantization-config", '{"linear": "mxfp8"}'], "online with mxfp8"),
    "online, in two words": (["-q", "online", "--quantization-config.linear", "mxfp8"], "online with mxfp8"),
    "online, by its key": (
        ["-q", "online", "--quantization-config", '{"linear": {"weight": "fp8_per_tensor_static"}}'],
        "online with fp8_per_tensor",
    ),
    "online, one layer": (
        ["-q", "online", "--quantization-config", '{"targets": {"*.o_proj": "mxfp4", "*.up_proj": "fp8_per_channel"}}'],
        "online with mxfp4",
    ),
}


@pytest.mark.parametrize("case", QUANTISED)
@pytest.mark.parametrize("with_plan", [True, False])
def test_weights_are_not_quantised_on_cpus_without_a_kernel(
    case: str, with_plan: bool, command: Command, models: dict[str, TinyModel], plan_of_removed: Path
) -> None:
    given, named = QUANTISED[case]
    if "block" in named and "amx_tile" in Path("/proc/cpuinfo").read_text():
        pytest.skip("AMX has a kernel")
    plan = ["--plan", plan_of_removed] if with_plan else []
    words = ["serve", models["gqa"].path, *plan, "--port", "0", *given]
    command.refuses(*words, saying=[f"--quantization {named}", "no kernel", "leave --quantization out"])


@pytest.mark.parametrize(
    "given",
    [
        ["--quantization", "fp8_per_channel"],
        ["--quantization", "compressed-tensors"],
        ["-q", "online", "--quantization-config", '{"linear": "fp8_per_channel", "moe": "mxfp8"}'],
        ["--quantization-config", '{"linear": "fp8_per_tensor"}'],  # which vLLM takes for a checkpoint's
    ],
)
def test_other_weights_may_be_quantised_on_cpus(given: list[str]) -> None:
    check_quantisation(read_flags(given))


def test_online_quantisation_needs_a_method(command: Command, models: dict[str, TinyModel]) -> None:
    words = ["serve", models["gqa"].path, "--port", "0", "--quantization", "online"]
    command.refuses(*words, saying=["--quantization online names no method", "--quantization-config"])


def test_amx_has_a_kernel_for_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vhserve.server.preflight.weights._CPU", tmp_path / "cpuinfo")
    given = read_flags(["--quantization", "fp8_per_block"])
    (tmp_path / "cpuinfo").write_text("flags : fpu amx_tile amx_int8\n")
    check_quantisation(given)
    (tmp_path / "cpuinfo").write_text("flags : fpu avx512f\n")
    with pytest.raises(FlagRefused, match="without AMX"):
        check_quantisation(given)
    (tmp_path / "cpuinfo").unlink()
    with pytest.raises(FlagRefused, match="without AMX"):
        check_quantisation(given)


def test_checks_of_kv_cache_and_weights_are_of_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vhserve.server.preflight.kv_cache.serving_device", lambda: "cuda")
    monkeypatch.setattr("vhserve.server.preflight.weights.serving_device", lambda: "cuda")
    for method in WITHOUT_KERNEL:
        check_quantisation(read_flags(["--quantization", method]))
    check_kv_cache(read_flags(["--kv-cache-dtype", "int4_per_token_head", "--kv-offloading-size", "4"]), has_plan=False)


NEEDED = {
    "--surgery": ("gather", "--plan"),
    "--admission": ("stock", "--plan"),
    "--canary-samples": ("8", "--canary"),
    "--canary-interval": ("60", "--canary"),
    "--shadow-fraction": ("0.5", "--shadow-url"),
    "--json": (None, "--dry-run"),
}


@pytest.mark.parametrize("flag", NEEDED)
def test_an_option_that_changes_nothing_without_another(
    flag: str, command: Command, models: dict[str, TinyModel]
) -> None:
    value, needed = NEEDED[flag]
    given = [flag] if value is None else [flag, value]
    command.refuses(
        "serve", models["gqa"].path, "--port", "0", *given, saying=[f"{flag} changes nothing without {needed}"]
    )


@pytest.mark.parametrize("with_plan", [True, False])
def test_a_cache_for_just_one_request_is_not_refused(
    with_plan: bool, models: dict[str, TinyModel], plan_of_removed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    config = json.loads((models["gqa"].path / "config.json").read_text())
    plan = load_plan(plan_of_removed) if with_plan else None
    pool = Pool.of(models["gqa"].geometry, plan, 64, 2 * 32 * 2)
    length = config["text_config"]["max_position_embeddings"]
    least = pool.bytes_for_text(length)
    for name, value in (("--kv-cache-memory-bytes", least), ("--num-gpu-blocks-override", least // pool.block_bytes)):
        check_memory(read_flags([name, str(value), "--block-size", "64"]), config, plan)
        for fits in (["--max-model-len", "auto"], ["--max-model-len", "-1"], ["--max-model-len", str(length - 64)]):
            check_memory(read_flags([name, str(value - 1), "--block-size", "64", *fits]), config, plan)
        with pytest.raises(MemoryTooSmall, match=f"{name} {value} at least"):
            check_memory(read_flags([name, str(value - 1), "--block-size", "64"]), config, plan)
    if not with_plan:  # each of two processes holds half of a request
        for flag in ("--tensor-parallel-size", "-tp"):
            check_memory(read_flags(["--kv-cache-memory-bytes", str(least // 2), flag, "2"]), config, plan)
        monkeypatch.setattr(flag_reader, "known_flags", lambda: None)  # of another release, short names stay short
        check_memory(read_flags(["--kv-cache-memory-bytes", str(least // 2), "-tp", "2"]), config, plan)
        with pytest.raises(MemoryTooSmall):
            check_memory(read_flags(["--kv-cache-memory-bytes", str(least // 2)]), config, plan)


CONFIGURED = {
    "max-num-seqs: many\n": ["--max-num-seqs many", "a whole number"],
    "limit_mm_per_prompt: image=3\n": ["""give --limit-mm-per-prompt '{"image": 3}'"""],
    "tensor-parallel-size: 2\n": ["--tensor-parallel-size"],
}


def test_values_of_a_configuration_file(
    command: Command, models: dict[str, TinyModel], plan_of_removed: Path, tmp_path: Path
) -> None:
    (tmp_path / "vllm.yaml").write_text("port: 70000\nmax_num_seqs: 4\n")
    words = ["serve", models["gqa"].path, "--plan", plan_of_removed, "--config", tmp_path / "vllm.yaml"]
    command.refuses(*words, saying=["--port 70000"])
    for line, saying in CONFIGURED.items():
        (tmp_path / "vllm.yaml").write_text(line)
        command.refuses(*words, "--port", "0", saying=saying)


def test_a_value_of_a_flag_is_no_model(command: Command, models: dict[str, TinyModel], plan_of_removed: Path) -> None:
    command.refuses("serve", "--plan", plan_of_removed, "--host", "127.0.0.1", saying=["no model", "MODEL"])
    command.refuses("serve", "--host", "127.0.0.1", "--enforce-eager", saying=["no model", "MODEL"])
    # Where there is one, it is found behind vLLM's flags, too.
    words = ["--port", "70000", "--enforce-eager", models["gqa"].path, "--plan", plan_of_removed]
    command.refuses("serve", *words, saying=["--port 70000"])
