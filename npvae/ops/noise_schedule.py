"""How much noise stands at which time of a diffusion, and how a network is told the time.

u in [0, 1] is the time from the first latent to the last, γ = −log SNR the level of noise there (`npvae.ops.diffusion`).
See `npvae.ops.layers` for how to read a pair. Shapes: B batch, D data.
"""

import math

import numpy as np


def schedule_forward(u, ends, schedule):
    """γ at times u (B,) in [0, 1] and its slope dγ/du, (B,) each; ends: γ at 0 and at 1.

    "linear": a straight line. "cosine": a = cos φ with φ on a straight line (Nichol & Dhariwal 2021), so that γ = 2 log tan φ.
    "learned" is a straight line whose ends are parameters:
        (SCHEDULE)  dends = Σ_b (dgamma_b (1 − u_b) − dslope_b,  dgamma_b u_b + dslope_b)
    """
    low, high = ends
    if schedule == "cosine":
        first, last = np.arctan(np.exp(0.5 * low)), np.arctan(np.exp(0.5 * high))
        phi = first + (last - first) * u
        return 2 * np.log(np.tan(phi)), 4 * (last - first) / np.sin(2 * phi)
    return low + (high - low) * u, np.full(u.shape, high - low)


def schedule_backward(dgamma, dslope, u):
    """Backward of the straight line: dgamma, dslope, u (B,) -> dends (2,)."""
    return np.array([(dgamma * (1 - u) - dslope).sum(), (dgamma * u + dslope).sum()])  # (SCHEDULE)


def fourier_input(x_t, u, n_frequencies):
    """What the network reads: x_t (B, D) and 2u − 1, sin 2^k π u, cos 2^k π u, k from 0: (B, D + 1 + 2 n_frequencies)."""
    angles = math.pi * u[:, None] * 2.0 ** np.arange(n_frequencies)
    features = np.concatenate([2 * u[:, None] - 1, np.sin(angles), np.cos(angles)], axis=1)
    return np.concatenate([x_t, features.astype(x_t.real.dtype)], axis=1)


def blocks_input(x_t, step, n_steps):
    """x_t (B, D) and a 1 in the block of columns of its step (B,), zeros in the others: (B, n_steps (D + 1)). The first
    layer then has weights for each step alone."""
    one_hot = np.eye(n_steps, dtype=x_t.real.dtype)[step]  # (B, n_steps)
    rows = np.concatenate([x_t, np.ones((len(x_t), 1), x_t.real.dtype)], axis=1)
    return (one_hot[:, :, None] * rows[:, None]).reshape(len(x_t), -1)


def blocks_input_backward(dinput, step, n_columns):
    """Backward of `blocks_input`: dinput (B, n_steps (D + 1)), step (B,) -> dx_t (B, D), that of the own block.

    (BLOCKS)  dx_t = dinput[block of the step]
    """
    own = dinput.reshape(len(dinput), -1, n_columns + 1)[np.arange(len(dinput)), step]  # (BLOCKS) -> (B, D + 1)
    return own[:, :n_columns]
