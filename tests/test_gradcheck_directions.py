"""Slopes along random directions, each method by itself: which differences count, what excuses one, and what is said of it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import recorded

from npvae.checking.gradcheck import directions
from npvae.checking.gradcheck.arguments import Problem, generator
from npvae.checking.gradcheck.complex_step import STEP, ComplexStepError, Confirmation
from npvae.checking.gradcheck.derivatives import Slope
from npvae.checking.gradcheck.directions import Directions, direction_row, directional_check
from npvae.checking.gradcheck.entries import OUTSIDE, WIDEST, Tie
from npvae.checking.gradcheck.report import Row

X = np.array([4.0, 0.5])
TWO = {"a": np.array([1.0, 2.0]), "b": np.array([[3.0], [4.0], [5.0]])}
NAN = math.nan


def found(value=0.0, error=1.0, left=0.0, right=0.0, tie=False):
    return Slope(value, error, left, right, tie, 0.0, ())


def never(*args, **options):
    raise AssertionError("not to be called")


# ------------------------------------------------------------------------------------------------------- which tensors, and how


@pytest.fixture
def rows_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(directions, "direction_row", recorded(calls, Row("x", (2,), 0.0, 1.0)))
    return calls


def total(theta):
    return sum(part.sum() for part in theta.values()) if isinstance(theta, dict) else theta.sum()


def test_each_tensor_is_checked_and_all_of_several_jointly(rows_asked_for):
    directional_check(total, TWO, TWO)
    assert [args[1] for args, _ in rows_asked_for] == [["a"], ["b"], ["a", "b"]]
    del rows_asked_for[:]
    assert directional_check(total, X, X, n_directions=3, threshold=0.5, atol=2.0).check == "directional_check"
    ((args, _),) = rows_asked_for
    assert args[1:3] == (["theta"], 3)
    assert args[4:] == (0.5, 2.0)


@pytest.mark.parametrize(("options", "seed"), [({}, 0), ({"seed": 7}, 7)])
def test_five_directions_of_the_seed_unless_told_otherwise(rows_asked_for, options, seed):
    directional_check(total, X, X, **options)
    ((args, _),) = rows_asked_for
    assert (args[2], *args[4:]) == (5, None, 0.0)
    assert args[3].random() == generator(seed, "v").random()


@pytest.mark.parametrize(("options", "threshold"), [({}, 1e-13), ({"threshold": 1e-3}, 1e-3)])
def test_a_gradient_that_does_not_fit_is_not_looked_at(rows_asked_for, options, threshold):
    report = directional_check(total, X, np.ones(3), assert_passed=False, **options)
    assert (report.rows[0].error, report.rows[0].threshold) == (math.inf, threshold)
    assert not rows_asked_for
    with pytest.raises(AssertionError, match="gradient is float64"):
        directional_check(total, X, np.ones(3))


def test_nor_is_a_function_with_noise(rows_asked_for):
    draws = iter(range(10))
    report = directional_check(lambda x: next(draws), X, X, assert_passed=False)
    assert report.problems[0].startswith("inconclusive: f gives other values")
    assert report.rows == rows_asked_for == []


def test_the_thresholds():
    assert (directions.DIRECTIONAL_THRESHOLD, directions.DIFFERENCES_THRESHOLD) == (1e-13, 1e-10)
    assert (directions.ZERO, directions.ROUNDINGS) == (1e-9, 100)


def row_of(monkeypatch, confirmed, *answers, theta=None, threshold=None):
    """What `direction_row` makes of a Confirmation and the Rows (or errors) of `Directions`, and the arguments of both."""
    asked, made, run = [], [], []

    def fake(*args, **options):
        made.append((*args[1:], options["complex_step"]))
        return SimpleNamespace(row=fake_row)

    fake_row = recorded(run, *answers)
    monkeypatch.setattr(directions, "confirmation", recorded(asked, confirmed))
    monkeypatch.setattr(directions, "Directions", fake)
    problem = Problem(total, {"x": X} if theta is None else theta, {}, [])
    row = direction_row(problem, ["x"], 4, "rng", threshold, 0.5)
    assert asked[0][0] == (total, problem.theta, ["x"])
    assert run[0][0] == (4, "rng")
    return row, asked[0][1], made


@pytest.mark.parametrize(("sight", "doubt"), [
    (1e-6, ""), (WIDEST, ""), (2e-3, "differences confirm the complex step to 2e-03 only: f may lose smaller imaginary parts"),
])  # fmt: skip
def test_a_complex_step_that_is_confirmed_from_afar_leaves_a_doubt(monkeypatch, sight, doubt):
    confirmed = Confirmation(True, sight, False, "")
    row, _, made = row_of(monkeypatch, confirmed, Row("x", (2,), 0.25, 1.0, note="said"))
    assert (row.doubt, row.details, row.note) == (doubt, {"confirmed": sight}, "said")
    assert made == [(["x"], 1e-13, 0.5, True)]
    assert row_of(monkeypatch, confirmed, Row("x", (2,), 0.25, 1.0, doubt="its own"))[0].doubt == "its own"


def test_one_direction_confirms_each_of_several_tensors_and_two_the_only_one(monkeypatch):
    yes, row = Confirmation(True, 0.0, False, ""), Row("x", (2,), 0.25, 1.0)
    assert row_of(monkeypatch, yes, row)[1] == {"directions": 2}
    assert row_of(monkeypatch, yes, row, theta=TWO)[1] == {"directions": 1}


@pytest.mark.parametrize(("confirmed", "answers", "kinds"), [
    (Confirmation(False, 0.0, False, "it fails"), [], [False]),
    (Confirmation(True, 0.0, False, ""), [ComplexStepError("it fails")], [True, False]),
])  # fmt: skip
def test_where_the_complex_step_fails_differences_are_taken(monkeypatch, confirmed, answers, kinds):
    row, _, made = row_of(monkeypatch, confirmed, *answers, Row("x", (2,), 0.25, 1.0, note="said"))
    assert row.note == "by differences, since it fails; said"
    assert made[-1] == (["x"], 1e-10, 0.5, False)
    assert [kind for *_, kind in made] == kinds
    row, _, made = row_of(monkeypatch, confirmed, *answers, Row("x", (2,), 0.25, 1.0), threshold=0.25)
    assert row.note == "by differences, since it fails"
    assert {limit for _, limit, _, _ in made} == {0.25}


# --------------------------------------------------------------------------------------------------------------- single methods


def comparison(f=total, theta=None, grad=None, threshold=1e-10, atol=0.0, complex_step=False):
    theta = {"x": X} if theta is None else theta
    return Directions(Problem(f, theta, theta if grad is None else grad, []), list(theta), threshold, atol, complex_step)


def test_a_float32_gradient_is_compared_at_its_precision():
    single = {"a": TWO["a"].astype(np.float32), "b": TWO["b"]}
    precision = 8 * float(np.finfo(np.float32).eps)
    assert comparison(theta=TWO, grad=single).threshold == precision
    assert comparison(theta=TWO, grad=single, threshold=1e-3).threshold == 1e-3
    assert comparison(theta=TWO).threshold == 1e-10
    assert comparison(theta=TWO, grad=single).remark() == "gradient is float32, the argument float64: compared at its precision"


def test_at_first_no_ties_are_known():
    one = comparison()
    assert (one.ties, one.outside, one.remark()) == ({}, False, "")


def test_the_slope_of_the_complex_step_has_no_error():
    one = comparison(lambda theta: (theta["x"] * theta["x"]).sum(), complex_step=True)
    assert one.slope({"x": np.array([1.0, -2.0])}) == (6.0, 0.0)


@pytest.mark.parametrize(("options", "thorough"), [({}, False), ({"thorough": True}, True)])
def test_that_of_differences_has_theirs(monkeypatch, options, thorough):
    calls, one = [], comparison()
    monkeypatch.setattr(directions, "derivative", recorded(calls, found(2.0, 0.25)))
    v = {"x": np.array([1.0, -2.0])}
    assert one.differences(v, **options) == found(2.0, 0.25)
    ((phi, scale), given) = calls[0]
    assert (scale, given) == (1.0, {"thorough": thorough})
    assert phi(0.5) == 4.5 + 0.5 - 1.0
    assert one.slope(v) == (2.0, 0.25)
    assert calls[1][1] == {"thorough": False}


def test_differences_are_allowed_ten_of_their_errors():
    assert comparison().allowed({"x": X}, 0.5) == 5.0


@pytest.mark.parametrize(("spread", "finer", "allowed"), [(0.25, 7.0, 25.0), (0.25, 7.5, 50.0), (0.25, 6.5, 50.0)])
def test_the_complex_step_is_allowed_a_hundred_roundings_or_what_a_finer_step_changes(monkeypatch, spread, finer, allowed):
    calls, one, v = [], comparison(complex_step=True), {"x": X}
    monkeypatch.setattr(directions, "rounding_of", recorded(calls, spread))

    def slope(f, theta, along, h=STEP):
        assert (f, along) == (total, v)
        return {"here": 7.0, "there": 3.0}[theta] if h == STEP else {1e-40: finer}[h]

    monkeypatch.setattr(directions, "complex_slope", slope)
    one.theta = "here"
    assert one.allowed(v, 1000.0) == allowed
    (((slope_at, theta), _),) = calls
    assert (theta, slope_at("there")) == ("here", 3.0)


def test_a_tensor_by_itself_is_moved_with_the_others_held():
    assert comparison(theta=TWO).of_tensor("a")(np.array([100.0])) == 100 + 12


@pytest.mark.parametrize(("outside", "before", "after"), [
    (False, False, False), (True, False, True), (False, True, True), (True, True, True),
])  # fmt: skip
def test_new_ties_are_left_out_unless_they_are_wrong(monkeypatch, outside, before, after):
    one = comparison()
    one.outside = before
    ties = [Tie((0,), "one", outside, False), Tie((1,), "no", True, True)]
    monkeypatch.setattr(directions, "ties_in", lambda f, x, grad: ties)
    assert one.leave_out_ties()
    assert one.ties == {("x", (0,)): "one"}
    assert one.outside is after
    assert not one.leave_out_ties()


def test_wrong_ties_alone_are_no_new_ones(monkeypatch):
    monkeypatch.setattr(directions, "ties_in", lambda f, x, grad: [Tie((1,), "no", True, True)])
    assert not comparison().leave_out_ties()


def test_nor_are_many_that_are_known(monkeypatch):
    monkeypatch.setattr(directions, "ties_in", lambda f, x, grad: [])
    one = comparison()
    one.ties = {("x", (k,)): "" for k in range(300)}
    assert not one.leave_out_ties()


def test_ties_are_told_by_their_number_and_one_of_them():
    one = comparison()
    one.ties = {("x", (1,)): "first", ("x", (0,)): "second"}
    assert one.remark() == "2 entries at ties: first"


def test_a_row_is_of_one_tensor_or_of_all_jointly():
    row = comparison().result(0.5, 1.0, 2.0, 3.0, "said", "doubted", (1,))
    assert row == Row("x", (2,), 0.5, 1.0, (1,), 2.0, 3.0, "said", {}, "doubted")
    row = comparison(theta=TWO).result(0.5, 1.0, 2.0, 3.0, "said")
    assert row == Row("jointly", (5,), 0.5, 1.0, None, 2.0, 3.0, "said", {}, "")


@pytest.mark.parametrize(("here", "there", "natural"), [
    (3.0, 3.0, 3.0), (-3.0, -3.0, 3.0), (3.0, 5.0, 20.0), (3.0, 1.0, 20.0), (0.0, 0.0, 0.0), (3.0, NAN, 3.0), (NAN, NAN, 0.0),
])  # fmt: skip
def test_a_slope_may_well_have_the_size_of_the_function_or_ten_of_its_changes(here, there, natural):
    one = comparison(lambda theta: {4.0: here, 4.2: there}[float(theta["x"][0])])
    assert one.natural({"x": np.array([2.0, 0.0])}) == natural


@pytest.mark.parametrize(("ties", "theta", "error", "rows"), [
    ({("x", (0,)): "one"}, None, 0.5, [Row("x", (2,), 0.5, 1e-10, note="twice")]),
    ({("x", (0,)): "one"}, None, 0.0, []),
    ({}, None, 0.5, []),
    ({("a", (0,)): "one"}, TWO, 0.5, []),
    ({}, TWO, 0.5, []),
])  # fmt: skip
def test_entries_at_ties_are_moved_together_as_well(monkeypatch, ties, theta, error, rows):
    one = comparison(theta=theta)
    one.ties = ties
    monkeypatch.setattr(directions, "counted_twice", lambda F, x, grad: (error, "twice") if F(x) == 4.5 else never())
    assert one.tied_together() == rows


# ------------------------------------------------------------------------------------------------------ the worst of directions


def worst_of(rows, together=(), outside=False):
    one = comparison()
    one.one, one.tied_together, one.outside = recorded([], *rows), lambda: list(together), outside
    return one.row(len(rows), np.random.default_rng(0))


GOOD, BAD = Row("x", (2,), 0.1, 0.25), Row("x", (2,), 0.5, 0.25)


@pytest.mark.parametrize(("better", "worse"), [
    (GOOD, BAD),
    (Row("x", (2,), 0.5, 1.0, doubt="some"), BAD),  # a doubt is less than an error
    (Row("x", (2,), 0.5, 1.0), Row("x", (2,), 0.1, 0.25, doubt="some")),
    (Row("x", (2,), 0.2, 0.25), Row("x", (2,), 0.1, 1.0)),  # a wider threshold
    (GOOD, Row("x", (2,), 0.2, 0.25)),
])  # fmt: skip
def test_the_row_shown_is_the_wrong_the_doubtful_the_wide_one_or_that_of_the_largest_error(better, worse):
    assert worst_of([better, worse]) is worse
    assert worst_of([worse, better]) is worse
    assert worst_of([better, better], together=[worse]) is worse


def test_a_gradient_outside_of_the_slopes_leaves_a_doubt():
    assert worst_of([GOOD], outside=True).doubt == OUTSIDE
    assert worst_of([Row("x", (2,), 0.1, 0.25, doubt="its own")], outside=True).doubt == "its own"
    assert worst_of([GOOD]).doubt == ""


@pytest.mark.parametrize(("complex_step", "by_entry"), [(False, [True, False, True]), (True, [False, False, False])])
def test_every_other_direction_of_differences_has_the_sizes_of_the_entries(monkeypatch, complex_step, by_entry):
    drawn, compared = [], []
    one = comparison(complex_step=complex_step)
    one.one = recorded(compared, GOOD)
    monkeypatch.setattr(directions, "random_direction", recorded(drawn, "v"))
    one.row(3, "rng")
    assert drawn == [((one.theta, ["x"], "rng"), {"by_entry": each}) for each in by_entry]
    assert [args for args, _ in compared] == [("v",)] * 3


# -------------------------------------------------------------------------------------------------------------- one direction

# g = (1, -3) along v = (2, 2): the gradient's slope is -4, and the sum of |g v| is 8


def judged(slope, estimate=0.0, grad=(1.0, -3.0), threshold=0.125, atol=0.0, complex_step=False, **methods):
    """The Row of one direction where f has this slope; what is not among the methods must not be called."""
    one = comparison(grad={"x": np.array(grad)}, threshold=threshold, atol=atol, complex_step=complex_step)
    one.slope = lambda v: (slope, estimate)
    for name in ("allowed", "differences", "leave_out_ties", "wrong", "natural"):
        setattr(one, name, methods.get(name, never))
    return one.one({"x": np.array([2.0, 2.0])})


@pytest.mark.parametrize("slope", [-4.0, -3.0, -5.0, -3.5])
@pytest.mark.parametrize("estimate", [0.0, 0.1])
def test_a_difference_within_the_threshold_that_is_seen_passes(slope, estimate):
    assert judged(slope, estimate) == Row("x", (2,), abs(slope + 4) / 8, 0.125, None, -4.0, slope)


@pytest.mark.parametrize(("slope", "error"), [(-3.0, 0.125), (-5.0, 0.125), (-3.5, 0.0625)])
def test_or_one_within_atol_times_the_sum_of_the_direction(slope, error):
    assert judged(slope, threshold=1e-10, atol=0.25) == Row("x", (2,), error, error, None, -4.0, slope)
    assert judged(slope, threshold=0.5, atol=0.25) == Row("x", (2,), error, 0.5, None, -4.0, slope)


WRONG = Row("x", (2,), 0.75, 0.125, (0,), 1.0, 2.0)


@pytest.mark.parametrize("slope", [-2.9, -5.1])
def test_another_difference_is_wrong_unless_it_is_allowed(slope):
    calls, allowed = [], []
    methods = {"differences": lambda v, thorough: found(slope, 0.01), "wrong": recorded(calls, WRONG)}
    assert judged(slope, 0.05, atol=0.2, allowed=recorded(allowed, 1.0), **methods) is WRONG
    (((v, error, analytic, given), _),) = calls
    assert (error, analytic, given) == (pytest.approx(1.1 / 8), -4.0, slope)
    np.testing.assert_array_equal(v["x"], [2, 2])
    assert allowed[0][0][1] == 0.05


@pytest.mark.parametrize("complex_step", [False, True])
@pytest.mark.parametrize(("allowed", "limit"), [(2.0, 1.0), (16.0, 10.0)])
def test_what_is_allowed_is_excused(complex_step, allowed, limit):
    methods = {"natural": lambda v: 1.0, "differences": lambda v, thorough: found(tie=False)}
    row = judged(-2.0, allowed=lambda v, error: allowed, complex_step=complex_step, wrong=lambda *args: WRONG, **methods)
    assert (row.error, row.threshold, row.analytic, row.reference) == (0.25, limit, -4.0, -2.0)
    assert row.note == f"rounding: errors below {limit:.0e} are not seen"


def test_the_complex_step_asks_no_differences():
    assert judged(-2.0, allowed=lambda v, error: 1.9, complex_step=True, wrong=lambda *args: WRONG) is WRONG


def test_what_differences_support_after_a_thorough_search_is_excused():
    seen = []
    methods = {"natural": lambda v: 1.0, "allowed": lambda v, error: 1.0, "differences": recorded(seen, found(-4.0, 0.01))}
    row = judged(-2.0, **methods)
    assert (row.error, row.threshold, bool(row.doubt)) == (0.25, 1.0, True)
    assert all(options == {"thorough": True} for _, options in seen)


@pytest.mark.parametrize("slope", [NAN, math.inf])
@pytest.mark.parametrize("complex_step", [False, True])
def test_a_slope_that_is_not_finite_is_wrong(slope, complex_step):
    methods = {"wrong": lambda *args: WRONG, "differences": lambda v, thorough: found(slope, 0.01)}
    assert judged(slope, complex_step=complex_step, **methods) is WRONG


@pytest.mark.parametrize(("sight", "slope", "grad", "looked"), [
    (0.008, -4.004, (1.0, -3.0), False),
    (0.0081, -4.004, (1.0, -3.0), True),
    (0.008002, 8.004, (1.0, 3.0), False),  # beside the larger one of both slopes
    (0.008005, 8.004, (1.0, 3.0), True),
])  # fmt: skip
def test_much_rounding_of_the_complex_step_is_looked_into_for_a_tie(sight, slope, grad, looked):
    calls = []
    methods = {"allowed": lambda v, error: sight, "natural": lambda v: 1.0, "wrong": recorded(calls, WRONG)}
    row = judged(slope, grad=grad, threshold=1e-10, complex_step=True, **methods)
    assert row is not WRONG
    assert bool(calls) == looked


def test_that_of_differences_is_not():
    methods = {"allowed": lambda v, error: 3.0, "natural": lambda v: 1.0, "differences": lambda v, thorough: found()}
    assert judged(-2.0, **methods).threshold == 1.0


def test_an_entry_at_a_tie_is_left_out_once_it_is_found():
    """f = 2 x_0 - 3 x_1 but for its tie in entry 0: without that entry the gradient agrees."""
    for complex_step in (False, True):
        one = comparison(grad={"x": np.array([1.0, -3.0])}, threshold=0.125, complex_step=complex_step)
        one.slope = lambda v: (float(2 * v["x"][0] - 3 * v["x"][1]), 0.0)
        one.allowed = lambda v, error: 0.0

        def tie(*args, one=one):
            one.ties["x", (0,)] = "a tie"
            return None if one.complex_step else True

        one.differences, one.leave_out_ties = (never, never) if complex_step else (lambda v, thorough: found(tie=thorough), tie)
        one.wrong = tie if complex_step else never
        assert one.one({"x": np.array([2.0, 2.0])}) == Row("x", (2,), 0.0, 0.125, None, -6.0, -6.0, "1 entries at ties: a tie")


def test_without_new_ties_a_difference_at_one_is_judged():
    methods = {"allowed": lambda v, error: 0.0, "leave_out_ties": lambda: False, "wrong": lambda *args: WRONG}
    assert judged(-2.0, differences=lambda v, thorough: found(error=0.01, tie=True), **methods) is WRONG


def test_where_all_entries_are_at_ties_nothing_is_compared():
    one = comparison()
    one.slope, one.ties = never, {("x", (0,)): "a tie", ("x", (1,)): "another"}
    row = one.one({"x": np.array([2.0, 2.0])})
    assert row == Row("x", (2,), 0.0, 1e-10, None, None, None, "2 entries at ties: a tie")


def test_one_entry_that_moves_is_enough_to_compare():
    one = comparison(theta=TWO)
    one.slope, one.ties = lambda v: (15.0, 0.0), {("a", (0,)): "a tie"}
    row = one.one({"a": np.array([2.0, 0.0]), "b": np.array([[1.0], [-2.0], [4.0]])})
    assert (row.error, row.analytic, row.reference) == (0.0, 15.0, 15.0)


@pytest.mark.parametrize(("estimate", "limit", "doubtful"), [
    (1e-5, 1e-4, False), (5e-4, WIDEST, False), (1e-3, 1e-2, True), (0.5, 1.0, True), (1.0, 10.0, True),
])  # fmt: skip
def test_the_threshold_shown_is_the_power_of_ten_that_rounding_lets_see(estimate, limit, doubtful):
    row = judged(-4.0, estimate, threshold=1e-6, natural=lambda v: 1.0)
    assert (row.error, row.threshold, row.analytic, row.reference) == (0.0, pytest.approx(limit), -4.0, -4.0)
    assert row.note == f"rounding: errors below {limit:.0e} are not seen"
    said = f"rounding hides errors below {limit:.0e} of the gradient: compute in float64, or move theta"
    assert row.doubt == (said if doubtful else "")


def test_what_is_hidden_is_told_after_what_else_is_to_say():
    one = comparison(grad={"x": np.array([1.0, -3.0])})
    one.slope, one.natural, one.ties = lambda v: (-6.0, 1e-5), lambda v: 1.0, {("x", (0,)): "a tie"}
    assert one.one({"x": np.array([2.0, 2.0])}).note == "1 entries at ties: a tie; rounding: errors below 1e-04 are not seen"


@pytest.mark.parametrize(("estimate", "natural", "zero"), [
    (0.8, 8.5e9, True), (0.8, 8e9, True), (0.8, 7.5e9, False), (0.79, 1e12, False), (0.9, 9.5e9, True), (0.9, 8.5e9, False),
])  # fmt: skip
def test_all_within_rounding_is_zero_beside_a_function_that_is_large(estimate, natural, zero):
    row = judged(-3.5, estimate, natural=lambda v: natural)
    if zero:
        note = f"zero to rounding, {10 * estimate:.0e}"
        assert row == Row("x", (2,), 0.5 / natural, 0.125, None, -4.0, -3.5, note)
    else:
        assert row.doubt
        assert row.error == 0.0625


def test_both_slopes_have_to_be_within_rounding():
    assert judged(8.5, 0.82, grad=(1.0, 3.0), natural=lambda v: 1e12).doubt


def test_a_gradient_of_zeros():
    assert judged(0.0, grad=(0.0, 0.0)) == Row("x", (2,), 0.0, 0.125, None, 0.0, 0.0)
    row = judged(0.0, 1.0, grad=(0.0, 0.0), natural=lambda v: 1.0)
    assert (row.error, row.threshold) == (0.0, math.inf)
    assert row.doubt == "rounding hides errors below inf of the gradient: compute in float64, or move theta"


# ---------------------------------------------------------------------------------------------------------------- wrong entries


def wrong_of(monkeypatch, slope, complex_step=False, g=1.0, reference=8.0, beyond=None):
    """What `wrong` makes of entry 1 of X, where 0.5 is a unit, of gradient g: with this Slope, and `wrong_at_tie` = beyond."""
    one, tried, asked = comparison(complex_step=complex_step), [], []
    one.wrong_entry = recorded(asked, ((1,), g, reference))
    one.differences = recorded(tried, slope)

    def at_tie(F, x, k, given, gradient):
        assert (F(x), k, gradient) == (4.5, (1,), g)
        assert given == slope._replace(left=2 * slope.left, right=2 * slope.right, error=2 * slope.error)
        return beyond

    monkeypatch.setattr(directions, "wrong_at_tie", never if beyond is None else at_tie)
    row = one.wrong("v", 0.75, -4.0, 7.0)
    assert asked == [(("x", "v"), {})]
    ((unit,), options) = tried[0]
    np.testing.assert_array_equal(unit["x"], [0, 0.5])
    assert options == {"thorough": True}
    return row, one


FOUND = Row("x", (2,), 0.75, 1e-10, (1,), 1.0, 8.0, "a wrong entry, by bisection")


def test_of_several_tensors_no_entry_is_looked_for():
    one = comparison(theta=TWO)
    one.wrong_entry = one.differences = never
    assert one.wrong("v", 0.75, -4.0, 7.0) == Row("jointly", (5,), 0.75, 1e-10, None, -4.0, 7.0)


def test_a_wrong_entry_is_shown_with_its_gradient_and_reference(monkeypatch):
    row, one = wrong_of(monkeypatch, found(4.0, 0.01, -9.0, 9.0))
    assert row == FOUND
    assert (one.ties, one.outside) == ({}, False)


@pytest.mark.parametrize(("left", "g", "beyond", "outside"), [
    (0.25, 1.0, None, False),  # g times the unit is 0.5, between 0.25 and 3.25
    (0.25, 6.5, None, False),
    (1.0, 1.0, False, True),  # below
    (0.25, 7.0, False, True),
])  # fmt: skip
def test_an_entry_at_a_tie_is_noted_and_left_out(monkeypatch, left, g, beyond, outside):
    row, one = wrong_of(monkeypatch, found(2.0, 0.01, left, 3.25, True), g=g, beyond=beyond)
    assert row is None
    assert one.ties == {("x", (1,)): f"slopes {2 * left:.4g} and 6.5 on the sides of (1,), gradient {g:.4g}"}
    assert one.outside is outside


def test_one_that_is_wrong_whatever_the_side_is_shown(monkeypatch):
    row, one = wrong_of(monkeypatch, found(2.0, 0.01, 1.0, 3.0, True), beyond=True)
    assert row == FOUND
    assert (one.ties, one.outside) == ({}, False)


def test_an_entry_outside_is_not_forgotten_over_one_inside(monkeypatch):
    one = comparison()
    one.outside, one.wrong_entry = True, lambda name, v: ((1,), 1.0, 8.0)
    one.differences = lambda v, thorough: found(2.0, 0.01, 0.25, 3.0, True)
    assert one.wrong("v", 0.75, -4.0, 7.0) is None
    assert one.outside is True


@pytest.mark.parametrize(("value", "error", "complex_step", "refuted"), [
    (0.5, 0.01, True, True),  # the slope of g along the unit, not that of the complex step, which is 4
    (0.5, 0.1, True, True),
    (0.5, 0.3, True, True),
    (0.5, 0.01, False, False),
    (0.5, 0.4, True, False),  # both
    (4.0, 0.01, True, False),
    (2.0, 0.01, True, False),  # neither
])  # fmt: skip
def test_differences_may_refute_the_complex_step(monkeypatch, value, error, complex_step, refuted):
    if refuted:
        with pytest.raises(ComplexStepError, match="finite differences speak against the complex step"):
            wrong_of(monkeypatch, found(value, error), complex_step)
    else:
        assert wrong_of(monkeypatch, found(value, error), complex_step)[0] == FOUND


def bisected(true, grad, v):
    """What `wrong_entry` finds in a linear function with these slopes, and the parts of v that it tried."""
    theta, tried = {"x": np.ones(np.shape(true)), "y": np.ones(1)}, []
    one = comparison(theta=theta, grad={"x": np.array(grad), "y": np.ones(1)})

    def slope(part):
        assert part["x"].shape == np.shape(true)
        np.testing.assert_array_equal(part["y"], [9.0])
        tried.append(part["x"].ravel().tolist())
        return float((np.array(true) * part["x"])[part["x"] != 0].sum()), 0.0

    one.slope = slope
    return one.wrong_entry("x", {"x": np.array(v), "y": np.array([9.0])}), tried


TRUE, ALONG = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[2.0, 0.0, -4.0], [0.5, 8.0, 0.0]]


@pytest.mark.parametrize("k", [(0, 0), (0, 2), (1, 0), (1, 1)])
@pytest.mark.parametrize("off", [0.25, -0.25, NAN])
def test_bisection_finds_the_one_wrong_entry(k, off):
    true = np.array(TRUE)
    true[k] += off
    (index, g, reference), tried = bisected(true, TRUE, ALONG)
    assert (index, g) == (k, TRUE[k[0]][k[1]])
    assert reference == pytest.approx(true[k], rel=1e-15, nan_ok=True)
    assert all(type(i) is int for i in index)
    first, second = [2.0, 0, -4.0, 0, 0, 0], [0, 0, 0, 0.5, 8.0, 0]
    assert tried[:2] == [first, second]
    assert len(tried) == 5
    assert [sum(map(bool, part)) for part in tried] == [2, 2, 1, 1, 1]


def test_of_two_wrong_entries_the_one_with_the_larger_share_is_found():
    true = [[2.0, 2.0, 3.0], [4.0, 5.5, 6.0]]  # 1 off along 2, and 0.5 along 8
    assert bisected(true, TRUE, ALONG)[0] == ((1, 1), 5.0, 5.5)


def test_an_entry_alone_needs_no_bisection():
    assert bisected([3.0, 5.0], [1.0, 2.0], [0.0, 4.0]) == (((1,), 2.0, 5.0), [[0.0, 4.0]])
