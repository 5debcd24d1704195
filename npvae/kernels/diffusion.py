"""The gradient of a diffusion in one call: what `Diffusion.forward` and then `backward` compute, for the denoising terms of a
schedule that is not learned. See `npvae.kernels.vae`.

What a step of the chain has of its own, its levels, its weight and how the network is told of it, does not change during
training: it is computed once, by the readable functions, and stands in a table with a row for each step. Of both ends of the
chain the kernel adds up what depends on the data.

Shapes: B batch, D data, T steps of the chain.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from npvae.core.levels import LEVELS
from npvae.core.parameters import zeros
from npvae.kernels.compile import jit
from npvae.kernels.elementary import exp, log1p
from npvae.kernels.mlp import (
    InTheta,
    Places,
    layer_table,
    layers_backward_kernel,
    layers_forward_kernel,
    layers_gradient,
    layers_update_kernel,
    rows_of,
    upstream,
)
from npvae.kernels.team import Team, alone, begin, leave, meet, of_worker
from npvae.kernels.vae import one_worker
from npvae.ops.diffusion import LEVEL_SPACING, NEGLIGIBLE

SIGNAL, NOISE, FACTOR, WEIGHT, FEATURES = range(5)  # columns of the table; the features are all that follow


class Workspace(NamedTuple):
    """What the gradient is computed in."""

    activation: str  # of the hidden layers
    layers: np.ndarray  # of `npvae.kernels.mlp.LAYER`
    steps: np.ndarray  # (T − 1, 4 + ·): a, s, k of ε̂ = s x_t + k output, the term's weight, and what the network is told
    half_signal: float  # ½ a² of x_T: times Σ x² it is the part of the KL of x_T that depends on the data
    prior: float  # the other part
    reconstruction: float  # −log p(x|x_1) of real data
    r: float  # s/a of x_1 where the data are grey levels; 0 for real data
    floats: np.ndarray  # 1-D, of the model's dtype
    integers: np.ndarray  # 1-D
    team: Team | None = None  # None for one worker that computes all, and no update

    of_worker = of_worker


def diffusion_workspace(activation, layers, n_rows, n_shards, steps, half_signal, prior, reconstruction, r):
    """The Workspace of `diffusion_gradient` for at most n_rows rows, in n_shards shards of about the same size; layers
    (W, b, activation) as in `npvae.ops.mlp`, of which only shapes, dtype and whether there is an activation are read; the
    others as in Workspace."""
    floats, integers = Places(), Places()
    table = layer_table(layers, n_shards * -(-n_rows // n_shards), InTheta(), floats, integers, n_shards)
    table[0]["need_dx"] = False
    arrays = zeros((floats.size,), layers[-1][0].dtype), zeros((integers.size,), np.int32)
    return Workspace(activation, table, steps, half_signal, prior, reconstruction, r, *arrays)


def diffusion_gradient(theta, x, eps, step, dloss, out, workspace):
    """The terms of the loss, and its gradient times dloss, which is written to `out`.

    theta, out (P,), x (B, D), as the data are and not on [−1, 1], eps (2, B, D), C-contiguous and of one dtype, float32 or
    float64; step (B,) the rows of the workspace's table; dloss a number, the upstream gradient of these rows' loss; workspace:
    a `diffusion_workspace` for as many rows or more. Returns loss, reconstruction, prior, steps (nats, means over the rows),
    and a bound on the sum of squares of the gradient, which is finite only if they are. With a team as `vae_gradient`.
    """
    activation, layers, steps, half_signal, prior, reconstruction, r, floats, integers, team = workspace
    team = alone(theta, x) if team is None else team
    with one_worker:  # two that ask at once would compile it twice
        kernel = diffusion_kernel(activation, team.update)
    arguments = theta, layers, steps, step, x, eps, r, float(dloss), floats, integers, out
    squared, nll, of_steps, bound = kernel(*arguments, *team.in_kernel)
    prior, reconstruction = prior + half_signal * squared, reconstruction + nll
    return reconstruction + prior + of_steps, reconstruction, prior, of_steps, bound


@functools.cache
def diffusion_kernel(activation, update="none"):
    """The kernel of `diffusion_gradient`, for these alone."""
    layers_forward, layers_backward = layers_forward_kernel(activation), layers_backward_kernel(activation)
    layers_update = layers_update_kernel(update)

    def _gradient(theta, layers, steps, step, x, eps, r, dloss, floats, integers, grad,
                  k, firsts, x_of_all, signals, first_slot, second_slot, numbers):  # fmt: skip
        n_rows, n_workers, first = len(x), len(firsts) - 1, firsts[k]
        begin(signals, k, n_workers)
        read = rows_of(floats, layers[0]["x"], first, n_rows, layers[0]["n_in"])
        squared = read_rows(x, eps[0], steps, step, r > 0, read)  # (B, D) -> (B, D + ·)
        output = layers_forward(theta, layers, read, floats, integers, k, first)  # -> (B, D)
        doutput = upstream(layers, floats, first, n_rows)
        of_steps = denoising_rows(output, read, eps[0], steps, step, dloss / n_rows, doutput)
        nll = levels_nll(x, eps[1], r) if r > 0 else 0.0
        _, bound = layers_backward(theta, layers, read, floats, integers, k, first)

        is_finite = meet(signals, k, n_workers, squared + nll + of_steps < np.inf and bound < np.inf)
        read_by_all = rows_of(floats, layers[0]["x"], 0, firsts[n_workers], layers[0]["n_in"])
        layers_gradient(theta, layers, read_by_all, firsts, floats, integers, grad, k)
        if is_finite and numbers[0] > 0:
            layers_update(theta, layers, grad, first_slot, second_slot, numbers, k, n_workers)
        leave(signals, k, n_workers)
        return squared / n_rows, nll / n_rows, of_steps / n_rows, bound

    return jit(_gradient)


def _read_rows(x, eps, steps, step, is_levels, read):
    """What the network reads, (B, D + ·): x_t and the features of its step. Returns Σ x²."""
    n_columns = x.shape[1]
    scale, shift = x.dtype.type(2 if is_levels else 1), x.dtype.type(1 if is_levels else 0)
    squared = 0.0
    for b in range(len(x)):
        of_step = steps[step[b]]
        a, s = of_step[SIGNAL], of_step[NOISE]
        of_row = 0.0
        for d in range(n_columns):
            centred = scale * x[b, d] - shift
            read[b, d] = a * centred + s * eps[b, d]
            of_row += centred * centred
        for f in range(len(of_step) - FEATURES):
            read[b, n_columns + f] = of_step[FEATURES + f]
        squared += of_row
    return squared


def _denoising_rows(output, read, eps, steps, step, dmean, doutput):
    """Σ over the rows of ½ w ‖ε − ε̂‖², and its gradient times dmean with respect to the output (B, D)."""
    total = 0.0
    for b in range(len(output)):
        of_step = steps[step[b]]
        s, k, weight = of_step[NOISE], of_step[FACTOR], of_step[WEIGHT]
        slope, squared = output.dtype.type(-dmean * weight * k), 0.0
        for d in range(output.shape[1]):
            missed = eps[b, d] - (s * read[b, d] + k * output[b, d])
            doutput[b, d] = slope * missed  # (DENOISING-eps), (PREDICT-output)
            squared += missed * missed
        total += 0.5 * weight * squared
    return total


def _levels_nll(x, eps, r):
    """Σ over the rows of `npvae.ops.diffusion.levels_nll_forward` of levels x in [0, 1], all with the same r = s/a."""
    n_columns, dtype = x.shape[1], x.dtype
    reach = min(LEVELS - 1, 1 + math.ceil(math.sqrt(2 * NEGLIGIBLE) * r / LEVEL_SPACING))
    zero, one, half, last = dtype.type(0), dtype.type(1), dtype.type(0.5), dtype.type(LEVELS - 1)
    h, in_levels = dtype.type(LEVEL_SPACING / r), dtype.type(r / LEVEL_SPACING)  # m of the level beside x's, and its inverse
    level, start, weights, nll = np.empty(n_columns, dtype), np.empty(n_columns, dtype), np.empty(n_columns, dtype), 0.0
    for b in range(len(x)):
        for d in range(n_columns):
            level[d] = np.floor(last * x[b, d] + half)
            nearest = np.floor(level[d] + in_levels * eps[b, d] + half)
            start[d] = (zero if nearest < zero else (last if nearest > last else nearest)) - level[d]
            weights[d] = zero
        for i in range(-reach, reach + 1):
            for d in range(n_columns):
                beside = start[d] + dtype.type(i)  # levels from that of x
                m = h * beside
                weight = exp(m * (eps[b, d] - half * m))
                k = level[d] + beside
                weights[d] += zero if k < zero or k > last else weight
        of_row = 0.0
        for d in range(n_columns):
            of_row += log1p(weights[d] - one)
        nll += of_row
    return nll


read_rows, denoising_rows, levels_nll = jit(_read_rows), jit(_denoising_rows), jit(_levels_nll)
