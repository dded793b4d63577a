"""`vhserve serve --kv-offloading-size` as users start it: what the pool forgot is loaded, with the same answer."""

from pathlib import Path

import pytest
from live_server import FLAGS, ask, serving
from oracle import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.long]


def test_what_the_pool_forgot_is_loaded(
    models: dict[str, TinyModel], plan_file: Path, vllm_environment: dict[str, str], tmp_path: Path
) -> None:
    model = str(models["gqa"].path)
    args = (model, "--plan", str(plan_file), *FLAGS, "--kv-offloading-size", "0.1")
    # Of vLLM's routes for developers, the one that makes the pool forget.
    with serving(tmp_path, {**vllm_environment, "VLLM_SERVER_DEV_MODE": "1"}, *args) as server:
        first = ask(server, model, 1)
        assert server.post({}, "/reset_prefix_cache").status == 200
        again = ask(server, model, 1)
        assert again.choices[0].message.content == first.choices[0].message.content
        tokens = server.wait_for("vllm:external_prefix_cache_hits_total", bool, engine="0", model_name=model)
        assert tokens >= 64
        assert tokens % 32 == 0
