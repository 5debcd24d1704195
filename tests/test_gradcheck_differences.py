"""The checks in real arithmetic, function by function: which numbers decide, what is asked of differences, and what is said."""

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import recorded

from npvae.checking.gradcheck import adjoint_test, differences, fd_check, taylor_test
from npvae.checking.gradcheck.arguments import as_problem, generator, random_direction
from npvae.checking.gradcheck.derivatives import Slope
from npvae.checking.gradcheck.differences import (
    ABOVE,
    TAYLOR_SIGHT,
    TAYLOR_THRESHOLD,
    decided,
    fd_row,
    observed_order,
    taylor_row,
    without_ties,
)
from npvae.checking.gradcheck.entries import OUTSIDE, Tie
from npvae.checking.gradcheck.extrapolation import Window
from npvae.checking.gradcheck.report import Row

NAN, INF = math.nan, math.inf
X = np.array([4.0, -0.5])


def replaced(monkeypatch, name, *answers):
    """The list of calls of a function of the module that from now on gives these answers."""
    calls = []
    monkeypatch.setattr(differences, name, recorded(calls, *answers))
    return calls


def test_the_numbers_that_are_documented():
    assert (TAYLOR_THRESHOLD, TAYLOR_SIGHT, differences.FD_THRESHOLD) == (0.1, 1e-6, 1e-6)
    assert TAYLOR_THRESHOLD < ABOVE < 0.1 + 1e-15
    assert list(differences.ADJOINT_THRESHOLDS.values()) == [1e-14, 1e-6]


# ------------------------------------------------------------------------------------------------------------ the order


def order_of(remainder, rounding=(1.0,) * 8):
    """The order where the steps are 1, 1/2, 1/4, ... and eight tiny ones."""
    steps = [*(0.5 ** np.arange(len(remainder))), *(1e-13 * np.arange(1, 9))]
    with np.errstate(all="ignore"):
        return observed_order(np.array(steps), np.array([*remainder, *rounding]))


def test_the_order_is_the_median_slope_of_the_last_four_remainders():
    assert order_of([2.0**k for k in (60, 50, 45, 44, 42, 39)]) == pytest.approx(2, rel=1e-12)  # 10, 5, 1, 2, 3
    assert order_of([2.0**k for k in (60, 50, 45, 44, 40, 39)]) == pytest.approx(1, rel=1e-12)  # 10, 5, 1, 4, 1
    assert order_of([2.0**k for k in (30, 20, 13, 10)]) == pytest.approx(7, rel=1e-12)  # 10, 7, 3


@pytest.mark.parametrize("size", [1.0, 4.0])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_remainders_count_that_are_more_than_a_hundred_of_the_tiny_ones(place, size):
    rounding = np.zeros(8)
    rounding[place] = size
    for remainder, order in (
        ([1600, 400, 100], 2), ([1616, 404, 101, 100, 99, 98, 97], 2), ([1616, 404, 202], 1.5),
    ):  # fmt: skip
        assert order_of([size * r for r in remainder], rounding) == pytest.approx(order, rel=1e-12)


def test_there_is_no_order_of_fewer_than_two_remainders():
    assert order_of([100.0, 99.0]) == INF
    assert order_of([101.0, 100.0]) == INF
    assert order_of([404.0, 101.0]) == pytest.approx(2, rel=1e-12)


def test_a_remainder_that_is_no_number_makes_the_order_none():
    assert math.isnan(order_of([NAN, 404.0, 101.0]))
    assert math.isnan(order_of([404.0, NAN, 100.0]))


# -------------------------------------------------------------------------------------------------- what differences decide

SMALL_AND_LARGE = "f has one slope at small steps and another at large ones (float32 inside?)"


