"""Published datasets by Hub id: rows as the Hub has them, from folders that the library saved, and no network."""

import builtins
import sys

import pytest
from PIL import Image
from published_datasets import mmbench_rows, opened

from calibrate.datasets import BENCHMARKS, open_dataset
from calibrate.errors import DatasetLibraryMissing, DatasetOffline, DatasetUnknown, SplitUnknown


def test_without_the_library_a_hub_id_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refusing(name, *rest, **named):
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'")
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(DatasetLibraryMissing, match=r"pip install 'vhserve\[datasets\]'"):
        open_dataset("pope:lmms-lab/POPE", samples=1, seed=0)
    with pytest.raises(DatasetUnknown, match="not on the Hub with its pictures"):
        open_dataset("pointqa:mucai/ViP-LLaVA-Instruct", samples=1, seed=0)


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("datasets")


def hub_rows():
    """Rows as the Hub has them, with the names of columns that differ from the files'."""
    image = Image.new("RGB", (48, 32), (200, 30, 30))
    choices = dict.fromkeys(("choice_a", "choice_b", "choice_c", "choice_d"), "x") | {"answer": "D"}
    mm = [{**row, "index": str(row["index"]), "L2-category": row["l2-category"]} for row in mmbench_rows()]
    for row in mm:
        del row["l2-category"]
    options = {"option0": "Yes", "option1": "No", "option2": "N/A", "option3": "N/A", "correct_choice": "B"}
    return {
        "pope": [
            {"question_id": str(i), "question": "Is it?", "answer": "no", "category": "popular", "image": image}
            for i in range(3)
        ],
        "seed-bench": [
            {**choices, "question": "?", "question_id": str(i), "question_type_id": 1, "data_type": "image"}
            | {"image": [image, image]}
            for i in range(3)
        ],
        "q-bench": [
            {"id": i, "question": "?", **options, "question_type": 0, "question_concern": 3, "image": image}
            for i in range(3)
        ],
        "mmbench": [{**row, "image": image} for row in mm],
        "mmbench-circular": [{**row, "image": image} for row in mm],
    }


@pytest.mark.parametrize("name", sorted(name for name, kind in BENCHMARKS.items() if kind.HUB))
@pytest.mark.parametrize("how", ["dictionary", "one", "parquet"])
def test_rows_as_on_the_hub_from_a_local_folder(tmp_path, library, name, how):
    rows, split, folder = hub_rows()[name], BENCHMARKS[name].HUB_SPLIT, tmp_path / "saved"
    table = library.Dataset.from_list(rows)
    if how == "dictionary":
        library.DatasetDict({split: table}).save_to_disk(str(folder))
        with pytest.raises(SplitUnknown, match="middle"):
            opened(name, folder, split="middle")
    elif how == "one":
        table.save_to_disk(str(folder))
    else:
        (folder / "data").mkdir(parents=True)
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    dataset = opened(name, folder)
    samples = list(dataset)
    assert len(samples) == {"mmbench": 4, "mmbench-circular": 13}.get(name, 3)
    assert all(one.image.getpixel((3, 3)) == (200, 30, 30) for one in samples)
    assert samples[0].answer == {"pope": "no", "seed-bench": "D", "q-bench": "B"}.get(name, "C")
    assert dataset.ref() == opened(name, folder).ref()
    assert (dataset.ref().split, dataset.ref().settings["published_split"]) == ("all", split)


def test_offline_says_so(library, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DatasetOffline, match=r"docs/datasets\.md"):
        open_dataset("pope:lmms-lab/POPE", samples=1, seed=0)
