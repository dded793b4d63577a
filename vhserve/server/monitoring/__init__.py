"""Owns accuracy checks of a running server: a canary asks it labelled questions, a shadow compares its replies.

Does not know how the server computes its replies; both run in the API server's event loop, behind users' requests.
"""

__all__ = [
    "canary",
    "exchange",
    "in_process_client",
    "middleware",
    "queue_state",
    "reference",
    "request_mirror",
    "settings",
    "shadow",
]
