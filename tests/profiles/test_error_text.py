"""Failures of other programs in one line."""

from pathlib import Path

from profiles.error_text import last_line, one_line


def test_a_text_of_several_lines_becomes_one_that_is_cut() -> None:
    assert one_line("  first\n\tsecond  ") == "first second"
    assert one_line("x" * 301) == "x" * 300
    assert one_line("abc", 2) == "ab"


def test_the_last_line_that_says_something_is_read_off_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" + b"x" * 10_000 + b"\n  the cause \xff\n\n \n")
    assert last_line(log) == "the cause \ufffd"
    log.write_bytes(b"\n" + b"y" * 1000)
    assert last_line(log) == "y" * 300
    log.write_bytes(b" \n")
    assert last_line(log) == "(its log is empty)"
