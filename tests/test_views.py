"""Pieces of a flat array: what slices and reshaping give, compiled without the work of either."""

import numpy as np
import pytest

from npvae.kernels.compile import jit
from npvae.kernels.views import matrix, set_row, set_rows, vector


def _vector_times(flat, start, n, factor):
    row = vector(flat, start, n)
    for i in range(len(row)):
        row[i] *= factor
    return row


def _matrix_times(flat, start, n_rows, n_columns, factor):
    rows = matrix(flat, start, n_rows, n_columns)
    for r in range(len(rows)):
        for c in range(rows.shape[1]):
            rows[r, c] *= factor
    return rows


vector_times, matrix_times = jit(_vector_times), jit(_matrix_times)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int32])
def test_a_piece_is_the_slice_and_writing_to_it_writes_to_the_array(dtype):
    flat, expected = np.arange(20).astype(dtype), np.arange(20).astype(dtype)
    expected[3:9] *= 2
    row = vector_times(flat, 3, 6, flat.dtype.type(2))
    np.testing.assert_array_equal(row, expected[3:9])
    np.testing.assert_array_equal(flat, expected)
    expected[5:17] *= 3
    rows = matrix_times(flat, 5, 3, 4, flat.dtype.type(3))
    np.testing.assert_array_equal(rows, expected[5:17].reshape(3, 4))
    np.testing.assert_array_equal(flat, expected)
    assert (row.dtype, rows.dtype, rows.flags.c_contiguous) == (dtype, dtype, True)


def test_a_piece_may_have_no_rows():
    assert matrix_times(np.arange(6.0), 6, 0, 4, 2.0).shape == (0, 4)
    assert vector_times(np.arange(6.0), 6, 0, 2.0).shape == (0,)


def test_rows_are_set_to_others_whatever_lies_between_them():
    values = np.arange(12.0).reshape(3, 4)
    wide = np.zeros((3, 10))
    set_rows(wide[:, 2:6], values)
    np.testing.assert_array_equal(wide[:, 2:6], values)
    assert not wide[:, :2].any()
    assert not wide[:, 6:].any()
    set_row(wide[1, ::3], np.array([7.0, 8, 9, 10]))
    np.testing.assert_array_equal(wide[1, ::3], [7, 8, 9, 10])
