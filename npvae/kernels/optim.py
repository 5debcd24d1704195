"""Compiled twins of the updates in `npvae.optim`."""

import numpy as np

from npvae.kernels.compile import jit

BLOCK = 2048  # parameters at a time: the summed gradient of a block stays in the fastest cache


def adam_step(theta, grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """`npvae.optim.adam_step`, the sum over the gradient's shards included, in one pass over memory."""
    shards = tuple(grad.reshape(-1, theta.size))  # each contiguous, also where grad is a slice of the parameters
    _adam_step(theta, shards, m, v, t, learning_rate, beta1, beta2, epsilon)


def _adam_blocks(theta, shards, m, v, t, learning_rate, beta1, beta2, epsilon):
    real = theta.dtype.type  # constants of theta's own type: one float64 among them would promote the whole loop
    decay1, decay2 = real(beta1), real(beta2)
    rest1, rest2 = real(1 - beta1), real(1 - beta2)
    # η m̂/(√v̂ + ε) with numerator and denominator times c = √(1 − β2ᵗ), which saves a division per parameter
    correction = (1 - beta2**t) ** 0.5
    step_size, epsilon = real(learning_rate * correction / (1 - beta1**t)), real(epsilon * correction)
    zero, tiny = real(0), real(np.finfo(theta.dtype).tiny)
    block = np.empty(BLOCK, theta.dtype)
    for start in range(0, theta.size, BLOCK):
        part = slice(start, min(start + BLOCK, theta.size))
        # views that are indexed from 0: LLVM vectorises only where it knows that an index cannot be negative
        theta_, m_, v_, g = theta[part], m[part], v[part], block[: part.stop - start]
        g[:] = zero
        for shard in shards:
            share = shard[part]
            for i in range(g.size):
                g[i] += share[i]
        for i in range(g.size):
            m_i = decay1 * m_[i] + rest1 * g[i]
            v_i = decay2 * v_[i] + rest2 * (g[i] * g[i])
            # the moments of a unit that is dead decay into subnormal numbers, which many processors handle 100 times slower
            m_[i] = m_i if abs(m_i) >= tiny else zero
            v_[i] = v_i if v_i >= tiny else zero
            theta_[i] -= step_size * m_[i] / (np.sqrt(v_[i]) + epsilon)


_adam_step = jit(_adam_blocks)
