"""How pictures get from an API server's cache to an engine's: vLLM's own renderer and caches, without an engine.

Run in the engine host, by `engine_host.call`. Knows nothing of what should come out.
"""

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

from vllm_prompts import engine_input, renderer

Sent = tuple[list[int], list[float] | None]
"""Numbers of a request's pictures, and the sum of the values that the engine has for each; None where it missed one."""


def deliveries(model: str, pictures: list[Any], seed: int, steps: int, max_bytes: int | None) -> list[Sent]:
    """Requests with random pictures that are refused, or sent late and in any order.

    Parameters
    ----------
    max_bytes
        Bound of `UnsentMedia`; None for vLLM alone.
    """
    from vllm.multimodal.cache import LruKeyReplicatedReceiverCache

    from vhserve.compat.requests import send_media_until_sent
    from vhserve.server.unsent_media import UnsentMedia

    own, rng, sent = renderer(model), Random(seed), list[Sent]()
    engine = Engine(LruKeyReplicatedReceiverCache(own.model_config))
    stock, cache = dict(vars(own)), own.mm_processor_cache
    own.clear_mm_cache()
    try:
        if max_bytes is not None:
            send_media_until_sent(SimpleNamespace(renderer=own, engine_core=engine), UnsentMedia(max_bytes))
        waiting: list[tuple[list[int], Any]] = []
        for _ in range(steps):
            chosen = rng.choices(range(len(pictures)), k=rng.randint(1, 3))
            content = [{"type": "image_pil", "image_pil": pictures[one]} for one in chosen]
            waiting.append((chosen, engine_input(own, [*content, {"type": "text", "text": "?"}])))
            while waiting and rng.random() < 0.6:
                numbers, prompt = waiting.pop(rng.randrange(len(waiting)))
                if rng.random() < 0.5:
                    sent.append((numbers, engine.send(prompt)))
    finally:
        vars(own).clear()
        vars(own).update(stock)
        vars(cache).pop("get_and_update_item", None)
        own.clear_mm_cache()
    return sent


class Engine:
    """The receiving end."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.features: list[Any] = []

    async def add_request_async(self, request: Any) -> None:
        from copy import copy

        self.features = self.cache.get_and_update_features([copy(one) for one in request.mm_features])

    def send(self, prompt: Any) -> list[float] | None:
        from vllm.multimodal.cache import MultiModalCacheMissError
        from vllm.multimodal.inputs import MultiModalFeatureSpec

        items = zip(
            prompt["mm_kwargs"]["image"], prompt["mm_hashes"]["image"], prompt["mm_placeholders"]["image"], strict=True
        )
        features = [MultiModalFeatureSpec(item, "image", key, place, key) for item, key, place in items]
        try:
            asyncio.run(self.add_request_async(SimpleNamespace(mm_features=features)))
        except MultiModalCacheMissError:
            return None
        return [float(one.data["pixel_values"].data.double().sum()) for one in self.features]
