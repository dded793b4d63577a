"""PointQA LookTwice: how many of these are there? Over Visual Genome, with a box around one of them (arXiv:2011.13681).

Two formats are read. The authors' own (princetonvisualai/pointingqa, Datasets/LookTwiceQA): looktwiceqa_dataset.json
maps the ids of images to lists of records with `id`, `obj_question`, `super_question`, `general_question`, `ans` and
`bbox` (`x`, `y`, `w`, `h`), and looktwiceqa_{train,val,test}_imgs.json lists the images of a split. ViP-LLaVA's:
pointQA_twice_test.json (mucai/ViP-LLaVA-Instruct on the Hub), a list of records with `id`, `image`, the same questions,
`answer` and `bboxes` (`[[x0, y0, x1, y1]]`). Neither data file was at hand, and the README of the first is a PDF: the
fields are those that the scripts which made it write and that public code reads, of the second those that ViP-LLaVA's
llava/visual_prompt_organizer.py reads.

The six settings of the paper (3.1, 4.1) are six question families: general, object and super questions, each as it is
and with the box drawn. Drawn boxes are asked in ViP-LLaVA's words, which point at the rectangle. The paper does not say
in which words the plain settings were asked; here that sentence is left out of them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from calibrate.datasets.benchmark import Benchmark
from calibrate.datasets.choices import WORD
from calibrate.datasets.json_files import json_document, json_records
from calibrate.datasets.pictures import MarkedPicture, Picture
from calibrate.datasets.questions import Question
from calibrate.datasets.records import Record, finite, printable, read_bytes
from calibrate.datasets.sample import Box
from calibrate.errors import DatasetBroken

NUMBERS: Final = ("1", "2", "3", "4", "5", "6", "7")
QUESTIONS: Final = {"general": "general_question", "object": "obj_question", "super": "super_question"}
POINTER: Final = " The exemplary object is within the rectangle."
_CORNERS: Final = "[[x0, y0, x1, y1]] in pixels with x0 < x1 and y0 < y1"
_SIDES: Final = "x, y, w and h in pixels, w and h above 0"


class PointQA(Benchmark):
    """PointQA LookTwice; the six families of one record are taken together."""

    NAME: ClassVar[str] = "pointqa"
    FILES: ClassVar[tuple[str, ...]] = ("looktwiceqa_dataset.json", "pointQA_twice_{split}.json")
    PICTURES: ClassVar[tuple[str, ...]] = ("VG_100K", "VG_100K_2", "vg/VG_100K", "vg/VG_100K_2", "images")
    PUBLISHED: ClassVar[tuple[str, ...]] = ("test", "val", "train")

    def records(self, file: Path, raw: bytes, split: str | None) -> Iterator[Record]:
        document = json_document(file, raw)
        if isinstance(document, dict):
            return self._of_images(file, document, split or self.PUBLISHED[0])
        return json_records(file, document)

    def _of_images(self, file: Path, document: dict[str, object], split: str) -> Iterator[Record]:
        listed = file.with_name(f"looktwiceqa_{split}_imgs.json")
        images = json_document(listed, read_bytes(listed))
        if not isinstance(images, list):
            raise DatasetBroken(f"{listed}: is no list", expected="a list of image ids", fix="fetch the file again")
        for image in images:
            if str(image) not in document:
                raise DatasetBroken(
                    f"{listed}: image {printable(str(image))} is not in {file.name}",
                    expected="its questions",
                    fix="fetch both again",
                )
            for record in json_records(file, document[str(image)], f"image {printable(str(image))}, question"):
                yield replace(record, data={**record.data, "image": f"{image}.jpg"})

    def questions(self, record: Record, picture: Picture) -> Iterator[Question]:
        corners = "bboxes" in record.data
        box = _corners(record) if corners else _sides(record)
        answer = record.one_of("answer" if corners else "ans", NUMBERS)
        name = f"{self.NAME}:{Path(record.text('image')).stem}:{record.number}"
        for family, field in QUESTIONS.items():
            question = record.text(field)
            for drawn in (False, True):
                yield Question(
                    record=record,
                    id=f"{name}:{family}{'_box' if drawn else ''}",
                    picture=MarkedPicture(picture, box) if drawn else picture,
                    question=f"{question}{POINTER if drawn else ''}\n{WORD}",
                    answer=answer,
                    family=f"{family}{'_box' if drawn else ''}",
                    options=NUMBERS,
                    box=box,
                    unit=name,
                )


def _corners(record: Record) -> Box:
    boxes = record.get("bboxes")
    if not isinstance(boxes, list) or len(boxes) != 1:
        raise record.unfit("bboxes", _CORNERS)
    return record.box("bboxes", boxes[0], _CORNERS)


def _sides(record: Record) -> Box:
    box = record.get("bbox")
    sides = [finite(box.get(side)) for side in "xywh"] if isinstance(box, dict) else [None]
    if any(side is None for side in sides):
        raise record.unfit("bbox", _SIDES)
    x, y, w, h = (side for side in sides if side is not None)
    return record.box("bbox", [x, y, x + w, y + h], _SIDES)
