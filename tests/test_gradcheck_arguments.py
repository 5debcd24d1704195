"""What the checks share, function by function: structures of arrays, problems, misfits, sizes, explanations, bits."""

import math
from collections import namedtuple

import numpy as np
import pytest

from npvae.checking.gradcheck import arguments
from npvae.checking.gradcheck.arguments import (
    EPS,
    STREAM,
    as_problem,
    as_tuple,
    copied,
    dtype_note,
    entry_products,
    explanation,
    few_bits,
    float64_array,
    generator,
    index_of_largest,
    leaves,
    middle,
    misfits,
    modifications,
    moved,
    nearby,
    noise_problem,
    precision_of,
    random_direction,
    rebuilt,
    relative_error,
    same,
    same_bits,
    scalar_of,
    sizes,
)

X = np.array([1.0, -2.0, 3.0])
NAN, INF = math.nan, math.inf
Pair = namedtuple("Pair", "left right")


def test_the_generators_have_streams_of_their_own_for_each_role_and_seed():
    drawn = generator(3, "v").random()
    assert drawn == np.random.default_rng([STREAM >> 32, STREAM & 0xFFFFFFFF, ord("v"), 3]).random()
    assert (STREAM >> 32, STREAM & 0xFFFFFFFF) == (0x67726164_63, 0x6865636B)
    others = [generator(4, "v"), generator(3, "dout"), np.random.default_rng(3)]
    assert drawn not in [other.random() for other in others]


def test_eps_is_the_gap_between_one_and_the_next_number():
    assert EPS == 2.0**-52


def test_a_single_value_is_a_tuple_of_one():
    assert as_tuple(5) == (5,)
    assert as_tuple((5, 6)) == (5, 6)
    assert as_tuple([5, 6]) == ([5, 6],)


# ------------------------------------------------------------------------------------------------------ structures of arrays


@pytest.mark.parametrize(("value", "found"), [
    (7, {"": 7}), ({"a": [1, 2]}, {"a.0": 1, "a.1": 2}), ((1, [2, {3: 4}]), {"0": 1, "1.0": 2, "1.1.3": 4}), ([], {}), ({}, {}),
])  # fmt: skip
def test_leaves_have_paths_as_names(value, found):
    assert leaves(value) == found
    assert leaves(value, "x") == {f"x.{key}" if key else "x": item for key, item in found.items()}


def test_paths_have_the_separator_that_is_asked_for():
    assert leaves({"a": [1, (2,)]}, "x", "/") == {"x/a/0": 1, "x/a/1/0": 2}


@pytest.mark.parametrize(("value", "parts", "expected"), [
    (1, {"": 5}, 5),
    ({"a": [1, 2], 3: {"b": 4}}, {"a.1": 5, "3.b": 6}, {"a": [1, 5], 3: {"b": 6}}),
    ([1, (2, 3)], {"0": 5, "1.1": 6}, [5, (2, 6)]),
    (Pair([1, 2], 3), {"0.1": 5, "1": 6}, Pair([1, 5], 6)),
    ({"a": 1}, {"x.a": 5}, {"a": 1}),
])  # fmt: skip
def test_a_structure_is_rebuilt_with_parts_replaced(value, parts, expected):
    found = rebuilt(value, parts)
    assert found == expected
    assert type(found) is type(expected)
    assert found is not value


def test_it_is_rebuilt_under_a_name():
    assert rebuilt({"a": [1, 2]}, {"x.a.1": 5, "a.0": 6}, "x") == {"a": [1, 5]}
    assert rebuilt([1, 2], {"x.1": 5, "0": 6}, "x") == [1, 5]
    assert rebuilt(1, {"x": 5}, "x") == 5


@pytest.mark.parametrize("value", [np.array([1, 2], np.int8), np.array([1, 2], np.uint8), [1, 2], np.array([1.0, 2.0])])
def test_integers_are_taken_as_the_numbers_they_are(value):
    found = float64_array("x", value)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1, 2])


def test_a_float64_array_is_taken_as_it_is():
    assert float64_array("x", X) is X


