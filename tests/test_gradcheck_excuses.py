"""What excuses a difference between a pair's gradient and the complex step's: the parts that decide, each by itself."""

import math
import re

import numpy as np
import pytest

from npvae.checking.gradcheck import check_pair
from npvae.checking.gradcheck.arguments import EPS
from npvae.checking.gradcheck.complex_step import STEP, ComplexStepError
from npvae.checking.gradcheck.entries import OUTSIDE
from npvae.checking.gradcheck.excuses import Excuse, excuse, excused, excused_verdict, natural_size, rounding_of_entry
from npvae.checking.gradcheck.pairs import Settings

PLAIN, STRICT = (Settings(threshold=1e-12, given=None, atol=0.0, strict=strict, seed=0) for strict in (False, True))
NOT_SEEN = "rounding: errors below {} are not seen"


class Contraction:
    """f for real numbers; the complex step sees slope, and slope + change where the arguments are rounded (of each entry)."""

    def __init__(self, f=lambda x: 0.0, slope=0.0, change=0.0):
        self.f, self.slope, self.change = f, slope, np.asarray(change)

    def __call__(self, x):
        return 1 + 1j * np.sum(self.slope * x.imag) if np.iscomplexobj(x) else float(self.f(x))

    def rounded(self, rng):
        return Contraction(self.f, self.slope + self.change, 0.0)


class Answers:
    """Has the slopes that it is given, one after the other; an exception among them is raised. Notes what it is asked."""

    def __init__(self, slopes):
        self.slopes, self.asked, self.is_rounded = iter(slopes), [], False

    def __call__(self, z):
        self.asked.append((z, self.is_rounded))
        self.is_rounded = False
        answer = next(self.slopes)
        if isinstance(answer, Exception):
            raise answer
        return complex(1, answer * z.imag.max()) if math.isfinite(answer) else complex(answer, 0)

    def rounded(self, rng):
        self.is_rounded = True
        return self


# ------------------------------------------------------------------------------------------------------ what rounding changes


@pytest.mark.parametrize("place", range(1, 8))
@pytest.mark.parametrize(("here", "there", "change"), [(0.0, 4.0, 4.0), (4.0, 0.0, 4.0), (2.0, 2.5, 0.5), (2.0, -2.0, 4.0)])
def test_rounding_is_the_largest_of_seven_changes(place, here, there, change):
    slopes = [here] * 8
    slopes[place] = there
    C = Answers(slopes)
    assert rounding_of_entry(C, np.ones(2), (1,), 0) == change
    assert len(C.asked) == 8


def test_the_first_is_that_of_a_smaller_step_and_the_others_those_of_the_last_place():
    C, x = Answers([1.0] * 8), np.array([[3.0, -2.0], [0.0, 1e3]])
    assert rounding_of_entry(C, x, (1, 0), 0) == 0
    for i, (z, is_rounded) in enumerate(C.asked):
        assert is_rounded == (i >= 2)
        np.testing.assert_array_equal(z.imag, [[0, 0], [1e-40 if i == 1 else STEP, 0]])
        moved = np.abs(z.real - x)
        assert np.all(moved <= 3 * EPS * np.abs(x))
        assert np.array_equal(moved > 0, x != 0) == is_rounded


def test_rounding_differs_from_sample_to_sample_and_with_the_seed():
    points = {}
    for seed in (0, 1):
        C = Answers([1.0] * 8)
        rounding_of_entry(C, np.full(20, 3.0), (0,), seed)
        points[seed] = {z.real.tobytes() for z, is_rounded in C.asked if is_rounded}
        assert len(points[seed]) == 6
    assert not points[0] & points[1]


@pytest.mark.parametrize("outside", [ValueError("not sorted"), math.nan, math.inf])
def test_what_lies_outside_of_forward_s_domain_does_not_count(outside):
    assert rounding_of_entry(Answers([2.0, outside, 2.0, outside, 2.25, 2.0, 2.0, outside]), np.ones(1), (0,), 0) == 0.25
    assert rounding_of_entry(Answers([2.0] + 7 * [outside]), np.ones(1), (0,), 0) == 0


# --------------------------------------------------------------------------------------------------------- the natural size


@pytest.mark.parametrize(("here", "there", "size"), [
    (3.0, 3.125, 0.75),  # the value over the largest entry, 4
    (-3.0, -3.125, 0.75),
    (3.0, 3.5, 1.25),  # ten times its change over a tenth of the entries
    (-3.0, -2.5, 1.25),
    (0.0, 0.5, 1.25),
    (0.25, 0.25, 0.0625),
    (0.0, 0.0, 0.0),
    (math.nan, 1.0, 0.0),
    (3.0, math.nan, 0.75),
    (math.nan, math.nan, 0.0),
])  # fmt: skip
def test_the_natural_size_is_that_of_the_value_or_of_its_changes_over_that_of_the_arguments(here, there, size):
    x = np.array([1.0, -4.0, 0.0, 2.0])
    assert natural_size(lambda z: here if np.array_equal(z, x) else there, x) == size


