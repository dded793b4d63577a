"""`vhserve evaluate` as a user meets it: files, pairs and mistakes, against a scripted endpoint over real HTTP.

The scripted endpoint knows the right answers, so that every figure is known beforehand.
"""

import json
from pathlib import Path

import pytest
from PIL import Image
from result_factories import GEOMETRY, MODEL, plan
from scripted_endpoint import Reply, endpoint, question_of

from calibrate.datasets import open_dataset
from calibrate.datasets.synthetic import FAMILIES, samples
from calibrate.stats.intervals import difference_interval, wilson
from calibrate.stats.paired_tests import mcnemar_exact
from profiles.pruning_plan import PruningPlan
from profiles.store import load_plan, save
from vhserve.cli import main
from vhserve.evaluation.chat import user_message
from vhserve.evaluation.results import load

N = 32
SAMPLES = list(samples(N))
PLACE = {json.dumps(user_message(sample.image, sample.question)): n for n, sample in enumerate(SAMPLES)}


def plan_info(plan: PruningPlan, revision: str = MODEL.revision) -> str:
    return f'vhserve_plan_info{{digest="{plan.digest}",model="m",revision="{revision}"}} 1.0\n'


def served_with(block_size: int, dtype: str) -> str:
    return f'vhserve_server_info{{block_size="{block_size}",dtype="{dtype}",kv_cache_dtype="fp8"}} 1.0\n'


def right_but(wrong: set[int], failing: frozenset[int] = frozenset()):
    def answer(request) -> Reply:
        place = PLACE[json.dumps(request["messages"][0])]
        if place in failing:
            return 500
        return "none of these" if place in wrong else SAMPLES[place].answer

    return answer


def evaluate(*flags: object) -> int:
    return main(["evaluate", "--dataset", "synthetic", "--samples", str(N), *map(str, flags)])


