"""What documents say of the chat template that prompts were written with.

Owns the fields, the digest, and the words for two that differ. Does not know Jinja, nor where a model keeps its
template.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import ValidationError

from profiles.geometry import Name
from profiles.strict import JsonScalar, Strict

ContentFormat = Literal["openai", "string"]
"""What a template takes a message's content for: a list of parts, as in OpenAI's protocol, or one text."""

TemplateSource = Literal["given", "processor", "tokenizer", "fallback"]
"""Where a template was found: in a file that the user gave, in the processor's files or the tokenizer's, or nowhere, so
that ours was taken."""


class TemplateRef(Strict):
    """A chat template, as documents name it.

    Attributes
    ----------
    digest
        ``sha256:…`` of its text.
    source
        Where it was found; two templates of one digest are the same wherever they were found.
    content_format
        What it is given as a message's content.
    """

    digest: Name
    source: TemplateSource
    content_format: ContentFormat

    def settings(self) -> dict[str, str]:
        """The same among a document's settings."""
        return {
            "chat_template": self.digest,
            "chat_template_source": self.source,
            "content_format": self.content_format,
        }

    @classmethod
    def of_settings(cls, settings: Mapping[str, JsonScalar]) -> Self | None:
        """What a document's settings, which are free, say; None where they don't, as in those of earlier releases."""
        fields = ("chat_template", "chat_template_source", "content_format")
        digest, source, content_format = (settings.get(field) for field in fields)
        try:
            return cls.model_validate({"digest": digest, "source": source, "content_format": content_format})
        except ValidationError:
            return None

    def is_as(self, other: "TemplateRef | None") -> bool:
        """Whether both write the same prompts; None stands for no template at all."""
        return other is not None and (self.digest, self.content_format) == (other.digest, other.content_format)

    def __str__(self) -> str:
        where = {
            "given": "given on the command line",
            "processor": "of the processor",
            "tokenizer": "of the tokenizer",
            "fallback": "for models that have none",
        }[self.source]
        return f"{self.digest[:19]}… ({where}; content format {self.content_format})"


def template_digest(text: str) -> str:
    """``sha256:…`` of a template's text in UTF-8."""
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
