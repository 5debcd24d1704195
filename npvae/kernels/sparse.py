"""Matrix products that skip the zeros of their left factor: binarised images are 87 % zeros, a relu's output half or more.

`find` lists the non-zeros of a matrix row by row (compressed sparse rows), `transpose` turns the list into that of the
transposed matrix, and `combine_rows` is the product of either with a dense matrix: each row of the result is a sum of rows of
that matrix. What limits it are the loads of those rows, BLAS is limited by arithmetic: few non-zeros are faster here. A zero
times infinity or NaN is left out as well, where BLAS gives NaN.
"""

import numpy as np

from npvae.kernels.compile import jit

# Where these products beat BLAS (benchmarks/bench_ops.py): a smaller share of non-zeros than this, and so many columns of the
# dense matrix that listing the non-zeros is the smaller part of the work.
SPARSE, WIDE = 0.35, 100


def nonzeros_of(x, n_out):
    """The non-zeros of x (B, n_in), (starts, columns, values) as `find` lists them; None if BLAS is better for B × n_out."""
    if n_out < WIDE or (n := count_nonzeros(x)) > SPARSE * x.size:
        return None
    starts, columns, values = np.empty(len(x) + 1, np.int32), np.empty(n + 1, np.int32), np.empty(n + 1, x.dtype)
    find(x, starts, columns, values)
    return starts, columns, values


def transposed(nonzeros, n_columns):
    """What `nonzeros_of` gives for the transposed matrix, which has n_columns rows."""
    starts, columns, values = nonzeros
    result = np.empty(n_columns + 1, np.int32), np.empty_like(columns), np.empty_like(values)
    transpose(starts, columns, values, *result)
    return result


def _count_nonzeros(x):
    n = 0
    for r in range(len(x)):
        row = x[r]
        for i in range(row.size):
            n += np.int32(row[i] != 0)
    return n


def _find(x, starts, columns, values):
    """List the non-zeros of x (R, C): those of row r, in order, are entries starts[r] to starts[r + 1] of columns and values.

    starts (R + 1,), columns and values (n + 1,) or longer: every element is stored where the next non-zero belongs, and stays
    there only if it is one. That is faster than a branch, which no processor can predict here.
    """
    n = 0
    for r in range(len(x)):
        starts[r] = n
        row = x[r]
        for i in range(row.size):
            columns[n], values[n] = i, row[i]
            n += row[i] != 0
    starts[len(x)] = n


def _transpose(starts, columns, values, column_starts, rows, column_values):
    """From the non-zeros of x as `find` lists them, those of xᵀ; column_starts (C + 1,), rows and column_values (n,)."""
    column_starts[:] = 0
    for k in range(starts[-1]):
        column_starts[columns[k] + 1] += 1
    for c in range(column_starts.size - 1):
        column_starts[c + 1] += column_starts[c]
    for r in range(starts.size - 1):
        for k in range(starts[r], starts[r + 1]):
            place = column_starts[columns[k]]  # moves on to where the next column starts
            rows[place], column_values[place] = r, values[k]
            column_starts[columns[k]] += 1
    for c in range(column_starts.size - 1, 0, -1):
        column_starts[c] = column_starts[c - 1]
    column_starts[0] = 0


def _combine_rows(starts, columns, values, dense, out):
    """out = x @ dense for the x whose non-zeros are listed: row r is the sum over k of values[k] dense[columns[k]]."""
    for r in range(len(out)):
        total = out[r]
        total[:] = 0
        k, end = starts[r], starts[r + 1]
        while k + 8 <= end:  # eight rows at a time: one load and one store of `total` for eight of theirs
            d0, d1, d2, d3 = dense[columns[k]], dense[columns[k + 1]], dense[columns[k + 2]], dense[columns[k + 3]]
            d4, d5, d6, d7 = dense[columns[k + 4]], dense[columns[k + 5]], dense[columns[k + 6]], dense[columns[k + 7]]
            v0, v1, v2, v3 = values[k], values[k + 1], values[k + 2], values[k + 3]
            v4, v5, v6, v7 = values[k + 4], values[k + 5], values[k + 6], values[k + 7]
            for j in range(total.size):
                total[j] += ((v0 * d0[j] + v1 * d1[j]) + (v2 * d2[j] + v3 * d3[j])) + (
                    (v4 * d4[j] + v5 * d5[j]) + (v6 * d6[j] + v7 * d7[j])
                )
            k += 8
        while k < end:
            d0, v0 = dense[columns[k]], values[k]
            for j in range(total.size):
                total[j] += v0 * d0[j]
            k += 1


count_nonzeros = jit(_count_nonzeros)
find = jit(_find)
transpose = jit(_transpose)
combine_rows = jit(_combine_rows)
