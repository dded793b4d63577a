"""What the tests of KV offloading read off an engine after it was asked: called by name, by the engine host.

Takes a `vllm.LLM` and returns plain values. Knows vLLM's connector; judges nothing.
"""

import time
from typing import Any

from engine_host import Round, ask
from engine_prompts import IMAGE_TOKEN, request


def offloaded(engine: Any) -> dict[str, Any]:
    """What an engine has stored and loaded since it started, and what of it is still held when all requests have ended.

    `keys` are those of the blocks in the host's memory, in hexadecimal; `loaded` is in bytes, `hits` in tokens; `known`
    is whether the groups of the scheduler's part and of the worker's are of a kind that vLLM's connector tells.
    """
    from vllm.distributed.kv_transfer import get_kv_transfer_group
    from vllm.v1.kv_cache_interface import FullAttentionSpec, iter_layer_specs

    from vhserve.engine.kv_cache.spec import count_groups

    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    connector, config = scheduler.connector.connector_scheduler, scheduler.kv_cache_config
    pool = scheduler.kv_cache_manager.block_pool
    values = {metric.name: getattr(metric, "value", None) for metric in engine.get_metrics()}
    worker: Any = get_kv_transfer_group()
    parts = (connector.config.kv_group_configs, worker.connector_worker.kv_cache_config.kv_cache_groups)
    return {
        "known": [
            all(isinstance(spec, FullAttentionSpec) for group in part for spec in iter_layer_specs(group.kv_cache_spec))
            for part in parts
        ],
        "keys": sorted(key.hex() for key in connector.manager._policy.chunks),
        "loaded": values.get("vllm:kv_offload_load_bytes", 0),
        "hits": values["vllm:external_prefix_cache_hits"],
        "groups": dict(count_groups(config).of),
        "block_bytes": config.kv_cache_tensors[0].size // config.num_blocks,
        "unfinished": len(connector._jobs),
        "held": pool.num_gpu_blocks - 1 - pool.get_num_free_blocks(),
    }


def stored_late(engine: Any) -> Any:
    """Answer of a request that loads what an earlier one could not store before its blocks were evicted and reused."""
    from exactness import PROMPTS
    from partial_cases import at
    from vllm import SamplingParams

    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    manager = scheduler.connector.connector_scheduler.manager
    assert engine.reset_prefix_cache(reset_connector=True)
    stores, manager.prepare_store = manager.prepare_store, lambda *rest: None  # as it says where there is no room
    wanted = SamplingParams(temperature=0, max_tokens=90, ignore_eos=True)
    engine.llm_engine.add_request("first", request(PROMPTS[0]), wanted)
    while not any(one.num_output_tokens > 2 for one in scheduler.requests.values()):
        engine.llm_engine.step()
    wanted = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
    for number in range(6):
        engine.llm_engine.add_request(f"other-{number}", request(at(5 + number, image=20 + number)), wanted)
        while len(scheduler.requests) > 1:
            engine.llm_engine.step()
    manager.prepare_store = stores
    while engine.llm_engine.has_unfinished_requests():
        engine.llm_engine.step()
    (answer,) = ask(engine, Round(PROMPTS[:1]))
    return answer


def resumed_in_its_reply(engine: Any) -> dict[str, Any]:
    """A request that is preempted in its reply, with its prompt and its reply in the host's memory as another's prompt.

    `difference` is the largest, in log-probability, from the same request by itself; `loaded` the bytes that it loads.
    """
    from itertools import groupby

    from exactness import PROMPTS
    from vllm import SamplingParams

    def sampling(tokens: int) -> Any:
        bias = {IMAGE_TOKEN: -100.0}
        return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=1, logit_bias=bias)

    def loaded() -> float:
        values = {metric.name: getattr(metric, "value", None) for metric in engine.get_metrics()}
        return float(values.get("vllm:kv_offload_load_bytes") or 0)

    assert engine.reset_prefix_cache(reset_connector=True)
    asked = request(PROMPTS[0])
    (alone,) = engine.generate([asked], sampling(70), use_tqdm=False)
    said = list(alone.outputs[0].token_ids)
    ids = [token for kind, run in groupby(alone.prompt_token_ids) for token in ([kind] if kind == IMAGE_TOKEN else run)]
    longer = {"prompt_token_ids": ids + said, "multi_modal_data": asked["multi_modal_data"]}
    engine.generate([longer], sampling(1), use_tqdm=False)
    assert engine.reset_prefix_cache()

    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    before, last = loaded(), None
    engine.llm_engine.add_request("again", asked, sampling(70))
    while not any(one.num_output_tokens > 60 for one in scheduler.requests.values()):
        engine.llm_engine.step()
    at_first = loaded()
    scheduler._preempt_request(scheduler.running.pop(), time.monotonic())
    scheduler.prev_step_scheduled_req_ids.clear()
    scheduler.reset_preempted_req_ids.clear()  # in a step of its own, as a request that others need room of
    assert engine.reset_prefix_cache()
    while engine.llm_engine.has_unfinished_requests():
        last = ([one for one in engine.llm_engine.step() if one.finished] or [last])[0]
    (again,) = last.outputs  # type: ignore[union-attr]
    assert list(again.token_ids) == said
    rows = zip(said, alone.outputs[0].logprobs, again.logprobs, strict=True)
    return {
        "difference": max(abs(one[token].logprob - other[token].logprob) for token, one, other in rows),
        "loaded": [at_first - before, loaded() - at_first],
        "block_bytes": offloaded(engine)["block_bytes"],
    }