@pytest.mark.parametrize("value", [
    np.ones(2, np.float32), np.ones(2, np.longdouble), np.ones(2, bool), np.ones(2, complex), np.zeros(0),
    np.zeros((2, 0), int), np.ones(1, np.float16),
])  # fmt: skip
def test_other_arrays_and_empty_ones_are_refused(value):
    with pytest.raises(ValueError, match=r"^weights must be a float64 array with entries, got \w+(\d+)? \(.*: convert with"):
        float64_array("weights", value)


@pytest.mark.parametrize("value", [
    2.5, np.float64(2.5), np.array(2.5), np.array([[2.5]]), (2.5,), [2.5, X], (np.array([2.5]), X), (2.5, 1.0),
])  # fmt: skip
def test_a_loss_is_a_number_an_array_of_one_or_the_first_of_several(value):
    assert scalar_of(value) == 2.5
    assert np.shape(scalar_of(value)) == ()


@pytest.mark.parametrize(("value", "shape"), [(X, (3,)), (np.zeros((2, 0)), (2, 0)), ([X, 1.0], (3,)), ((), (0,)), ([], (0,))])
def test_anything_else_is_no_loss(value, shape):
    with pytest.raises(ValueError, match="f must return a scalar, got an array of shape") as error:
        scalar_of(value)
    assert str(error.value).endswith(f"of shape {shape}")


# ------------------------------------------------------------------------------------------------------------------- problems


def arrays(found):
    return {name: value.tolist() for name, value in found.items()}


@pytest.mark.parametrize(("theta", "flat"), [
    (X, {"theta": [1, -2, 3]}),
    (2.0, {"theta": 2}),
    ([1, 2.5], {"theta": [1, 2.5]}),
    ((1, 2), {"theta": [1, 2]}),
    ([1.0, X], {"0": 1, "1": [1, -2, 3]}),
    ({"a": X, "b": {"c": 2}}, {"a": [1, -2, 3], "b.c": 2}),
])  # fmt: skip
def test_theta_is_flat(theta, flat):
    handed = []
    problem = as_problem(lambda t: handed.append(t) or 0.5, theta, theta)
    assert arrays(problem.theta) == flat
    assert list(problem.grad) == list(flat)
    assert problem.f({name: 2 * value for name, value in problem.theta.items()}) == 0.5
    assert problem.notes == []
    assert len(handed) == 2
    name = "theta" if list(flat) == ["theta"] else ""
    assert arrays(leaves(handed[1], name)) == {name: (2 * np.array(value)).tolist() for name, value in flat.items()}


@pytest.mark.parametrize("theta", [{}, {"a": []}])
def test_a_theta_without_arrays_has_no_gradient_to_check(theta):
    with pytest.raises(ValueError, match=r"^theta has no arrays: there is no gradient to check$"):
        as_problem(lambda t: 0.0, theta, theta)


def test_what_f_writes_into_theta_is_noted_and_theta_is_as_it_was():
    def f(theta):
        theta["a"] += 1
        theta["c"] *= 2
        return 0.0

    theta = {"a": X.copy(), "b": X.copy(), "c": X.copy()}
    problem = as_problem(f, theta, theta)
    assert problem.notes == ["f writes into a, c: every call was handed a copy, and yours is as it was"]
    problem.f(problem.theta)
    for value in [*theta.values(), *problem.theta.values()]:
        np.testing.assert_array_equal(value, X)


@pytest.mark.parametrize("first", [(0.5, X), [0.5, X], (0.5, X, "more")])
def test_the_gradient_may_come_with_the_loss(first):
    problem = as_problem(lambda t: first, X, None)
    assert problem.grad["theta"] is X
    assert problem.f(problem.theta) == 0.5


@pytest.mark.parametrize("first", [0.5, (), (0.5,), [0.5], np.array([0.5, 1.0])])
def test_there_is_none_where_f_returns_the_loss_alone(first):
    with pytest.raises(ValueError, match=r"^there is no gradient to check: give grad, or an f that returns .loss, gradient.$"):
        as_problem(lambda t: first, X, None)