@pytest.mark.parametrize(("value", "error", "slope", "allowed", "scale", "size", "verdict"), [
    (1.25, 0.01, 1.0, 0.20, 0.0, 0.0, "wrong"),
    (0.75, 0.01, 1.0, 0.20, 0.0, 0.0, "wrong"),
    (1.25, 0.01, 1.0, 0.25, 0.0, 0.0, "right"),  # as far away as allowed
    (0.75, 0.01, 1.0, 0.25, 0.0, 0.0, "right"),
    (1.25, 0.01, 1.0, 0.30, 0.0, 0.0, "right"),
    (1.25, 0.025, 1.0, 0.25, 0.0, 0.0, "right"),  # known as well as allowed
    (1.25, 0.025, 1.0, 0.24, 0.0, 0.0, "open"),  # supported, but not known that well
    (1.25, 0.025, 1.0, 0.0, 251.0, 0.0, "right"),  # known to a thousandth of the scale
    (1.25, 0.025, 1.0, 0.0, 249.0, 0.0, "open"),
    (1.25, 0.024, 1.0, 0.0, 300.0, 0.0, "wrong"),
    (0.25, 0.05, 0.5, 0.0, 0.0, 6e8, "zero"),
    (0.25, 0.05, 0.4, 0.0, 0.0, 6e8, "zero"),
    (0.25, 0.05, 0.5, 0.0, 0.0, 5e8, "zero"),
    (0.25, 0.05, 0.5, 0.0, 0.0, 4e8, "open"),
    (0.25, 0.05, 0.51, 0.0, 0.0, 6e8, "open"),
    (-0.25, 0.05, -0.51, 0.0, 0.0, 6e8, "open"),
    (0.51, 0.05, 0.25, 0.0, 0.0, 6e8, "open"),
    (-0.51, 0.05, -0.25, 0.0, 0.0, 6e8, "open"),
])  # fmt: skip
def test_differences_say_right_wrong_zero_or_leave_it_open(monkeypatch, value, error, slope, allowed, scale, size, verdict):
    calls = replaced(monkeypatch, "derivative", Slope(value, error, 0.0, 0.0, False, 0.0, ()))
    wrong, doubt, said = decided(lambda p: 10 * p["x"].sum(), {"x": X}, {"x": X}, {"x": 2 * X}, slope, scale, allowed, size)
    ((phi, at), options), numbers = calls[0], f"f'(v) = {value:.10g} +- {error:.0e}, g·v = {slope:.10g}"
    assert (at, options, phi(0.5)) == (1.0, {"thorough": True}, 70.0)
    assert wrong == (verdict == "wrong")
    assert said == numbers + "; zero to rounding" * (verdict == "zero")
    assert doubt == f"differences know f'(v) to {error:.0e} only, g·v = {slope:.1e}" * (verdict == "open")


@pytest.mark.parametrize(("allowed", "error", "doubt"), [
    (0.99, 0.01, SMALL_AND_LARGE), (1.0, 0.01, ""), (0.0, 0.099, SMALL_AND_LARGE),
])  # fmt: skip
@pytest.mark.parametrize("side", [1, -1])
def test_a_slope_of_small_steps_alone_leaves_it_open(monkeypatch, side, allowed, error, doubt):
    replaced(monkeypatch, "derivative", Slope(side * 2.0, error, 0.0, 0.0, False, 0.0, (Window(side, 1e-4, 0.0, 0.0, 1.0),)))
    assert decided(None, {}, {}, {}, side * 1.0, 0.0, allowed, 0.0)[:2] == (False, doubt)


def test_a_tie_is_left_to_a_look_at_each_entry(monkeypatch):
    replaced(monkeypatch, "derivative", Slope(0.5, 0.01, 1 / 3, 2 / 3, True, 0.0, ()))
    wrong, doubt, said = decided(None, {}, {}, {}, 9.0, 0.0, 0.0, 0.0)
    assert (wrong, doubt) == (False, "theta lies on kinks: fd_check looks at each entry")
    assert said == "f'(v) = 0.5 +- 1e-02, g·v = 9; a tie, slopes 0.3333 and 0.6667 on its sides"


# --------------------------------------------------------------------------------------------------------- one direction

ONE, PART = {"x": np.zeros(1)}, {"x": np.ones(1)}


