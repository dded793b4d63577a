"""The chat template that a model's prompts are written with: found as vLLM finds it, rendered as vLLM renders it.

Owns the search (the processor's files, then the tokenizer's), what is taken where there is none, and the way from a
picture and a question to text. Does not know tokens.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError

from calibrate.errors import TemplateBroken
from calibrate.models.content_format import content_format
from profiles.chat_template import ContentFormat, TemplateRef, TemplateSource, template_digest
from profiles.error_text import one_line
from profiles.errors import FileUnreadable
from profiles.files import reason

FALLBACKS: Final = Path(__file__).parent / "templates"
"""For checkpoints that carry no chat template: what these models were trained with, by model type or `llava`."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Attributes
    ----------
    text
        In Jinja.
    source
        Where it was found.
    """

    text: str
    source: TemplateSource

    @property
    def content_format(self) -> ContentFormat:
        """What it takes a message's content for."""
        return content_format(self.text)

    @property
    def ref(self) -> TemplateRef:
        """What documents say of it."""
        return TemplateRef(digest=template_digest(self.text), source=self.source, content_format=self.content_format)

    def render(self, tokenizer: Any, question: str, image_token: str, *, picture_last: bool = False) -> str:
        """Prompt of one picture and a question, up to where the answer begins.

        Parameters
        ----------
        image_token
            What stands for the picture where the template takes content as one text; there it comes first.
        picture_last
            Put the picture behind the question, where the template takes content as parts and keeps their order.

        Raises
        ------
        TemplateBroken
        """
        content: Any = f"{image_token}\n{question}"
        if self.content_format == "openai":
            parts = [{"type": "image"}, {"type": "text", "text": question}]
            content = parts[::-1] if picture_last else parts
        try:
            text: str = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=self.text,
                tokenize=False,
                add_generation_prompt=True,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise TemplateBroken(
                f"the chat template ({self.source}) cannot be rendered: {one_line(str(error), 200)}",
                expected="a Jinja template that takes a user's message with a picture",
                fix="mend it, or give another with --chat-template",
            ) from error
        return text


def find_chat_template(processor: Any, model_type: str) -> ChatTemplate:
    """The template of a loaded processor, or else of its tokenizer, or else ours for the model's type."""
    if (own := _default(processor.chat_template)) is not None:
        return ChatTemplate(own, "processor")
    if (own := _default(processor.tokenizer.chat_template)) is not None:
        return ChatTemplate(own, "tokenizer")
    return ChatTemplate(fallback_path(model_type).read_text(encoding="utf-8"), "fallback")


def read_chat_template(path: Path) -> ChatTemplate:
    """A template from a file that the user gave.

    Raises
    ------
    FileUnreadable
    """
    try:
        return ChatTemplate(path.read_text(encoding="utf-8"), "given")
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnreadable(
            f"cannot read {path}: {reason(error) if isinstance(error, OSError) else 'it is not UTF-8'}",
            expected="a chat template, in Jinja",
            fix="check the path",
        ) from error


def fallback_path(model_type: str) -> Path:
    """File with our template for a model type, for `vhserve serve --chat-template`."""
    own = FALLBACKS / f"{model_type}.jinja"
    return own if own.is_file() else FALLBACKS / "llava.jinja"


def _default(template: str | dict[str, str] | None) -> str | None:
    """Of several templates by name, the default one."""
    return template.get("default") if isinstance(template, dict) else template
