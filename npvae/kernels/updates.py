"""Compiled twins of `npvae.ops.updates`: the sum over the gradient's shards and the update in one pass over memory.

Moments of a unit that is dead decay into subnormal numbers, which many processors handle 100 times slower: they become zero.
"""

import numpy as np

from npvae.kernels.compile import inlined, jit, widest_vectors

BLOCK = 2048  # parameters at a time: the summed gradient of a block stays in the fastest cache


def sgd_step(theta, grad, learning_rate):
    """`npvae.ops.updates.sgd_step`."""
    sgd_blocks(theta, shards_of(grad), theta, theta, np.array([0, learning_rate]))


def momentum_step(theta, grad, velocity, learning_rate, momentum):
    """`npvae.ops.updates.momentum_step`."""
    momentum_blocks(theta, shards_of(grad), velocity, theta, np.array([0, learning_rate, momentum]))


def adagrad_step(theta, grad, sum_of_squares, learning_rate, epsilon):
    """`npvae.ops.updates.adagrad_step`."""
    adagrad_blocks(theta, shards_of(grad), sum_of_squares, theta, np.array([0, learning_rate, epsilon]))


def rmsprop_step(theta, grad, mean_square, learning_rate, decay, epsilon):
    """`npvae.ops.updates.rmsprop_step`."""
    rmsprop_blocks(theta, shards_of(grad), mean_square, theta, np.array([0, learning_rate, decay, epsilon]))


def adam_step(theta, grad, m, v, t, learning_rate, beta1, beta2, epsilon):
    """`npvae.ops.updates.adam_step`."""
    adam_blocks(theta, shards_of(grad), m, v, np.array([t, learning_rate, beta1, beta2, epsilon]))


def shards_of(grad):
    """grad (P,) or (shards, P) as a tuple of shards, each contiguous, also where grad is a slice of the parameters."""
    return tuple(grad) if grad.ndim == 2 else (grad,)


def _summed(shards, part, block):
    if len(shards) == 1:
        return shards[0][part]
    g, first, second = block[: part.stop - part.start], shards[0][part], shards[1][part]
    for i in range(g.size):
        g[i] = first[i] + second[i]
    for k in range(2, len(shards)):
        share = shards[k][part]
        for i in range(g.size):
            g[i] += share[i]
    return g


# All kernels have the same arguments: two slots of state, of which some use fewer, and the numbers of
# `npvae.training.optim.numbers_of` (t, learning rate, others). In each the constants are of theta's own type, since one float64
# among them would promote the whole loop, and the views of a block are indexed from 0, since LLVM vectorises only where it
# knows that an index cannot be negative.


def _sgd_blocks(theta, shards, first_slot, second_slot, numbers):
    rate, block = theta.dtype.type(numbers[1]), np.empty(BLOCK, theta.dtype)
    for start in range(0, theta.size, BLOCK):
        part = slice(start, min(start + BLOCK, theta.size))
        theta_, g = theta[part], summed(shards, part, block)
        for i in range(g.size):
            theta_[i] -= rate * g[i]


def _momentum_blocks(theta, shards, velocity, second_slot, numbers):
    real, block = theta.dtype.type, np.empty(BLOCK, theta.dtype)
    rate, decay, zero, tiny = real(numbers[1]), real(numbers[2]), real(0), real(np.finfo(theta.dtype).tiny)
    for start in range(0, theta.size, BLOCK):
        part = slice(start, min(start + BLOCK, theta.size))
        theta_, velocity_, g = theta[part], velocity[part], summed(shards, part, block)
        for i in range(g.size):
            v_i = decay * velocity_[i] + rate * g[i]
            velocity_[i] = v_i if abs(v_i) >= tiny else zero
            theta_[i] -= velocity_[i]


def _adagrad_blocks(theta, shards, sum_of_squares, second_slot, numbers):
    rate, epsilon, block = theta.dtype.type(numbers[1]), theta.dtype.type(numbers[2]), np.empty(BLOCK, theta.dtype)
    for start in range(0, theta.size, BLOCK):
        part = slice(start, min(start + BLOCK, theta.size))
        theta_, sum_, g = theta[part], sum_of_squares[part], summed(shards, part, block)
        for i in range(g.size):
            sum_[i] += g[i] * g[i]
            theta_[i] -= rate * g[i] / (np.sqrt(sum_[i]) + epsilon)


def _rmsprop_blocks(theta, shards, mean_square, second_slot, numbers):
    real, block = theta.dtype.type, np.empty(BLOCK, theta.dtype)
    rate, decay, rest, epsilon = real(numbers[1]), real(numbers[2]), real(1 - numbers[2]), real(numbers[3])
    zero, tiny = real(0), real(np.finfo(theta.dtype).tiny)
    for start in range(0, theta.size, BLOCK):
        part = slice(start, min(start + BLOCK, theta.size))
        theta_, mean_, g = theta[part], mean_square[part], summed(shards, part, block)
        for i in range(g.size):
            v_i = decay * mean_[i] + rest * (g[i] * g[i])
            mean_[i] = v_i if v_i >= tiny else zero
            theta_[i] -= rate * g[i] / (np.sqrt(mean_[i]) + epsilon)


def _adam_blocks(theta, shards, m, v, numbers):
    widest_vectors()
    t, learning_rate, beta1, beta2 = int(numbers[0]), numbers[1], numbers[2], numbers[3]
    real, block = theta.dtype.type, np.empty(BLOCK, theta.dtype)
    decay1, decay2 = real(beta1), real(beta2)
    rest1, rest2 = real(1 - beta1), real(1 - beta2)
    # η m̂/(√v̂ + ε) with numerator and denominator times c = √(1 − β2ᵗ), which saves a division per parameter
    correction = (1 - beta2**t) ** 0.5
    step_size, epsilon = real(learning_rate * correction / (1 - beta1**t)), real(numbers[4] * correction)
    zero, tiny = real(0), real(np.finfo(theta.dtype).tiny)
    for start in range(0, theta.size, BLOCK):
        part = slice(start, min(start + BLOCK, theta.size))
        theta_, m_, v_, g = theta[part], m[part], v[part], summed(shards, part, block)
        for i in range(g.size):
            m_i = decay1 * m_[i] + rest1 * g[i]
            v_i = decay2 * v_[i] + rest2 * (g[i] * g[i])
            m_[i] = m_i if abs(m_i) >= tiny else zero
            v_[i] = v_i if v_i >= tiny else zero
            theta_[i] -= step_size * m_[i] / (np.sqrt(v_[i]) + epsilon)


summed = jit(_summed)
sgd_blocks = jit(_sgd_blocks)
momentum_blocks = jit(_momentum_blocks)
adagrad_blocks = jit(_adagrad_blocks)
rmsprop_blocks = jit(_rmsprop_blocks)
adam_blocks = jit(_adam_blocks)


def _no_part(theta, grad, first_slot, second_slot, numbers):
    pass


def part_of(blocks):
    """The same for one worker's part of the parameters, with a gradient that is not in shards."""

    def _part(theta, grad, first_slot, second_slot, numbers):
        blocks(theta, (grad,), first_slot, second_slot, numbers)

    return inlined(_part)


PARTS = {"none": inlined(_no_part), "sgd_step": part_of(sgd_blocks), "momentum_step": part_of(momentum_blocks),
         "adagrad_step": part_of(adagrad_blocks), "rmsprop_step": part_of(rmsprop_blocks),
         "adam_step": part_of(adam_blocks)}  # fmt: skip
