"""The checks say what they said, word for word: `support/reports.json`. For what is right to say see the other tests."""

import json
import math
from pathlib import Path

import pytest
import reports

KEPT = json.loads((Path(__file__).parent / "support" / "reports.json").read_text(encoding="utf-8"))
SCALAR_CHECKS = ("directional_check", "taylor_test", "fd_check")


def same(found, kept):
    """The same words, and the same numbers to a twentieth."""
    if isinstance(kept, list):
        return len(found) == len(kept) and all(same(*pair) for pair in zip(found, kept))
    return math.isclose(found, kept, rel_tol=0.05) if isinstance(kept, float) and isinstance(found, float) else found == kept


@pytest.mark.parametrize("check", SCALAR_CHECKS)
@pytest.mark.parametrize("name", list(reports.SCALARS))
def test_what_is_said_of_a_function(check, name):
    f, theta, grad, options = reports.SCALARS[name]
    found, kept = reports.report_of(check, f, theta, grad, **options), KEPT[f"{check}: {name}"]
    assert same(found, kept), f"{found}\n\nwas\n\n{kept}"


@pytest.mark.parametrize("name", list(reports.PAIRS))
def test_what_is_said_of_a_pair(name):
    forward, backward, args, options = reports.PAIRS[name]
    found, kept = reports.report_of("check_pair", forward, backward, *args, **options), KEPT[f"check_pair: {name}"]
    assert same(found, kept), f"{found}\n\nwas\n\n{kept}"
