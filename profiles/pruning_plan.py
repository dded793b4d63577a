"""The pruning plan: one treatment for every query head, and what was measured with it.

Does not know how heads are ranked nor what a KV cache can hold (`profiles.planning`).
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from profiles import canonical
from profiles.arrays import Float32Array
from profiles.chat_template import TemplateRef
from profiles.errors import ProtectedHeadTreated, SplitGroup, WrongShape, WrongValue
from profiles.geometry import ModelGeometry, ModelRef, Name, stage_layers
from profiles.head_profile import DatasetRef, check_rows
from profiles.image_spans import OLD_RULE, RULE, SpanRule
from profiles.measurement import Measurement
from profiles.names import CompensationMethod, Granularity, TreatmentName
from profiles.selection import Selection, counts_by_budget
from profiles.strict import Strict, defect
from profiles.treatments import FULL, REMOVED, TEXT_ONLY, TREATMENTS

PLAN_FORMAT: Final = "vhserve.pruning-plan"


def _registered(name: str) -> str:
    if name not in TREATMENTS:
        *others, last = map(repr, TREATMENTS)
        raise defect(WrongValue, "", f"is {name!r:.60}", expected=f"{', '.join(others)} or {last}")
    return name


RegisteredTreatment = Annotated[TreatmentName, AfterValidator(_registered)]


class Compensation(Strict):
    """What stands in for a removed head's output.

    Attributes
    ----------
    method
        ``none``: zero; ``mean``: its mean output, folded into the bias of `o_proj`.
    means
        ``[removed heads][head_size]`` in (layer, head) order; None with ``none``.
    """

    method: CompensationMethod = "none"
    means: Float32Array | None = None


def rule_for(treatments: Iterable[Iterable[TreatmentName]]) -> SpanRule | None:
    """Field `image_spans` of a new plan: this release's rule, or nothing where no head depends on one."""
    return RULE if any(TREATMENTS[name].is_masked for row in treatments for name in row) else None


