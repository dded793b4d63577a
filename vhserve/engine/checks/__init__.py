"""Owns what is checked before a plan is served: its transport, its validation, and options it cannot be combined with.

Does not know how a plan is carried out; imports no other subpackage of `vhserve.engine`.
"""

__all__ = [
    "admission_choice",
    "architectures",
    "asked_choice",
    "engine_reports",
    "error_relay",
    "kv_cache_type",
    "kv_offloading",
    "partial_options",
    "plan_transport",
    "plan_validation",
    "stock_model",
    "surgery_choice",
    "unsupported_options",
]
