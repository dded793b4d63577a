"""Sessions, whose input goes on after a reply, with heads that drop image blocks: as the masked transformers model.

Float32, within 1e-5. With async scheduling a reply's end is known a step late, when a block behind it has been taken.
"""

import pytest
from engine_cases import Case, EngineRuns
from engine_host import EngineHost
from exactness import EXACT
from oracle import TinyModel
from partial_cases import EVERY

pytestmark = pytest.mark.vllm

CASES = {
    "evicted": Case("mha", other={"evict": {0: (1,)}}, rounds=(), probe="partial_probes:refused_session"),
    "async_scheduling": Case(
        "mha",
        text_only={1: (0, 2), 3: EVERY, 4: (0, 1)},
        other={"thinned:2": {0: (3, 4)}},
        rounds=(),
        settings={"async_scheduling": True},
        patches=("async_scheduling",),
        probe="session_probes:image_behind_a_reply",
    ),
}


@pytest.fixture(scope="session")
def served(engine_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(engine_host, models, CASES)


def test_an_engine_that_refuses_them_leaves_those_of_others_alone(served: EngineRuns) -> None:
    """In one process, in which requests are made by a class that its engines share."""
    assert served("evicted").probed.startswith("a session whose input goes on after a reply")
    assert served("async_scheduling").probed["answer"].reply_ids


def test_an_image_may_begin_where_a_reply_ended(served: EngineRuns, models: dict[str, TinyModel]) -> None:
    outcome, model = served("async_scheduling"), models["mha"]
    found, plan = outcome.probed, CASES["async_scheduling"].plan(model)
    assert outcome.facts["async"]
    assert model.oracle.difference(found["asked"], found["answer"], plan) < EXACT


def test_what_a_session_holds_is_what_the_pool_has_given(served: EngineRuns) -> None:
    found = served("async_scheduling").probed
    assert found["held"] == found["taken"] > 0
