"""A plan whose heads need a KV cache that the engine does not have is refused."""

import pytest
from documents import MODEL
from throwaway_treatments import LATE, registered

from profiles.geometry import ModelGeometry
from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.engine.checks.served_treatments import check_treatments
from vhserve.errors import TreatmentUnsupported

GEOMETRY = ModelGeometry(layers=2, query_heads=3, kv_heads=3, head_size=5, hidden_size=7, image_tokens=4)


def test_every_treatment_is_served_or_refused() -> None:
    for name in TREATMENTS:
        check_treatments(PruningPlan.manual(MODEL, GEOMETRY, **{name: [(1, 0)]}))
    with registered(LATE):
        plan = PruningPlan.manual(MODEL, GEOMETRY, **{LATE.name: [(0, 1), (1, 2)]})
        with pytest.raises(TreatmentUnsupported, match="2 heads of the treatment drops_late"):
            check_treatments(plan)
