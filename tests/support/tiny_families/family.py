"""What tests ask of a family: how its tiny checkpoint is made, and how a prompt with pictures is written.

Knows no family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine_prompts import EnginePrompt


@dataclass(frozen=True)
class Family:
    """One kind of vision-language model.

    Attributes
    ----------
    name
        For tests' ids, such as `qwen2.5-vl`.
    architecture
        As `config.json` says it.
    make
        Writes the checkpoint into a folder and returns that; takes `seed`.
    opening, picture, closing
        What its chat template writes before a message's content, for a picture, and behind the content. Pictures of
        prompts are written by hand where there are several.
    video
        The same for a video; empty where vLLM or its processor takes none.
    stands_for
        What its texts may not say: each stands for a picture or a video.
    harmless
        Special tokens around or between pictures, which a text may say.
    """

    name: str
    architecture: str
    make: Callable[..., Path]
    opening: str
    picture: str
    closing: str
    video: str = ""
    stands_for: tuple[str, ...] = ("<image>",)
    harmless: tuple[str, ...] = ()

    def prompt(self, *parts: str | None) -> str:
        """A prompt of texts and pictures (`None`), in this order."""
        return self.opening + "".join(self.picture if part is None else part for part in parts) + self.closing

    @property
    def prompts(self) -> tuple[EnginePrompt, ...]:
        """With one picture, with two of other shapes, and with none."""
        return (
            EnginePrompt(self.prompt(None, "how many red circles are there ?"), (1,)),
            EnginePrompt(self.prompt("how many ", None, " blue squares are in ", None, " ?"), (2, 1), (96, 60)),
            EnginePrompt(self.prompt("what is at a1 ?")),
        )
