"""The results file of `vhserve evaluate`: what was asked, of which server, what it answered, and the figures.

Owns the schema, strict loading and atomic saving. Does not know how answers are obtained or counted.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from calibrate.datasets.metrics import Metric
from profiles.errors import FileUnreadable
from profiles.files import write_atomically
from profiles.head_profile import DatasetRef
from vhserve.evaluation.errors import ResultsBroken

ReplyOutcome = Literal["correct", "wrong", "off_list", "error"]
"""What became of one question: `off_list` is a reply that is none of the options, `error` a request that failed."""

Count = Annotated[int, Field(ge=0)]


class ResultModel(BaseModel):
    """Base of everything written: no unknown fields, no NaN, no change after the fact."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(ResultModel):
    """One sample's reply. `reply` is `None` when the request failed, and then `error` has the reason.

    `seconds`: from sending the request to the whole reply. `tokens`: of the reply, its end left out; `None` where the
    server does not say. Answers of one `group` count as one in circular evaluation.
    """

    id: str
    family: str
    answer: str
    reply: str | None
    outcome: ReplyOutcome
    error: str | None = None
    seconds: float = Field(ge=0)
    group: str | None = None
    tokens: int | None = None


class AccuracyFigures(ResultModel):
    """Counts of one family (or `all`): `answered = samples - errors`, `accuracy = correct / answered`, Wilson 95%."""

    family: str
    samples: Count
    answered: Count
    correct: Count
    off_list: Count
    errors: Count
    accuracy: float | None
    low: float | None
    high: float | None


class Server(ResultModel):
    """The server that answered: its model's name, and the plan that its metrics report (`None`: none).

    `adapter_of`: the model that it is a LoRA adapter of; `None`: it is none. `block_size` (tokens of a KV block) and
    `dtype` (of the weights) are what its metrics report; `None`: nothing.
    """

    base_url: str
    model: str
    adapter_of: str | None = None
    plan_digest: str | None = None
    plan_model: str | None = None
    plan_revision: str | None = None
    block_size: int | None = None
    dtype: str | None = None


class Arm(ResultModel):
    """One server's answers, and their figures per family. `seconds`: from the first request to the last answer.

    `published` has the figures of the dataset's own `metric` (`calibrate.datasets.metrics`) by family, `all` last; it
    is empty where that is accuracy. Failed requests are in none of them.
    """

    name: str
    server: Server
    seconds: float = Field(ge=0)
    figures: list[AccuracyFigures]
    metric: Metric = "accuracy"
    published: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    answers: list[Answer]

    @property
    def answered(self) -> int:
        """How many questions were answered, rightly or not."""
        return sum(answer.outcome != "error" for answer in self.answers)


class Paired(ResultModel):
    """Two arms on the samples that both answered.

    `only_first` (b) and `only_second` (c) are the flips: samples that one arm alone got right. `difference` is the
    second arm's accuracy minus the first's, with a 95% interval; `p` is McNemar's exact test of no difference.
    """

    family: str
    first: str
    second: str
    samples: Count
    both: Count
    only_first: Count
    only_second: Count
    neither: Count
    difference: float | None
    low: float | None
    high: float | None
    p: float | None


class Evaluation(ResultModel):
    """Everything that one run of `vhserve evaluate` found.

    `shared_pictures`: how many of the pictures are among those that the heads of the plan attached to were chosen by;
    `None` where that is not known.
    """

    format: Literal["vhserve.evaluation"] = "vhserve.evaluation"
    version: Literal[1] = 1
    dataset: DatasetRef
    samples: int
    broken: list[str]
    shared_pictures: Count | None = None
    seed: int
    arms: list[Arm] = Field(min_length=1, max_length=2)
    paired: list[Paired]
    arguments: dict[str, JsonValue]
    versions: dict[str, str]
    commit: str | None
    started: str

    @model_validator(mode="after")
    def _two_arms_have_two_names(self) -> Self:
        if len({arm.name for arm in self.arms}) != len(self.arms):
            raise ValueError("arms must have different names")
        return self


def save(document: BaseModel, path: Path) -> None:
    """Write a document as JSON: all of it or, when anything goes wrong, nothing.

    Raises
    ------
    FileUnwritable
        When the file cannot be written.
    """
    write_atomically(path, document.model_dump_json(indent=1) + "\n")


def load(path: Path) -> Evaluation:
    """Read a results file.

    Raises
    ------
    FileUnreadable
        When there is no such file.
    ResultsBroken
        When it is not a results file of this version; names the first field that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileUnreadable(
            f"cannot read {path}: {error}", expected="a results file", fix="give a file that vhserve evaluate wrote"
        ) from error
    try:
        return Evaluation.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ResultsBroken(
            f"{path}: {'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}",
            expected="results of vhserve evaluate, version 1",
            fix="write them again with --out",
        ) from error
