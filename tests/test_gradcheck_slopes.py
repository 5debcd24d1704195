"""The parts of the search for a derivative, each by itself: what a slope supports, what counts as constant, and its errors."""

from types import SimpleNamespace

import pytest

from npvae.checking.gradcheck.arguments import EPS
from npvae.checking.gradcheck.derivatives import (
    COARSE,
    SAMPLES,
    SURE,
    Ladder,
    Slope,
    derivative,
    explains_the_smallest,
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
    (99.0, 0.5, 5.0, False),  # a kink within it
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


def test_a_difference_is_one_beyond_ten_errors():
    assert SURE == 10
