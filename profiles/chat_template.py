"""What a document says of the chat template that prompts were written with.

Owns the fields and the digest. Does not know Jinja, nor where a model keeps its template.
"""

import hashlib
from typing import Literal

ContentFormat = Literal["openai", "string"]
"""What a template takes a message's content for: a list of parts, as in OpenAI's protocol, or one text."""

TemplateSource = Literal["processor", "tokenizer", "fallback"]
"""Where a template was found: in the processor's files, in the tokenizer's, or nowhere, so that ours was taken."""


def template_digest(text: str) -> str:
    """``sha256:…`` of a template's text in UTF-8."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
