"""SEED-Bench, the part about single images: nine kinds of four-way choices (arXiv:2307.16125).

Format: SEED-Bench.json with `questions`, each with `question_id`, `question`, `choice_a` to `choice_d`, `answer`,
`data_type`, `data_id` (the image's file name) and `question_type_id`; DATASET.md of AILab-CVC/SEED-Bench. Questions
about videos are left out, whatever else their records hold, and counted. SEED-Bench-2 has other data types and is not
read. On the Hub, lmms-lab/SEED-Bench has the same fields. Asked as in docs/Evaluation.md of haotian-liu/LLaVA.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.choices import letter_question, right_letter
from calibrate.datasets.json_files import json_document, json_records
from calibrate.datasets.pictures import Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record
from calibrate.errors import DatasetBroken

TYPES: Final[Mapping[int, str]] = {
    1: "scene_understanding",
    2: "instance_identity",
    3: "instance_attributes",
    4: "instance_location",
    5: "instances_counting",
    6: "spatial_relation",
    7: "instance_interaction",
    8: "visual_reasoning",
    9: "text_understanding",
}
"""Question types about images, as DATASET.md numbers them."""
OF_VIDEOS: Final = (10, 11, 12)
"""Question types about videos."""


class SeedBench(Benchmark):
    """SEED-Bench's image part; families are its question types."""

    NAME: ClassVar[str] = "seed-bench"
    FILES: ClassVar[tuple[str, ...]] = ("SEED-Bench.json", "SEED-Bench-image.json")
    PICTURES: ClassVar[tuple[str, ...]] = ("SEED-Bench-image", "seed_bench_image", "images")
    HUB: ClassVar[str | None] = "lmms-lab/SEED-Bench"

    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        document = json_document(file, raw)
        if not isinstance(document, dict) or "questions" not in document:
            raise DatasetBroken(
                f"{file}: has no field 'questions'", expected="SEED-Bench.json as published", fix="fetch the file again"
            )
        return json_records(file, document["questions"], "question")

    def picture_name(self, record: Record) -> str:
        return record.text("data_id")

    def left_out(self, record: Record) -> str | None:
        kind = record.data.get("data_type")
        if kind is None:
            video = str(record.data.get("question_type_id")).strip() in map(str, OF_VIDEOS)
        else:
            video = isinstance(kind, str) and kind.strip().casefold() == "video"
        return "questions about videos" if video else None

    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        record.one_of("data_type", ("image", "video"), any_case=True)
        options = tuple(record.text(f"choice_{letter}") for letter in "abcd")
        family = TYPES.get(record.integer("question_type_id"))
        if family is None:
            raise record.unfit("question_type_id", f"one of {', '.join(map(str, TYPES))}, which are about images")
        yield Question(
            record=record,
            id=f"{self.NAME}:{record.label('question_id')}",
            picture=picture,
            question=letter_question(record.text("question"), options),
            answer=right_letter(record, "answer", options),
            family=family,
            options=("A", "B", "C", "D"),
        )
