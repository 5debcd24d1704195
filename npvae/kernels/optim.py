"""Compiled twins of the updates in `npvae.optim`."""

import numpy as np

from npvae.kernels.compile import jit


def _adam_step(theta, grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """`npvae.optim.adam_step` in one pass over memory."""
    real = theta.dtype.type  # constants of theta's own type: one float64 among them would promote the whole loop
    decay1, decay2, epsilon = real(beta1), real(beta2), real(epsilon)
    rest1, rest2 = real(1 - beta1), real(1 - beta2)
    step_size = real(learning_rate / (1 - beta1**t))
    root_correction = real((1 - beta2**t) ** 0.5)
    for i in range(theta.size):
        m[i] = decay1 * m[i] + rest1 * grad[i]
        v[i] = decay2 * v[i] + rest2 * (grad[i] * grad[i])
        theta[i] -= step_size * m[i] / (np.sqrt(v[i]) / root_correction + epsilon)


adam_step = jit(_adam_step)
