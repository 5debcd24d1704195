"""Conditions of conditional models: numbers and class labels as the rows that the layers take, and what is refused."""

import numpy as np
import pytest

from npvae.models import conditions
from npvae.models.cvae import ConditionalVAE


def model_with(n_condition, dtype="float64"):
    return ConditionalVAE(4, n_condition, 1, (), backend="numpy", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", [[2, 0, 1, 2], np.array([2, 0, 1, 2], np.uint8), np.array([2, 0, 1, 2], np.int64)])
def test_class_labels_become_rows_with_a_one_in_their_place(labels, dtype):
    rows = conditions.checked(model_with(3, dtype), labels)
    assert (rows.dtype, rows.flags.c_contiguous) == (dtype, True)
    np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


def test_bool_labels_are_the_classes_0_and_1():
    np.testing.assert_array_equal(conditions.checked(model_with(2), [True, False]), [[0, 1], [1, 0]])


def test_for_the_complex_step_a_condition_stays_real():
    for given in ([1, 0], [[0.5, 2.0]]):
        assert conditions.checked(model_with(2, "complex128"), given).dtype == np.float64


def test_numbers_are_taken_as_they_are():
    numbers = np.random.default_rng(0).standard_normal((5, 3))
    rows = conditions.checked(model_with(3), np.asfortranarray(numbers))
    np.testing.assert_array_equal(rows, numbers)
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(conditions.checked(model_with(3), rows), rows)
    np.testing.assert_array_equal(conditions.checked(model_with(3), [[1, 2, 3]]), [[1.0, 2, 3]])
    assert conditions.checked(model_with(3, "float32"), numbers).dtype == np.float32


def test_where_the_width_is_1_a_row_of_numbers_is_a_column():
    """Labels too: two classes may be one number, 0 or 1, as well as n_condition = 2."""
    for given in ([0.5, -2.0, 3.0], [0, 1, 7]):
        np.testing.assert_array_equal(conditions.checked(model_with(1), given), np.array(given, float)[:, None])


@pytest.mark.parametrize(
    ("n_condition", "condition", "message"),
    [
        (3, [0, 3], r"condition must be class labels from 0 to 2, or numbers of shape \(n, 3\); got labels from 0 to 3"),
        (3, [-1, 0], "got labels from -1 to 0"),
        (3, [0.0, 1.0], r"condition must be class labels .*; got shape \(2,\) of dtype float64"),
        (3, ["a", "b"], "got shape .* of dtype <U1"),
        (3, np.zeros(0, int), r"condition must be class labels .*; got shape \(0,\)"),
        (3, 1, r"condition must be a real array of shape \(n, 3\); got shape \(\)"),
        (3, np.zeros((2, 2)), r"condition must be .* \(n, 3\); got shape \(2, 2\)"),
        (3, np.zeros((2, 3, 1)), r"condition must be .* got shape \(2, 3, 1\)"),
        (3, [[0, 1, np.nan]], r"condition must be finite; got nan at \[0, 2\]"),
        (3, [[0, 1], [1]], "condition must be a rectangular array"),
        (3, None, r"^condition is missing: ConditionalVAE takes x and a condition, in one tuple where"),
        (1, [[0, 1]], r"condition must be .* \(n, 1\); got shape \(1, 2\)"),
        (1, [0.5, np.inf], "condition must be finite"),
    ],
)
def test_what_is_no_condition_is_named(n_condition, condition, message):
    with pytest.raises(ValueError, match=message) as error:
        conditions.checked(model_with(n_condition), condition)
    assert "\n" not in str(error.value)


def test_there_is_a_condition_for_each_row():
    conditions.same_rows("z", np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"^condition must have one row for each of the 3 rows of z; got 2$"):
        conditions.same_rows("z", np.zeros((3, 2)), np.zeros((2, 1)))
