"""The complex step and what confirms it, each function by itself: the steps taken, the answers believed, the points tried."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from npvae.checking.gradcheck import complex_step
from npvae.checking.gradcheck.arguments import EPS, generator, nearby, random_direction
from npvae.checking.gradcheck.complex_step import (
    STEP,
    ComplexStepError,
    Confirmation,
    agreement,
    complex_entries,
    complex_slope,
    complex_step_grad,
    confirmation,
    imaginary_part,
    rounding_of,
    seen_elsewhere,
)
from npvae.checking.gradcheck.derivatives import Slope
from npvae.checking.gradcheck.entries import WIDEST

THETA = {"a": np.array([1.0, -100.0]), "b": np.array([[2.0, 0.01]]), "c": np.array([3.0])}
YES, NO = (True, 0.0, ""), (False, 0.0, "3 +- 1")


def square(z):
    return (z * z).sum()


def lossy(z):
    return (z.real * z).sum()


# ------------------------------------------------------------------------------------------------------------- complex numbers


def test_the_gradient_is_the_imaginary_part_over_the_step():
    x = np.array([[0.25, -1.0], [4.0, 0.0]])
    np.testing.assert_array_equal(complex_step_grad(square, x), 2 * x)
    np.testing.assert_array_equal(complex_step_grad(lambda z: [square(z)], [1, 2]), [2.0, 4.0])


def test_a_function_that_writes_into_its_argument_is_handed_copies():
    def writing(z):
        z *= 2
        return square(z) / 4

    x = np.array([0.5, -1.0])
    np.testing.assert_array_equal(complex_step_grad(writing, x), [1.0, -2.0])
    np.testing.assert_array_equal(x, [0.5, -1.0])


def test_a_gradient_that_is_not_confirmed_is_an_error_with_the_remedy():
    with pytest.raises(ComplexStepError, match=r"^the complex step gives .*: f loses imaginary parts\. The usual causes"):
        complex_step_grad(lossy, np.array([0.5, -1.0]))


def test_errors_of_the_function_itself_come_first():
    with pytest.raises(ZeroDivisionError):
        complex_step_grad(lambda z: 1 / 0, np.ones(2))


def test_each_entry_in_turn_gets_the_whole_step_and_the_others_none():
    seen = []
    complex_entries(lambda z: seen.append(z) or z.sum(), np.array([[3.0, -5.0]]))
    np.testing.assert_array_equal(seen, [[[3 + 1e-20j, -5]], [[3, -5 + 1e-20j]]])


def test_the_imaginary_part_is_that_of_a_finite_value():
    assert imaginary_part(lambda z: 2 * z, 3 + 4j) == 8
    assert type(imaginary_part(lambda z: np.complex128(z), 3 + 4j)) is float
    for value in (complex(math.inf, 1), complex(math.nan, 1)):
        assert math.isnan(imaginary_part(lambda z, value=value: value, 0j))


def test_a_function_that_fails_on_complex_numbers_says_so_in_one_line():
    def fails(z):
        raise LookupError("no such type\nat line 2")

    with pytest.raises(ComplexStepError, match=r"^f does not run on complex numbers: no such type$") as found:
        imaginary_part(fails, 1j)
    assert isinstance(found.value.__cause__, LookupError)


def test_a_cast_to_real_numbers_is_a_failure_and_other_warnings_are_not():
    with pytest.raises(ComplexStepError, match="does not run on complex numbers: Casting complex values"):
        imaginary_part(lambda z: np.array([z]).astype(float)[0] + 0j, 1j)

    def warned(z):
        warnings.warn("slow", UserWarning, stacklevel=1)
        return z

    with pytest.warns(UserWarning, match="slow"):
        assert imaginary_part(warned, 2j) == 2


@pytest.mark.parametrize("value", [2.5, np.float64(2.5)])
def test_a_real_answer_has_lost_the_imaginary_part(value):
    with pytest.raises(ComplexStepError, match=r"returns a real number \(2.5\) for complex input"):
        imaginary_part(lambda z: value, 1j)


def test_the_slope_along_a_direction_is_taken_with_the_step_asked_for():
    seen = []

    def f(theta):
        seen.append(theta["x"][0])
        return 3 * theta["x"].sum()

    assert complex_slope(f, {"x": np.array([5.0])}, {"x": np.array([2.0])}, 0.5) == 6
    assert complex_slope(f, {"x": np.array([5.0])}, {"x": np.array([2.0])}) == 6
    assert seen == [5 + 1j, 5 + 2e-20j]


# ---------------------------------------------------------------------------------------------------------------- confirmation


@pytest.fixture
def scripted(monkeypatch):
    """Put answers in place of `agreement`, one a call (an error is raised); the calls, and those of `seen_elsewhere`."""

    def script(*answers, elsewhere=0.0):
        calls, left = [], list(answers)

        def fake(f, theta, v, slope):
            calls.append(SimpleNamespace(theta=theta, v=v, slope=slope))
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(complex_step, "agreement", fake)
        if elsewhere is not None:
            others = []
            monkeypatch.setattr(complex_step, "seen_elsewhere", lambda *args: others.append(args) or elsewhere)
            return calls, others
        return calls

    return script


def linear(theta):
    return theta["a"].sum() + 2 * theta["b"].sum() + 4 * theta["c"].sum()


def confirmed(**options):
    return confirmation(linear, THETA, ["a", "b"], **options)


def equal(one, other):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("seed", [0, 3])
def test_the_directions_are_random_by_entry_in_the_tensors_named_only(scripted, seed):
    calls, _ = scripted(YES, YES)
    assert confirmed(**({"seed": seed} if seed else {})) == (True, 0.0, False, "")
    rng = generator(seed, "confirm")
    for call in calls:
        v = random_direction(THETA, ["a", "b"], rng, by_entry=True)
        equal(call.v, v)
        equal(call.theta, THETA)
        assert call.slope == pytest.approx(linear(v), rel=1e-12)
        assert not v["c"].any()
    assert len(calls) == 2


def test_there_are_as_many_directions_as_asked_for_and_the_worst_sight_counts(scripted):
    calls, elsewhere = scripted((True, 1e-9, ""), (True, 1e-5, ""), (True, 1e-7, ""))
    assert confirmed(directions=3) == (True, 1e-5, False, "")
    assert len(calls) == 3
    assert not elsewhere


def test_differences_that_disagree_here_and_nearby_speak_against_the_complex_step(scripted):
    calls, elsewhere = scripted((False, 1.0, "3 +- 1"), (False, 1.0, "4 +- 1"))
    found = confirmed()
    said = f"the complex step gives a slope of {calls[0].slope:.6g}, finite differences give 3 +- 1: f loses imaginary parts"
    assert found == (False, math.inf, False, said)
    assert len(calls) == 2
    assert not elsewhere


def test_nearby_is_a_thousandth_or_two_of_each_entry_away_in_the_tensors_named(scripted):
    calls, _ = scripted(NO, YES, YES)
    assert confirmed() == (True, 0.0, True, "")
    equal(calls[1].v, calls[0].v)
    for name in "ab":
        away = np.abs(calls[1].theta[name] / THETA[name] - 1)
        assert np.all((away >= 0.999e-3) & (away <= 2.001e-3))
    np.testing.assert_array_equal(calls[1].theta["c"], THETA["c"])
    equal(calls[2].theta, calls[1].theta)  # the next direction starts there
    assert not np.array_equal(calls[2].v["a"], calls[0].v["a"])


def test_nearby_the_slope_is_that_of_nearby(scripted):
    calls, _ = scripted(NO, YES)
    f = {"x": np.array([1.0])}
    assert confirmation(lambda theta: square(theta["x"]), f, ["x"], directions=1).ok
    assert calls[0].slope == 2 * calls[0].v["x"][0]
    assert calls[1].slope == pytest.approx(2 * calls[1].theta["x"][0] * calls[1].v["x"][0], rel=1e-12)
    assert calls[1].slope != calls[0].slope


def test_a_kink_is_moved_away_from_once_only(scripted):
    calls, _ = scripted((False, 0.0, "1"), YES, (False, 0.0, "7 +- 1"))
    found = confirmed()
    assert (found.ok, found.sight, found.tie) == (False, math.inf, False)
    assert found.reason.endswith("finite differences give 7 +- 1: f loses imaginary parts")
    assert f"a slope of {calls[2].slope:.6g}," in found.reason
    assert len(calls) == 3


def test_the_sight_after_a_kink_is_that_of_the_point_nearby(scripted):
    scripted((False, 0.9, "1"), (True, 1e-6, ""))
    assert confirmed(directions=1) == (True, 1e-6, True, "")


@pytest.mark.parametrize("before", [[], [NO], [YES]])
def test_a_complex_step_that_fails_is_not_confirmed(scripted, before):
    scripted(*before, ComplexStepError("no complex numbers"))
    assert confirmed() == Confirmation(False, math.inf, False, "no complex numbers")


def test_where_differences_see_little_they_look_elsewhere(scripted):
    _, others = scripted((True, 2e-3, ""), (True, WIDEST, ""), elsewhere=1e-4)
    assert confirmed() == (True, WIDEST, False, "")
    ((f, theta, names, rng, seen),) = others
    assert (f, names, seen) == (linear, ["a", "b"], 2e-3)
    assert hasattr(rng, "choice")
    equal(theta, THETA)
    scripted((True, 2e-3, ""), YES, elsewhere=0.5)
    assert confirmed() == (True, 0.5, False, "")


def test_elsewhere_is_looked_at_from_the_point_moved_to(scripted):
    calls, others = scripted(NO, (True, 0.1, ""), elsewhere=1e-4)
    assert confirmed(directions=1) == (True, 1e-4, True, "")
    equal(others[0][1], calls[1].theta)


def test_elsewhere_is_half_a_fifth_and_a_twentieth_of_the_way_from_zero(scripted):
    calls = scripted((True, 1.1 * WIDEST, ""), (False, 0.0, ""), ComplexStepError("out"), elsewhere=None)
    assert seen_elsewhere(linear, THETA, ["a", "b"], np.random.default_rng(0), 0.25) == 0.25
    assert len(calls) == 3
    for call, factor in zip(calls, (0.5, 0.2, 0.05)):
        for name in "ab":
            away = np.abs(call.theta[name] / (factor * THETA[name]) - 1)
            assert np.all((away >= 0.0999) & (away <= 0.2001))
            assert np.all((np.abs(call.v[name] / call.theta[name]) >= 0.49) & (np.abs(call.v[name] / call.theta[name]) <= 2.01))
        np.testing.assert_array_equal(call.theta["c"], THETA["c"])
        assert not call.v["c"].any()
        assert call.slope == pytest.approx(linear(call.v), rel=1e-12)


@pytest.mark.parametrize("seen", [WIDEST, 1e-6])
@pytest.mark.parametrize("before", [[], [(True, 1.0, "")], [(False, 0.0, "")], [ComplexStepError("out")]])
def test_the_first_point_elsewhere_that_sees_enough_counts(scripted, seen, before):
    calls = scripted(*before, (True, seen, ""), (True, 0.0, ""), elsewhere=None)
    assert seen_elsewhere(linear, THETA, ["a"], np.random.default_rng(0), 0.25) == seen
    assert len(calls) == len(before) + 1


# ------------------------------------------------------------------------------------------------------------------- agreement


def slope(value=2.0, error=0.25, left=0.0, right=0.0, tie=False):
    return Slope(value, error, left, right, tie, 0.0, ())


def agreed(monkeypatch, answers, x=2.0, f=lambda theta: 0.0):
    """What `agreement` says of the slope x, with answers in place of `derivative`; and the calls of that."""
    calls, left = [], list(answers)

    def fake(phi, *args, **options):
        calls.append((phi, args, options))
        return left.pop(0)

    monkeypatch.setattr(complex_step, "derivative", fake)
    return agreement(f, {"x": np.array([1.0, 5.0])}, {"x": np.array([2.0, -4.0])}, x), calls


def test_one_search_that_supports_the_slope_is_enough(monkeypatch):
    found, calls = agreed(monkeypatch, [slope(-2.0)], -2.0, lambda theta: theta["x"][0] + 100 * theta["x"][1])
    assert found[0]
    ((phi, args, options),) = calls
    assert (args, options) == ((1.0,), {"good": 2e-11})
    assert phi(0.5) == 2 + 100 * 3


@pytest.mark.parametrize(("first", "x"), [(slope(tie=True, left=1.0, right=3.0), 2.0), (slope(), 4.6)])
@pytest.mark.parametrize(("second", "agree"), [(slope(value=3.0, error=0.5), True), (slope(value=9.0, error=0.01), False)])
def test_a_tie_or_another_slope_is_searched_for_thoroughly(monkeypatch, first, x, second, agree):
    found, calls = agreed(monkeypatch, [first, second], x)
    assert [call[1:] for call in calls] == [((1.0,), {"good": 1e-11 * x}), ((1.0,), {"thorough": True})]
    assert found == (agree, second.error / max(x, second.value), "3 +- 5e-01" if agree else "9 +- 1e-02")


@pytest.mark.parametrize(("value", "x", "here", "there", "size"), [
    (2.0, 2.0, 0.0, 0.0, 2.0),
    (-1.0, 1.5, 0.0, 0.0, 1.5),
    (1.0, -1.5, 0.0, 0.0, 1.5),
    (-3.0, -2.5, 0.0, 0.0, 3.0),
    (1.0, 1.0, 4000.0, 4000.0, 4.0),  # a thousandth of the function
    (1.0, 1.0, -4000.0, -4000.0, 4.0),
    (1.0, 1.0, 100.0, 1000.0, 9.0),  # a hundredth of its change
    (1.0, 1.0, 1000.0, 100.0, 9.0),
    (1.0, 1.0, math.nan, math.nan, 1.0),
    (1.0, 1.0, 4000.0, math.nan, 4.0),
])  # fmt: skip
def test_differences_see_their_error_beside_the_largest_slope_there_may_be(monkeypatch, value, x, here, there, size):
    def f(theta):
        return {1.0: here, 1.2: there}[float(theta["x"][0])]

    found, _ = agreed(monkeypatch, [slope(value)], x, f)
    assert found == (True, pytest.approx(0.25 / size, rel=1e-12), f"{value:.6g} +- 2e-01")


def test_zero_is_seen_without_error(monkeypatch):
    assert agreed(monkeypatch, [slope(0.0)], 0.0)[0] == (True, 0.0, "0 +- 2e-01")


@pytest.mark.parametrize(("here", "agree"), [(1.0, False), (math.nan, True), (math.inf, True)])
def test_only_a_function_without_a_value_here_may_have_no_slope(monkeypatch, here, agree):
    nothing = slope(math.nan, math.inf)
    assert agreed(monkeypatch, [nothing] * 2, 2.0, lambda theta: here)[0] == (agree, 0.0, "nan")


def test_a_tie_is_told_with_both_sides(monkeypatch):
    tie = slope(1.0, 0.5, 4.0, -2.0, True)
    assert agreed(monkeypatch, [tie, tie])[0] == (False, 0.25, "4 on one side and -2 on the other")


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_a_slope_that_is_not_finite_is_not_supported(monkeypatch, x):
    assert not agreed(monkeypatch, [slope(), slope()], x)[0][0]


# -------------------------------------------------------------------------------------------------------------------- rounding


def test_rounding_is_the_largest_change_of_six_neighbours_by_the_last_place():
    seen, answers = [], iter([10.0, 12.0, 7.0, math.nan, math.inf, 10.0, 9.0])
    assert rounding_of(lambda theta: seen.append(theta) or next(answers), THETA) == 3
    rng = generator(0, "rounding")
    equal(seen[0], THETA)
    for theta in seen[1:]:
        equal(theta, nearby(THETA, rng, EPS))
    assert len(seen) == 7
    equal(seen[1], nearby(THETA, generator(0, "rounding"), EPS))


def test_the_seed_and_the_number_of_neighbours_may_be_chosen():
    seen = []
    assert rounding_of(lambda theta: seen.append(theta) or 1.0, THETA, seed=4, samples=2) == 0
    equal(seen[1], nearby(THETA, generator(4, "rounding"), EPS))
    assert len(seen) == 3


def test_there_is_no_rounding_where_no_neighbour_has_a_slope():
    answers = iter([1.0] + 6 * [math.nan])
    assert rounding_of(lambda theta: next(answers), THETA) == 0
    for fails_at in (0, 3):
        calls = []

        def fails(theta, calls=calls, fails_at=fails_at):
            calls.append(theta)
            if len(calls) > fails_at:
                raise ValueError("outside")
            return float(len(calls))

        assert rounding_of(fails, THETA) == 0


def test_the_step_is_far_below_rounding():
    assert STEP == 1e-20
