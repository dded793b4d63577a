"""What the step profile sees of a tiny engine: called by name, by the engine host. Judges nothing."""

from typing import Any

REQUESTS = 3


def profiles(engine: Any) -> dict[str, Any]:
    """Of prefill, decode steps, and decode steps of more requests than fit; and what the engine is left with."""
    from text_only_probes import _held

    from benchmarks.step_profile import ProfileDecode, ProfilePrefill

    before = _held(engine)
    return {
        "prefill": ProfilePrefill(REQUESTS, images=0, text_tokens=40).run(engine),
        "decode": ProfileDecode(REQUESTS, steps=4, images=0, text_tokens=40).run(engine),
        "too many": ProfileDecode(60, steps=4, images=0, text_tokens=40).run(engine),
        "held": (before, _held(engine)),
    }