def row_of(monkeypatch, order, control, answer=(False, "", "said")):
    """The Row of a direction that has these orders, and the calls of `decided`."""
    replaced(monkeypatch, "observed_order", order, control)
    calls = replaced(monkeypatch, "decided", answer)
    return taylor_row(lambda p: p["x"].sum(), ONE, PART, PART, 1e-6, 0.0), calls


@pytest.mark.parametrize(("order", "control", "error", "open_"), [
    (2.0, 1.0, 0.0, False), (2.5, 1.0, 0.0, False), (1.91, 1.0, 0.09, False), (1.89, 1.0, 0.0, True), (1.0, 1.0, 0.0, True),
    (2.0, 1.09, 0.0, False), (2.0, 0.91, 0.0, False), (2.0, 1.11, 0.0, True), (2.0, 0.89, 0.0, True), (2.0, -1.0, 0.0, True),
    (NAN, 1.0, 0.0, True), (2.0, NAN, 0.0, True), (1.95, INF, 0.0, True), (1.95, 1.0, 0.05, False), (1.0, 1.11, 0.0, True),
])  # fmt: skip
def test_differences_are_asked_where_the_orders_are_not_2_and_1(monkeypatch, order, control, error, open_):
    row, calls = row_of(monkeypatch, order, control)
    assert row.error == pytest.approx(error, abs=1e-12)
    assert bool(calls) == open_
    assert row.note == f"order {order:.2f}, with gradient x 1.01 {control:.2f}" + "; said" * open_
    assert (row.name, row.shape, row.threshold, row.doubt) == ("theta", (1,), 0.1, "")
    assert row.details == {"order": pytest.approx(order, nan_ok=True), "control_order": pytest.approx(control, nan_ok=True),
                           "tie": False}  # fmt: skip


def test_a_linear_function_has_no_order_but_a_control(monkeypatch):
    row, calls = row_of(monkeypatch, INF, 1.0)
    assert row.note == "f is linear along v: only rounding remains, there is no order; with gradient x 1.01 1.00"
    assert (row.error, calls) == (0.0, [])


@pytest.mark.parametrize(("order", "control", "error"), [(1.0, 1.0, 1.0), (2.0, 2.0, ABOVE), (1.95, 2.0, ABOVE)])
def test_what_differences_call_wrong_is_above_the_threshold(monkeypatch, order, control, error):
    row, _ = row_of(monkeypatch, order, control, (True, "", "said"))
    assert row.error == pytest.approx(error, rel=1e-15, abs=0)
    assert row.wrong


def test_what_they_leave_open_is_said_beside_the_control(monkeypatch):
    row, _ = row_of(monkeypatch, 1.0, 1.234, (False, "it is open", "said; a tie, slopes"))
    assert row.error == 0.0
    assert row.doubt == "the control, gradient x 1.01, has order 1.23 instead of 1, and it is open"
    assert row.details["tie"]


def test_the_steps_and_the_remainders_with_the_gradient_and_with_101_of_100(monkeypatch):
    orders, theta = replaced(monkeypatch, "observed_order", 2.0, 1.0), {"a": X, "b": np.array([[2.0]])}
    v, grad = {"a": np.array([1.0, -1.0]), "b": np.array([[0.5]])}, {"a": np.array([3.0, 5.0]), "b": np.array([[8.0]])}
    row = taylor_row(lambda p: p["a"].sum() ** 2 + (p["b"] ** 2).sum(), theta, grad, v, 1e-6, 0.0)  # b: 2 h + h^2 / 4
    (steps, remainder), control = orders[0][0], orders[1][0][1]
    np.testing.assert_allclose(steps, [*(10 ** (-k / 2) for k in range(4, 17)), *(k * 1e-13 for k in range(1, 9))], rtol=1e-12)
    np.testing.assert_allclose(remainder, abs(2 * steps + steps**2 / 4 - 2 * steps), atol=1e-14)  # the slope is 3 - 5 + 4
    np.testing.assert_allclose(control, abs(steps**2 / 4 - 0.02 * steps), atol=1e-14)
    assert row.shape == (3,)


