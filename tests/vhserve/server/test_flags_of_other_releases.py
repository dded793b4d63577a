"""Where the installed vLLM is not the one whose flags are known, nothing is refused that it may take."""

from pathlib import Path

import pytest

from profiles.store import load_plan
from vhserve.server.preflight import flags as flag_reader
from vhserve.server.preflight.adapters import check_adapters
from vhserve.server.preflight.flags import read_flags
from vhserve.server.preflight.length import check_length
from vhserve.server.preflight.plan_options import check_plan_options
from vhserve.server.preflight.prompt_media import check_limits

GIVEN = {
    "adapters": ["--no-enable-lora", "--enable-lora", "--lora-modules", "a=owner/adapter"],
    "limits": ["--limit-mm-per-prompt", "image=3"],
    "a field of the limits": ["--limit-mm-per-prompt.image", "3"],
    "short names": ["-tp", "2", "-q", "awq"],
    "unknown ones": ["--of-another-release", "-1", "--max-model-len", "auto"],
}


@pytest.fixture
def without_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_reader, "known_flags", lambda: None)


@pytest.mark.parametrize("case", GIVEN)
@pytest.mark.usefixtures("without_table")
def test_what_is_not_known_is_left_to_vllm(case: str, plan_of_removed: Path) -> None:
    given = read_flags(GIVEN[case])
    check_limits(given)
    check_adapters(given, lambda repository, file: True)
    check_length(given, {})
    check_plan_options(given, load_plan(plan_of_removed), "auto")


def test_the_last_of_a_flag_and_its_opposite_counts() -> None:
    def is_on(*words: str) -> bool:
        given = read_flags(words)
        assert getattr(given.arguments(), "enable_lora", False) == given.is_on("--enable-lora")
        return given.is_on("--enable-lora")

    assert is_on("--enable-lora")
    assert is_on("--no-enable-lora", "--enable-lora")
    assert is_on("--enable-lora", "--no-enable-lora", "--enable-lora")
    assert not is_on("--enable-lora", "--no-enable-lora")
    assert not is_on("--enable-prefix-caching")