def test_its_changes_are_those_over_a_tenth_of_each_entry():
    x, asked = np.array([1e-3, -1e3, 0.0, 5.0] * 10), []
    natural_size(lambda z: asked.append(z) or 1.0, x)
    here, there = asked
    np.testing.assert_array_equal(here, x)
    share = (there - x) / np.where(x == 0, 5.0, np.abs(x))
    assert np.all((np.abs(share) > 0.049) & (np.abs(share) < 0.201))
    assert share.min() < 0 < share.max()


# ------------------------------------------------------------------------------------------------------ the excuse of an entry


def relu(x):
    return max(x[1], 0.0)


@pytest.mark.parametrize(("grad", "reference", "ties_looked_for"), [
    (1001.0, 1000.0, False),  # rounding is 1: as large as the difference, and as a thousandth of the reference
    (999.0, 1000.0, False),
    (1000.5, 1000.0, False),
    (-1000.5, -1000.0, False),
    (1001.25, 1000.0, True),  # the difference is larger
    (998.75, 1000.0, True),
    (-1001.25, -1000.0, True),
    (1000.5, 1001.0, False),
    (999.5, 999.0, True),  # a thousandth is smaller
    (-999.5, -999.0, True),
    (0.0, 0.5, True),
])  # fmt: skip
def test_a_tie_is_looked_for_where_rounding_is_no_excuse_or_too_large_a_one(grad, reference, ties_looked_for):
    C = Contraction(relu, change=2.0**-7)
    arguments = C, np.array([5.0, 0.0, 6.0]), (1,), np.array([0.0, grad, 7.0]), np.array([1e9, reference, 7.0]), 1 - 100 / 128
    assert excuse(*arguments, PLAIN).tie == ties_looked_for
    assert excuse(*arguments, STRICT) == Excuse((1,), 1.0, False, "")
    if not ties_looked_for:
        assert excuse(*arguments, PLAIN) == Excuse((1,), 1.0, False, "")


def test_what_rounding_allows_is_a_hundred_changes_more_than_the_threshold():
    C = Contraction(change=[2.0, 0.25])
    for k, allowed in [((0,), 200.5), ((1,), 25.5)]:
        assert excuse(C, np.ones(2), k, np.ones(2), np.zeros(2), 0.5, STRICT) == Excuse(k, allowed, False, "", False)


def bend(x):
    """x_1 of a slope of 1 below and 2 above zero."""
    return max(x[1], 2 * x[1])


def bent(grad, f=bend, others=0.5, reference=1.0):
    x, grad, reference = np.array([others, 0.0]), np.array([0.0, grad]), np.array([0.0, reference])
    return excuse(Contraction(f), x, (1,), grad, reference, 2.0**-10, PLAIN)


@pytest.mark.parametrize(("grad", "allowed", "outside"), [
    (1.5, math.inf, False),  # between the slopes
    (2.0, math.inf, False),
    (2.5, math.inf, True),  # outside, up to their sum, or down to none: right where several kinks meet
    (3.0, math.inf, True),
    (0.5, math.inf, True),
    (0.0, math.inf, True),
    (3.5, 2.0**-10, True),  # wrong
    (-0.5, 2.0**-10, True),
])  # fmt: skip
def test_at_a_tie_any_slope_between_the_sides_is_excused_and_outside_what_kinks_may_add_up_to(grad, allowed, outside):
    found = bent(grad)
    note = f"slopes 1 and 2 on the sides of (1,), gradient {grad:.4g}, forward's branch 1"
    assert found == Excuse((1,), allowed, True, note, outside)


def test_at_a_kink_of_several_entries_together_no_slope_is_wrong():
    found = bent(3.5, lambda x: max(x[0] + x[1] - 0.5, 2 * (x[0] + x[1] - 0.5)))
    assert found[:3] == ((1,), math.inf, True)
    assert found.outside


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_ties_are_looked_for_at_every_step_from_the_size_of_the_entry_down_to_its_last_digits(size):
    seen = []
    bent(3.0, lambda x: seen.append(x[1] / size) or math.exp(x[1] / size), others=size)
    steps = np.unique([step for step in seen if step > 0])
    assert 0.1 < steps[-1] < 10
    assert steps[0] < 1e-13
    assert np.all(np.diff(np.log2(steps)) <= 1 + 1e-9)