@pytest.mark.parametrize(("atol", "allowed"), [(0.0, 8e-6), (1e-6, 8e-6), (1e-5, 3e-5)])
@pytest.mark.parametrize(("here", "first", "second", "third", "size"), [
    (0.0, 1.0, 2.0, 9.0, 200.0), (0.0, 3.0, -2.0, 9.0, 300.0), (-500.0, -501.0, -500.0, 9.0, 500.0), (7.0, NAN, NAN, NAN, 7.0),
    (500.0, 501.0, 500.0, 9.0, 500.0), (NAN, NAN, NAN, NAN, 0.0),
])  # fmt: skip
def test_what_is_asked_of_differences(monkeypatch, here, first, second, third, size, atol, allowed):
    """Of slopes 5 and -3 the scale is 8; the size is that of f, or of its changes over the two largest steps."""
    replaced(monkeypatch, "observed_order", 1.0)
    calls = replaced(monkeypatch, "decided", (False, "", "said"))
    values = {0: here, 0.01: first, 10**-2.5: second}

    def f(p):
        return next((value for h, value in values.items() if abs(p["x"][0] - h) < 1e-15), third)

    theta, v, grad = {"x": np.zeros(2)}, {"x": np.array([1.0, -2.0])}, {"x": np.array([5.0, 1.5])}
    taylor_row(f, theta, grad, v, 1e-6, atol)
    ((args, _),) = calls
    assert args[:4] == (f, theta, grad, v)
    assert args[4:] == (2.0, 8.0, pytest.approx(allowed), pytest.approx(size))


# ------------------------------------------------------------------------------------------------------------------ ties


def tie(index, outside=False, wrong=False, note=""):
    return Tie(index, note or f"tie at {index}", outside, wrong)


def left_of(monkeypatch, ties, twice=(0.0, ""), row=None):
    """The Row without ties (a list for each tensor), the direction that is left, and the calls of `counted_twice`."""
    replaced(monkeypatch, "ties_in", *ties)
    counts = replaced(monkeypatch, "counted_twice", twice)
    rows = replaced(monkeypatch, "taylor_row", row or Row("theta", (3,), 0.05, 0.1, note="order 2", details={"tie": False}))
    theta = {"a": X.copy(), "b": np.array([2.0])}
    v = {"a": np.ones(2), "b": np.ones(1)}
    found = without_ties("f", theta, theta, v, 1e-6, 2.0)
    assert all(args == ("f", theta, theta, v, 1e-6, 2.0) for args, _ in rows)
    assert len(rows) == any(np.any(part) for part in v.values())
    return found, v, counts


def test_entries_at_ties_are_left_out_of_the_direction(monkeypatch):
    row, v, counts = left_of(monkeypatch, [[tie((1,))], []])
    np.testing.assert_array_equal(v["a"], [1, 0])
    np.testing.assert_array_equal(v["b"], [1])
    assert (row.note, row.error, row.doubt, len(counts)) == ("1 entries at ties left out, tie at (1,); order 2", 0.05, "", 1)


def test_where_all_are_there_is_no_order(monkeypatch):
    row, v, counts = left_of(monkeypatch, [[tie((0,)), tie((1,))], [tie((0,), note="tie of b")]])
    assert not any(np.any(part) for part in v.values())
    assert (row.name, row.shape, row.error, row.threshold, row.details) == ("theta", (3,), 0.0, 0.1, {"tie": False})
    assert (row.note, len(counts)) == ("3 entries at ties left out, tie at (0,)", 2)


