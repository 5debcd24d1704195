"""Dense products of few rows: in tiles that stay in registers (`npvae.kernels.tiles`), near the most that a core can do.

Before it multiplies, BLAS copies its factors into an order of its own, which for the few rows of a minibatch takes up to half
of the time. Here a strip of the right factor, as wide as a tile, is read in place and stays in a core's own cache for all rows.
"""

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  (the BLAS of np.dot in a kernel: loaded before its threads are limited)
from numba.extending import overload

from npvae.kernels.compile import inlined, jit
from npvae.kernels.tiles import dot_tile, has_32_registers, lanes_of, product_tile

ROWS, VECTORS = 4, 3  # of the smallest tile
WIDE = 32  # bytes of a vector, AVX2 or more: tiles of narrower ones have not been measured
SHORTEST = 128  # sums of dpre Wᵀ at least that long: adding up the lanes of a vector is then a small part
FEW = 64  # rows of a batch, above which BLAS is faster where a core has 16 registers for vectors: tiles are then smaller
tile_8x3, tile_8x1, tile_4x3, tile_4x1 = product_tile(8, 3), product_tile(8, 1), product_tile(4, 3), product_tile(4, 1)
dot_4x6, dot_3x4 = dot_tile(4, 6), dot_tile(3, 4)


def _product(a, a_row, a_step, b, out, next_out, n_rows, n, n_columns):
    """out (n_rows, n_columns) = A B with A[i, k] = a[i a_row + k a_step], in strips of columns and tiles of rows. The last tile
    overlaps the one before where the shape is no multiple; what is computed twice is the same twice. next_out, of the size of
    out, will be written to next."""
    lanes, tall = lanes_of(out), 8 if has_32_registers() and n_rows >= 8 else 4
    j = 0
    while j < n_columns:
        is_wide = n_columns - j > lanes
        width = VECTORS * lanes if is_wide else lanes
        j = min(j, n_columns - width)
        i = 0
        while i < n_rows:
            height = tall if n_rows - i > 4 else 4
            i = min(i, n_rows - height)
            place = i * a_row, a_row, a_step, b, j, n_columns, out, next_out, i * n_columns + j, n_columns, n
            if height == 8:
                if is_wide:
                    tile_8x3(a, *place)
                else:
                    tile_8x1(a, *place)
            elif is_wide:
                tile_4x3(a, *place)
            else:
                tile_4x1(a, *place)
            i += height
        j += width


def fits_tiles(n_rows, n_columns, n_batch, out):
    """Whether tiles are faster than BLAS for so many rows and columns of a product, in a batch of so many rows. Uncompiled they
    never are."""
    return False


@overload(fits_tiles)
def _fits_tiles(n_rows, n_columns, n_batch, out):
    def fits(n_rows, n_columns, n_batch, out):
        is_large = n_rows >= ROWS and n_columns >= VECTORS * lanes_of(out) and lanes_of(out) * out.itemsize >= WIDE
        return is_large and (n_batch <= FEW or has_32_registers())

    return fits


def _times(x, W, out):
    """out = x W, (B, n_in) @ (n_in, n_out) -> (B, n_out)."""
    n_in, n_out = W.shape
    if fits_tiles(len(x), n_out, len(x), out):
        flat = out.reshape(-1)
        product(x.reshape(-1), n_in, np.int64(1), W.reshape(-1), flat, flat, len(x), n_in, n_out)
    else:
        np.dot(x, W, out)


def _transposed_times(x, dpre, dW):
    """dW = xᵀ dpre, (n_in, B) @ (B, n_out) -> (n_in, n_out)."""
    part_transposed_times(x, 0, dpre, dW, dW)


def _part_transposed_times(x, start, dpre, dW, W):
    """The rows of xᵀ dpre from `start` on that dW has room for. W, of dW's shape, will be written to next: see
    `npvae.kernels.tiles.product_tile`."""
    n_rows, n_out = dW.shape
    if fits_tiles(n_rows, n_out, len(x), dW):
        flats = dpre.reshape(-1), dW.reshape(-1), W.reshape(-1)
        product(x.reshape(-1)[start:], np.int64(1), x.shape[1], *flats, n_rows, len(x), n_out)
    elif n_rows == x.shape[1]:
        np.dot(x.T, dpre, dW)
    else:
        np.dot(x[:, start : start + n_rows].copy().T, dpre, dW)


def _times_transposed(dpre, W, dx):
    """dx = dpre Wᵀ, (B, n_out) @ (n_out, n_in) -> (B, n_in)."""
    n_rows, n_in, n_out = len(dpre), len(W), W.shape[1]
    if fits_tiles(n_rows, n_out, n_rows, dx) and n_in >= 6 and n_out >= SHORTEST:
        dots(dpre.reshape(-1), W.reshape(-1), dx.reshape(-1), n_rows, n_out, n_in)
    else:
        np.dot(dpre, W.T, dx)


def _dots(a, b, out, n_rows, n, n_columns):
    """out (n_rows, n_columns) of A Bᵀ, both of rows of length n, in tiles as `product`."""
    height, width = (4, 6) if has_32_registers() else (3, 4)
    for j_tile in range(0, n_columns, width):
        j = min(j_tile, n_columns - width)
        for i_tile in range(0, n_rows, height):
            i = min(i_tile, n_rows - height)
            if height == 4:
                dot_4x6(a, i * n, b, j * n, n, out, i * n_columns + j, n_columns)
            else:
                dot_3x4(a, i * n, b, j * n, n, out, i * n_columns + j, n_columns)


product, dots = jit(_product), jit(_dots)
times = inlined(_times)
part_transposed_times = inlined(_part_transposed_times)
transposed_times = inlined(_transposed_times)
times_transposed = inlined(_times_transposed)
