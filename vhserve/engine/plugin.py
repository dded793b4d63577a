"""The plugin that vLLM calls in each of its processes, through the entry point `vllm.general_plugins`.

Owns the registration of vhserve's classes, by name only. Nothing changes for a server that is started without a plan,
but that it has models which vLLM lacks. Does not know plans.
"""

import os

from profiles.torchvision_import import ensure_torchvision
from vhserve.compat.processes import mend_model_inspection
from vhserve.engine.checks.architectures import ADDED, served_by, vision_language


def register() -> None:
    """Register vhserve's classes with vLLM; idempotent."""
    ensure_torchvision()  # vLLM's own LLaVA needs it as well
    mend_model_inspection()

    from vllm import ModelRegistry

    with_plan = map(served_by, sorted(vision_language()))
    for name, module in {**ADDED, **dict.fromkeys(with_plan, "vhserve.engine.models")}.items():
        # As a string, so that vLLM imports the class when a model asks for it and not before.
        if name not in ModelRegistry.models:
            ModelRegistry.register_model(name, f"{module}:{name}")

    if os.environ.get("VLLM_MEDIA_CONNECTOR", "").startswith("vhserve"):  # `vhserve serve` asks for it
        from vhserve.server import media

        media.register()