class PruningPlan(Strict):
    """What to serve; see FORMAT.md.

    Attributes
    ----------
    profile_digest
        Digest of the profile that the plan was made from; None for plans made by hand.
    treatments
        ``[layer][query head]``.
    block_size
        Tokens of the KV blocks that the plan was made for, which text-only heads save whole; None: it does not say.
    chosen_on
        Samples that the profile was made of, where it records their pictures; else None.
    chat_template
        Of the profile's prompts; None: it does not say.
    image_backend
        Which of transformers' backends resized the profile's pictures; None: it does not say.
    image_spans
        What of a prompt an image takes up, for heads that do not see all of it; None: `image_spans.OLD_RULE`.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset(
        {"block_size", "chosen_on", "chat_template", "image_backend", "image_spans"}
    )

    format: Literal["vhserve.pruning-plan"] = PLAN_FORMAT
    version: Literal[1] = 1
    model: ModelRef
    geometry: ModelGeometry
    profile_digest: str | None = None
    selection: Selection
    granularity: Granularity
    treatments: list[list[RegisteredTreatment]]
    compensation: Compensation = Compensation()
    block_size: PositiveInt | None = None
    chosen_on: DatasetRef | None = None
    chat_template: TemplateRef | None = None
    image_backend: Name | None = None
    image_spans: SpanRule | None = None
    measured: list[Measurement] = Field(default_factory=list)
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_rows(self.treatments, self.geometry, "treatments")
        self._check_protected()
        self._check_groups()
        self._check_means()
        if self.selection.method != "manual":
            self._check_selection()
        return self

    def _check_protected(self) -> None:
        for index, (layer, head) in enumerate(self.selection.protected):
            if layer >= self.geometry.layers or head >= self.geometry.query_heads:
                path, found = f"selection.protected[{index}]", f"is head {head} of layer {layer}"
                raise defect(WrongValue, path, found, expected="a head of the model")
            treatment = self.treatments[layer][head]
            if treatment != FULL.name:
                path, found = f"treatments[{layer}][{head}]", f"is {treatment}, but selection.protected lists the head"
                fix = "make the plan again with a smaller budget or a lower --protect-top"
                raise defect(ProtectedHeadTreated, path, found, expected=FULL.name, fix=fix)

    def _check_groups(self) -> None:
        if self.granularity == "query_head":
            return
        for layer, row in enumerate(self.treatments):
            for kv_head in range(self.geometry.kv_heads):
                group = self.geometry.group(kv_head)
                if len({row[head] for head in group}) > 1:
                    path, found = f"treatments[{layer}]", f"treats heads {group[0]} to {group[-1]} differently"
                    expected = f"one treatment for the group of KV head {kv_head} (granularity kv_group)"
                    raise defect(SplitGroup, path, found, expected=expected)

    def _check_means(self) -> None:
        means, path = self.compensation.means, "compensation.means"
        if (means is None) != (self.compensation.method == "none"):
            found = f"is {'null' if means is None else 'given'} with method {self.compensation.method}"
            raise defect(WrongValue, path, found, expected="means with method mean, and null with method none")
        shape = (len(self.uncomputed), self.geometry.head_size)
        if means is not None and means.shape != shape:
            expected = f"{list(shape)} (removed heads, head size)"
            raise defect(WrongShape, path, f"has shape {list(means.shape)}", expected=expected)

    def _check_selection(self) -> None:
        stage = stage_layers(self.selection.stage, self.geometry.layers)
        treated = [head for name in reversed(TREATMENTS) if name != FULL.name for head in self.heads(name)]
        outside = [head for head in treated if head[0] not in stage]
        if outside:
            found = f"is {self.selection.stage}, but layer {outside[0][0]} is treated"
            raise defect(WrongValue, "selection.stage", found, expected="the stage of every treated head")
        if (first := self.selection.exit_layer) is not None:
            blind = (TEXT_ONLY.name, REMOVED.name)
            if first >= self.geometry.layers or any(one not in blind for row in self.treatments[first:] for one in row):
                expected = "a layer from which on every head is text-only or removed"
                raise defect(WrongValue, "selection.exit_layer", f"is {first}", expected=expected)
        for treatment in TREATMENTS.values():
            count, claimed = len(self.heads(treatment.name)), self.selection.count(treatment)
            if claimed is not None and claimed != count:
                path = f"selection.{treatment.budget}"
                raise defect(WrongValue, path, f"is {claimed}", expected=f"{count}, as in treatments")

    @classmethod
    def unpruned(cls, model: ModelRef, geometry: ModelGeometry) -> Self:
        """The plan that changes nothing."""
        return cls.manual(model, geometry)

    @classmethod
    def manual(
        cls,
        model: ModelRef,
        geometry: ModelGeometry,
        *,
        granularity: Granularity = "query_head",
        compensation: Compensation = Compensation(),  # noqa: B008  # frozen
        block_size: int | None = None,
        **heads: Iterable[tuple[int, int]],
    ) -> Self:
        """A plan from lists of ``(layer, head)`` by treatment, such as ``removed=…``; every other head is full."""
        treatments: list[list[TreatmentName]] = [[FULL.name] * geometry.query_heads for _ in range(geometry.layers)]
        given = {name: set(heads.pop(name, ())) for name in TREATMENTS}
        if heads:
            raise TypeError(f"unknown treatments {sorted(heads)}: expected some of {list(TREATMENTS)}")
        for name, chosen in given.items():
            for layer, head in chosen:
                treatments[layer][head] = name
        return cls(
            model=model,
            geometry=geometry,
            selection=Selection(method="manual", **counts_by_budget({name: len(own) for name, own in given.items()})),
            granularity=granularity,
            treatments=treatments,
            compensation=compensation,
            block_size=block_size,
            image_spans=rule_for(treatments),
        )

    def heads(self, treatment: TreatmentName) -> list[tuple[int, int]]:
        """Heads ``(layer, head)`` of a treatment, in order."""
        return [
            (layer, head)
            for layer, row in enumerate(self.treatments)
            for head, given in enumerate(row)
            if given == treatment
        ]

    @property
    def uncomputed(self) -> list[tuple[int, int]]:
        """Heads ``(layer, head)`` that put out a constant, in order: the rows of `compensation.means`."""
        return sorted(head for one in TREATMENTS.values() if not one.computed for head in self.heads(one.name))

    @property
    def heads_together(self) -> int:
        """Query heads that the plan treats as one: those of a KV group, or 1."""
        return self.geometry.group_size if self.granularity == "kv_group" else 1

    @property
    def has_partial_heads(self) -> bool:
        """Whether a head is computed and does not see, or keep, every image block."""
        return any(one.is_masked and self.heads(one.name) for one in TREATMENTS.values())

    @property
    def span_rule(self) -> SpanRule:
        """What of a prompt an image takes up, under the plan."""
        return OLD_RULE if self.image_spans is None else self.image_spans

    @property
    def digest(self) -> str:
        """``sha256:…`` of the canonical bytes without `measured`: what serving depends on."""
        return canonical.digest(self, without={"measured"})
