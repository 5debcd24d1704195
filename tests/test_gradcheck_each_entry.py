"""One tensor's gradient against differences in each entry: the search and the verdict, each part by itself."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import recorded

from npvae.checking.gradcheck import entries
from npvae.checking.gradcheck.arguments import EPS, generator, random_direction
from npvae.checking.gradcheck.derivatives import Slope
from npvae.checking.gradcheck.entries import (
    OUTSIDE,
    Entries,
    Search,
    Tie,
    counted_twice,
    differences_row,
    entry_slopes,
    hidden_by_rounding,
    shifted,
    tie_note,
    ties_in,
    wrong_at_tie,
    zero_to_rounding,
)
from npvae.checking.gradcheck.extrapolation import Window

NAN, INF = math.nan, math.inf


def slope_of(value=0.0, error=0.0, left=0.0, right=0.0, tie=False, noise=0.0):
    return Slope(value, error, left, right, tie, noise, ())


# ------------------------------------------------------------------------------------------------------------------ the row


def row_of(monkeypatch, grad, value, error=0.0, tie=False, wrong=False, threshold=0.25, atol=0.0, twice=(0.0, ""), **others):
    """The Row of grad where the search has found this."""
    grad = np.array(grad)
    natural = others.pop("natural", 0.0)
    parts = (value, error, others.get("left", value), others.get("right", value))
    shaped = [np.broadcast_to(np.array(part, dtype=float), grad.shape) for part in parts]
    flags = [np.broadcast_to(np.array(part), grad.shape) for part in (tie, wrong)]
    asked = []
    monkeypatch.setattr(entries, "entry_slopes", recorded(asked, Entries(*shaped, *flags, natural)))
    monkeypatch.setattr(entries, "counted_twice", recorded([], twice))
    monkeypatch.setattr(entries, "explanation", lambda grad, reference: "explained")
    return differences_row("F", np.ones(grad.shape), "x", grad, threshold, atol)


def test_the_row_has_the_largest_difference_and_the_error_of_the_norms(monkeypatch):
    row = row_of(monkeypatch, [[3.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 5.0]], threshold=1.0)
    assert (row.name, row.shape, row.index, row.analytic, row.reference) == ("x", (2, 2), (1, 1), 1.0, 5.0)
    assert row.error == pytest.approx(4 / (math.sqrt(34) + math.sqrt(10)), rel=1e-14)
    assert (row.threshold, row.note, row.doubt) == (1.0, "", "")
    assert row.details == {"ties": 0, "left_out": 0, "sight": 0.0}


def test_a_wrong_entry_is_shown_before_one_of_a_larger_difference(monkeypatch):
    row = row_of(monkeypatch, [1.0, 1.0], [9.0, 2.0], wrong=[False, True])
    assert (row.index, row.analytic, row.reference, row.note) == ((1,), 1.0, 2.0, "explained")


def test_of_very_small_differences_the_largest_is_shown(monkeypatch):
    assert row_of(monkeypatch, [0.0, 0.0, 0.0], [1e-20, 3e-20, 2e-20]).index == (1,)


@pytest.mark.parametrize(("wrong", "value", "note"), [
    (True, 4.0, ""),
    (True, 5.0, ""),  # (5 - 3)/8 is the threshold
    (True, 5.1, "explained"),
    (True, NAN, "explained"),
])  # fmt: skip
def test_a_difference_beyond_the_threshold_is_explained(monkeypatch, wrong, value, note):
    row = row_of(monkeypatch, [3.0], [value], wrong=wrong)
    assert row.note == note
    assert row.threshold == 0.25
    assert row.wrong == bool(note)


def test_atol_beside_the_largest_derivative_widens_the_threshold_of_wrong_entries(monkeypatch):
    row = row_of(monkeypatch, [3.0, 0.0], [-6.0, 0.0], wrong=True, atol=6.0)
    assert (row.error, row.threshold, row.note) == (1.0, 1.0, "")
    assert row_of(monkeypatch, [3.0, 0.0], [-6.0, 0.0], wrong=True, atol=5.9).note == "explained"
    assert row_of(monkeypatch, [3.0, 0.0], [-6.0, 0.0], wrong=True, atol=0.6).threshold == 0.25


@pytest.mark.parametrize(("atol", "limit", "note"), [
    (2.0, 0.5, ""),  # atol beside the largest derivative, 4
    (1.0, 0.25, ""),
    (0.25, 1.0, "rounding of f: errors below 1e+00 are not seen"),
    (0.0, 1.0, "rounding of f: errors below 1e+00 are not seen"),
])  # fmt: skip
def test_a_difference_of_atol_does_not_count(monkeypatch, atol, limit, note):
    row = row_of(monkeypatch, [0.0, 5.0], [0.0, 4.0], threshold=0.0625, atol=atol)
    assert (row.error, row.threshold, row.note) == (1 / 9, limit, note)
    assert row_of(monkeypatch, [1.0, 0.0], [-1.0, 0.0], threshold=0.0625, atol=2.0).threshold == 2.0
    assert row_of(monkeypatch, [4.0, 1.0], [4.0, 0.0], threshold=1e-3, atol=1.0).threshold == 0.25
    assert row_of(monkeypatch, [1.0, 1.0], [-1.0, 2.0], threshold=1e-3, atol=2.0).threshold == 1.0


def test_an_error_beside_small_derivatives_is_within_atol_all_the_same(monkeypatch):
    row = row_of(monkeypatch, [0.5] * 4, [-0.5, -1.0, -0.5, -0.5], threshold=1e-3, atol=1.5)
    assert row.error <= row.threshold == 1.5
    row = row_of(monkeypatch, [-1.0] * 4, [-4.0, 0.0, 0.0, 0.0], threshold=1e-3, atol=3.0)
    assert row.threshold == 0.75
    assert row.error < 0.75
    row = row_of(monkeypatch, [3.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], threshold=1e-3, atol=1.0)
    assert row.error == row.threshold == 2 / (4 + math.sqrt(12))
    assert row.note == ""


@pytest.mark.parametrize(("error", "limit", "note"), [
    (0.2, 0.25, ""),  # ten errors of 0.2 over 8
    (0.21, 1.0, "rounding of f: errors below 1e+00 are not seen"),
    (0.81, 10.0, "rounding of f: errors below 1e+01 are not seen"),
])  # fmt: skip
def test_what_is_not_seen_for_rounding_is_told(monkeypatch, error, limit, note):
    row = row_of(monkeypatch, [4.0], [4.0], error=error)
    assert (row.error, row.threshold, row.note) == (0.0, limit, note)
    assert row.details["sight"] == error / 8
    assert bool(row.doubt) == bool(note)


def test_zeros_within_rounding_pass(monkeypatch):
    row = row_of(monkeypatch, [1.0], [-1.0], error=0.5, natural=5e8)
    assert (row.error, row.threshold, row.note, row.doubt) == (0.25, 0.25, "zero to rounding, 5e-01", "")
    assert row_of(monkeypatch, [1.0], [1.0], error=0.5, natural=5e8).error == 0.0
    assert row_of(monkeypatch, [1.0], [-1.0], error=0.5, natural=4e8).doubt


@pytest.mark.parametrize(("missing", "doubt"), [(1, ""), (2, ""), (3, "most entries are left out: move theta")])
def test_entries_around_which_f_has_no_values_are_left_out(monkeypatch, missing, doubt):
    value = [NAN] * missing + [2.0] * (4 - missing)
    row = row_of(monkeypatch, [2.0] * 4, value, error=[INF] * missing + [0.0] * (4 - missing))
    assert (row.error, row.details["left_out"], row.doubt) == (0.0, missing, doubt)
    assert row.note == f"{missing} of 4 entries left out, around which f has no values"
    assert row_of(monkeypatch, [2.0] * 5, [NAN] * 3 + [2.0] * 2).doubt == "most entries are left out: move theta"


@pytest.mark.parametrize(("g", "outside"), [
    (3.0, False), (4.0, False), (5.0, False), (2.0, False), (6.0, False), (1.9, True), (6.1, True),
])  # fmt: skip
@pytest.mark.parametrize("sides", [(3.0, 5.0), (5.0, 3.0)])
def test_at_a_tie_the_gradient_has_to_lie_between_the_sides(monkeypatch, g, outside, sides):
    """Within ten errors of 1/20, and a threshold of 1/16 times the largest entry, 8: one in all."""
    left, right = ([side, 8.0] for side in sides)
    options = dict(error=[0.05, 0.0], threshold=0.0625, left=left, right=right, tie=[True, False])
    row = row_of(monkeypatch, [g, 8.0], [4.0, 8.0], **options)
    note = f"1 of 2 entries at a tie, slopes {sides[0]:.4g} and {sides[1]:.4g} on its sides at (0,), gradient {g:.4g}"
    assert row.note == (note if outside else note + " lies between")
    assert row.doubt == (OUTSIDE if outside else "")
    assert (row.error, row.details["ties"]) == (0.0, 1)
    assert row_of(monkeypatch, [g, 8.0], [4.0, 8.0], **options, twice=(0.125, "twice")).error == 0.125


def test_ties_counted_twice_are_told_last_and_a_wrong_tie_is_none(monkeypatch):
    row = row_of(monkeypatch, [2.0, 8.0], [2.0, 4.0], tie=[True, False], twice=(0.01, "twice"), threshold=0.5)
    assert row.note.endswith(" lies between; twice")
    assert row.error > 0.01
    row = row_of(monkeypatch, [2.0, 8.0], [6.0, 8.0], tie=[True, False], wrong=[True, False], threshold=1e-3)
    assert (row.details["ties"], row.index, row.note) == (0, (0,), "explained")


def test_a_doubt_of_rounding_is_not_replaced_by_that_of_a_tie(monkeypatch):
    row = row_of(monkeypatch, [9.0, 1.0], [2.0, 1.0], error=[0.0, 0.9], left=[1.0, 1.0], tie=[True, False], threshold=1e-2)
    assert row.doubt.startswith("rounding of f hides errors")


def test_a_float32_gradient_is_compared_at_its_precision(monkeypatch):
    asked = []
    found = Entries(np.ones(2), np.zeros(2), np.ones(2), np.ones(2), *(np.zeros(2, dtype=bool),) * 2, 0.0)
    monkeypatch.setattr(entries, "entry_slopes", recorded(asked, found))
    row = differences_row("F", np.ones(2), "x", np.ones(2, dtype=np.float32), 1e-9, 0.5, "valid")
    precision = 8 * float(np.finfo(np.float32).eps)
    assert row.note == "gradient is float32, the argument float64: compared at its precision"
    assert asked[0][0][3:] == (precision, 0.5, "valid")
    assert differences_row("F", np.ones(2), "x", np.ones(2, dtype=np.float32), 1e-9).threshold == precision
    assert asked[1][0][3:] == (precision, 0.0, None)


def test_a_gradient_of_zeros(monkeypatch):
    row = row_of(monkeypatch, [0.0, 0.0], [0.0, 0.0], atol=0.5)
    assert (row.error, row.threshold, row.note) == (0.0, INF, "")


# ------------------------------------------------------------------------------------------------------------------ rounding


@pytest.mark.parametrize(("error", "limit", "reached", "doubtful"), [
    (0.9e-3, 1e-6, 1e-3, False),
    (1.1e-3, 1e-6, 1e-2, True),
    (1.1e-7, 0.5e-6, 1e-6, False),
    (1e-4, 0.5, 0.5, False),
    (0.6, 0.5, 1.0, True),
    (5.0, 1.0, 10.0, True),
])  # fmt: skip
def test_rounding_makes_a_power_of_ten_of_the_threshold_and_a_doubt_beyond_a_thousandth(error, limit, reached, doubtful):
    found, doubt = hidden_by_rounding(error, limit)
    assert found == pytest.approx(reached, rel=1e-12)
    assert bool(doubt) == doubtful
    if doubtful:
        assert doubt.startswith(f"rounding of f hides errors below {reached:.0e} of the gradient")
        assert doubt.endswith(f"threshold={reached:.0e}")


@pytest.mark.parametrize(("grad", "reference", "error", "natural", "zero"), [
    ([5.0, -10.0], [0.0, 0.0], 1.0, 1e9, True),
    ([5.0, -10.1], [0.0, 0.0], 1.0, 1e9, False),
    ([0.0, 0.0], [-10.0, 1.0], 1.0, 1e9, True),
    ([0.0, 0.0], [-10.1, 1.0], 1.0, 1e9, False),
    ([0.0, 0.0], [0.0, 0.0], 1.0, 0.99e9, False),
    ([0.0, 0.0], [0.0, 0.0], 0.0, 0.0, True),
])  # fmt: skip
def test_zero_to_rounding_is_ten_errors_that_are_nothing_beside_the_natural_size(grad, reference, error, natural, zero):
    assert zero_to_rounding(np.array(grad), np.array(reference), error, natural) == zero


# ---------------------------------------------------------------------------------------------------------------------- ties


def test_the_first_entry_at_a_tie_is_shown():
    value = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = SimpleNamespace(left=value, right=10 * value)
    note = "2 of 4 entries at a tie, slopes 2 and 20 on its sides at (0, 1), gradient -2"
    assert tie_note(found, np.array([[False, True], [True, False]]), -value) == note


def test_a_shifted_copy():
    x = np.array([[1.0, 2.0]])
    np.testing.assert_array_equal(shifted(x, (0, 1), 0.5), [[1.0, 2.5]])
    np.testing.assert_array_equal(x, [[1.0, 2.0]])


@pytest.mark.parametrize(("value", "error", "tie", "told"), [
    (18.0, 0.0, False, False),
    (18.01, 0.0, False, False),  # within a thousandth of 18 or rather of |-1.5| + ... times the step
    (18.1, 0.0, False, True),
    (17.9, 0.0, False, True),
    (-18.0, 0.0, False, True),
    (19.0, 0.1, False, False),
    (19.0, 0.09, False, True),
    (90.0, 0.0, True, False),
])  # fmt: skip
def test_all_entries_together_have_to_have_the_slope_of_the_gradient(monkeypatch, value, error, tie, told):
    """x has the median 4, so that the slope is 4 (1.5 + 3)."""
    asked = []
    monkeypatch.setattr(entries, "derivative", recorded(asked, slope_of(value, error, 1.0, 2.0, tie)))
    x = np.array([4.0, 5.0, 1.0])
    found = counted_twice(lambda z: z, x, np.array([1.5, 3.0, 0.0]))
    note = f"ties counted more than once: moved together they give {value / 4:.6g}, the gradient's entries add up to 4.5"
    assert found == ((abs(value - 18) / 18, note) if told else (0.0, ""))
    ((phi, scale), options) = asked[0]
    assert (scale, options) == (1.0, {"thorough": True})
    np.testing.assert_array_equal(phi(0.5), x + 2)


def test_the_error_of_all_together_is_beside_the_sum_of_moduli(monkeypatch):
    monkeypatch.setattr(entries, "derivative", recorded([], slope_of(4.0)))
    assert counted_twice(None, np.array([1.0, 1.0]), np.array([3.0, -1.0]))[0] == 0.5
    assert counted_twice(None, np.array([1.0]), np.array([2.0]))[0] == 1.0


@pytest.mark.parametrize(("left", "right", "inside", "outside"), [
    (1.0, 2.0, [-1.0, 0.0, 3.0, 4.0], [-1.1, 4.1]),  # from 0 to 3, and ten errors of 1/10
    (-1.0, -2.0, [-4.0, 0.0, 1.0], [-4.1, 1.1]),
    (-1.0, 2.0, [-2.0, 3.0], [-2.1, 3.1]),
    (2.0, -1.0, [-2.0, 3.0], [-2.1, 3.1]),
])  # fmt: skip
@pytest.mark.parametrize("tie", [False, True])
def test_beyond_what_kinks_add_up_to_a_kink_of_the_entry_s_own_is_wrong(monkeypatch, left, right, inside, outside, tie):
    asked = []
    monkeypatch.setattr(entries, "derivative", recorded(asked, slope_of(tie=tie)))
    x, slope = np.array([3.0, 5.0]), slope_of(0.0, 0.1, left, right, True)
    assert not any(wrong_at_tie(lambda z: z, x, (1,), slope, g) for g in inside)
    assert not asked
    assert all(wrong_at_tie(lambda z: z, x, (1,), slope, g) == tie for g in outside)
    ((phi, size), options) = asked[0]
    assert (size, options) == (5.0, {"thorough": True})
    z = phi(0.25)
    assert z[1] == 5.25
    assert 0.9e-4 <= abs(z[0] / 3 - 1) <= 2.1e-4


@pytest.mark.parametrize(("g", "outside", "wrong"), [(0.0, False, False), (1.0, False, False), (1.5, True, True)])
def test_ties_are_found_entry_by_entry(g, outside, wrong):
    found = ties_in(lambda z: abs(z[0, 1]) + 3 * z[0, 0], np.array([[2.0, 0.0]]), np.array([[3.0, g]]))
    assert found == [Tie((0, 1), f"slopes -1 and 1 on the sides of (0, 1), gradient {g:.4g}", outside, wrong)]


@pytest.mark.parametrize(("split", "tie", "seen"), [(False, True, False), (True, False, False), (True, True, True)])
def test_a_tie_is_a_kink_in_a_quick_look_that_is_still_there_in_a_thorough_one(monkeypatch, split, tie, seen):
    windows, asked = [], []
    monkeypatch.setattr(entries, "window", recorded(windows, SimpleNamespace(split=split)))
    monkeypatch.setattr(entries, "derivative", recorded(asked, slope_of(0.0, 0.1, 1.0, 2.0, tie)))
    monkeypatch.setattr(entries, "wrong_at_tie", lambda F, x, k, slope, g: False)
    x = np.array([4.0, 2.0])
    found = ties_in(lambda z: z[0] - 8 * z[1], x, np.array([1.0, 4.0]))
    assert len(asked) == 2 * split
    assert [(tie.index, tie.outside, tie.wrong) for tie in found] == [((0,), False, False), ((1,), True, False)][: 2 * seen]
    h, ahead, behind, here, noise = windows[0][0]
    assert h == [4 / 32, 4 / 64, 4 / 128]
    assert ahead == [-12 + step for step in h]
    assert behind == [-12 - step for step in h]
    assert (here, noise) == (-12.0, 12 * EPS)
    if split:
        ((phi, size), options) = asked[1]
        assert (size, options, phi(0.25)) == (2.0, {"here": -12.0, "thorough": True}, -14.0)


def test_of_very_many_entries_the_first_are_looked_at(monkeypatch):
    monkeypatch.setattr(entries, "MANY", 3)
    asked = []
    monkeypatch.setattr(entries, "window", recorded(asked, SimpleNamespace(split=False)))
    assert ties_in(lambda z: 0.0, np.ones(5), np.ones(5)) == []
    assert len(asked) == 3


# ---------------------------------------------------------------------------------------------------------------- the search


def searching(grad=(2.0, -4.0), x=(8.0, 16.0), F=lambda z: 32.0, threshold=0.25, atol=0.0, valid=None):
    return Search(F, np.array(x), np.array(grad), threshold, atol, valid)


def test_the_numbers():
    assert (entries.QUICK, entries.WIDEST, entries.MANY) == ((5, 6, 7), 1e-3, 2000)
    assert (entries.GROUP, entries.ENOUGH) == (16, 4)


def test_a_search_starts_from_the_gradient():
    search = searching([[2.0, -4.0]], [[8.0, -16.0]], lambda z: -40.0)
    for part in (search.value, search.left, search.right, search.grad):
        assert part.tolist() == [2.0, -4.0]
    assert search.error.tolist() == [0.0, 0.0]
    assert search.tie.tolist() == search.wrong.tolist() == [False, False]
    assert search.size.tolist() == [8.0, 16.0]
    assert (search.here, search.scale, search.natural, search.along) == (-40.0, 4.0, 2.5, None)
    assert [searching(atol=atol).scale for atol in (0.5, 1.125, 2.0)] == [4.0, 4.5, 8.0]
    assert searching(F=lambda z: NAN).natural == 0.0


def test_no_value_where_a_kink_of_the_user_s_is_crossed():
    search = searching(F=lambda z: z.sum(), valid=lambda z: z[0] < 9)
    assert (search.moved(0, 0.5), search.moved(1, 1.0)) == (24.5, 25.0)
    assert math.isnan(search.moved(0, 1.0))
    assert searching(F=lambda z: z.sum()).moved(0, 1.0) == 25.0
    grid = searching(np.zeros((2, 2)), [[1.0, 10.0], [100.0, 1000.0]], lambda z: z[1, 0])
    assert [grid.moved(k, 0.5) for k in range(4)] == [100, 100, 100.5, 100]


def test_the_natural_size_is_the_largest_slope_seen():
    search = searching()
    for slope, natural in [(1.0, 2.0), (6.0, 6.0), (NAN, 6.0), (2.0, 6.0)]:
        search.seen(slope)
        assert search.natural == natural
    assert searching(F=lambda z: 0.0).natural == 0


@pytest.mark.parametrize(("misfit", "error", "unit", "settled"), [
    (0.29, 0.0, 1.0, True),
    (0.31, 0.0, 1.0, False),
    (0.0, 0.049, 1.0, True),
    (0.0, 0.051, 1.0, False),
    (0.58, 0.098, 2.0, True),
    (0.62, 0.0, 2.0, False),
    (0.0, 0.102, 2.0, False),
    (NAN, 0.0, 1.0, False),
    (0.0, NAN, 1.0, False),
])  # fmt: skip
def test_settled_is_well_within_the_threshold(misfit, error, unit, settled):
    """The threshold, 1/4, times the scale, 4, is 1."""
    assert searching().settled(misfit, error, unit) == settled
    assert searching(threshold=0.125, grad=(8.0, 0.0)).settled(misfit, error, unit) == settled


def test_that_is_of_each_entry_unless_told_otherwise():
    assert searching().settled(0.29, 0.0)
    assert not searching().settled(0.31, 0.0)


def test_at_the_limits_themselves_it_is_settled():
    assert searching().settled(0.3, 0.05)


def test_a_quick_look_takes_three_steps_to_both_sides(monkeypatch):
    asked = []
    monkeypatch.setattr(entries, "window", recorded(asked, "window"))
    search = searching()
    assert search.quick_look(lambda h: 32 - 96.5 * h, 4.2) == "window"
    h = [4 / 32, 4 / 64, 4 / 128]
    assert asked == [((h, [32 - 96.5 * s for s in h], [32 + 96.5 * s for s in h], 32.0, 0.0), {})]
    assert search.natural == 96.5


def open_of(monkeypatch, *windows):
    """The open entries, and the Search, where the quick looks show these (the gradient is 0, 1, 2, ...; the threshold 1)."""
    search = searching(np.arange(0.0, len(windows)), np.ones(len(windows)), threshold=1 / (len(windows) - 1))
    left = iter(windows)
    search.quick_look = lambda phi, size: next(left)
    return [int(k) for k in search.open_entries(range(len(windows)))], search


def test_open_are_kinks_and_what_is_not_settled_the_worst_first(monkeypatch):
    split, settled = Window(0.0, 0.0, 0.0, 9.0, 1.0), Window(2.1, 0.01, 1.0, 3.0, 1.0)
    open_wide = Window(3.0, 0.0, 3.0, 3.0, 1.0)
    blurred, nothing = Window(4.0, 0.06, 4.0, 4.0, 1.0), Window(NAN, NAN, NAN, NAN, NAN)
    found, search = open_of(monkeypatch, split, open_wide, settled, Window(2.5, 0.0, 2.5, 2.5, 1.0), blurred, nothing)
    assert found == [5, 1, 3, 4, 0]
    np.testing.assert_array_equal(search.value, [0.0, 3.0, 2.1, 2.5, 4.0, NAN])
    np.testing.assert_array_equal(search.error, [0.0, 0.0, 0.01, 0.0, 0.06, NAN])
    np.testing.assert_array_equal(search.left, [0.0, 3.0, 1.0, 2.5, 4.0, NAN])
    np.testing.assert_array_equal(search.right, [9.0, 3.0, 3.0, 2.5, 4.0, NAN])


def test_a_quick_look_is_at_the_entry_with_its_size():
    search, asked = searching(F=lambda z: z[0] - z[1]), []
    search.quick_look = lambda phi, size: asked.append((phi(0.5), size)) or Window(0.0, 0.0, 0.0, 0.0, 1.0)
    search.open_entries([1, 0])
    assert asked == [(-8.5, 16.0), (-7.5, 8.0)]


# ------------------------------------------------------------------------------------------------------------------- groups


def group_of(monkeypatch, quick, slope=None):
    """Whether the group of entries 0, 2 and 3 is left open, the Search, and the direction in which it was moved."""
    search, tried, asked = searching([2.0, 1.0, -4.0, 1.0], [8.0, 1.0, 16.0, 2.0]), [], []
    search.here = "here"

    def look(phi, size):
        tried.append((phi(1.0) - search.x, size))
        return quick(float(search.grad @ tried[0][0]), np.abs(tried[0][0]))

    search.at = lambda z: z
    search.quick_look = look
    monkeypatch.setattr(entries, "derivative", lambda *args, **options: asked.append((args, options)) or slope(tried[0][0]))
    still_open = search.open_group(np.array([0, 2, 3]))
    v, size = tried[0]
    assert size == 1.0
    assert v[1] == 0
    moved = np.abs(v[[0, 2, 3]]) / [8, 16, 2]
    assert np.all((moved > 0.49) & (moved < 2.01))
    if asked:
        ((_, scale), options) = asked[0]
        assert (scale, options) == (1.0, {"here": "here"})
    return still_open, search, v[[0, 2, 3]], len(asked)


@pytest.mark.parametrize(("misfit", "error", "gap", "looked"), [
    (0.29, 0.0, 0.0, 0), (-0.29, 0.0, 0.0, 0), (0.31, 0.0, 0.0, 1), (-0.31, 0.0, 0.0, 1),
    (0.0, 0.051, 0.0, 1), (0.0, 0.0, 5.0, 1),
])  # fmt: skip
def test_a_group_is_settled_by_a_quick_look_or_by_the_ladder(monkeypatch, misfit, error, gap, looked):
    """Both in units of the smallest entry of the direction."""

    def quick(expected, v):
        unit = v[v > 0].min()
        return Window(expected + misfit * unit, error * unit, 0.0, gap, 1.0)

    def slope(v):
        expected = float(np.array([2.0, 1.0, -4.0, 1.0]) @ v)
        return slope_of(expected + 0.29 * np.abs(v[v != 0]).min(), 0.04 * np.abs(v[v != 0]).min())

    still_open, search, v, asked = group_of(monkeypatch, quick, slope)
    assert not still_open
    assert asked == looked
    unit, norm = np.abs(v).min(), np.linalg.norm(v)
    share = (0.29 if looked else misfit) * unit / norm
    np.testing.assert_allclose(search.value[[0, 2, 3]] - [2.0, -4.0, 1.0], share * np.sign(v), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(search.error, np.array([1, 0, 1, 1]) * (0.04 if looked else error) * unit / norm, rtol=1e-9)
    assert search.value[1] == 1.0


@pytest.mark.parametrize(("misfit", "error", "tie", "left_open"), [
    (0.29, 0.0, False, False), (0.31, 0.0, False, True), (-0.31, 0.0, False, True),
    (0.0, 0.06, False, True), (0.0, 0.0, True, True),
])  # fmt: skip
def test_what_the_ladder_does_not_settle_is_left_open(monkeypatch, misfit, error, tie, left_open):
    def slope(v):
        unit = np.abs(v[v != 0]).min()
        return slope_of(float(np.array([2.0, 1.0, -4.0, 1.0]) @ v) + misfit * unit, error * unit, tie=tie)

    assert group_of(monkeypatch, lambda expected, v: Window(NAN, NAN, 0.0, 0.0, NAN), slope)[0] == left_open


def test_groups_are_of_entries_of_similar_sizes(monkeypatch):
    groups, looked = [], []
    monkeypatch.setattr(Search, "open_group", lambda self, group: groups.append(group.tolist()) or 0 in group)
    monkeypatch.setattr(Search, "open_entries", lambda self, entries: looked.append(entries.tolist()) or [])
    for n in (5, 16, 17, 33):
        entry_slopes(lambda z: 0.0, np.arange(float(n), 0, -1), np.ones(n), 0.5, 0.0)
    assert looked == [list(range(5)), list(range(16)), list(range(7, -1, -1)), list(range(10, -1, -1))]
    assert groups == [list(range(16, 7, -1)), looked[2], list(range(32, 21, -1)), list(range(21, 10, -1)), looked[3]]


# ------------------------------------------------------------------------------------------------------------------- ladder


def climbed(monkeypatch, wrong, n=7):
    """The entries that are judged where these turn out to be wrong."""
    search, judged = searching(np.ones(n), np.arange(1.0, n + 1), lambda z: z), []
    search.here, asked = "here", []
    monkeypatch.setattr(entries, "derivative", recorded(asked, slope_of(-1e3)))

    def judge(k):
        judged.append(k)
        search.wrong[k] = k in wrong

    search.judge = judge
    search.climb(list(range(n)))
    assert search.along == slope_of(-1e3)
    assert search.natural == 1e3
    (((phi, scale), options),) = asked
    assert (scale, options) == (1.0, {"here": "here"})
    v = random_direction({"x": search.x}, ["x"], generator(0, "noise"), by_entry=True)["x"]
    np.testing.assert_array_equal(phi(0.5), search.x + v / 2)
    return judged


@pytest.mark.parametrize(("wrong", "judged"), [([], 7), ([0], 4), ([3], 4), ([4], 5), ([0, 1, 2], 4), ([6], 7)])
def test_entries_are_judged_until_four_have_been_and_one_is_wrong(monkeypatch, wrong, judged):
    monkeypatch.setattr(Search, "seen", lambda self, slope: setattr(self, "natural", 0.0 if slope is None else np.max(slope)))
    assert climbed(monkeypatch, wrong) == list(range(judged))


def test_without_open_entries_nothing_is_looked_at():
    search = searching(F=lambda z: 1.0)
    search.climb([])
    assert search.along is None


def judged_as(monkeypatch, *slopes, g=-4.0, noise=0.125, beyond=None, here=32.0, **options):
    """The Search after entry 1 has been judged by these Slopes, and what derivative was asked."""
    search, asked = searching([2.0, g], **options), []
    search.along, search.here = slope_of(noise=noise), here
    monkeypatch.setattr(entries, "derivative", recorded(asked, *slopes))

    def at_tie(F, x, k, slope, gradient):
        assert (k, slope, gradient) == ((1,), slopes[-1], g)
        assert (F, x) == (search.F, search.x)
        return beyond

    monkeypatch.setattr(entries, "wrong_at_tie", at_tie)
    search.judge(1)
    return search, asked


def test_a_slope_that_supports_the_gradient_is_taken_at_once(monkeypatch):
    search, asked = judged_as(monkeypatch, slope_of(-3.95, 0.01, -3.0, -5.0))
    assert [part[1] for part in (search.value, search.error, search.left, search.right)] == [-3.95, 0.01, -3.0, -5.0]
    assert (search.tie.tolist(), search.wrong.tolist()) == ([False, False], [False, False])
    (((_, size, noise, good, here), options),) = asked
    assert (size, noise, good, here, options) == (16.0, 0.125, 0.02, 32.0, {})
    assert judged_as(monkeypatch, slope_of(-4.0), noise=INF)[1][0][0][2] == 0.0
    assert judged_as(monkeypatch, slope_of(-4.0), noise=NAN)[1][0][0][2] == 0.0


@pytest.mark.parametrize("first", [slope_of(-5.0, 0.01), slope_of(-4.0, 0.01, -5.0, -3.0, True)])
def test_one_that_does_not_or_a_tie_is_looked_for_thoroughly(monkeypatch, first):
    search, asked = judged_as(monkeypatch, first, slope_of(-4.1, 0.5))
    assert (search.value[1], search.tie[1], search.wrong[1]) == (-4.1, False, False)
    ((_, size, noise, good, here), options) = asked[1]
    assert (size, noise, good, here, options) == (16.0, 0.125, 0.0, 32.0, {"thorough": True})
    assert len(asked) == 2


@pytest.mark.parametrize(("value", "error", "atol", "wrong"), [
    (-3.0, 0.01, 0.0, False),  # within the threshold, 1/4, times the scale, 4
    (-2.9, 0.01, 0.0, True),
    (-2.9, 0.12, 0.0, False),
    (-5.3, 0.01, 0.0, False),  # or times the slope
    (-5.4, 0.01, 0.0, True),
    (-2.9, 0.01, 1.2, False),
    (-2.0, 0.01, 1.2, True),
])  # fmt: skip
def test_a_gradient_far_from_the_slope_is_wrong(monkeypatch, value, error, atol, wrong):
    search, _ = judged_as(monkeypatch, slope_of(value, error), atol=atol)
    assert search.wrong.tolist() == [False, wrong]


@pytest.mark.parametrize(("left", "beyond", "wrong"), [(-9.0, None, False), (0.0, False, False), (0.0, True, True)])
def test_at_a_tie_one_that_is_outside_may_be(monkeypatch, left, beyond, wrong):
    search, _ = judged_as(monkeypatch, slope_of(1.0, 0.01, left, 2.0, True), beyond=beyond)
    assert (search.tie[1], search.wrong[1]) == (True, wrong)


@pytest.mark.parametrize("here", [NAN, INF])
def test_where_f_has_no_value_every_gradient_is_wrong(monkeypatch, here):
    assert judged_as(monkeypatch, slope_of(-4.0), here=here)[0].wrong[1]


def test_the_arrays_are_of_the_shape_of_x():
    search = searching([[2.0], [-4.0]], [[8.0], [16.0]])
    search.value, search.error, search.left, search.right = (np.array([i, 9.0]) for i in range(4))
    search.tie[0], search.wrong[1] = True, True
    found = search.entries()
    assert [part.tolist() for part in found[:4]] == [[[i], [9.0]] for i in range(4)]
    assert (found.tie.tolist(), found.wrong.tolist(), found.natural) == ([[True], [False]], [[False], [True]], 2.0)
