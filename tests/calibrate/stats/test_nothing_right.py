"""The line of a model that is never right: of all samples, of some families, or none."""

from calibrate.stats.nothing_right import nothing_right


def test_where_nothing_is_right_the_families_are_not_named_one_by_one() -> None:
    line = nothing_right("the whole model", (0, 1200), {"object": (0, 600), "yes_no": (0, 600)})
    assert line is not None
    assert line.startswith("the whole model answers none of 1,200 samples right, so that no answer can be lost: ")
    assert "object" not in line
    assert "\n" not in line


def test_families_without_a_right_answer_are_named() -> None:
    line = nothing_right("the whole model", (3, 9), {"object": (0, 4), "yes_no": (3, 4), "colour": (0, 1)})
    assert line is not None
    assert "no sample of object (4), colour (1) right" in line
    assert "yes_no" not in line


def test_nothing_is_said_where_there_is_a_right_answer_everywhere() -> None:
    assert nothing_right("the whole model", (1, 9), {"object": (1, 9)}) is None
    assert nothing_right("the whole model", (1, 9)) is None