@pytest.mark.parametrize(("grad", "reference"), [(2.0, 1.0), (2.0, 2.0), (1.0, 2.0), (1.0, 1.5)])
def test_elsewhere_only_rounding_is_an_excuse_and_differences_must_not_speak_for_the_gradient_alone(grad, reference):
    """The slope is 2 by differences."""
    if grad == 2 and reference != 2:
        with pytest.raises(ComplexStepError, match=re.escape("at (1,) the complex step gives 1, finite differences give 2")):
            bent(grad, lambda x: 2 * x[1] + 1, reference=reference)
    else:
        assert bent(grad, lambda x: 2 * x[1] + 1, reference=reference) == Excuse((1,), 2.0**-10, False, "")


# --------------------------------------------------------------------------------------------------------- the excused entries


@pytest.mark.parametrize(("change", "found"), [
    ([[9, 9, 9], [9, 9, 9]], [(1, 0), (0, 2), (1, 1), (0, 0)]),  # down to the threshold, that of (0, 1)
    ([[9, 9, 9], [9, 9, 0.03125]], [(1, 0), (0, 2), (1, 1), (0, 0)]),
    ([[2, 9, 3], [4, 2.5, 0]], [(1, 0), (0, 2), (1, 1), (0, 0)]),  # just enough for each
    ([[0, 9, 9], [9, 9, 9]], [(1, 0), (0, 2), (1, 1), (0, 0)]),
    ([[9, 9, 9], [9, 0, 9]], [(1, 0), (0, 2), (1, 1)]),
    ([[9, 9, 0], [9, 9, 9]], [(1, 0), (0, 2)]),
    ([[9, 9, 9], [0, 9, 9]], [(1, 0)]),
    ([[9, 9, 9], [3.9921875, 9, 9]], [(1, 0)]),
])  # fmt: skip
def test_the_largest_differences_are_excused_first_until_one_has_no_excuse(change, found):
    difference = np.array([[200.0, 0.5, 300.0], [400.0, 250.0, 0.25]]) + 0.5
    difference[0, 1] = 0.5
    difference[1, 2] = 0.25
    C = Contraction(change=change)
    excuses = excused(C, np.ones((2, 3)), difference, np.zeros((2, 3)), difference, 0.5, STRICT)
    assert [e.index for e in excuses] == found
    for e in excuses:
        assert e == Excuse(e.index, 0.5 + 100 * change[e.index[0]][e.index[1]], False, "")


@pytest.mark.parametrize("largest", [0.5, 0.375, 0.0])
def test_nothing_is_to_be_excused_where_all_differences_are_allowed(largest):
    assert excused(Contraction(), np.ones(2), np.ones(2), np.ones(2), np.array([largest, 0.0]), 0.5, PLAIN) == []


# ------------------------------------------------------------------------------------------------------------------ the verdict


def verdict(difference=(0.5, 0.0), grad=(1.0, 2.0), scale=2.0, threshold=1e-12, excuses=(), natural=1.0):
    return excused_verdict(np.array(difference), np.array(grad), scale, threshold, list(excuses), natural)


def rounding(allowed, index=(0,)):
    return Excuse(index, allowed, False, "")


def tie(index, note="slopes", outside=False):
    return Excuse(index, math.inf, True, note, outside)


def test_ties_do_not_count():
    assert verdict((0.5, 3.0, 0.25), excuses=[tie((1,), "one")]) == (0.25, 1e-12, "1 of 3 entries at a tie, one", "")
    both = verdict((0.5, 3.0), excuses=[tie((1,), "one"), tie((0,), "other")])
    assert both == (0.0, 1e-12, "2 of 2 entries at a tie, other", "")
    of_matrix = verdict(((0.5, 3.0), (0.25, 1.0)), excuses=[tie((0, 1)), tie((1, 1))])
    assert of_matrix == (0.25, 1e-12, "2 of 4 entries at a tie, slopes", "")


def test_the_differences_stay_as_they_are():
    difference = np.array([1.0, 3.0])
    excused_verdict(difference, np.ones(2), 1.0, 1e-12, [tie((1,))], 1.0)
    assert difference.tolist() == [1, 3]


@pytest.mark.parametrize(("threshold", "limit"), [(1e-12, 0.25), (0.25, 0.25), (0.5, 0.5)])
def test_a_slope_outside_of_a_tie_s_leaves_the_verdict_open(threshold, limit):
    excuses = [rounding(0.5), tie((2,), "one", outside=True), tie((1,), "other")]
    note = "2 of 3 entries at a tie, other"
    assert verdict((0.5, 3.0, 4.0), threshold=threshold, excuses=excuses) == (0.25, limit, note, OUTSIDE)