@pytest.mark.parametrize(("ties", "twice", "said"), [
    ([[tie((0,)), tie((1,), wrong=True)], []], (0.0, ""), "tie at (1,)"),
    ([[tie((0,), wrong=True)], []], (0.5, "twice"), "tie at (0,)"),
    ([[tie((0,))], []], (0.5, "twice"), "twice"),
])  # fmt: skip
def test_a_wrong_tie_or_one_that_is_counted_twice_is_wrong(monkeypatch, ties, twice, said):
    row, _, _ = left_of(monkeypatch, ties, twice)
    assert (row.error, row.note) == (ABOVE, f"{len(ties[0])} entries at ties left out, {said}; order 2")


def test_ties_are_counted_where_there_are_some_and_no_sentence_is_known(monkeypatch):
    _, _, counts = left_of(monkeypatch, [[], [tie((0,))]], (0.5, "twice"))
    assert len(counts) == 1
    np.testing.assert_array_equal(counts[0][0][1], [2.0])
    _, _, counts = left_of(monkeypatch, [[tie((0,))], [tie((0,))]], (0.5, "twice"))
    assert len(counts) == 1
    row, _, counts = left_of(monkeypatch, [[], []], (0.5, "twice"))
    assert (row.note, row.error, counts) == ("0 entries at ties left out, ; order 2", 0.05, [])


@pytest.mark.parametrize(("outside", "doubt", "said"), [
    (False, "", ""), (True, "", OUTSIDE), (False, "open", "open"), (True, "open", "open"),
])  # fmt: skip
def test_a_slope_outside_of_a_tie_s_leaves_it_open(monkeypatch, outside, doubt, said):
    row = Row("theta", (3,), 0.05, 0.1, doubt=doubt)
    found, _, _ = left_of(monkeypatch, [[tie((0,), outside)], []], row=row)
    assert found.doubt == said


def test_ties_are_looked_for_tensor_by_tensor(monkeypatch):
    calls = replaced(monkeypatch, "ties_in", [])
    replaced(monkeypatch, "taylor_row", Row("theta", (3,), 0.05, 0.1))
    theta, grad = {"a": X, "b": np.array([2.0])}, {"a": [1, 2], "b": [3]}
    without_ties(lambda p: p["a"].sum() + 10 * p["b"].sum(), theta, grad, {"a": np.ones(2), "b": np.ones(1)}, 1e-6, 0.0)
    (a, _), (b, _) = calls
    assert (a[0](np.ones(2)), b[0](np.ones(1))) == (22.0, 13.5)
    assert (a[2].dtype, b[2].tolist()) == (np.float64, [3.0])


# ------------------------------------------------------------------------------------------------------------ taylor_test

GOOD = Row("theta", (2,), 0.0, 0.1, note="good", details={"tie": False})
BAD, OPEN = replace(GOOD, error=1.0, note="bad"), replace(GOOD, doubt="open", note="open")


@pytest.mark.parametrize(("rows", "note"), [
    ((GOOD, BAD), "bad"), ((BAD, GOOD), "bad"), ((GOOD, OPEN), "good"), ((OPEN, GOOD), "good"), ((OPEN, BAD), "bad"),
    ((OPEN, replace(OPEN, note="other")), "open"), ((GOOD, replace(GOOD, note="other")), "good"),
])  # fmt: skip
def test_a_wrong_direction_counts_before_a_good_one_and_that_before_an_open_one(monkeypatch, rows, note):
    replaced(monkeypatch, "taylor_row", *rows)
    report = taylor_test(lambda x: x.sum(), X, np.ones(2), assert_passed=False)
    assert (report.check, [row.note for row in report.rows]) == ("taylor_test", [note])


@pytest.mark.parametrize(("options", "seed", "sight", "atol"), [
    ({}, 0, 1e-6, 0.0), ({"seed": 7, "threshold": 0.5, "atol": 2.0}, 7, 0.5, 2.0),
])  # fmt: skip
def test_two_directions_of_the_typical_size_and_of_each_entry_s(monkeypatch, options, seed, sight, atol):
    calls, ties = replaced(monkeypatch, "taylor_row", replace(GOOD, details={"tie": True}), GOOD), []
    monkeypatch.setattr(differences, "without_ties", recorded(ties, GOOD))
    taylor_test(lambda x: x.sum(), X, np.ones(2), **options)
    rng, theta = generator(seed, "v"), {"theta": X}
    for (args, _), by_entry in zip(calls, (False, True), strict=True):
        np.testing.assert_array_equal(args[3]["theta"], random_direction(theta, ["theta"], rng, by_entry)["theta"])
        assert args[4:] == (sight, atol)
    assert [args for args, _ in ties] == [calls[0][0]]