def test_the_gradient_may_be_a_function_that_is_handed_a_copy():
    def grad(theta):
        theta["a"] *= 2
        return theta

    theta = {"a": X.copy()}
    assert arrays(as_problem(lambda t: 0.0, theta, grad).grad) == {"a": [2, -4, 6]}
    np.testing.assert_array_equal(theta["a"], X)
    assert arrays(as_problem(lambda t: 0.0, X, lambda t: 3 * t).grad) == {"theta": [3, -6, 9]}


@pytest.mark.parametrize(("theta", "grad", "shape"), [
    (X, [X], (3,)), (X, (X,), (3,)), (X, [1.0, 2.0, 3.0], (3,)), (X[:1], [X[0]], (1,)), (X[:1], [X[:1]], (1,)),
    (X[None], [[1, 2, 3]], (1, 3)), (X[None], [X[None]], (1, 3)), (X, [X, X], (2, 3)), (X, [X[None]], (1, 1, 3)), (X, [], (0,)),
])  # fmt: skip
def test_the_gradient_of_one_array_may_be_a_list_of_numbers_or_of_the_array(theta, grad, shape):
    found = as_problem(lambda t: 0.0, theta, grad).grad
    assert list(found) == ["theta"]
    assert np.shape(found["theta"]) == shape


def test_the_gradients_of_several_arrays_are_a_list_for_a_list():
    assert list(as_problem(lambda t: 0.0, [X, X], [X, X]).grad) == ["0", "1"]
    assert list(as_problem(lambda t: 0.0, [X], [X]).grad) == ["0"]


@pytest.mark.parametrize(("first", "second", "noisy"), [
    (X, X, False),
    (X, X + np.array([0, 0, 2.9e-11]), False),
    (X, X - [2.9e-11, 0, 0], False),
    (X, X + np.array([0, 0, 3.1e-11]), True),
    (X, X - [3.1e-11, 0, 0], True),
    (X / 4, X / 4 + [0, 0, 0.8e-11], True),
    (-X / 4, [0, 0, 3.0], True),
    ([NAN, 1.0], [NAN, 1.0], False),
    ([NAN, 1.0], [NAN, 2.0], True),
    (np.zeros(0), np.zeros(0), False),
    (np.zeros(0), np.zeros(1), True),
    (np.zeros((1, 3)), np.zeros(3), True),
    (np.zeros(3), [0, 0, 1e-300], True),
    (1.0, 1.0, False),
    (1.0, [1.0], True),
])  # fmt: skip
def test_values_that_differ_by_more_than_the_last_bits_are_noise(first, second, noisy):
    for pair in ((first, second), (second, first)):
        found = noise_problem(*pair, "forward")
        assert (found is not None) == noisy
    assert not noisy or found.startswith("inconclusive: forward gives other values when called again: it draws noise by itself")


def test_the_larger_of_two_values_is_the_scale_of_noise():
    assert noise_problem(1.0, 1 + 0.9e-11, "f") is None
    assert noise_problem([1.0, 1e3], [1 + 0.9e-8, 1e3], "f") is None
    assert noise_problem([1.0, 1e3], [1 + 1.1e-8, 1e3], "f")


# --------------------------------------------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize(("dtype", "precision", "note"), [
    (np.float64, 0.0, ""),
    (np.float32, 2.0**-20, "gradient is float32, the argument float64: compared at its precision"),
    (np.float16, 2.0**-7, "gradient is float16, the argument float64: compared at its precision"),
    (np.int32, 0.0, "gradient is int32, the argument float64: compared at its precision"),
    (np.bool_, 0.0, "gradient is bool, the argument float64: compared at its precision"),
    (np.complex64, 0.0, "gradient is complex64, the argument float64: compared at its precision"),
    (np.longdouble, 0.0, f"gradient is {np.dtype(np.longdouble)}, the argument float64: compared at its precision"),
])  # fmt: skip
def test_a_gradient_is_compared_at_the_precision_of_its_dtype(dtype, precision, note):
    grad = np.ones(3, dtype)
    assert precision_of(grad) == precision
    assert dtype_note(grad) == note


