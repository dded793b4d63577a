"""POPE: is there such an object in the picture? Half of the answers are yes (arXiv:2305.10355).

Format: JSON lines `{dataset}_pope_{random|popular|adversarial}.json` with `question_id`, `image`, `text`, `label`, over
COCO's val2014; README.md and output/coco/ of AoiDragon/POPE. On the Hub, lmms-lab/POPE names them `question`, `answer`
and `category`. The question is followed by what LLaVA's llava_pope_test.jsonl adds to short-answer questions.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.choices import WORD
from calibrate.datasets.metrics import Metric
from calibrate.datasets.pictures import Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record, json_lines
from calibrate.errors import DatasetUnknown

FAMILIES: Final = ("random", "popular", "adversarial")


class Pope(Benchmark):
    """POPE; families are the ways in which absent objects were chosen."""

    NAME: ClassVar[str] = "pope"
    FILES: ClassVar[tuple[str, ...]] = ("*_pope_*.json", "coco/*_pope_*.json")
    SEVERAL: ClassVar[bool] = True
    PICTURES: ClassVar[tuple[str, ...]] = ("val2014", "images")
    HUB: ClassVar[str | None] = "lmms-lab/POPE"
    metric: ClassVar[Metric] = "yes_no"

    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        found = re.search(f"_pope_({'|'.join(FAMILIES)})", file.name)
        if found is None:
            raise DatasetUnknown(
                f"{file}: its name says no family of POPE",
                expected=f"{{dataset}}_pope_{{{'|'.join(FAMILIES)}}}.json",
                fix="give the file the name that it was published under",
            )
        for record in json_lines(file, raw):
            yield replace(record, data={**record.data, "category": found[1]})

    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        published = "text" in record.data or "label" in record.data
        family = record.one_of("category", FAMILIES)
        yield Question(
            record=record,
            id=f"{self.NAME}:{family}:{record.label('question_id')}",
            picture=picture,
            question=f"{record.text('text' if published else 'question').strip()}\n{WORD}",
            answer=record.one_of("label" if published else "answer", ("yes", "no")),
            family=family,
            options=("yes", "no"),
        )