def refused(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    assert evaluate(*flags) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    return told.err


def test_one_server_gives_figures_per_family(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    with endpoint(right_but({0, 8, 9}, frozenset({1}))) as here:
        assert evaluate("--base-url", here.base_url, "--out", out, "--concurrency", 5) == 0
    told = capsys.readouterr()
    assert "1 request failed" in told.err
    assert "status 500" in told.err
    results = load(out)
    (arm,) = results.arms
    figures = {one.family: one for one in arm.figures}
    assert list(figures) == [*FAMILIES, "all"]
    general, boxed = figures[FAMILIES[0]], figures[FAMILIES[1]]  # samples 0, 8, 16, 24 and 1, 9, 17, 25
    assert (general.correct, general.off_list, general.errors) == (2, 2, 0)
    assert (boxed.correct, boxed.off_list, boxed.errors, boxed.answered) == (2, 1, 1, 3)
    assert (figures["all"].correct, figures["all"].answered) == (28, 31)
    assert (figures["all"].low, figures["all"].high) == wilson(28, 31)
    assert f"{28 / 31:.1%}" in told.out
    assert [one.id for one in arm.answers] == [sample.id for sample in SAMPLES]
    assert results.arguments["concurrency"] == 5
    assert results.versions["python"]
    assert here.most_in_flight <= 5


def test_nothing_answered_is_exit_code_1_and_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, out = tmp_path / "plan.json", tmp_path / "results.json"
    save(plan(), path)
    before = path.read_bytes()
    with endpoint(right_but(set(), frozenset(range(N)))) as broken, endpoint(right_but(set())) as fine:
        few = ("--samples", 3, "--json", "--out", out, "--attach", path)
        assert evaluate("--base-url", broken.base_url, *few) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "failed" in line]
        assert "baseline answered nothing: 3 requests failed" in line
        assert evaluate("--base-url", fine.base_url, "--compare", broken.base_url, *few) == 1
    assert path.read_bytes() == before
    assert [one.answered for one in load(out).arms] == [3, 0]


def test_a_server_that_is_never_right_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(right_but(set(range(N)))) as here:
        assert evaluate("--base-url", here.base_url) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert f"baseline answers none of {N} samples right" in line
    with endpoint(right_but(set(range(0, N, len(FAMILIES))))) as here:  # families take turns
        assert evaluate("--base-url", here.base_url) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert f"answers no sample of {FAMILIES[0]} ({N // len(FAMILIES)}) right" in line


def test_two_servers_are_paired(capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint(right_but({0, 1, 2})) as first, endpoint(right_but({2, 3}), metrics=plan_info(plan())) as second:
        assert evaluate("--base-url", first.base_url, "--compare", second.base_url, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert [arm["name"] for arm in data["arms"]] == ["baseline", "pruned"]
    paired = data["paired"][-1]
    assert (paired["both"], paired["only_first"], paired["only_second"], paired["neither"]) == (N - 4, 1, 2, 1)
    assert paired["p"] == mcnemar_exact(1, 2)
    assert [paired["low"], paired["high"]] == pytest.approx(difference_interval(N - 4, 1, 2, 1))


def test_earlier_results_are_the_first_arm(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "earlier.json"
    with endpoint(right_but({0})) as here:
        assert evaluate("--base-url", here.base_url, "--out", out) == 0
    with endpoint(right_but({5, 6})) as here:
        assert evaluate("--base-url", here.base_url, "--against", out) == 0
        told = capsys.readouterr().out
        assert "baseline 2 against baseline 1" in told
        before = len(here.seen)
        for other, theirs, ours in (
            (("--seed", 1), "seed 0", "seed 1"),
            (("--families", "object,super"), f"families {','.join(FAMILIES)}", "families object,super"),
            (("--samples", 16), f"samples {N}", "samples 16"),
        ):
            said = " ".join(refused(capsys, "--base-url", here.base_url, "--against", out, *other).split())
            assert f"holds results of {theirs}, and this run is of {ours}; expected" in said, "what differs alone"
        assert len(here.seen) == before  # refused before anything is asked


def test_attached_figures_are_in_the_plan_and_its_digest_stays(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    save(plan(), path)
    stock = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="9"} 1.0\n'  # says nothing of its dtype
    served = plan_info(plan()) + served_with(32, "bfloat16")
    with endpoint(right_but({0}), metrics=stock) as bare, endpoint(right_but({0, 1}), metrics=served) as pruned:
        assert evaluate("--base-url", bare.base_url, "--compare", pruned.base_url, "--attach", path) == 0
        assert evaluate("--base-url", pruned.base_url, "--attach", path) == 0  # replaces, adds nothing
    attached = load_plan(path)
    assert attached.digest == plan().digest
    measured = {(one.arm, one.family): one for one in attached.measured}
    assert len(measured) == len(attached.measured) == 2 * (len(FAMILIES) + 1)
    assert (measured["baseline", "all"].correct, measured["pruned", "all"].correct) == (N - 1, N - 2)
    assert {one.dataset for one in attached.measured} == {"synthetic"}
    said = {(one.arm, one.block_size, one.dtype) for one in attached.measured}
    assert said == {("baseline", 16, None), ("pruned", 32, "bfloat16")}


@pytest.mark.parametrize(("split", "shared"), [("choosing", 0), ("measuring", N), ("all", N // 2)])
def test_pictures_that_heads_were_chosen_by_are_counted_and_said(
    split: str, shared: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, out = tmp_path / "plan.json", tmp_path / "results.json"
    chosen_on = open_dataset("synthetic", samples=N, seed=0, split=split).ref()
    save(plan().model_copy(update={"chosen_on": chosen_on}), path)
    with endpoint(right_but(set()), metrics=plan_info(load_plan(path))) as here:
        assert evaluate("--base-url", here.base_url, "--attach", path, "--out", out) == 0
    assert load(out).shared_pictures == shared
    assert {one.shared_pictures for one in load_plan(path).measured} == {shared}
    said = [line for line in capsys.readouterr().err.splitlines() if "heads were chosen by" in line]
    assert len(said) == bool(shared)
    assert all(f"by {shared} of the {N} pictures that are measured on (plan {path})" in line for line in said)


def test_accuracy_that_does_not_see_evicted_heads_is_said_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    heads = [f'vhserve_heads{{stage="late",treatment="{name}"}} {n}.0\n' for name, n in (("evict", 3), ("evict:4", 2))]
    evicting, other = plan_info(plan()) + "".join(heads), plan_info(plan()) + heads[0].replace("evict", "text_only")
    out = tmp_path / "results.json"
    none: set[int] = set()
    for metrics, wrong, seen in ((evicting, none, False), (evicting, {0}, True), (other, none, True), ("", none, True)):
        with endpoint(right_but(wrong), metrics=metrics) as here:
            assert evaluate("--base-url", here.base_url, "--out", out) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "evicts" in line]
        assert len(said) == (not seen)
        assert all("evicts 5 heads" in line and f"each of its {N} replies" in line for line in said)
        lengths = {answer.tokens for arm in load(out).arms for answer in arm.answers}
        assert lengths == ({1, 3} if wrong else {1})  # "none of these"


def test_figures_of_another_plan_are_not_attached(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save(PruningPlan.manual(MODEL, GEOMETRY, removed=[(2, 1)]), path)
    before = path.read_bytes()
    for metrics in (plan_info(plan()), plan_info(load_plan(path), "other")):
        with endpoint(metrics=metrics) as here:
            assert str(path) in refused(capsys, "--base-url", here.base_url, "--attach", path).replace("\n", "")
            assert not here.seen
    assert path.read_bytes() == before


def test_figures_of_an_adapter_are_not_the_plan_s(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    save(plan(), tmp_path / "plan.json")
    before = (tmp_path / "plan.json").read_bytes()
    words = ("--attach", tmp_path / "plan.json", "--model")
    with endpoint(metrics=plan_info(plan()), adapter="polite") as here:
        said = refused(capsys, "--base-url", here.base_url, *words, "polite").replace("\n", " ")
        assert "polite" in said
        assert "an adapter of m; expected the model without an adapter; give --model m" in said
        assert not here.seen
        assert (tmp_path / "plan.json").read_bytes() == before
        assert evaluate("--base-url", here.base_url, "--model", "polite") == 0  # what is attached nowhere
        assert evaluate("--base-url", here.base_url, *words, "m") == 0


def test_a_dataset_file_is_asked_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = []
    for number, sample in enumerate(SAMPLES[:3]):
        sample.image.save(tmp_path / f"{number}.png")
        lines.append({"image": f"{number}.png", "question": f"Which number is {number}?", "answer": str(number)})
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    with endpoint(lambda request: question_of(request).rstrip("?").split()[-1]) as here:
        assert main(["evaluate", "--base-url", here.base_url, "--dataset", str(file), "--samples", "3", "--json"]) == 0
    (arm,) = json.loads(capsys.readouterr().out)["arms"]
    assert arm["figures"][-1]["correct"] == 3


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"format": "vhserve.evaluation"')
    with endpoint(models=("one", "two")) as here:
        assert "one, two" in refused(capsys, "--base-url", here.base_url)
        assert "three" in refused(capsys, "--base-url", here.base_url, "--model", "three")
        address = ("--base-url", here.base_url, "--model", "one")
        assert "broken.json" in refused(capsys, *address, "--against", broken)
        assert "missing.json" in refused(capsys, *address, "--against", tmp_path / "missing.json")
        assert "no-folder" in refused(capsys, *address, "--out", tmp_path / "no-folder" / "x.json")
        assert "NO_SUCH_KEY" in refused(capsys, *address, "--api-key-env", "NO_SUCH_KEY")
        assert "--compare" in refused(capsys, *address, "--compare", here.base_url, "--against", broken)
        assert "nothing.jsonl" in refused(capsys, *address, "--dataset", tmp_path / "nothing.jsonl")
        assert "colours" in refused(capsys, *address, "--families", "colours")
        assert not here.seen
        gone = here.base_url
    assert "refused" in refused(capsys, "--base-url", gone)
    assert "127.0.0.1:8000/v1" in refused(capsys, "--base-url", "localhost:8000")


def asked(folder: Path, name: str, source: str, records: object) -> tuple[int, Path]:
    """Exit code of evaluating a file of records against a server that says 2, and where the results are."""
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    text = "\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records)
    (folder / name).write_text(text, encoding="utf-8")
    with endpoint(lambda request: "2") as here:
        flags = ["--base-url", here.base_url, "--split", "all", "--out", str(folder / "out.json")]
        return main(["evaluate", "--dataset", source.format(folder / name), *flags]), folder / "out.json"


def test_records_without_a_family_are_one_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    records = [{"image": "a.png", "question": "?", "answer": answer} for answer in "223"]
    code, out = asked(tmp_path, "mine.jsonl", "{}", records)
    assert code == 0
    assert [(one.family, one.correct, one.samples) for one in load(out).arms[0].figures] == [("all", 2, 3)]
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "all" in line]
    assert row.count("66.7%") == 1
    code, out = asked(tmp_path, "mine.jsonl", "{}", [records[0] | {"family": "b"}, *records[1:]])
    assert [(one.family, one.correct, one.samples) for one in load(out).arms[0].figures] == [("b", 1, 1), ("all", 2, 3)]


def test_pope_over_gqa_is_asked(tmp_path: Path) -> None:
    records = [{"question_id": i, "image": "a.png", "text": "Is it?", "label": ("Yes", "no")[i % 2]} for i in range(4)]
    code, out = asked(tmp_path, "gqa_pope_seem_random.json", "pope:{}", records)
    assert code == 0
    assert [answer.answer for answer in load(out).arms[0].answers] == ["yes", "no"] * 2


def test_what_a_dataset_leaves_out_is_said_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    question = dict.fromkeys(("question", "choice_a", "choice_b", "choice_c", "choice_d"), "x") | {"answer": "A"}
    question |= {"data_type": "image", "data_id": "a.png", "question_type_id": 1}
    questions = [question | {"question_id": i} for i in range(100)] + [{"data_type": "video"}] * 3
    questions[7] = questions[7] | {"data_id": "gone.png"}
    code, _ = asked(tmp_path, "SEED-Bench.json", "seed-bench:{}", {"questions": questions})
    assert code == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vhserve: note: dataset")]
    assert notes == [
        "vhserve: note: dataset seed-bench: 3 records left out: questions about videos",
        "vhserve: note: dataset seed-bench: left out: question 7: image gone.png is missing",
    ]


def test_when_no_picture_is_there_it_says_of_how_many(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _ = asked(tmp_path, "mine.jsonl", "{}", [{"image": "gone.png", "question": "?", "answer": "2"}] * 3)
    assert code == 2
    assert "3 of 3 images are broken" in capsys.readouterr().err
