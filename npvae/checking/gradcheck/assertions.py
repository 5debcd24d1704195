"""`assert_gradients`: one line for a test."""

import numpy as np

from .differences import fd_check
from .directions import directional_check
from .pairs import check_pair
from .report import Report, conclude

FEW = 2000  # entries up to which assert_gradients looks at each one


def assert_gradients(first, second, *args, **options):
    """Raise AssertionError with the report unless gradients are right; return the report.

        assert_gradients(forward, backward, x, W, b)     a pair: check_pair
        assert_gradients(f, theta, grad)                 a scalar function: directional_check, and fd_check up to 2000 entries
        assert_gradients(f, theta)                       one that returns (loss, gradient)

    theta and grad may be arrays, dicts or lists of arrays, or nested; grad may be a function of theta. options are those of
    the checks: wrt, seed, threshold, atol, strict.
    """
    if callable(second):
        return check_pair(first, second, *args, **options)
    directional = directional_check(first, second, *args, assert_passed=False, **options)
    if sum(int(np.prod(row.shape)) for row in directional.rows if row.name != "jointly") > FEW:
        return conclude(directional, True)
    entry_options = {name: options[name] for name in ("threshold", "atol") if options.get(name) is not None}
    entries = fd_check(first, second, *args, assert_passed=False, **entry_options)
    wrong = [report for report in (directional, entries) if report.wrong]
    chosen = wrong[0] if wrong else directional if directional.passed else entries
    return conclude(Report("assert_gradients", chosen.rows, chosen.problems, chosen.notes), True)
