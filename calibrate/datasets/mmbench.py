"""MMBench: multiple choice about twenty abilities, once or in circles (arXiv:2307.06281).

Format: mmbench_dev_*.tsv with the columns `index`, `question`, `hint`, `A` to `D`, `answer`, `category`, `image`
(base64), `source`, `l2-category`, `comment` and `split`; README.md of open-compass/MMBench for the evaluation, and
llava/eval/model_vqa_mmbench.py of haotian-liu/LLaVA for the columns and the wording, which is kept. Cells without a
value are empty. Behind the last option, and as a hint, `nan` is one, too: lmms-lab/MMBench on the Hub has it there,
and lmms-eval (lmms_eval/tasks/mmbench) reads it so. Any other text is an option as it stands: `None`, `NA`, or a `nan`
with an option behind it. In files of open-compass/VLMEvalKit an `image` of at most 64 letters is the `index` of the
row that has it. On the Hub, lmms-lab/MMBench (configuration `en`) has the same columns.

Rows with an index of a million and more are the rotations for circular evaluation (open-compass/VLMEvalKit,
vlmeval/dataset/utils/multiple_choice.py). They are left out here; `MmbenchCircular` makes its own, which are the same.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.choices import LETTERS, letter_question, right_letter
from calibrate.datasets.metrics import Metric
from calibrate.datasets.pictures import Base64Picture, Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record
from calibrate.datasets.tables import tab_separated

ROTATIONS: Final = 1_000_000
REFERENCE: Final = 64
EMPTY: Final = "nan"
FIFTH: Final = "E"


class Mmbench(Benchmark):
    """MMBench, each question asked once; families are its six groups of abilities (`l2-category`)."""

    NAME: ClassVar[str] = "mmbench"
    FILES: ClassVar[tuple[str, ...]] = ("mmbench_{split}*.tsv", "MMBench_{SPLIT}*.tsv")
    PUBLISHED: ClassVar[tuple[str, ...]] = ("dev", "test")
    HUB: ClassVar[str | None] = "lmms-lab/MMBench:en"
    HUB_SPLIT: ClassVar[str] = "dev"
    CIRCULAR: ClassVar[bool] = False

    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        rows = list(tab_separated(file, raw))
        pictures = {row.label("index"): row.filled("image") or "" for row in rows}
        for row in rows:
            picture = row.filled("image") or ""
            if len(picture) <= REFERENCE:
                row = replace(row, data={**row.data, "image": pictures.get(picture, "")})
            yield row

    def picture(self, record: Record, folder: Path) -> Picture:
        return Base64Picture(f"of index {record.label('index')}", record.filled("image") or "")

    def left_out(self, record: Record) -> str | None:
        return "rotations of other questions" if record.integer("index") >= ROTATIONS else None

    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        index = record.integer("index")
        options = self._options(record)
        if record.filled("answer") is None:
            raise record.broken("field 'answer' is empty", "a letter; the answers of `test` are not published")
        right = LETTERS.index(right_letter(record, "answer", options))
        hint = None if record.data.get("hint") == EMPTY else record.filled("hint")
        text = record.text("question") if hint is None else f"{hint}\n{record.text('question')}"
        letters, name = LETTERS[: len(options)], f"{self.NAME}:{index}"
        for turn in range(len(options) if self.CIRCULAR else 1):
            yield Question(
                record=record,
                id=f"{name}:{turn}" if self.CIRCULAR else name,
                picture=picture,
                question=letter_question(text, options[turn:] + options[:turn]),
                answer=letters[(right - turn) % len(letters)],
                family=self._family(record),
                options=letters,
                group=name if self.CIRCULAR else None,
                unit=name,
            )

    def _options(self, record: Record) -> list[str]:
        for letter in LETTERS:
            record.get(letter)
        if record.filled(FIFTH) is not None:
            raise record.broken(f"has an option {FIFTH}", f"at most {len(LETTERS)} options")
        cells = [record.filled(letter) for letter in LETTERS]
        number = max((n for n, one in enumerate(cells, 1) if one not in (None, EMPTY)), default=0)
        if EMPTY in cells[number:]:
            self.count("whose last options are `nan`, read as empty cells")
        options = [one for one in cells[:number] if one is not None]
        if len(options) < number:
            raise record.broken("has an empty option before another", "options without gaps")
        if number < 2:
            raise record.broken(f"has {number} options", "at least A and B")
        return options

    @staticmethod
    def _family(record: Record) -> str:
        name = "L2-category" if "L2-category" in record.data else "l2-category"
        if not (family := re.sub(r"\W+", "_", record.label(name).casefold()).strip("_")):
            raise record.unfit(name, "a name with letters")
        return family


class MmbenchCircular(Mmbench):
    """MMBench, each question asked once for every option, the options moved on by one; all must be right."""

    NAME: ClassVar[str] = "mmbench-circular"
    CIRCULAR: ClassVar[bool] = True
    metric: Metric = "circular"
