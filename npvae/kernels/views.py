"""Pieces of a long flat array as arrays of their own, and rows that are set to others: what Numba takes long to compile.

A slice counts who holds the array, and may raise errors whose texts are compiled as well. A piece is a pointer and a shape.
Nothing but the long array's owner keeps its memory: it has to be an argument of the kernel.
"""

import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from npvae.kernels.compile import inlined


def piece(flat, n_dimensions):
    """Type and code of an intrinsic (flat, start, *shape): the array of this shape that begins at `start`."""

    def generate(context, builder, signature, arguments):
        long_array, start, *shape = arguments
        begin = cgutils.gep(builder, context.make_array(flat)(context, builder, long_array).data, start)
        size = context.get_constant(types.intp, flat.dtype.bitwidth // 8)
        strides = [size] if n_dimensions == 1 else [builder.mul(shape[1], size), size]
        array = context.make_array(signature.return_type)(context, builder)
        return populate_array(array, begin, shape, strides, size, meminfo=None)._getvalue()

    return flat.copy(ndim=n_dimensions)(flat, *[types.intp] * (1 + n_dimensions)), generate


if numba.config.DISABLE_JIT:

    def vector(flat, start, n):
        return flat[start : start + n]

    def matrix(flat, start, n_rows, n_columns):
        return flat[start : start + n_rows * n_columns].reshape(n_rows, n_columns)

else:

    @intrinsic
    def vector(_, flat, start, n):
        """flat[start : start + n]."""
        return piece(flat, 1)

    @intrinsic
    def matrix(_, flat, start, n_rows, n_columns):
        """flat[start : start + n_rows * n_columns].reshape(n_rows, n_columns)."""
        return piece(flat, 2)


def _set_row(row, values):
    for i in range(row.size):
        row[i] = values[i]


def _set_rows(rows, values):
    for r in range(len(rows)):
        set_row(rows[r], values[r])


set_row, set_rows = inlined(_set_row), inlined(_set_rows)  # row[:] = values, rows[:] = values