@pytest.mark.parametrize(("theta", "grad", "note"), [
    ({"x": X}, {}, "gradient is nothing, argument is float64 (3,)"),
    ({}, {"x": X}, "gradient is float64 (3,), argument is nothing"),
    ({"x": X}, {"x": X[:2]}, "gradient is float64 (2,), argument is float64 (3,)"),
    ({"x": X}, {"x": X[:, None]}, "gradient is float64 (3, 1), argument is float64 (3,)"),
    ({"x": X[:2]}, {"x": X}, "gradient is float64 (3,), argument is float64 (2,)"),
    ({"x": X}, {"x": X > 0}, "gradient is bool (3,), argument is float64 (3,)"),
    ({"x": X}, {"x": X + 0j}, "gradient is complex128 (3,), argument is float64 (3,)"),
    ({"x": np.array(1.0)}, {"x": None}, "gradient is object (), argument is float64 ()"),
])  # fmt: skip
@pytest.mark.parametrize("strict", [False, True])
def test_a_gradient_that_does_not_fit_its_tensor_fails(theta, grad, note, strict):
    (row,) = misfits(theta, grad, 0.25, strict)
    assert (row.name, row.shape, row.error, row.threshold) == ("x", np.shape(theta.get("x")), INF, 0.25)
    assert (row.index, row.analytic, row.note) == (None, None, note)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.uint8])
def test_one_of_another_dtype_fits_unless_strict(dtype):
    grad = {"x": np.ones(3, dtype)}
    assert misfits({"x": X}, grad, 0.25) == []
    notes = [row.note for row in misfits({"x": X}, grad, 0.25, strict=True)]
    assert notes == ([] if dtype == np.float64 else [f"gradient is {np.dtype(dtype)} (3,), argument is float64 (3,)"])


def test_all_misfits_are_reported_and_what_fits_is_not():
    rows = misfits({"a": X, "b": X, "c": X}, {"d": X, "b": X, "c": X[:1]}, 0.25)
    assert [row.name for row in rows] == ["a", "c", "d"]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_gradient_that_is_not_finite_fails_with_its_first_such_entry(bad):
    grad = np.array([[1.0, 2.0], [bad, 5.0], [3.0, NAN]])
    (row,) = misfits({"x": np.zeros((3, 2))}, {"x": grad}, 0.25)
    assert (row.name, row.shape, row.threshold, row.index, row.note) == ("x", (3, 2), 0.25, (1, 0), "gradient is not finite")
    assert math.isnan(row.error)
    np.testing.assert_equal(row.analytic, bad)


@pytest.mark.parametrize(("value", "size"), [
    ([3.0, -4.0], [3, 4]), ([0.0, -4.0, 3.0, 8.0], [4, 4, 3, 8]), ([0.0, 0.5], [0.5, 0.5]),
    ([0.0, 0.0], [1, 1]), (0.0, 1), (-2.0, 2), ([0.0, 0.25, 2.0], [2, 0.25, 2]), ([NAN, 2.0], [2, 2]), (NAN, 1),
])  # fmt: skip
def test_the_size_of_an_entry_is_its_modulus_or_that_of_the_others(value, size):
    np.testing.assert_array_equal(sizes(np.array(value)), size)


@pytest.mark.parametrize(("values", "found"), [([5.0], 5), ([9.0, 1.0], 9), ([9.0, 1.0, 5.0], 5), ([[9.0, 1.0], [5, 4]], 5)])
def test_the_middle_is_the_median_or_the_next_larger(values, found):
    assert middle(np.array(values)) == found


@pytest.mark.parametrize(("value", "bits", "rounded"), [
    (1.0, 4, 1.0), (1.1, 4, 1.125), (-1.1, 4, -1.125), (1.05, 4, 1.0), (1000.0, 4, 1024.0), (900.0, 4, 896.0), (0.0, 4, 0.0),
    (1.1, 3, 1.0), (1.1, 8, 1.1015625), (0.3, 2, 0.25), (2.0**-60 * 1.1, 4, 2.0**-60 * 1.125),
])  # fmt: skip
def test_a_step_has_few_bits(value, bits, rounded):
    assert few_bits(value, bits) == rounded
    assert bits != 4 or few_bits(value) == rounded


