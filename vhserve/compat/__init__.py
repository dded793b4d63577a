"""Owns every touch of a surface of vLLM's that is not public, and every mending of its set-up.

Each item says its symptom, its cause, and what must come true for it to go. Look here first when a pin in
pyproject.toml moves. Importing these modules is cheap; they do not know plans. What makes torchvision importable is in
`profiles.torchvision_import`, because `calibrate` needs it too.
"""

__all__ = [
    "api_server",
    "block_tables",
    "cache_writes",
    "command_line",
    "empty_sequences",
    "layers",
    "model_runner",
    "model_state",
    "models",
    "offloading",
    "processes",
    "prompts",
    "requests",
    "scheduler",
    "start_signals",
    "videos",
]
