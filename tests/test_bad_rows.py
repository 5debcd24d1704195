"""Rows that spoil a loss are found by halving, and named. What `fit` and `fit_lbfgs` say of them: their own tests."""

from dataclasses import replace

import numpy as np
import pytest
from small_models import Regression, small_model

from npvae.data.rows import Rows
from npvae.training.bad_rows import MAX_NAMED_ROWS, in_words, largest, rows_not_finite, unchanged_buffers


@pytest.mark.parametrize("bad", [[], [0], [63], [17], [3, 4, 40], [20, 21, 22, 23, 24], list(range(64))])
def test_rows_that_are_not_finite_are_found_by_halving(bad):
    calls = []

    def is_finite(index):
        calls.append(len(index))
        return not set(index) & set(bad)

    batches = np.array_split(np.random.default_rng(0).permutation(64), 3)
    found = rows_not_finite(batches, is_finite)
    assert found == sorted(found)
    assert set(found) <= set(bad)
    assert len(found) == min(len(bad), MAX_NAMED_ROWS)
    assert len(calls) <= 3 + 12 * len(found)  # and not one call for each row


def test_rows_that_are_finite_by_themselves_are_not_blamed():
    assert rows_not_finite([np.arange(8)], lambda index: len(index) < 8) == []


def test_rows_in_words():
    rows = Rows.of(Regression(4), (x := np.zeros((20, 4)), np.zeros(20)), "x")
    x[[2, 7, 9, 10], [0, 1, 2, 3]] = 4, -5, 3.5, 1e30
    for found, expected in {
        (): "no single row of the training data is the cause",
        (7,): "see row 7 (counted from 0) of the training data, with absolute values up to 5",
        (9, 11): "see rows 9, 11 (counted from 0) of the training data, with absolute values up to 3.5",
        tuple(range(MAX_NAMED_ROWS)): "see rows 0, 1, 2, 3, 4 and perhaps others (counted from 0) of the training data, "
                                      "with absolute values up to 4",
    }.items():  # fmt: skip
        assert in_words(list(found), rows, "training") == expected
    assert largest(rows) == 1e30
    of_a_file = replace(rows, numbers=100 + np.arange(20))
    expected = "see rows 109, 111 (counted from 0) of the file, among the training rows, with absolute values up to 3.5"
    assert in_words([9, 11], of_a_file, "training") == expected
    grey = Rows.of(small_model(), np.full((3, 16), 51, np.uint8), "x")
    assert largest(grey) == pytest.approx(0.2)


def test_buffers_are_put_back():
    model = Regression(4)
    model.buffers["chain"] = np.arange(3.0)
    with unchanged_buffers(model):
        model.buffers["chain"] += 1
    np.testing.assert_array_equal(model.buffers["chain"], [0, 1, 2])
