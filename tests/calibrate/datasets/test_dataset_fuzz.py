"""Any dataset file, in every format: each record is asked to the letter or named in one line; nothing else happens.

What asking to the letter means is said by `dataset_formats`. A failure prints the records and hypothesis' blob.
"""

import contextlib
import re

import numpy as np
import pytest
from dataset_formats import COLOURS, FORMATS, PNG, STYLES
from documents import brief
from hypothesis import given
from hypothesis import strategies as st

from calibrate.datasets import BENCHMARKS, open_dataset
from calibrate.datasets.question_files import READERS
from profiles.errors import UserError

NAMES = sorted(FORMATS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, content in PNG.items():
        (folder / name).write_bytes(content)
    return folder


def read(form, folder):
    dataset = open_dataset(form.dataset(folder), samples=10**6, seed=0, split="all")
    return dataset, list(dataset)


def name_of(record):
    """Of a record's picture."""
    return record[next(field for field in ("image", "data_id", "img_path") if field in record)]


def refused(form, folder):
    with pytest.raises(UserError) as caught:
        read(form, folder)
    line = str(caught.value)
    assert line.isprintable(), line
    assert len(line) < 800
    return line


def test_every_reader_is_here():
    assert set(NAMES) == {suffix[1:] for suffix in READERS} | (set(BENCHMARKS) - {"mmbench-circular"})


@pytest.mark.parametrize("name", NAMES)
@brief
@given(data=st.data())
def test_records_that_fit_are_asked_to_the_letter(folder, name, data):
    form = FORMATS[name]
    records, style = data.draw(form.records), data.draw(STYLES)
    form.write(folder, records, style)
    expected = [(one, asked) for one in records for asked in form.asked(one, records)]
    if not expected:
        assert f"{len(records)} record" in refused(form, folder)
        return
    dataset, samples = read(form, folder)
    assert [(one.question, one.answer, one.options, one.family, one.box) for one in samples] == [
        asked[:-1] for _, asked in expected
    ]
    for sample, (record, asked) in zip(samples, expected, strict=True):
        colour = COLOURS[name_of(record)]
        pixels = np.asarray(sample.image)
        assert tuple(pixels[-1, -1]) == colour
        assert (pixels != colour).any() == asked.drawn
        if name in ("jsonl", "csv", "parquet"):
            assert sample.id == record.get("id", sample.id)
        assert sample.file == (None if asked.drawn else PNG[name_of(record)])
    assert dataset.broken == []
    out = sum(not form.asked(one, records) for one in records)
    assert [int(n) for note in dataset.notes for n in re.findall(r"(\d+) records? left out", note)] == [out][: out > 0]


@pytest.mark.parametrize("name", NAMES)
@brief
@given(data=st.data())
def test_a_record_that_does_not_fit_is_named(folder, name, data):
    form = FORMATS[name]
    records, style = (
        data.draw(form.records.filter(lambda some: any(form.asked(one, some) for one in some))),
        data.draw(STYLES),
    )
    number = data.draw(st.sampled_from([i for i, one in enumerate(records) if form.asked(one, records)]))
    for field, damage in sorted(form.damage.items()):
        damaged = {"damaged": {field: data.draw(damage)}}
        form.write(folder, [*records[:number], records[number] | damaged, *records[number + 1 :]], style)
        line = refused(form, folder)
        assert re.search(rf"\.\w+: {form.place(number, style)}: ", line), line
        told = {"A": "options|'answer'|empty option", "candidates": "'candidates'|options"}.get(
            field, f"'{field}'|'answer'"
        )
        assert re.search(told, line), line


@pytest.mark.parametrize("name", NAMES)
@brief
@given(data=st.data())
def test_damaged_bytes_never_get_a_traceback(folder, name, data):
    form = FORMATS[name]
    form.write(folder, data.draw(form.records), data.draw(STYLES))
    path = next(path for path in folder.iterdir() if path.name not in PNG and path.name in form.dataset(folder))
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"\n"]))
    path.write_bytes(bytes(raw))
    with contextlib.suppress(UserError):
        read(form, folder)
