"""Owns the server of `vhserve serve`: vLLM's OpenAI server with its settings, request checks, metrics and exit code.

Does not know how the engine serves the plan, nor how a plan is made.
"""

__all__ = [
    "api_keys",
    "chat_template",
    "cpu_kv_cache",
    "drain",
    "dry_run",
    "engine_exit",
    "error_responses",
    "grammar_check",
    "grammar_worker",
    "guard",
    "hardening",
    "image_backend",
    "installation",
    "media",
    "media_identity",
    "metric_definitions",
    "middleware",
    "model_check",
    "monitoring",
    "parameter_limits",
    "picture_limits",
    "picture_places",
    "plan_metrics",
    "preflight",
    "request_metrics",
    "request_pictures",
    "served_saving",
    "server_info",
    "serving",
    "settings",
    "stat_logger",
    "unsent_media",
]
