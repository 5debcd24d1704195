"""The checker on the gradients that people write: no false verdict and no refusal, on right and wrong ones."""

from pathlib import Path

import catalogue
import other_checks
import pytest
from catalogue import INCONCLUSIVE, OURS, PASSED, REFUSED, REJECTED
from hand_written import CASES, Pair, Scalar

SCALAR_CHECKS = ["directional_check", "taylor_test", "fd_check"]
BY_NAME = {case.name: case for case in CASES}
by_check = pytest.mark.parametrize("check", OURS)


@pytest.fixture(scope="module")
def table():
    """check_pair on all pairs, the checks of scalar functions on all of these and on every third pair contracted to one, and
    assert_gradients, which picks from the others, on every fourth case: `python tests/support/catalogue.py` has the rest."""
    pairs = [case for case in CASES if isinstance(case.build(), Pair)]
    others = [case for case in CASES if case not in pairs]
    found = catalogue.verdicts(["check_pair"], pairs) | catalogue.verdicts(SCALAR_CHECKS, others + pairs[::3])
    return found | catalogue.verdicts(["assert_gradients"], CASES[::4])


def names_of(row, check, wanted):
    """The names of the cases in sight of which wanted(case, verdict) is true."""
    found = ((BY_NAME[name], verdict) for name, (verdict, _) in row.items())
    return [case.name for case, verdict in found if catalogue.in_sight(case, check) and wanted(case, verdict)]


@by_check
def test_no_right_gradient_is_called_wrong(check, table):
    assert names_of(table[check], check, lambda case, verdict: not case.wrong and verdict == REJECTED) == []


@by_check
def test_no_wrong_gradient_is_passed(check, table):
    assert names_of(table[check], check, lambda case, verdict: case.wrong and verdict == PASSED) == []


@by_check
def test_nothing_is_refused(check, table):
    assert names_of(table[check], check, lambda case, verdict: verdict == REFUSED) == []


@by_check
def test_there_is_a_verdict_wherever_one_is_possible(check, table):
    left = names_of(table[check], check, lambda case, verdict: verdict == INCONCLUSIVE and not case.unknowable)
    assert left == []


@by_check
def test_no_verdict_without_a_reason(check, table):
    for verdict, text in table[check].values():
        if verdict == INCONCLUSIVE:
            assert "inconclusive: " in text


def test_there_are_enough_cases_and_no_two_of_one_name():
    assert sum(not case.wrong for case in CASES) >= 60
    assert sum(case.wrong for case in CASES) >= 40
    assert len(BY_NAME) == len(CASES)


def test_every_case_says_what_it_is():
    for case in CASES:
        assert case.about.endswith("."), case.name
        assert isinstance(case.build(), Pair | Scalar), case.name


def test_the_others_are_run_as_they_are():
    """Each passes a right gradient and rejects a wrong one that is easy."""
    for check, run in other_checks.CHECKS.items():
        if run is not None:
            assert catalogue.their_verdict(BY_NAME["great circle"], check)[0] == PASSED
            assert catalogue.their_verdict(BY_NAME["great circle without the cosine"], check)[0] == REJECTED


def test_the_printed_table_is_up_to_date(table):
    """Where it is not: python tests/support/catalogue.py > tests/support/catalogue.md"""
    committed = (Path(__file__).parent / "support" / "catalogue.md").read_text(encoding="utf-8")
    assert catalogue.row_of("check_pair", table["check_pair"]) in committed
    for line in catalogue.topics():
        assert line in committed
