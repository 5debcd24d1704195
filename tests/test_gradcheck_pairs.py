"""A pair's check, function by function: which gradient belongs to which argument, and what is said of each array."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from npvae.checking.gradcheck import check_pair, pairs
from npvae.checking.gradcheck.arguments import EPS
from npvae.checking.gradcheck.complex_step import ComplexStepError, Confirmation
from npvae.checking.gradcheck.excuses import Excuse
from npvae.checking.gradcheck.pairs import (
    Contraction,
    Settings,
    argument_names,
    argument_rows,
    array_row,
    check_dtypes,
    complex_row,
    matched,
    simply_wrong,
)
from npvae.checking.gradcheck.report import Row
from npvae.checking.gradcheck.usage import Use

X, Y, N = np.array([4.0, -0.5]), np.array([[2.0]]), np.array([1, 2])
SETTINGS = Settings(threshold=1e-12, given=None, atol=0.0, strict=False, seed=0)
GOOD = Row("x", (2,), 0.0, 1.0, note="good")


def replaced(monkeypatch, name, *answers):
    """The calls of a function of the module that from now on gives these answers in turn; errors are raised."""
    calls, left = [], list(answers)

    def fake(*args, **options):
        calls.append(args)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(pairs, name, fake)
    return calls


# ------------------------------------------------------------------------------------------------------------- check_pair


def pair(x, y):
    return x.sum() + y.sum(), None


@pytest.fixture
def used(monkeypatch):
    """check_pair where this has been observed; and the calls of `observed` and `argument_rows`."""

    def check(use, *args, rows=(GOOD,), **options):
        observations, asked = replaced(monkeypatch, "observed", use), replaced(monkeypatch, "argument_rows", rows)
        return check_pair(pair, "backward", *args, **options), observations, asked

    return check


@pytest.mark.parametrize(("options", "seed", "settings"), [
    ({}, 0, (1e-12, None, 0.0, False, 0)),
    ({"seed": 7, "threshold": 0.0, "atol": 2.0, "strict": True}, 7, (0.0, 0.0, 2.0, True, 7)),
])  # fmt: skip
def test_each_argument_with_a_gradient_has_its_rows(used, options, seed, settings):
    report, observations, asked = used(Use([1.0], (X, Y), [], ["a note"]), X, Y, **options)
    assert observations == [(pair, "backward", (X, Y), ["x", "y"], seed, settings[3])]
    assert asked == [(pair, (X, Y), 0, "x", X, [1.0], settings), (pair, (X, Y), 1, "y", Y, [1.0], settings)]
    assert (report.check, report.rows, report.notes) == ("check_pair pair", [GOOD, GOOD], ["a note"])


def test_none_in_place_of_a_gradient_skips_it_but_not_all(used):
    report, _, asked = used(Use([1.0], (None, Y), [], []), X, Y)
    assert ([args[3] for args in asked], report.rows) == (["y"], [GOOD])
    with pytest.raises(ValueError, match="there is no gradient to check: backward returned only None"):
        used(Use([1.0], (None, None), [], []), X, Y)


def test_without_an_upstream_gradient_nothing_is_asked(used):
    report, _, asked = used(Use([], None, ["inconclusive: noise"], []), X, Y, assert_passed=False)
    assert (report.rows, report.problems, asked) == ([], ["inconclusive: noise"], [])
    with pytest.raises(AssertionError, match="noise"):
        used(Use([], None, ["inconclusive: noise"], []), X, Y)


def test_a_wrong_row_or_a_problem_raises_unless_told_otherwise(used):
    bad = Row("x", (2,), 2.0, 1.0)
    for use, rows in ((Use([1.0], (X, Y), [], []), [bad]), (Use([1.0], (X, Y), ["a problem"], []), [GOOD])):
        assert used(use, X, Y, rows=rows, assert_passed=False)[0].wrong
        with pytest.raises(AssertionError):
            used(use, X, Y, rows=rows)


@pytest.mark.parametrize(("strict", "problems", "notes"), [
    (False, ["forward modifies x"], ["forward modifies y"]), (True, ["forward modifies x", "forward modifies y"], []),
])  # fmt: skip
def test_a_forward_may_write_into_what_has_no_gradient(used, strict, problems, notes):
    use = Use([1.0], X, ["forward modifies x", "forward modifies y"], [])
    report, _, _ = used(use, X, Y, wrt="x", assert_passed=False, strict=strict)
    assert (report.problems, report.notes) == (problems, notes)
    assert used(Use([1.0], X, ["other"], []), X, Y, wrt="x", assert_passed=False)[0].notes == []


# ------------------------------------------------------------------------------------------------- arguments and gradients


@pytest.mark.parametrize(("forward", "names"), [
    (lambda x, y: 0, ["x", "y"]), (lambda x, y, z=1: 0, ["x", "y"]), (lambda *x: 0, ["x", "arg1"]),
    (lambda: 0, ["arg0", "arg1"]), (max, ["arg0", "arg1"]),
    (None, ["arg0", "arg1"]), (SimpleNamespace(py_func=lambda a, b: 0), ["a", "b"]),
])  # fmt: skip
def test_names_are_those_of_the_signature_or_numbers(forward, names):
    assert argument_names(forward, (X, Y)) == names


@pytest.mark.parametrize("wrt", [None, "b", 1, ("a", "b"), [1], [0, "b"]])
@pytest.mark.parametrize(("bad", "name"), [
    (np.ones(2, np.float32), "b"), (np.ones(2, complex), "b"), ({"k": [X, np.ones(2, np.float32)]}, "b.k.1"),
])  # fmt: skip
def test_float32_and_complex_arrays_are_refused_where_they_are_to_be_checked(wrt, bad, name):
    with pytest.raises(ValueError, match=f"^{name} must be a float64 array"):
        check_dtypes((X, bad), ["a", "b"], wrt)
    check_dtypes((X, bad), ["a", "b"], "a")
    check_dtypes((X, bad), ["a", "b"], [0])


def test_nothing_else_is():
    check_dtypes((X, N, "a string", 1.5, np.float32(1), {"k": N}), list("abcdef"), None)


@pytest.mark.parametrize(("args", "wrt", "grads", "positions", "parts"), [
    ((X, Y), None, (1, 2), [0, 1], (1, 2)),
    ((X, Y), None, [1, 2], [0, 1], (1, 2)),
    ((X, N), None, 1, [0], (1,)),
    ((X, N), None, (1, 2), [0, 1], (1, 2)),  # integers where there are as many gradients
    ((N, X), None, 1, [1], (1,)),
    ((N,), None, 1, [0], (1,)),
    ((N.astype(np.uint8),), None, 1, [0], (1,)),
    ((1j * X,), None, 1, [0], (1,)),
    ((1j * X, N), None, 1, [0], (1,)),
    (("a", X, 3.0), None, 1, [1], (1,)),
    (({"k": X}, Y), None, (1, 2), [0, 1], (1, 2)),
    (({"k": X}, Y), None, 2, [1], (2,)),  # the arrays alone
    (({"k": X}, "a"), None, {"k": 1}, [0], ({"k": 1},)),
    (({"k": X}, Y), None, {"k": 1}, [], []),  # a dict by the names of several arguments
    ((X, Y), None, {"x": 1}, [0], [1]),
    ((X, Y), None, {"y": 2, "x": 1}, [0, 1], [1, 2]),
    ((X,), None, {"x": 1}, [0], [1]),
    (([X, Y],), None, [1, 2], [0], ([1, 2],)),  # a list for the one list
    (([X, Y],), None, (1, 2), [0], ((1, 2),)),
    (([X, Y],), None, ([1, 2],), [0], ([1, 2],)),
    (((X, Y),), None, [1, 2], [0], ([1, 2],)),
    (([X, Y],), None, [1], [0], (1,)),  # one for the one argument
    ((X, Y), "y", 2, [1], (2,)),
    ((X, Y), 1, 2, [1], (2,)),
    ((X, Y), ("y", 0), (2, 1), [1, 0], (2, 1)),
    ((X, Y), ["y"], [2], [1], (2,)),
    (([X, Y], Y), 0, [1, 2], [0], ([1, 2],)),
    (({"k": X}, Y), "x", {"k": 1}, [0], ({"k": 1},)),
    ((N, X), "x", 1, [0], (1,)),
    ((X, {"k": Y}), None, {"y": 1}, [1], [1]),
])  # fmt: skip
def test_each_gradient_has_its_argument(args, wrt, grads, positions, parts):
    assert matched(args, ["x", "y", "z"][: len(args)], wrt, grads) == (positions, parts)


@pytest.mark.parametrize(("args", "wrt", "grads", "text"), [
    ((X, Y), None, (1, 2, 3), r"backward returned 3 gradients for x, y: say which by wrt=\(name, ...\)"),
    ((X, N), None, (1, 2, 3), "backward returned 3 gradients for x: say"),
    ((X, Y), None, 1, "backward returned 1 gradients for x, y: say"),
    ((X, Y), "y", (1, 2), "backward returned 2 gradients for y: say"),
    (([X],), None, [1, 2], "backward returned 2 gradients for x: say"),
    (("a", 1.5), None, 1, "there is no gradient to check: no argument is a float64 array"),
    ((np.array([True]),), None, 1, "there is no gradient to check"),
    ((X,), (), 1, "there is no gradient to check"),
])  # fmt: skip
def test_other_numbers_of_gradients_are_refused(args, wrt, grads, text):
    with pytest.raises(ValueError, match=text):
        matched(args, ["x", "y"][: len(args)], wrt, grads)


def rows_asked_for(monkeypatch, args, p, grad, strict=False):
    """The keys of the arrays that are looked into, their gradients, and the rows of those that do not fit."""
    calls = replaced(monkeypatch, "array_row", GOOD)
    rows = argument_rows("forward", args, p, "x", grad, [1.0], SETTINGS._replace(strict=strict, threshold=0.25))
    for C, x, key, part, settings in calls:
        assert (C.forward, C.args, C.p, C.name, C.key, C.douts) == ("forward", args, p, "x", key, [1.0])
        assert (x.dtype, type(part), settings.threshold) == (np.float64, np.ndarray, 0.25)
    return [args[2] for args in calls], [args[3].tolist() for args in calls], [(r.name, r.error) for r in rows if r is not GOOD]


@pytest.mark.parametrize(("arg", "grad", "keys", "unfit"), [
    (X, X, ["x"], []),
    (N, np.array([3.0, 4.0]), ["x"], []),  # integers that wrt names
    (X, np.ones(3), [], ["x"]),
    ([X, N, "a", Y], [X, None, None, Y], ["x.0", "x.3"], []),
    ([X, Y], [None, Y], ["x.1"], []),
    ([X, Y], [X], ["x.0"], ["x.1"]),
    ([X], [X, Y], ["x.0"], ["x.1"]),
    ({"k": X, "n": N, "s": "a", "b": np.array([True])}, {"k": X}, ["x.k"], []),
    ((X, Y), [X, np.ones(5)], ["x.0"], ["x.1"]),
    ({"k": X}, {"k": np.array([1, 2])}, ["x.k"], []),
])  # fmt: skip
def test_each_array_of_an_argument_has_a_row(monkeypatch, arg, grad, keys, unfit):
    found, _, rows = rows_asked_for(monkeypatch, ("other", arg), 1, grad)
    assert (found, rows) == (keys, [(name, math.inf) for name in unfit])


def test_gradients_of_another_dtype_fail_where_strict(monkeypatch):
    grad = X.astype(np.float32)
    assert rows_asked_for(monkeypatch, (X,), 0, grad) == (["x"], [X.tolist()], [])
    assert rows_asked_for(monkeypatch, (X,), 0, grad, strict=True) == ([], [], [("x", math.inf)])


# ------------------------------------------------------------------------------------------------------------ contraction


def test_the_contraction_sums_the_outputs_with_their_upstream_gradients():
    def forward(a, b):
        a["k"][0] += b[0]  # into a copy
        return (a["k"], "no number", 3.0), "cache"

    args = ({"k": X, "l": X}, np.array([10.0]))
    C = Contraction(forward, args, 0, "a", "a.k", [np.array([1.0, 2.0]), None, 0.5])
    assert C(np.array([5.0, 7.0])) == 15 + 14 + 1.5
    assert (X[0], args[1][0]) == (4.0, 10.0)
    assert Contraction(lambda x: (x, None), (X,), 0, "x", "x", [np.array([1.0, 2.0])])(X) == 3.0
    assert Contraction(lambda x: ([x, x], None), (X,), 0, "x", "x", [None, np.array([1.0, 2.0])])(X) == 3.0


def test_rounded_moves_every_float64_array_in_its_last_place():
    args = (X, {"k": [Y, N]}, 3.0, np.ones(2, np.float32), 1j * X)
    C = Contraction("forward", args, 0, "x", "x", [1.0]).rounded(np.random.default_rng(0))
    assert (C.forward, C.p, C.name, C.key, C.douts) == ("forward", 0, "x", "x", [1.0])
    for new, old in ((C.args[0], X), (C.args[1]["k"][0], Y)):
        assert np.all((np.abs(new - old) > 0) & (np.abs(new - old) <= 3 * EPS * np.abs(old)))
    assert (C.args[1]["k"][1] is N, C.args[2], C.args[3] is args[3], C.args[4] is args[4]) == (True, 3.0, True, True)


# ----------------------------------------------------------------------------------------------- complex step or differences

CONFIRMED = Confirmation(True, 1e-9, False, "")


def test_an_array_is_judged_by_the_complex_step_where_that_is_confirmed(monkeypatch):
    asked = replaced(monkeypatch, "confirmation", CONFIRMED)
    replaced(monkeypatch, "complex_entries", X)
    rows, C = replaced(monkeypatch, "complex_row", GOOD), (lambda x: x.sum())
    assert array_row(C, X, "x", Y, SETTINGS._replace(seed=7)) is GOOD
    f, *others = asked[0]
    assert (f({"x": X}), others) == (3.5, [{"x": X}, ["x"], 7])
    assert rows == [(C, X, "x", Y, X, CONFIRMED, SETTINGS._replace(seed=7))]


@pytest.mark.parametrize(("given", "threshold"), [(None, 1e-8), (0.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize(("found", "entries", "reason"), [
    (Confirmation(False, math.inf, False, "imaginary parts are lost"), X, "imaginary parts are lost"),
    (CONFIRMED, ComplexStepError("an entry fails"), "an entry fails"),
])  # fmt: skip
def test_elsewhere_by_differences(monkeypatch, found, entries, reason, given, threshold):
    replaced(monkeypatch, "confirmation", found)
    replaced(monkeypatch, "complex_entries", entries)
    replaced(monkeypatch, "complex_row", Row("x", (2,), 9.0, 1.0))
    calls = replaced(monkeypatch, "differences_row", GOOD, Row("x", (2,), 0.0, 1.0))
    settings = SETTINGS._replace(given=given, atol=2.0)
    assert array_row("C", X, "x", Y, settings).note == f"by differences, since {reason}; good"
    assert array_row("C", X, "x", Y, settings).note == f"by differences, since {reason}"
    assert calls[0] == ("C", X, "x", Y, threshold, 2.0)


NONE = (Excuse((0,), 0.0, False, ""),)


@pytest.fixture
def row_of(monkeypatch):
    """complex_row of a gradient, with these excuses; and the names of what was asked for them."""

    def row(grad, reference, excuses=NONE, twice=(0.0, ""), found=CONFIRMED, doubt="", **settings):
        calls = {
            "excused": replaced(monkeypatch, "excused", list(excuses)),
            "verdict": replaced(monkeypatch, "excused_verdict", (0.25, 0.5, "an excuse", doubt)),
            "twice": replaced(monkeypatch, "counted_twice", twice),
        }
        replaced(monkeypatch, "natural_size", 123.0)
        C = SimpleNamespace(douts=[np.ones(2)])
        settings = SETTINGS._replace(**{"threshold": 0.125, **settings})
        return complex_row(C, X, "x", np.asarray(grad), np.asarray(reference), found, settings), calls

    return row


@pytest.mark.parametrize(("grad", "error", "index"), [
    ([4.0, -8.0], 0.0, (0,)), ([4.5, -8.0], 0.0625, (0,)), ([4.0, -7.0], 0.125, (1,)), ([3.5, -9.0], 0.125, (1,)),
])  # fmt: skip
def test_the_error_is_the_largest_difference_over_the_largest_entry(row_of, grad, error, index):
    row, calls = row_of(grad, [4.0, -8.0])
    assert (row.name, row.shape, row.error, row.threshold, row.index) == ("x", (2,), error, 0.125, index)
    assert (row.analytic, row.reference, row.note, row.doubt) == (grad[index[0]], [4.0, -8.0][index[0]], "", "")
    assert row.details == {"confirmed": 1e-9}
    assert not any(calls.values())


def test_float32_is_compared_at_its_precision(row_of):
    row, _ = row_of(np.array([4.0, -8.0], np.float32), [4.0, -8.0], threshold=0.0)
    assert row.threshold == 8 * np.finfo(np.float32).eps
    assert row.note == "gradient is float32, the argument float64: compared at its precision"


@pytest.mark.parametrize(("atol", "error", "limit", "asked"), [
    (0.0, 0.25, 0.5, True), (1.9, 0.25, 0.5, True), (2.0, 0.25, 0.25, False), (9.0, 0.25, 0.25, False),
])  # fmt: skip
def test_differences_below_atol_do_not_count(row_of, atol, error, limit, asked):
    row, calls = row_of([4.0, -6.0], [4.0, -8.0], [Excuse((1,), 2.0, False, "")], atol=atol)
    assert (row.error, row.threshold, bool(calls["excused"])) == (error, limit, asked)


@pytest.mark.parametrize(("reference", "difference", "error", "limit"), [(0.0, 2.0, 1.0, 1.0), (8.0, 0.5, 0.0625, 0.125)])
def test_below_atol_an_error_is_at_most_1_and_the_threshold_at_least_its_own(row_of, reference, difference, error, limit):
    row, _ = row_of([reference + difference] * 2, [reference] * 2, atol=2.0)
    assert (row.error, row.threshold) == (error, limit)


@pytest.mark.parametrize(("allowed", "excused"), [(2.0, True), (1.9, False), (math.inf, True)])
def test_a_difference_that_is_excused_has_another_threshold(row_of, allowed, excused):
    excuses = [Excuse((0,), math.inf, True, "tie"), Excuse((1,), allowed, False, "")]
    row, calls = row_of([8.0, -6.0], [4.0, -8.0], excuses, atol=0.5)
    assert calls["excused"][0][5:] == (1.0, SETTINGS._replace(threshold=0.125, atol=0.5))
    if excused:
        assert (row.error, row.threshold, row.note, row.details["ties"]) == (0.25, 0.5, "an excuse", 1)
        difference, grad, scale, threshold, given, natural = calls["verdict"][0]
        assert (difference.tolist(), grad.tolist(), scale, threshold) == ([4.0, 2.0], [8.0, -6.0], 8.0, 0.125)
        assert (given, natural) == (excuses, 123.0)
    else:
        assert (row.error, row.threshold, row.index, row.analytic, row.reference) == (0.25, 0.125, (1,), -6.0, -8.0)
        assert "ties" not in row.details
        assert not calls["verdict"]


def test_what_is_wrong_is_explained_where_it_is_simple(row_of):
    assert row_of([8.0, -16.0], [4.0, -8.0])[0].note == "gradient is 2 times the right one"
    assert row_of([8.0, -6.0], [4.0, -8.0])[0].note == ""


@pytest.mark.parametrize(("grad", "reference"), [([math.nan, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.nan])])
def test_what_is_not_finite_has_no_excuse(row_of, grad, reference):
    row, calls = row_of(grad, reference)
    assert math.isnan(row.error)
    assert not calls["excused"]


TIE = CONFIRMED._replace(tie=True)


@pytest.mark.parametrize(("found", "grad", "strict", "asked"), [
    (CONFIRMED, [4.0, -8.0], False, False), (TIE, [4.0, -8.0], False, True), (TIE, [4.0, -7.0], False, True),
    (TIE, [4.0, -8.0], True, False), (TIE, [8.0, -4.0], False, False),
])  # fmt: skip
def test_at_ties_a_gradient_that_is_right_so_far_is_asked_whether_it_counts_twice(row_of, found, grad, strict, asked):
    row, calls = row_of(grad, [4.0, -8.0], twice=(0.75, "twice"), found=found, strict=strict)
    assert bool(calls["twice"]) == asked == (row.error == 0.75) == ("twice" in row.note)
    assert row_of([4.0, -7.0], [4.0, -8.0], twice=(0.0625, ""), found=TIE)[0].error == 0.125


@pytest.mark.parametrize(("sight", "doubtful"), [(1e-3, False), (1.1e-3, True)])
def test_a_confirmation_that_sees_little_leaves_it_open(row_of, sight, doubtful):
    found, said = CONFIRMED._replace(sight=sight), "differences confirm the complex step to 1e-03 only: f may lose"
    row, _ = row_of([4.0, -8.0], [4.0, -8.0], found=found)
    assert row.doubt.startswith(said) == bool(row.doubt) == doubtful
    assert row.details == {"confirmed": sight}
    excuses = [Excuse((1,), 2.0, False, "")]
    assert row_of([4.0, -6.0], [4.0, -8.0], excuses, found=found, doubt="rounding")[0].doubt == "rounding"


@pytest.mark.parametrize(("douts", "factor", "unused"), [
    ([2.0], 0.5, True), ([np.array(2.0)], 0.5, True), ([2.0], 0.5 * (1 + 2e-9), False), ([2.0], 0.25, False),
    ([2.0, 2.0], 0.5, False), ([np.array([2.0, 2.0])], 0.5, False), ([2.0], 0.5 * (1 + 5e-10), True),
])  # fmt: skip
def test_a_gradient_for_dout_1_does_not_use_dout(douts, factor, unused):
    text = simply_wrong(factor * X, X, douts)
    otherwise = f"gradient is {factor:.6g} times the right one"
    assert text == ("dout is not used: the gradient is that for dout = 1" if unused else otherwise)


def test_no_difference_is_small_beside_zero_here():
    assert simply_wrong(np.array([1.0, 1e-12]), np.array([2.0, 0.0]), [2.0]) == ""