class Drawn:
    """A generator that gives what it is told to; notes what it is asked for."""

    def __init__(self, signs, factors):
        self.signs, self.factors, self.asked = iter(signs), iter(factors), []

    def choice(self, among, shape):
        self.asked.append((list(among), shape))
        return np.array(next(self.signs))

    def uniform(self, low, high, shape):
        self.asked.append((low, high, shape))
        return np.array(next(self.factors))


@pytest.mark.parametrize(("by_entry", "expected"), [(False, [-2.0, 8.0, 4.0]), (True, [-0.5, 16.0, 4.0])])
def test_a_direction_is_of_random_signs_and_of_the_size_of_the_entries(by_entry, expected):
    theta = {"a": X, "b": np.array([-1.0, 8.0, 4.0]), "c": np.ones((2, 1))}
    rng = Drawn([[-1.0, 1.0, 1.0]], [[0.5, 2.0, 1.0]])
    v = random_direction(theta, ["b"], rng, by_entry)
    assert arrays(v) == {"a": [0, 0, 0], "b": expected, "c": [[0], [0]]}
    assert rng.asked == [([-1.0, 1.0], (3,)), (0.5, 2, (3,))]


def test_a_direction_has_eight_bits_and_is_of_typical_sizes_unless_told_otherwise():
    theta = {"b": np.array([1.0, 4.0, 0.0, 2.0])}
    v = random_direction(theta, ["b"], Drawn([[1.0, 1.0, 1.0, -1.0]], [[0.701, 1.1, 0.5, 1.0]]))
    assert arrays(v) == {"b": [1.3984375, 2.203125, 1.0, -2.0]}


def test_nearby_is_about_so_much_of_each_size_away():
    theta = {"a": np.array([4.0, -2.0, 0.0]), "b": np.array([[8.0]])}
    rng = Drawn([[1.0, -1.0, 1.0], [[-1.0]]], [[0.5, 1.0, 0.5], [[0.75]]])
    assert arrays(nearby(theta, rng, 2.0**-10)) == {"a": [4 + 2.0**-8, -2 - 2.0**-8, 2.0**-8], "b": [[8 - 12 * 2.0**-10]]}
    assert rng.asked == [([-1.0, 1.0], (3,)), (0.5, 1, (3,)), ([-1.0, 1.0], (1, 1)), (0.5, 1, (1, 1))]


def test_rounding_leaves_zeros_as_they_are():
    found = nearby({"a": np.array([1.0, -1.0, 0.0])}, Drawn([[1.0, -1.0, 1.0]], [[0.5, 1.0, 0.5]]), EPS)
    assert arrays(found) == {"a": [1 + EPS, -1 - 2 * EPS, 0]}


@pytest.mark.parametrize("h", [0.5, -3.0, 2j])
def test_theta_is_moved_along_a_direction(h):
    found = moved({"a": X, "b": np.array(2.0)}, h, {"a": np.array([1.0, 2.0, 4.0]), "b": np.array(3.0)})
    np.testing.assert_array_equal(found["a"], [1 + h, -2 + 2 * h, 3 + 4 * h])
    assert found["b"] == 2 + 3 * h


