"""How a tokenizer writes an answer behind a prompt, and which of its tokens is the first that says something.

Owns the blank lead: Llama-2's, Llama-3's and Mistral's tokenizers write ` 3` as a blank and a `3`, so that the first
token of every number is the same. What all options of a question begin with tells nothing and belongs to the prompt.
Knows no model.
"""

from typing import Any

from calibrate.datasets.sample import Sample


class AnswerTokens:
    """Answers as tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before = len(self._ids("ASSISTANT:"))
        self._behind: dict[str, list[int]] = {}
        self._leads: dict[tuple[str, ...], list[int]] = {}

    def lead(self, sample: Sample) -> list[int]:
        """Blank tokens that every option of a sample begins with; most tokenizers and most questions have none.

        The same for all of a question's options, so that it gives no answer away.
        """
        options = (sample.answer, *sample.options)
        if options not in self._leads:
            lead: list[int] = []
            # An answer's last token is never lead, whatever it says.
            for tokens in zip(*(self._answer(option)[:-1] for option in options), strict=False):
                if len(set(tokens)) > 1 or self.word(tokens[0]):
                    break
                lead.append(tokens[0])
            self._leads[options] = lead
        return self._leads[options]

    def first(self, sample: Sample, option: str) -> int:
        """First token of one of a sample's options behind the lead, so behind the prompt that is made of the sample."""
        return self._answer(option)[len(self.lead(sample))]

    def word(self, token: int) -> str:
        """What a token says, without blanks around it."""
        text: str = self._tokenizer.decode([token])
        return text.strip()

    def _answer(self, answer: str) -> list[int]:
        if answer not in self._behind:
            self._behind[answer] = self._ids(f"ASSISTANT: {answer}")[self._before :]
        return self._behind[answer]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
