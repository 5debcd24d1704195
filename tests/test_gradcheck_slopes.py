"""The parts of the search for a derivative, each by itself: what a slope supports, what counts as constant, and its errors."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from npvae.checking.gradcheck.arguments import EPS
from npvae.checking.gradcheck.derivatives import (
    BOTTOM,
    COARSE,
    FIRST,
    PATIENCE,
    SAMPLES,
    SURE,
    TOP,
    Ladder,
    Slope,
    best_window,
    derivative,
    explains_the_smallest,
    go_down,
    go_up,
    wanted,
)
from npvae.checking.gradcheck.extrapolation import Window


def slope(value=0.0, error=1.0, left=0.0, right=0.0, tie=False, windows=()):
    return Slope(value, error, left, right, tie, 0.0, windows)


@pytest.mark.parametrize(("x", "supported"), [(-20, True), (-20.1, False), (0.5, True), (21, True), (21.1, False)])
@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (1.0, 0.0)])
def test_at_a_tie_everything_between_the_sides_is_supported_within_ten_errors(x, supported, left, right):
    assert slope(error=2.0, left=left, right=right, tie=True).supports(x) == supported


@pytest.mark.parametrize(("x", "supported"), [
    (10, True), (10.1, False), (-10, True), (float("nan"), False), (float("inf"), False),
])  # fmt: skip
def test_elsewhere_what_is_within_ten_errors(x, supported):
    assert slope().supports(x) == supported


@pytest.mark.parametrize(("value", "error", "gap", "supported"), [
    (99.0, 0.5, 0.0, True),  # a sharp window that agrees with x = 100
    (99.0, 0.95, 0.0, True),
    (99.0, 1.0, 0.0, False),  # as wide as a hundredth of the distance: not sharp
    (99.0, 1.05, 0.0, False),
    (95.0, 0.5, 0.0, True),  # ten errors away
    (94.9, 0.5, 0.0, False),
    (104.0, 0.5, 0.0, True),
    (99.0, 0.5, 3.9, True),
    (99.0, 0.5, 4.1, False),  # a kink within it
])  # fmt: skip
def test_or_what_a_sharp_window_agrees_with(value, error, gap, supported):
    window = Window(value, error, 0.0, gap, 1.0)
    assert window.split == (gap > 4)
    assert slope(windows=(window,)).supports(100.0) == supported
    assert slope(windows=(Window(0.0, 1e-3, 0.0, 0.0, 1.0), window)).supports(100.0) == supported


def test_below_steps_that_are_exact_the_step_s_own_rounding_counts():
    """theta + h v has 53 bits; from h = 2^-38 on, with 4 bits of h and 8 of v, some are lost."""
    ladder = Ladder(lambda h: 3.0 * h if h > 0 else 2.0 * h, 2.0, 0.0, 0.0)
    last_exact, first_rounded = ladder.window(33), ladder.window(34)  # steps to 2^-37 and to 2^-38
    reach = EPS * ladder.scale * 3.0 / ladder.step(38)
    assert last_exact.error < 1e-3 * reach
    assert first_rounded.error == pytest.approx(last_exact.error + reach, rel=1e-9)
    assert first_rounded.gap_error == pytest.approx(last_exact.gap_error + 4 * reach, rel=1e-9)
    mirrored = Ladder(lambda h: 2.0 * h if h > 0 else 3.0 * h, 2.0, 0.0, 0.0).window(34)
    assert mirrored.error == pytest.approx(first_rounded.error, rel=1e-9)


@pytest.mark.parametrize(("wrong_at", "explained"), [
    (40 - SAMPLES - 1, True), (40 - SAMPLES, False), (39, False), (40, False), (41, True),
])  # fmt: skip
def test_the_smallest_steps_have_to_agree_with_the_slope(wrong_at, explained):
    def change(j):
        return 2 * 0.5**j * 3.0 + (2 * 11e-9 if j == wrong_at else 2 * 10e-9)

    ladder = SimpleNamespace(values=dict.fromkeys(range(30, 45)), bottom=40, noise=1e-9 * (1 + 1e-9), change=change,
                             step=lambda j: 0.5**j)  # fmt: skip
    assert explains_the_smallest(ladder, slope(value=3.0)) == explained
    assert not explains_the_smallest(ladder, slope(value=-3.0))


def test_steps_without_a_value_do_not_speak_against_a_slope():
    ladder = SimpleNamespace(values={38: None}, bottom=40, noise=0.0, change=lambda j: float("nan"), step=lambda j: 0.5**j)
    assert explains_the_smallest(ladder, slope(value=3.0))


@pytest.mark.parametrize(("bits", "constant"), [(0, True), (8, True), (9, False), (-8, True), (-9, False)])
def test_up_to_eight_last_bits_are_constant(bits, constant):
    ladder = Ladder(lambda h: 1.0, 1.0, 1.0, 0.0)
    ladder.values = {3: (1.0, 1.0 + bits * EPS), 4: (float("nan"), 1.0)}
    assert ladder.constant() == constant
    ladder.values = {4: (float("nan"), float("inf"))}
    assert not ladder.constant()


def test_the_error_of_a_constant_is_that_of_eight_last_bits_over_the_step():
    found = derivative(lambda u: 5.0, 4.0)
    assert found[:4] == (0.0, pytest.approx(8 * EPS * 5 / Ladder(None, 4.0, 0.0, 0.0).scale, rel=1e-12), 0.0, 0.0)


def test_no_more_is_wanted_than_four_last_bits_of_the_slope():
    assert wanted(slope(value=-2.0), 0.0) == 8 * EPS
    assert wanted(slope(value=2.0), 1.0) == 1.0


@pytest.mark.parametrize(("j", "jump", "off"), [
    (COARSE, 2e-6, True), (COARSE, -2e-6, True), (COARSE - 1, 2e-6, True), (COARSE + 1, 2e-6, False), (COARSE, 0.9e-6, False),
])  # fmt: skip
def test_only_large_steps_that_stand_still_are_a_unit_that_is_off(j, jump, off):
    """phi = 2 up to just below step j and then jumps, by a share of itself: at smaller steps a jump may be rounding."""
    ladder = Ladder(None, 1.0, 2.0, 0.0)
    ladder.phi = lambda h: 2.0 + (2 * jump if abs(h) > 0.9 * ladder.step(j) else 0.0)
    assert ladder.off(j) == off


def test_a_function_that_moves_at_the_next_step_is_not_off():
    ladder = Ladder(lambda h: 2.0 + abs(h), 1.0, 2.0, 0.0)
    assert not ladder.off(COARSE)


@pytest.mark.parametrize("side", [1, -1])
def test_flat_is_no_change_on_either_side(side):
    for change in (1.0, -1.0):
        assert not Ladder(lambda h, c=change: 3.0 + c * (side * h > 0), 1.0, 3.0, 0.0).flat(5)
    assert Ladder(lambda h: 3.0, 1.0, 3.0, 0.0).flat(5)


@pytest.mark.parametrize(("bits", "off"), [(100, False), (101, True)])
def test_a_jump_of_a_hundred_last_bits_is_rounding(bits, off):
    ladder = Ladder(None, 1.0, 1.0, 0.0)
    ladder.phi = lambda h: 1.0 + (bits * EPS if abs(h) > 0.9 * ladder.step(20) else 0.0)
    ladder.stairs = lambda j: 0.0
    assert ladder.off(20) == off


@pytest.mark.parametrize(("last", "noise"), [(FIRST + SAMPLES, 0.5e-7), (FIRST + SAMPLES + 1, 1e-6)])
def test_noise_is_seen_at_three_steps_above_the_smallest_if_the_ladder_has_more(last, noise):
    """phi moves in stairs of 1e-7, and by 1e-6 more three steps above the smallest at which it moves."""
    ladder = Ladder(None, 1.0, 1.0, 0.0)

    def phi(h):
        stairs = math.copysign(math.floor(abs(h) / ladder.step(last) + 0.3), h)
        return 1.0 + 1e-7 * stairs + (1e-6 if h > 0.9 * ladder.step(last - SAMPLES) else 0.0)

    ladder.phi = phi
    ladder.measure_noise()
    assert (ladder.bottom, ladder.dead) == (last, False)
    assert ladder.noise == pytest.approx(noise, rel=1e-6)


# ---- stairs that are noise ----


UNFIT = math.inf  # the error of a gap that leaves a window out of the choice of the best
BEST = Window(2.0, 0.125, 0.0, 0.0, 0.0)


def looked_for_stairs(windows, height=0.0, varied=1e6):
    """The ladder after it has looked for stairs of this height, and the steps at which it has."""
    ladder, looked = Ladder(None, 1.0, 5.0, 1.0), []
    ladder.values, ladder.known = {0: (5.0 + varied, math.nan)}, {0: "of another noise"}
    ladder.windows = lambda: windows
    ladder.stairs = lambda j: looked.append(j) or height
    ladder.believe_stairs()
    return ladder, looked


@pytest.mark.parametrize(("value", "error", "different"), [
    (12.0, 0.99, True),
    (12.0, 1.0, False),  # ten errors away
    (12.0, 1.05, False),
    (3.26, 0.05, True),
    (3.25, 0.05, False),  # ten errors of the best away
    (3.0, 0.05, False),
])  # fmt: skip
def test_stairs_are_looked_for_between_the_best_window_and_larger_steps_with_another_slope(value, error, different):
    _, looked = looked_for_stairs({30: BEST, 10: Window(value, error, 0.0, 0.0, UNFIT)})
    assert looked == (list(range(35, 10, -3)) if different else [])


@pytest.mark.parametrize("value", [-12.0, 12.0])
def test_another_slope_at_smaller_steps_is_none(value):
    finer, coarser = Window(value, 0.5, 0.0, 0.0, UNFIT), Window(12.0, 0.5, 0.0, 0.0, UNFIT)
    assert looked_for_stairs({31: finer, 30: BEST})[1] == []
    assert looked_for_stairs({31: finer, 30: BEST, 10: coarser})[1] == list(range(35, 10, -3))


@pytest.mark.parametrize(("height", "believed"), [(19.5, False), (20.0, False), (20.5, True), (99.5, True), (100.0, False)])
def test_stairs_are_noise_from_twenty_times_the_noise_to_a_ten_thousandth_of_the_changes(height, believed):
    ladder, _ = looked_for_stairs({30: BEST, 10: Window(12.0, 0.5, 0.0, 0.0, UNFIT)}, height)
    assert (ladder.noise, ladder.known) == ((height, {}) if believed else (1.0, {0: "of another noise"}))


# ---- which steps are looked at, and which window counts ----


def test_a_thorough_search_goes_down_to_the_last_step():
    ladder = Ladder(np.exp, 1.0, 1.0, 0.0)
    go_down(ladder, 0.0, thorough=True)
    assert list(ladder.values) == list(range(FIRST, BOTTOM + 1))


@pytest.mark.parametrize(("error", "drowned"), [(19.5, True), (20.0, False), (20.5, False)])
def test_larger_steps_are_looked_at_as_long_as_only_rounding_speaks(error, drowned):
    looked = []

    def window(j):
        looked.append(j)
        return Window(0.0, error / 0.5 ** (j + 4), 0.0, 0.0, 0.0)

    ladder = SimpleNamespace(window=window, windows=lambda: {30: BEST}, noise=1.0, step=lambda j: 0.5**j)
    go_up(ladder, 0.0)
    assert looked == list(range(FIRST - 1, TOP if drowned else FIRST - 1 - PATIENCE, -1))


@pytest.mark.parametrize(("other", "better"), [
    (Window(2.0, 0.12, 0.0, 0.0, 0.0), True),
    (Window(2.0, 0.125, 0.0, 0.0, 1.0), False),  # no smaller error: that of the smaller steps stays
    (Window(3.25, 0.05, 0.0, 0.0, 0.0), True),  # ten errors of the best away
    (Window(3.26, 0.05, 0.0, 0.0, 0.0), False),
    (Window(2.0, 0.12, 0.0, 0.0, UNFIT), False),
])  # fmt: skip
def test_the_best_window_has_the_smallest_error_in_agreement_with_smaller_steps(other, better):
    assert best_window({10: other, 11: BEST}) is (other if better else BEST)


def test_a_difference_is_one_beyond_ten_errors():
    assert SURE == 10
