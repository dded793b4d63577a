"""Engines that tests compare with the oracle: a plan and how it is served, by name; each is started once.

Runs and compares; the tests say how close an engine must be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from adapters import make_adapter
from engine_host import Answer, EngineHost, EngineOutcome, Job, Round
from exactness import PROMPTS
from oracle import Oracle, TinyModel

from profiles.names import Granularity
from profiles.pruning_plan import Compensation, PruningPlan
from vhserve.engine.checks.admission_choice import Admission
from vhserve.engine.checks.surgery_choice import AskedSurgery

Heads = Mapping[int, Sequence[int]]
"""Query heads by layer."""


@dataclass(frozen=True)
class Case:
    """A plan, and the engine that serves it.

    Attributes
    ----------
    other
        Heads of further treatments, by name.
    mean
        Whether removed heads are compensated for by (random) means.
    rounds, settings, patches, probe, surgery, admission
        As in `engine_host.Job`.
    """

    model: str
    removed: Heads = field(default_factory=dict)
    text_only: Heads = field(default_factory=dict)
    granularity: Granularity = "query_head"
    other: Mapping[str, Heads] = field(default_factory=dict)
    mean: bool = False
    rounds: tuple[Round, ...] = (Round(PROMPTS),)
    settings: dict[str, Any] = field(default_factory=dict)
    patches: tuple[str, ...] = ()
    probe: str = ""
    surgery: AskedSurgery = "auto"
    admission: Admission = "reckon"

    def plan(self, model: TinyModel) -> PruningPlan:
        heads, compensation = pairs(self.removed), Compensation()
        if self.mean:
            means = np.random.default_rng(5).normal(size=(len(heads), model.geometry.head_size))
            compensation = Compensation(method="mean", means=means.astype(np.float32))
        return PruningPlan.manual(
            model.ref,
            model.geometry,
            removed=heads,
            text_only=pairs(self.text_only),
            **{name: pairs(own) for name, own in self.other.items()},
            granularity=self.granularity,
            compensation=compensation,
        )

    def job(self, model: TinyModel) -> Job:
        plan = self.plan(model).model_dump(mode="json")
        return Job(
            str(model.path),
            plan,
            self.rounds,
            self.settings,
            self.patches,
            self.probe,
            self.surgery,
            self.admission,
        )


class EngineRuns:
    """Outcomes of cases by name."""

    def __init__(self, host: EngineHost, models: Mapping[str, TinyModel], cases: Mapping[str, Case]) -> None:
        self._host, self._models, self._cases = host, models, cases

    def __call__(self, name: str) -> EngineOutcome:
        case = self._cases[name]
        outcome = self._host.run(case.job(self._models[case.model]))
        assert outcome.failure is None, outcome.failure[1]
        return outcome

    def worst_difference(self, name: str) -> float:
        """Largest difference in log-probability between a case's answers and what its plan should compute."""
        case, outcome = self._cases[name], self(name)
        model = self._models[case.model]
        worst = worst_difference(model.oracle, case.plan(model), case.rounds, outcome.answers)
        print(f"{name}: largest difference {worst:.1e}")
        return worst


def pairs(heads: Heads) -> list[tuple[int, int]]:
    """Heads as (layer, head)."""
    return [(layer, head) for layer, row in heads.items() for head in row]


def worst_difference(
    oracle: Oracle, plan: PruningPlan, rounds: Sequence[Round], answers: Sequence[Sequence[Answer]]
) -> float:
    """Largest difference in log-probability over all answers of an engine."""
    return max(
        oracle.difference(prompt, answer, plan)
        for asked, answered in zip(rounds, answers, strict=True)
        for prompt, answer in zip(asked.prompts, answered, strict=True)
    )


class AdapterDifferences(NamedTuple):
    """Largest differences of an engine that takes adapters from the masked model.

    Attributes
    ----------
    without, adapted
        Of answers without the adapter, and of those with it from the model into which it was merged.
    telling
        Of answers with the adapter from the model without it.
    """

    without: float
    adapted: float
    telling: float


def adapter_differences(
    host: EngineHost,
    model: TinyModel,
    plan: PruningPlan,
    rounds: tuple[Round, ...],
    *,
    patches: tuple[str, ...] = (),
    **settings: Any,
) -> AdapterDifferences:
    """Write an adapter and a merged model beside a model, and ask an engine with its plan; `settings` of `vllm.LLM`."""
    folder = model.path.parent
    make_adapter(model.path, folder / "adapter", folder / "merged")
    settings |= {"enable_lora": True, "max_lora_rank": 8}
    content, probe = plan.model_dump(mode="json"), "adapters:answers_with_adapter"
    outcome = host.run(Job(str(model.path), content, rounds, settings, patches, probe))
    assert outcome.failure is None, outcome.failure[1]
    merged = replace(model, path=folder / "merged")
    worst = AdapterDifferences(
        worst_difference(model.oracle, plan, rounds, outcome.answers),
        worst_difference(merged.oracle, plan, rounds, [outcome.probed]),
        worst_difference(model.oracle, plan, rounds, [outcome.probed]),
    )
    print(f"largest difference {worst.without:.1e} without the adapter, {worst.adapted:.1e} with it")
    return worst