def test_a_gradient_that_does_not_fit_or_a_noisy_f_is_not_looked_at(monkeypatch):
    calls, values = replaced(monkeypatch, "taylor_row", GOOD), iter(range(9))
    (row,) = taylor_test(lambda x: x.sum(), X, np.ones(3), assert_passed=False).rows
    assert (row.error, row.threshold) == (INF, 0.1)
    report = taylor_test(lambda x: next(values), X, np.ones(2), assert_passed=False)
    assert (report.verdict, len(report.problems), calls) == ("inconclusive", 1, [])
    replaced(monkeypatch, "taylor_row", BAD)
    with pytest.raises(AssertionError, match="bad"):
        taylor_test(lambda x: x.sum(), X, np.ones(2))


# --------------------------------------------------------------------------------------------------------------- fd_check


@pytest.mark.parametrize(("options", "limit", "atol"), [({}, 1e-6, 0.0), ({"threshold": 0.0, "atol": 2.0}, 0.0, 2.0)])
def test_each_tensor_has_a_row_with_the_threshold_and_the_floor(monkeypatch, options, limit, atol):
    calls = replaced(monkeypatch, "fd_row", replace(GOOD, threshold=1.0))
    theta = {"a": X, "b": np.array([2.0])}
    report = fd_check(lambda p: p["a"].sum(), theta, theta, **options)
    assert (report.check, len(report.rows)) == ("fd_check", 2)
    assert [args[1:] for args, _ in calls] == [("a", limit, atol, None), ("b", limit, atol, None)]


def test_what_does_not_fit_or_is_noisy_is_not_looked_at_either(monkeypatch):
    calls, values = replaced(monkeypatch, "fd_row", BAD), iter(range(9))
    (row,) = fd_check(lambda x: x.sum(), X, np.ones(3), assert_passed=False).rows
    assert (row.error, row.threshold) == (INF, 1e-6)
    report = fd_check(lambda x: next(values), X, np.ones(2), assert_passed=False)
    assert (report.verdict, len(report.problems), calls) == ("inconclusive", 1, [])
    with pytest.raises(AssertionError, match="bad"):
        fd_check(lambda x: x.sum(), X, np.ones(2))


@pytest.mark.parametrize(("theta", "kinks"), [
    (X, lambda x: [x[0]]), ({"a": X}, lambda p: [p["a"][0]]), ([X, X + 1], lambda parts: [parts[0][0]]),
])  # fmt: skip
def test_kinks_is_a_function_of_the_user_s_own_theta(monkeypatch, theta, kinks):
    calls = replaced(monkeypatch, "fd_row", GOOD)
    fd_check(lambda theta: 0.0, theta, theta, kinks)
    branch, flat = calls[0][0][4], calls[0][0][0].theta
    np.testing.assert_array_equal(branch({**flat}), [4.0])
    assert branch({**flat, next(iter(flat)): X + 5})[0] == 9.0


def fd_row_of(monkeypatch, branch, note=""):
    """fd_row's row and what it asked of `differences_row`."""
    calls = replaced(monkeypatch, "differences_row", replace(GOOD, note=note, details={"ties": 3}))
    theta = {"a": X, "b": np.array([2.0])}
    problem = as_problem(lambda p: p["a"].sum() + 10 * p["b"].sum() + 1j, theta, {"a": np.array([1, 2]), "b": np.ones(1)})
    return fd_row(problem, "a", 0.5, 2.0, branch), calls[0][0]


