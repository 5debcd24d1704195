"""The one dense product that BLAS is slow at: dx = dpre Wᵀ for few rows.

OpenBLAS copies W to transpose it, which takes longer than the product itself. Both factors lie in memory the way dot products
want them, so four rows of either are read at a time, for 16 sums that stay in registers. All other products are left to BLAS.
"""

import numpy as np

from npvae.kernels.compile import jit

MOST_ROWS = 256  # beyond this, and beyond a third of the length of the sums, BLAS is as fast (benchmarks/bench_ops.py)


def _times_transposed(dpre, W, dx):
    """dx = dpre Wᵀ, (B, n_out) @ (n_out, n_in) -> (B, n_in)."""
    n_rows, n_in, n_out = len(dpre), len(W), W.shape[1]
    if n_rows > MOST_ROWS or 3 * n_rows > n_out or min(n_rows, n_in) < 4:
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


times_transposed = jit(_times_transposed)
