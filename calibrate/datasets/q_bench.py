"""Q-Bench, the part about perception (LLVisionQA): questions about how good a picture is (arXiv:2309.14181).

Format: llvisionqa_dev.json, a list of records with `img_path`, `question`, `candidates` (two to four), `correct_ans`
(one of them), `type` and `concern`; as read by llava/eval/model_vqa_qbench.py of haotian-liu/LLaVA, whose wording is
kept to the letter, and by the evaluation scripts of Q-Future's models. The answers of llvisionqa_test.json are not
published. On the Hub, q-future/Q-Bench-HF has `option0` to `option3` (`N/A` where there is none), `correct_choice` and
`question_concern`, as lmms-eval reads them.

`concern` and `type` are numbers that nothing official explains. The order of `concern` is that of lmms-eval
(lmms_eval/tasks/qbench/utils.py), and of the columns of Q-Bench's own tables; for `type` those two disagree, so it is
not used.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.choices import LETTERS, lettered, right_letter
from calibrate.datasets.json_files import json_document, json_records
from calibrate.datasets.pictures import Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record, shown

CONCERNS: Final = ("distortion", "others", "in_context_distortion", "in_context_others")


class QBench(Benchmark):
    """Q-Bench's perception part; families are what a question is concerned with."""

    NAME: ClassVar[str] = "q-bench"
    FILES: ClassVar[tuple[str, ...]] = ("llvisionqa_{split}.json",)
    PICTURES: ClassVar[tuple[str, ...]] = ("images_llvisionqa", "images")
    PUBLISHED: ClassVar[tuple[str, ...]] = ("dev", "test")
    HUB: ClassVar[str | None] = "q-future/Q-Bench-HF"
    HUB_SPLIT: ClassVar[str] = "dev"

    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        return json_records(file, json_document(file, raw))

    def picture_name(self, record: Record) -> str:
        return record.text("img_path")

    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        published = "candidates" in record.data or "correct_ans" in record.data
        options = record.texts("candidates") if published else self._columns(record)
        if not 2 <= len(options) <= len(LETTERS):
            raise record.broken(f"has {len(options)} options", "two to four")
        lines = "".join(f"{line}\n" for line in lettered(options))
        yield Question(
            record=record,
            id=f"{self.NAME}:{Path(record.file).stem}:{record.number}",
            picture=picture,
            question=f"{record.text('question')}\nChoose between one of the options as follows:\n{lines}",
            answer=self._answer(record, options) if published else right_letter(record, "correct_choice", options),
            family=self._concern(record, "concern" if published else "question_concern"),
            options=LETTERS[: len(options)],
        )

    @staticmethod
    def _columns(record: Record) -> tuple[str, ...]:
        options = [record.text(f"option{number}") for number in range(len(LETTERS))]
        while options and options[-1].strip() == "N/A":
            options.pop()
        return tuple(options)

    @staticmethod
    def _answer(record: Record, options: tuple[str, ...]) -> str:
        if "correct_ans" not in record.data:
            raise record.broken("field 'correct_ans' is missing", "that field; the answers of `test` are not published")
        answer = record.label("correct_ans")
        right = [letter for letter, option in zip(LETTERS, options, strict=False) if option.strip() == answer]
        if len(right) != 1:
            raise record.unfit("correct_ans", f"one of the candidates {shown(options)}")
        return right[0]

    @staticmethod
    def _concern(record: Record, name: str) -> str:
        number = record.integer(name)
        if not 0 <= number < len(CONCERNS):
            raise record.unfit(name, f"a number from 0 to {len(CONCERNS) - 1}")
        return CONCERNS[number]
