"""Dense products as BLAS computes them fastest: small ones, and dx = dpre Wᵀ for few rows by a kernel of our own.

Before it multiplies, BLAS copies its factors into an order of its own, which for the few rows of a minibatch takes up to half
of the time. OpenBLAS has kernels that do without, on processors with AVX-512 and up to 100³ multiplications: there a large
product is computed in pieces of that size.
"""

import functools

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  (the BLAS of np.dot in a kernel: loaded before its threads are limited)
from threadpoolctl import threadpool_info

from npvae.kernels.compile import jit

SMALL = 100**3  # multiplications up to which OpenBLAS uses its kernels for small products, where it has them
WITH_SMALL_KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")  # OpenBLAS's names of processors
ROWS, SHORTEST = 4, 100  # of a piece: a multiple of so many rows suits those kernels, and sums of at least this length
MOST_ROWS = 256  # beyond this the copies are a small part of the product
LENGTH_PER_ROW = 6  # where the sums of dpre Wᵀ are shorter than this times the rows, BLAS is as fast (benchmarks/bench_ops.py)


@functools.cache
def piece_size():
    """The most multiplications of a piece: `SMALL` where BLAS has kernels for it, else 0, which means in one piece."""
    architectures = [library.get("architecture") for library in threadpool_info() if library["user_api"] == "blas"]
    return SMALL if architectures and all(name in WITH_SMALL_KERNELS for name in architectures) else 0


def _times(x, W, out, piece):
    """out = x W, (B, n_in) @ (n_in, n_out) -> (B, n_out), in pieces of at most `piece` multiplications."""
    n_rows, (n_in, n_out) = len(x), W.shape
    rows, length = n_rows, n_in  # of a piece
    longest = piece // (ROWS * n_out)  # sums over n_in, where a piece has four rows
    if n_rows * n_in * n_out > piece and n_rows <= MOST_ROWS and longest >= SHORTEST:
        length = -(-n_in // -(-n_in // longest))  # as many parts as needed, of equal length
        rows = piece // (length * n_out) // ROWS * ROWS
    share = np.empty((rows if length < n_in else 0, n_out), out.dtype)
    for k in range(0, n_in, length):
        for b in range(0, n_rows, rows):
            end = min(b + rows, n_rows)
            factor = x[b:end] if length == n_in else x[b:end, k : k + length].copy()
            np.dot(factor, W[k : k + length], out[b:end] if k == 0 else share[: end - b])
            if k > 0:
                for r in range(end - b):
                    for j in range(n_out):
                        out[b + r, j] += share[r, j]


def _transposed_times(x, dpre, dW, piece):
    """dW = xᵀ dpre, (n_in, B) @ (B, n_out) -> (n_in, n_out), in pieces of at most `piece` multiplications."""
    n_in, n_out = dW.shape
    rows = piece // (len(x) * n_out) // ROWS * ROWS  # of dW in a piece
    if rows < 3 * ROWS or rows > n_in:  # of fewer rows, pieces are no faster than the whole
        rows = n_in
    for i in range(0, n_in, rows):
        factor = x if rows == n_in else x[:, i : i + rows].copy()
        np.dot(factor.T, dpre, dW[i : i + rows])


def _times_transposed(dpre, W, dx):
    """dx = dpre Wᵀ, (B, n_out) @ (n_out, n_in) -> (B, n_in).

    Both factors lie in memory the way dot products want them: four rows of either give 16 sums, which stay in registers.
    """
    n_rows, n_in, n_out = len(dpre), len(W), W.shape[1]
    if n_out < LENGTH_PER_ROW * n_rows or min(n_rows, n_in) < 4:
        np.dot(dpre, W.T, dx)
        return
    for i_tile in range(0, n_in, 4):
        i = min(i_tile, n_in - 4)  # the last tile overlaps the one before where 4 is no divisor
        w0, w1, w2, w3 = W[i], W[i + 1], W[i + 2], W[i + 3]
        for b_tile in range(0, n_rows, 4):
            b = min(b_tile, n_rows - 4)
            d0, d1, d2, d3 = dpre[b], dpre[b + 1], dpre[b + 2], dpre[b + 3]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = dx.dtype.type(0)
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = dx.dtype.type(0)
            for j in range(n_out):
                s00, s01, s02, s03 = s00 + d0[j] * w0[j], s01 + d0[j] * w1[j], s02 + d0[j] * w2[j], s03 + d0[j] * w3[j]
                s10, s11, s12, s13 = s10 + d1[j] * w0[j], s11 + d1[j] * w1[j], s12 + d1[j] * w2[j], s13 + d1[j] * w3[j]
                s20, s21, s22, s23 = s20 + d2[j] * w0[j], s21 + d2[j] * w1[j], s22 + d2[j] * w2[j], s23 + d2[j] * w3[j]
                s30, s31, s32, s33 = s30 + d3[j] * w0[j], s31 + d3[j] * w1[j], s32 + d3[j] * w2[j], s33 + d3[j] * w3[j]
            dx[b, i], dx[b, i + 1], dx[b, i + 2], dx[b, i + 3] = s00, s01, s02, s03
            dx[b + 1, i], dx[b + 1, i + 1], dx[b + 1, i + 2], dx[b + 1, i + 3] = s10, s11, s12, s13
            dx[b + 2, i], dx[b + 2, i + 1], dx[b + 2, i + 2], dx[b + 2, i + 3] = s20, s21, s22, s23
            dx[b + 3, i], dx[b + 3, i + 1], dx[b + 3, i + 2], dx[b + 3, i + 3] = s30, s31, s32, s33


times = jit(_times)
transposed_times = jit(_transposed_times)
times_transposed = jit(_times_transposed)