@pytest.mark.parametrize(("scale", "grad", "natural", "zero"), [
    (0.5, 0.5, 1e9, True),  # rounding is 1: a billionth of the natural size
    (0.5, -0.5, 1e9, True),
    (0.5, 0.5, 2e9, True),
    (0.5, 0.5, 0.99e9, False),
    (1.0, 0.5, 1e9, True),  # neither the reference nor the gradient is larger
    (1.01, 0.5, 1e9, False),
    (0.5, 1.0, 1e9, True),
    (0.5, -1.0, 1e9, True),
    (0.5, 1.01, 1e9, False),
    (0.5, -1.01, 1e9, False),
    (0.0, 0.5, 1e9, True),
])  # fmt: skip
def test_a_gradient_within_rounding_is_zero_if_the_function_may_well_have_a_far_larger_one(scale, grad, natural, zero):
    error, limit, note, doubt = verdict((0.25, 0.75), (grad, 0.0), scale, 1e-12, [rounding(1.0), rounding(0.5)], natural)
    assert (note == "zero to rounding, 1e+00") == zero
    if zero:
        assert (error, limit, doubt) == (0.75 / natural, 1e-12, "")
    else:
        assert error == 0.75 / scale
        assert doubt


def test_beside_ties():
    found = verdict((0.75, 9.0), (0.5, 0.5), 0.5, 1e-12, [tie((1,)), rounding(1.0)], 1e9)
    assert found == (0.75e-9, 1e-12, "1 of 2 entries at a tie, slopes; zero to rounding, 1e+00", "")
    found = verdict((0.5, 9.0), scale=2.0, excuses=[tie((1,)), rounding(1e-7)])
    assert found == (0.25, 1e-7, f"1 of 2 entries at a tie, slopes; {NOT_SEEN.format('1e-07')}", "")


@pytest.mark.parametrize(("allowed", "scale", "threshold", "limit"), [
    (2e-6, 2.0, 1e-12, 1e-6),  # the power of ten that is not smaller
    (2.1e-6, 2.0, 1e-12, 1e-5),
    (2e-5, 2.0, 1e-12, 1e-5),
    (1e-5, 1e-2, 1e-12, 1e-3),
    (2e-6, 2.0, 1e-6, None),  # no more than the threshold
    (2e-6, 2.0, 1e-5, None),
    (2e-6, 2.0, 0.99e-6, 1e-6),
    (0.0, 2.0, 1e-12, None),
    (0.0, 2.0, 0.0, None),
])  # fmt: skip
def test_rounding_makes_a_threshold_that_is_a_power_of_ten(allowed, scale, threshold, limit):
    note = "" if limit is None else NOT_SEEN.format(f"{limit:.0e}")
    expected = 0.5 / scale, pytest.approx(threshold if limit is None else limit, rel=1e-12), note, ""
    assert verdict(scale=scale, threshold=threshold, excuses=[rounding(allowed), rounding(allowed / 4)]) == expected
    assert verdict(scale=scale, threshold=threshold, excuses=[rounding(allowed / 4), rounding(allowed)]) == expected


def test_beside_nothing_at_all_it_makes_none():
    assert verdict(scale=0.0, excuses=[rounding(1.0)]) == (math.inf, 1e-12, "", "")


@pytest.mark.parametrize(("allowed", "doubtful"), [(2e-4, False), (1e-3, False), (1.1e-3, True), (1e-2, True)])
def test_there_is_no_verdict_where_rounding_hides_more_than_a_thousandth(allowed, doubtful):
    limit = 1e-2 if doubtful else 1e-3
    doubt = "rounding hides errors below 1e-02 of this gradient (ill-conditioned, or cancelling): move the arguments"
    expected = 0.5, limit, NOT_SEEN.format(f"{limit:.0e}"), doubt if doubtful else ""
    assert verdict(scale=1.0, excuses=[rounding(allowed)]) == expected


@pytest.mark.parametrize("excuses", [[tie((0,))], [rounding(1e-4)], [rounding(1e-2)]])
def test_a_threshold_of_the_user_s_own_is_not_called_rounding(excuses):
    """As of check_pair(threshold=1e-2), or a gradient of float16, where a tie or rounding excuses an entry."""
    _, limit, note, doubt = verdict(scale=1.0, threshold=1e-2, excuses=excuses)
    assert (limit, doubt) == (1e-2, "")
    assert "are not seen" not in note
    assert verdict(scale=1.0, threshold=1e-2, excuses=[rounding(0.1)])[3].startswith("rounding hides errors below 1e-01")


@pytest.mark.parametrize("threshold", [None, 1e-3, 1e-2])
def test_a_slope_within_a_tie_passes_at_small_and_large_thresholds(threshold):
    def forward(x):
        return np.where(x.real > 0, x, 0), x

    def backward(dout, x):
        return dout * np.where(x == 0, 0.5, x > 0)

    assert check_pair(forward, backward, np.array([1.0, 0.0, -1.0]), threshold=threshold).rows[0].details["ties"] == 1