def test_the_terms_of_a_slope_are_those_of_the_tensors_along_v():
    grad = {"a": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": X, "c": np.array([7.0])}
    v = {"a": np.array([[2.0, 0.0], [-1.0, 3.0]]), "b": np.zeros(3), "c": np.array([3.0])}
    np.testing.assert_array_equal(entry_products(grad, v), [2, 0, -3, 12, 21])


@pytest.mark.parametrize(("difference", "scale", "error"), [
    (0.0, 0.0, 0), (0.0, 4.0, 0), (3.0, 0.0, INF), (3.0, 4.0, 0.75), (0.5, 4.0, 0.125), (1.0, 1.0, 1), (1e-300, 0.0, INF),
    (3.0, -4.0, -0.75), (-3.0, 0.0, INF),
])  # fmt: skip
def test_a_relative_error_of_nothing_is_none(difference, scale, error):
    found = relative_error(np.float64(difference), np.float64(scale))
    assert found == error
    assert type(found) is float


def test_it_is_not_a_number_where_a_part_is_not():
    assert math.isnan(relative_error(NAN, 1.0))
    assert math.isnan(relative_error(1.0, NAN))


# --------------------------------------------------------------------------------------------------------------- explanations


R = np.array([1.0, -2.0, 4.0])
M = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
BIG = np.array([[1e6, 2.0], [3.0, 4.0]])
T3 = np.arange(1.0, 28.0).reshape(3, 3, 3)
FACTOR = "gradient is {} times the right one"
SIGN, ZERO, TRANSPOSE = "gradient has the opposite sign", "gradient is zero", "gradient is the transpose of the right one"


@pytest.mark.parametrize(("grad", "reference", "said"), [
    (0 * R, R, ZERO),
    (0 * R, 0 * R, ZERO),
    (R, 0 * R, ""),
    (2 * R, R, FACTOR.format(2)),
    (R / 4, R / 8, FACTOR.format(2)),
    (R / 3, R, FACTOR.format("0.333333")),
    (-2 * R, R, FACTOR.format(-2)),
    (-R, R, SIGN),
    (-R * (1 + 0.9e-6), R, SIGN),
    (-R * (1 - 0.9e-6), R, SIGN),
    (-R * (1 + 1.1e-6), R, FACTOR.format(-1)),
    (-R * (1 - 1.1e-6), R, FACTOR.format("-0.999999")),
    (R, R, ""),
    (R * (1 + 0.9e-6), R, ""),
    (R * (1 - 0.9e-6), R, ""),
    (R * (1 + 1.1e-6), R, FACTOR.format(1)),
    (R * (1 - 1.1e-6), R, FACTOR.format("0.999999")),
    (2 * R * [1, 1, 1 + 0.9e-6], R, FACTOR.format(2)),
    (2 * R * [1, 1, 1 + 1.1e-6], R, ""),
    (2 * R * [1, 1 - 1.1e-6, 1], R, ""),
    (-2 * R * [1, 1, 1 + 0.9e-6], R, FACTOR.format(-2)),
    (R * [2, 1, 1], R, ""),
    (R * [1 + 0.9e-6, 1 + 1.1e-6, 1 + 1.1e-6], R, ""),  # the first factor counts, the others are it to a millionth
    (-R * [1 + 0.9e-6, 1 + 1.1e-6, 1 + 1.1e-6], R, SIGN),
    (R * [2.000004, 2.0000055, 2.0000055], R, FACTOR.format(2)),
    (0.01 * R * [1, 1, 1 + 1.1e-6], R, ""),
    (np.array([2.0, 6.0]), np.array([1.0, 3e-3]), ""),
    (np.array([2.0, 6.0]), np.array([1000.0, 3000.0]), FACTOR.format("0.002")),
    (np.array(2.0), np.array(1.0), ""),
    (np.array([2.0]), np.array([1.0]), ""),  # a factor of one entry explains nothing
    (np.array([2.0, 4.0]), np.array([1.0, 2.0]), FACTOR.format(2)),
    (np.array([2.0, 4.0, 7.0]), np.array([1.0, 2.0, 1.9e-3]), FACTOR.format(2)),  # too small to count
    (np.array([2000.0, 1000.0, 7.0]), np.array([1000.0, 500.0, 1.0]), FACTOR.format(2)),
    (np.array([2.0, 4.0, 7.0]), np.array([1.0, 2.0, 2.1e-3]), ""),
    (np.array([2.0, 4.0, 7.0]), np.array([-1.0, -2.0, -1.9e-3]), FACTOR.format(-2)),
    (M.T, M, TRANSPOSE),
    (M.T + np.diag([0, 8e-6, 0]), M, TRANSPOSE),
    (M.T + np.diag([0, 1e-5, 0]), M, ""),
    (BIG.T + np.diag([0, 1]), BIG, TRANSPOSE),
    (M.T - np.diag([0, 1e-5, 0]), M, ""),
    (-M.T, M, ""),
    (M[::-1, :2], M[:, :2], ""),
    (T3.swapaxes(1, 2), T3, TRANSPOSE),
    (T3.T, T3, TRANSPOSE),
    (T3.swapaxes(0, 1), T3, ""),
    (T3[:2].swapaxes(1, 2), T3[:2], TRANSPOSE),
    (T3[:, :2].T, T3[:, :2], TRANSPOSE),
])  # fmt: skip
def test_what_is_wrong_with_a_gradient_is_said_where_it_is_simple(grad, reference, said):
    assert explanation(grad, reference) == said


@pytest.mark.parametrize(("difference", "index"), [
    ([1.0, 3.0, 2.0], (1,)), ([[1.0, 3.0], [4.0, 2.0], [0.0, 4.0]], (1, 0)), ([1.0, NAN, 5.0], (1,)), (2.0, ()),
])  # fmt: skip
def test_the_largest_entry_is_found_and_nan_is_the_largest(difference, index):
    found = index_of_largest(np.array(difference))
    assert found == index
    assert all(type(i) is int for i in found)


# ------------------------------------------------------------------------------------------------------------------- same bits


def test_each_argument_that_was_changed_is_named():
    before, after = [X, X, {"a": X}, 3], [X.copy(), 2 * X, {"a": -X}, 3]
    assert modifications("forward", ["x", "y", "z", "n"], before, after) == ["forward modifies y", "forward modifies z"]


@pytest.mark.parametrize(("a", "b", "equal"), [
    (X, X.copy(), True),
    (X, X[::-1][::-1], True),
    (X, X + np.array([0, 0, 1e-15]), False),
    (X, X[:, None], False),
    (X[:, None], X, False),
    (X, X[:2], False),
    (X[:0], X[:0, None], False),
    (np.array([0.0]), np.array([-0.0]), False),
    (np.array([NAN]), np.array([NAN]), True),
    (X, list(X), True),
    (X, None, False),
    (None, X, True),
    (3.0, 4.0, True),
])  # fmt: skip
def test_arrays_have_the_same_shape_and_bits(a, b, equal):
    assert same_bits(a, b) == equal


@pytest.mark.parametrize(("a", "b", "equal"), [
    ({"a": X, "b": [1, X]}, {"a": X.copy(), "b": (1, X)}, True),
    ({"a": X, "b": [1, X]}, {"a": X, "b": [1, -X]}, False),
    ({"a": X, "b": [1, X]}, {"a": X, "b": [2, X]}, False),
    ({"a": X}, {"a": X, "b": X}, False),
    ({"a": X, "b": X}, {"a": X}, False),
    ({"a": X, "b": X}, {"b": X, "a": X}, False),
    ([], [], True),
    (1.0, 1.0, True),
    (1.0, 2.0, False),
    (1, 2, False),
    (1j, 2j, False),
    (np.float32(1), np.float32(2), False),
    (NAN, NAN, True),
    (NAN, 1.0, False),
    (1.0, None, False),
    (2, "2", False),
    (None, 1.0, True),
    ("a", "b", True),
    (np.zeros(2), np.array([0.0, -0.0]), False),
])  # fmt: skip
def test_structures_are_the_same_if_all_their_arrays_and_numbers_are(a, b, equal):
    assert same(a, b) is equal


def test_copies_are_deep_and_what_cannot_be_copied_is_handed_on():
    value = {"a": [X.copy()]}
    found = copied(value)
    assert found["a"] is not value["a"]
    assert found["a"][0] is not value["a"][0]
    np.testing.assert_array_equal(found["a"][0], X)
    endless = (i for i in range(3))
    assert copied(endless) is endless


def test_nothing_else_than_an_error_keeps_from_a_copy(monkeypatch):
    def interrupted(value):
        raise KeyboardInterrupt

    monkeypatch.setattr(arguments, "deepcopy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copied(X)
