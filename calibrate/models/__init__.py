"""Models as transformers loads them: owns names, weights, prompts, and access to a decoder's attention.

Does not know scores, treatments or the files of datasets.
"""

__all__ = [
    "answer_logits",
    "answer_tokens",
    "batches",
    "boxes",
    "chat_template",
    "content_format",
    "criterion",
    "decoder",
    "decoder_attention",
    "hub",
    "image_spans",
    "image_tokens",
    "known",
    "layer_additions",
    "loading",
    "measurable",
    "prompts",
    "registry",
]
