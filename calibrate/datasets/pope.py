"""POPE: is there such an object in the picture? Half of the answers are yes (arXiv:2305.10355).

Format: `{dataset}_pope_{random|popular|adversarial}.json` with `question_id`, `image`, `text`, `label`; README.md and
output/ of AoiDragon/POPE. Those over COCO's val2014 are JSON lines; those over A-OKVQA (the same pictures) and GQA, in
output/seem/, are JSON arrays and have `pope_seem` in their names. On the Hub, lmms-lab/POPE names the fields
`question`, `answer` and `category`. The question is followed by what LLaVA's llava_pope_test.jsonl adds to short-answer
questions.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.choices import WORD
from calibrate.datasets.json_files import json_document, json_lines, json_records
from calibrate.datasets.metrics import Metric
from calibrate.datasets.pictures import Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record
from calibrate.errors import DatasetUnknown

FAMILIES: Final = ("random", "popular", "adversarial")
_NAME: Final = re.compile(f"(.*)_pope_(?:seem_)?({'|'.join(FAMILIES)})")
_COCO: Final = "coco"


class Pope(Benchmark):
    """POPE; families are the ways in which absent objects were chosen."""

    NAME: ClassVar[str] = "pope"
    FILES: ClassVar[tuple[str, ...]] = (
        "*_pope_*.json",
        "coco/*_pope_*.json",
        "seem/*/*_pope_*.json",
        "*/*_pope_*.json",
    )
    SEVERAL: ClassVar[bool] = True
    PICTURES: ClassVar[tuple[str, ...]] = ("val2014", "images", "images/val2014", "images/gqa")
    HUB: ClassVar[str | None] = "lmms-lab/POPE"
    metric: Metric = "yes_no"

    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        found = _NAME.match(file.name)
        if found is None:
            raise DatasetUnknown(
                f"{file}: its name says no family of POPE",
                expected=f"{{dataset}}_pope_{{{'|'.join(FAMILIES)}}}.json",
                fix="give the file the name that it was published under",
            )
        is_array = raw.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
        records = json_records(file, json_document(file, raw)) if is_array else json_lines(file, raw)
        for record in records:
            yield replace(record, data={**record.data, "category": found[2], "over": found[1]})

    def files(self, path: Path, split: str | None) -> list[Path]:
        files = super().files(path, split)
        sets = sorted({found[1] for file in files if (found := _NAME.match(file.name))})
        if len(sets) > 1:
            raise DatasetUnknown(
                f"{path}: has files of POPE over {', '.join(sets)}, whose figures are not one",
                expected="those of one of them",
                fix="give a file, or a folder with the files of one of them",
            )
        return files

    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        published = "text" in record.data or "label" in record.data
        family = record.one_of("category", FAMILIES)
        over = record.data.get("over", _COCO)
        name = f"{self.NAME}:{family}" if over == _COCO else f"{self.NAME}:{over}:{family}"
        yield Question(
            record=record,
            id=f"{name}:{record.label('question_id')}",
            picture=picture,
            question=f"{record.text('text' if published else 'question')}\n{WORD}",
            answer=record.one_of("label" if published else "answer", ("yes", "no"), any_case=True),
            family=family,
            options=("yes", "no"),
        )
