"""What a Report says: its verdict, its text, and which doubts are shown."""

import pytest

from npvae.checking.gradcheck import Report, Row

GOOD = Row("W", (2, 3), 1e-14, 1e-12)
OPEN = Row("b", (3,), 1e-9, 1e-8, doubt="rounding hides it")
WRONG = Row("x", (4,), 0.5, 1e-6, doubt="no matter")


@pytest.mark.parametrize(("rows", "problems", "verdict"), [
    ([GOOD], [], "passed"),
    ([GOOD, OPEN], [], "inconclusive"),
    ([OPEN, WRONG], [], "wrong"),
    ([], [], "inconclusive"),
    ([GOOD], ["inconclusive: f draws noise"], "inconclusive"),
    ([GOOD], ["backward modifies dout"], "wrong"),
    ([WRONG], ["inconclusive: f draws noise"], "wrong"),
])  # fmt: skip
def test_the_worst_row_or_problem_is_the_verdict(rows, problems, verdict):
    report = Report("check", rows, problems)
    assert report.verdict == verdict
    assert (report.passed, report.wrong) == (verdict == "passed", verdict == "wrong")
    assert report.as_dict()["verdict"] == verdict


def test_the_doubts_of_open_rows_are_shown():
    lines = str(Report("check", [GOOD, OPEN, WRONG], ["one problem"], ["one note"])).splitlines()
    assert lines[0] == "check: FAILED"
    assert lines[-3:] == ["  ! inconclusive: b: rounding hides it", "  ! one problem", "  - one note"]
    assert [line.split()[0] for line in lines[2:5]] == ["W", "b", "x"]
    assert [line.split()[-1] for line in lines[2:5]] == ["ok", "open", "WRONG"]
    assert str(Report("check", [OPEN])).startswith("check: FAILED, inconclusive")


def test_the_summary_has_the_largest_error_and_the_first_threshold():
    report = Report("check", [OPEN, GOOD])
    assert (report.error, report.threshold) == (1e-9, 1e-8)


def test_one_good_row_is_one_line():
    assert str(Report("check", [GOOD])) == "check: passed, W (2, 3), error 1.0e-14 <= 1e-12"
    assert len(str(Report("check", [GOOD], notes=["a note"])).splitlines()) == 4
    assert len(str(Report("check", [GOOD, GOOD])).splitlines()) == 4