def test_the_row_of_a_tensor_moves_it_alone(monkeypatch):
    row, (F, x, name, grad, limit, atol, valid) = fd_row_of(monkeypatch, None, "said")
    assert (F(np.ones(2)), x is X or x.tolist(), name, grad.tolist()) == (22.0, True, "a", [1, 2])
    assert (limit, atol, valid) == (0.5, 2.0, None)
    assert (row.note, row.details) == ("said", {"ties": 3, "kink_distance": None})


@pytest.mark.parametrize(("note", "said"), [("", "nearest kink at 5.0e-01"), ("said", "said; nearest kink at 5.0e-01")])
def test_steps_are_valid_that_change_no_sign_of_what_f_branches_on(monkeypatch, note, said):
    row, (*_, valid) = fd_row_of(monkeypatch, lambda p: np.append(p["a"], p["b"]), note)
    assert (row.note, row.details) == (said, {"ties": 3, "kink_distance": 0.5})
    for z, good in (([4, -0.5], True), ([0, 0], True), ([9, -1], True), ([-1e-9, -0.5], False), ([4, 1e-9], False)):
        assert valid(np.array(z, dtype=float)) == good


def test_every_step_away_from_a_kink_is_valid(monkeypatch):
    row, (*_, valid) = fd_row_of(monkeypatch, lambda p: p["a"] - X)
    assert valid(X - 1)
    assert valid(X + 1)
    assert row.details["kink_distance"] == 0


# ----------------------------------------------------------------------------------------------------------- adjoint_test


@pytest.mark.parametrize(("options", "seed"), [({}, 0), ({"seed": 7}, 7)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_two_products_are_compared_and_shown(options, seed, dtype):
    seen, D = [], np.array([2.0, 4.0, 8.0], dtype)

    def forward(v):
        seen.append(v)
        return D * v

    def backward(w):
        seen.append(w)
        return D * w * dtype(1.25)

    (row,) = adjoint_test(forward, backward, (3,), dtype, assert_passed=False, **options).rows
    v, w = (generator(seed, role).standard_normal(3).astype(dtype) for role in "vw")
    for found, given in zip(seen, (v, w, np.zeros(3)), strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, given)
    terms = v.astype(float) * D * w
    assert (row.name, row.shape, row.index) == ("x", (3,), None)
    assert (row.analytic, row.reference) == (pytest.approx(1.25 * terms.sum(), rel=1e-6), pytest.approx(terms.sum(), rel=1e-12))
    assert row.error == pytest.approx(0.25 * abs(terms.sum()) / abs(terms).sum(), rel=1e-5)
    assert (row.note, row.threshold) == ("<v, Aᵀ w> and <A v, w>", 1e-14 if dtype == np.float64 else 1e-6)


def test_float32_is_accumulated_in_float64():
    (row,) = adjoint_test(lambda v: 3 * v, lambda w: 3 * w, (20000,), np.float32, assert_passed=False).rows
    assert row.error < 1e-9


def test_only_float32_and_float64_have_an_adjoint_test_and_forward_and_backward_work_on_copies():
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got float16"):
        adjoint_test(lambda v: v, lambda w: w, (2,), np.float16)

    def spoilt(v):
        product = 2 * v
        v[:] = 99
        return product

    report = adjoint_test(spoilt, spoilt, (2,))
    assert (report.check, report.problems) == ("adjoint_test", [])


def test_a_gradient_of_another_shape_or_dtype_fails_and_so_does_a_bias():
    for backward in (lambda w: w[:2], lambda w: w.astype(np.float32)):
        (row,) = adjoint_test(lambda v: v, backward, (3,), assert_passed=False).rows
        assert (row.error, row.threshold, row.shape) == (INF, 1e-14, (3,))
    report = adjoint_test(lambda v: v + np.array([0.0, 1.0]), lambda w: w, (2,), assert_passed=False)
    assert report.problems == ["forward(0) is not 0: forward is not linear, leave out its bias"]
    with pytest.raises(AssertionError):
        adjoint_test(lambda v: v, lambda w: 2 * w, (2,))
