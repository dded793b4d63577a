"""The registry of model classes: which architectures take pictures.

Does not know plans. Importing it is cheap.
"""


def vision_language_architectures() -> frozenset[str]:
    """Names of vLLM's own architectures whose models take pictures, videos or sounds beside text.

    Symptom
        Which architectures a plugin can make classes for is known only when their modules are imported, 300 of them.
    Cause
        The registry publishes names without kinds; the lists by kind that it is made of are private.
    Removal
        vLLM publishes the kinds of its architectures.
    """
    from vllm.model_executor.models import registry

    return frozenset(registry._MULTIMODAL_MODELS)
