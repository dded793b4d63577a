"""How a tokenizer writes an answer behind a prompt, and which of its tokens say something.

Owns the blank lead: Llama-2's, Llama-3's and Mistral's tokenizers write ` 3` as a blank and a `3`, so that the first
token of every number is the same. What all options of a question begin with tells nothing and belongs to the prompt.
Where the first token behind it is not the whole answer, or another option begins with it, a model is asked for the
whole answer: its tokens follow the prompt, and each position must predict the next of them and the last one the reply's
end, as greedy decoding would. Knows no model.
"""

from collections.abc import Collection
from typing import Any

from calibrate.datasets.answers import ENDING, PUNCTUATION, single_words
from calibrate.datasets.sample import Sample


class AnswerTokens:
    """Answers as tokens of one tokenizer; `stops` are the tokens at which the model's replies end."""

    def __init__(self, tokenizer: Any, stops: Collection[int] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._before = len(self._ids("ASSISTANT:"))
        self._behind: dict[str, list[int]] = {}
        self._leads: dict[tuple[str, ...], list[int]] = {}
        self._forced: dict[tuple[str, ...], list[int]] = {}

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

    def expected(self, sample: Sample) -> list[int]:
        """Tokens of a sample's answer behind the lead; at least one."""
        return self._answer(sample.answer)[len(self.lead(sample)) :]

    def forced(self, sample: Sample) -> list[int]:
        """Tokens to be put behind the prompt: all of `expected`, or none where its first one tells the answer."""
        key = (sample.answer, *sample.options)
        if key not in self._forced:
            expected, answer = self.expected(sample), sample.answer.casefold()
            others = (option for option in sample.options if option.casefold() != answer)
            told = len(expected) == 1 and all(self.first(sample, option) != expected[0] for option in others)
            self._forced[key] = [] if told else expected
        return self._forced[key]

    def replied(self, sample: Sample) -> int:
        """How many tokens of the reply stand behind the prompt while the answer is predicted: lead and `forced`.

        None: what is done to heads in replies only cannot change whether the answer is right.
        """
        return len(self.lead(sample)) + len(self.forced(sample))

    def same(self, token: int, expected: int) -> bool:
        """Whether two tokens say the same, upper and lower case aside."""
        pieces: list[str] = self._tokenizer.convert_ids_to_tokens([token, expected])
        return token == expected or pieces[0].casefold() == pieces[1].casefold()

    def ended_by(self, token: int, sample: Sample) -> bool:
        """Whether a sample's answer is the reply if this token follows it, as `vhserve evaluate` reads replies.

        Where options are single words, the token must not go on with the word; else it must end the reply.
        """
        if token in self._stops:
            return True
        expected = self.expected(sample)
        added = self._text([*expected, token]).removeprefix(self._text(expected))
        if single_words((sample.answer, *sample.options)):
            return added[:1].isspace() or added[:1] in PUNCTUATION
        return not added.strip(ENDING)

    def word(self, token: int) -> str:
        """What a token says, without blanks around it."""
        return self._text([token]).strip()

    def _answer(self, answer: str) -> list[int]:
        if answer not in self._behind:
            self._behind[answer] = self._ids(f"ASSISTANT: {answer}")[self._before :]
        return self._behind[answer]

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens)
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
