"""How much noise stands at which time of a diffusion, and how a network is told the time.

u in [0, 1] is the time from the first latent to the last, γ = −log SNR the level of noise there (`npvae.ops.diffusion`).
See `npvae.ops.layers` for how to read a pair. Shapes: B batch, D data.
"""

import math
from typing import NamedTuple

import numpy as np


class Levels(NamedTuple):
    """γ of each row of a batch, (B,) each; below or slope is None."""

    gamma: np.ndarray  # at u
    below: np.ndarray | None  # of the latent before it
    slope: np.ndarray | None  # dγ/du at u, in continuous time
    first: np.ndarray  # of the first latent
    last: np.ndarray  # of the last


def level(u, ends, schedule):
    """γ at times u (B,) in [0, 1] and its slope dγ/du, (B,) each; ends: γ at 0 and at 1.

    "linear": a straight line, as for "learned" ends. "cosine": a = cos φ with φ on a straight line (Nichol & Dhariwal 2021), so
    that γ = 2 log tan φ.
    """
    low, high = ends
    if schedule == "cosine":
        first, last = np.arctan(np.exp(0.5 * low)), np.arctan(np.exp(0.5 * high))
        phi = first + (last - first) * u
        return 2 * np.log(np.tan(phi)), 4 * (last - first) / np.sin(2 * phi)
    return low + (high - low) * u, np.full(u.shape, high - low)


def schedule_forward(ends, u, below, schedule):
    """Levels of a batch: ends (2,), u (B,), below (B,) or None for continuous time, schedule as of `level`.

    Of a straight line, γ = ends_0 (1 − u) + ends_1 u and dγ/du = ends_1 − ends_0:
        (SCHEDULE)  dends_0 = Σ_b dgamma (1 − u) + dbelow (1 − below) − dslope + dfirst
                    dends_1 = Σ_b dgamma u + dbelow below + dslope + dlast
    """
    gamma, slope = level(u, ends, schedule)
    first, last = (level(np.full(u.shape, end), ends, schedule)[0] for end in (0.0, 1.0))
    gamma_below, slope = (None, slope) if below is None else (level(below, ends, schedule)[0], None)
    return Levels(gamma, gamma_below, slope, first, last), (u, below)


def schedule_backward(dgamma, dbelow, dslope, dfirst, dlast, cache):
    """Backward of the levels on a straight line: (B,) each, None for what there is not -> dends (2,)."""
    u, below = cache
    of_below, of_slope = (0.0, dslope) if below is None else (dbelow, 0.0)
    below = 0.0 if below is None else below
    dlow = (dgamma * (1 - u) + of_below * (1 - below) - of_slope + dfirst).sum()
    dhigh = (dgamma * u + of_below * below + of_slope + dlast).sum()
    return np.array([dlow, dhigh])  # (SCHEDULE)


def fourier_input_forward(x_t, u, n_frequencies):
    """What the network reads: x_t (B, D) and 2u − 1, sin 2^k π u, cos 2^k π u, k from 0: (B, D + 1 + 2 n_frequencies).

    (FOURIER)  dx_t = dread[the columns of x_t]
    """
    angles = math.pi * u[:, None] * 2.0 ** np.arange(n_frequencies)
    features = np.concatenate([2 * u[:, None] - 1, np.sin(angles), np.cos(angles)], axis=1)
    return np.concatenate([x_t, features.astype(x_t.real.dtype)], axis=1), x_t.shape


def fourier_input_backward(dread, cache):
    """Backward of x_t beside features of the time: dread (B, D + 1 + 2 n_frequencies) -> dx_t (B, D)."""
    _, n_columns = cache
    return dread[:, :n_columns]  # (FOURIER)


def blocks_input_forward(x_t, step, n_steps):
    """x_t (B, D) and a 1 in the block of columns of its step (B,), zeros in the others: (B, n_steps (D + 1)). The first
    layer then has weights for each step alone.

    (BLOCKS)  dx_t = dread[block of the step]
    """
    one_hot = np.eye(n_steps, dtype=x_t.real.dtype)[step]  # (B, n_steps)
    rows = np.concatenate([x_t, np.ones((len(x_t), 1), x_t.real.dtype)], axis=1)
    return (one_hot[:, :, None] * rows[:, None]).reshape(len(x_t), -1), (step, x_t.shape[1])


def blocks_input_backward(dread, cache):
    """Backward of a block for each step: dread (B, n_steps (D + 1)) -> dx_t (B, D), that of the own block."""
    step, n_columns = cache
    own = dread.reshape(len(dread), -1, n_columns + 1)[np.arange(len(dread)), step]  # (BLOCKS) -> (B, D + 1)
    return own[:, :n_columns]
