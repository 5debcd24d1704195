"""The checker on the gradients that people write: no false verdict and no refusal, on right and wrong ones."""

import functools
from pathlib import Path

import catalogue
import other_checks
import pytest
from catalogue import INCONCLUSIVE, PASSED, REJECTED
from hand_written import CASES, Pair, Scalar

SCALAR_CHECKS = ["directional_check", "taylor_test", "fd_check"]
BY_NAME = {case.name: case for case in CASES}
PAIRS = [case for case in CASES if isinstance(case.build(), Pair)]
OTHERS = [case for case in CASES if case not in PAIRS]
JUDGED = [("check_pair", case) for case in PAIRS]
JUDGED += [(check, case) for check in SCALAR_CHECKS for case in OTHERS + PAIRS[::3]]
JUDGED += [("assert_gradients", case) for case in CASES[::4]]  # `python tests/support/catalogue.py` has all of them

judged = functools.cache(catalogue.our_verdict)


@pytest.mark.parametrize(("check", "case"), JUDGED, ids=lambda value: value if isinstance(value, str) else value.name)
def test_the_verdict_is_right(check, case):
    """Right ones pass, wrong ones are rejected; where no check can know, the report says why. None is refused."""
    found = judged(case, check)
    if found is None or not catalogue.in_sight(case, check):  # not for this check
        return
    verdict, text = found
    assert catalogue.is_good(case, verdict), f"{verdict}: {text}"
    assert verdict != INCONCLUSIVE or "inconclusive: " in text


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


def test_the_printed_table_is_up_to_date():
    """Where it is not: python tests/support/catalogue.py > tests/support/catalogue.md"""
    committed = (Path(__file__).parent / "support" / "catalogue.md").read_text(encoding="utf-8")
    row = {case.name: judged(case, "check_pair") for case in PAIRS}
    assert catalogue.row_of("check_pair", row) in committed
    for line in catalogue.topics():
        assert line in committed
