"""What `--kv-offloading-size` cannot be combined with in an engine with a plan."""

from argparse import Namespace

import pytest

from vhserve.engine.checks.kv_offloading import check_flags, is_other_transfer, transfer
from vhserve.errors import FlagRefused


def check(size: float | None, backend: str = "native") -> None:
    check_flags(Namespace(kv_offloading_size=size, kv_offloading_backend=backend))


def test_a_size_is_enough() -> None:
    check(0.5)
    check(None, "lmcache")  # which vLLM does not look at then


@pytest.mark.parametrize(
    ("size", "backend", "saying"),
    [
        (0.0, "native", "--kv-offloading-size (0)"),
        (-1.0, "native", "--kv-offloading-size (-1)"),
        (float("nan"), "native", "--kv-offloading-size (nan)"),
        (2.0, "lmcache", "--kv-offloading-backend (lmcache)"),
    ],
)
def test_what_is_refused(size: float, backend: str, saying: str) -> None:
    with pytest.raises(FlagRefused) as refused:
        check(size, backend)
    assert saying in str(refused.value)


@pytest.mark.parametrize(("value", "refused"), [("1", True), ("0", False), ("", False)])
def test_vllm_s_other_connector(value: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_SIMPLE_KV_OFFLOAD", value)
    if not refused:
        check(1.0)
        return
    with pytest.raises(FlagRefused, match="VLLM_USE_SIMPLE_KV_OFFLOAD"):
        check(1.0)


@pytest.mark.vllm
def test_connectors_of_vllm_s_configuration() -> None:
    from vllm.config import KVTransferConfig

    extra = transfer()["kv_connector_extra_config"]
    ours = {**transfer(), "kv_connector": "OffloadingConnector", "kv_role": "kv_both"}
    assert not is_other_transfer(None)
    assert not is_other_transfer(KVTransferConfig(**transfer()))  # as the command line sets it
    sized = {**extra, "cpu_bytes_to_use": 1 << 30}  # as vLLM completes it
    assert not is_other_transfer(KVTransferConfig(**{**ours, "kv_connector_extra_config": sized}))
    for change in (
        {"kv_connector": "NixlConnector"},
        {"kv_connector_module_path": None},
        {"kv_connector_extra_config": {}},
        {"kv_connector_extra_config": {**extra, "spec_name": "TieringOffloadingSpec"}},
        {"kv_connector_extra_config": {**extra, "blocks_per_chunk": 2}},
    ):
        assert is_other_transfer(KVTransferConfig(**{**ours, **change}))
