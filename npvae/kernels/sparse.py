"""Matrix products that skip the zeros of their left factor: binarised images are 87 % zeros, a relu's output half or more.

`find` lists the non-zeros of a matrix row by row (compressed sparse rows), `transpose` turns the list into that of the
transposed matrix, and `combine_rows` is the product of either with a dense matrix: each row of the result is a sum of rows of
that matrix. What limits it are the loads of those rows, BLAS is limited by arithmetic: few non-zeros are faster here. A zero
times infinity or NaN is left out as well, where BLAS gives NaN.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from npvae.kernels.compile import inlined, jit
from npvae.kernels.tiles import combine_tile, lanes_of

# Where these products beat BLAS (benchmarks/bench_ops.py): a smaller share of non-zeros than this, and so many columns of the
# dense matrix that listing the non-zeros is the smaller part of the work.
SPARSE, WIDE = 0.35, 48
combine_8, combine_4, combine_1 = combine_tile(8), combine_tile(4), combine_tile(1)


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


@intrinsic
def nonzero_bits(_, flat, place):
    """Which of the 64 numbers from `place` on are not zero, one bit each."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        many = ir.VectorType(context.get_value_type(signature.args[0].dtype), 64)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), many.as_pointer())
        numbers = builder.load(pointer, align=signature.args[0].dtype.bitwidth // 8)
        is_nonzero = builder.fcmp_unordered("!=", numbers, ir.Constant(many, [0.0] * 64))
        return builder.bitcast(is_nonzero, ir.IntType(64))

    return types.uint64(flat, types.int64), generate


@intrinsic
def lowest_bit(_, bits):
    """The place of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


def _find(x, starts, columns, values):
    """List the non-zeros of x (R, C): those of row r, in order, are entries starts[r] to starts[r + 1] of columns and values.

    starts (R + 1,), columns and values (n + 1,) or longer.
    """
    n = 0
    for r in range(len(x)):
        starts[r] = n
        n = find_in_row(x[r], 0, n, columns, values)
    starts[len(x)] = n


def find_in_row(row, start, n, columns, values):
    """List the non-zeros of a row from `start` on as entries n, n + 1, ...; returns how many there are then.

    Every element is stored where the next non-zero belongs, and stays there only if it is one. That is faster than a branch,
    which no processor can predict here.
    """
    for i in range(start, row.size):
        columns[n], values[n] = i, row[i]
        n += row[i] != 0
    return n


@overload(find_in_row, strict=False)
def _find_in_row(row, start, n, columns, values):
    return find_by_bits if row.dtype in (types.float32, types.float64) else find_in_row


def find_by_bits(row, start, n, columns, values):
    """`find_in_row`, 64 elements at a time: a step for each non-zero."""
    i = start
    while i + 64 <= row.size:
        bits = nonzero_bits(row, i)
        while bits != 0:
            column = i + lowest_bit(bits)
            columns[n], values[n] = column, row[column]
            n += 1
            bits &= bits - np.uint64(1)
        i += 64
    return find_few(row, i, n, columns, values)


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
    combine(starts, columns, values, dense, out, out, False)


def _add_rows(starts, columns, values, dense, out, next_out, is_added):
    """The same, out += where is_added. next_out, of the same shape, will be written to next: see
    `npvae.kernels.tiles.product_tile`."""
    combine(starts, columns, values, dense, out, next_out, is_added)


def combine(starts, columns, values, dense, out, next_out, is_added):
    """`add_rows` row by row, of numbers of any type."""
    for r in range(len(out)):
        total = out[r]
        if not is_added:
            total[:] = 0
        for k in range(starts[r], starts[r + 1]):
            row, value = dense[columns[k]], values[k]
            for j in range(total.size):
                total[j] += value * row[j]


@overload(combine, strict=False)
def _combine(starts, columns, values, dense, out, next_out, is_added):
    return _combine_strips if out.dtype in (types.float32, types.float64) else combine


def _combine_strips(starts, columns, values, dense, out, next_out, is_added):
    """`combine` in strips of columns, so narrow that a row's sums stay in registers and a strip of dense in a core's own cache.
    The last strip begins in the one before where the vectors do not fit, and writes only what is left."""
    n_columns, lanes = out.shape[1], lanes_of(out)
    if n_columns < lanes:
        combine_few(starts, columns, values, dense, out, next_out, is_added)
        return
    rows, flat, next_flat, done = dense.reshape(-1), out.reshape(-1), next_out.reshape(-1), 0
    while done < n_columns:
        n_vectors = (n_columns - done) // lanes
        j, n_last = min(done, n_columns - lanes), min(lanes, n_columns - done)
        for r in range(len(out)):
            k, end, place = starts[r], starts[r + 1], r * n_columns + j
            if n_vectors >= 8:
                combine_8(columns, values, k, end, rows, j, n_columns, flat, next_flat, place, is_added, lanes)
            elif n_vectors >= 4:
                combine_4(columns, values, k, end, rows, j, n_columns, flat, next_flat, place, is_added, lanes)
            else:
                combine_1(columns, values, k, end, rows, j, n_columns, flat, next_flat, place, is_added, n_last)
        done = j + lanes * (8 if n_vectors >= 8 else 4 if n_vectors >= 4 else 1)


count_nonzeros = jit(_count_nonzeros)
find_few, find = jit(find_in_row), jit(_find)
transpose = jit(_transpose)
combine_few = jit(combine)
combine_rows, add_rows = inlined(_combine_rows), inlined(_add_rows)
