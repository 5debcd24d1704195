"""Walkers that move by a drift, and the gradient of `npvae.models.Drift`, in one call each: what the readable passes compute
for the reference "base" and Heun's scheme, where base and local energy are among those of `npvae.kernels.particles`.

A block of few walkers goes through all its steps at once, so that its hidden units stay in a core's own cache. Of a path only
the places (T + 1, B, N d) are remembered: on the way back each step is computed anew from its beginning. `npvae.ops.sde`
derives what a step adds and its gradient.

Shapes: B walkers of a block, N particles, d dimensions, D = N d, T steps.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.drift_network import layer_table, network_backward_kernel, network_forward_kernel
from npvae.kernels.mlp import InTheta, Places
from npvae.kernels.particles import add_base_gradient, base_and_energy, physics_of
from npvae.kernels.vae import one_worker

ROWS = 32  # walkers of a block
MARTINGALES = {"held": 0, "none": 1, "whole": 2}  # what is differentiated of the martingale, as numbers
HELD, WHOLE, WALK = MARTINGALES["held"], MARTINGALES["whole"], 3  # WALK: nothing is differentiated


class Workspace(NamedTuple):
    """What a block of walkers is computed in."""

    activation: str  # of the hidden layers
    networks: tuple  # f, g and w: arrays of LAYER; g and w of a single particle are empty
    physics: tuple  # of `npvae.kernels.particles.Physics`
    floats: np.ndarray  # 1-D, of the model's dtype


def drift_workspace(activation, networks, system):
    """The Workspace of networks (f, g, w), layers (W, b, activation) as in `npvae.ops.mlp`, of which shapes and dtype are read,
    and of a System; None where that is none of those that are compiled."""
    dtype, floats, in_theta = networks[0][-1][0].dtype, Places(), InTheta()
    physics, N = physics_of(system, dtype), system.n_particles
    if physics is None:
        return None
    n_rows = ROWS * N, ROWS * N * (N - 1), ROWS * N * (N - 1)
    tables = tuple(layer_table(layers, n, in_theta, floats) for layers, n in zip(networks, n_rows))
    return Workspace(activation, tables, tuple(physics), np.zeros(floats.size, dtype))


def drift_walk(theta, start, eps, dt, workspace):
    """Walkers from start (B, D), eps (T, B, D): their ends (B, D), u there (B, D), and A = ∫ (½ |u|² + E_b) dt, M = ∫ u·dW and
    S = ∫ u ∘ dr of each, (B,) in float64. Arrays are C-contiguous and of one dtype."""
    end, pull, nothing = np.empty_like(start), np.empty_like(start), theta[:0].copy()
    return end, pull, *paths(theta, start, eps, dt, end, pull, WALK, 0.0, nothing, workspace)


def drift_gradient(theta, start, eps, end, pull, dt, martingale, dloss, out, workspace):
    """A, M and the boundary term pull·(r_T − end) of each walker, (B,) in float64; the gradient of the mean loss, times dloss,
    is written to out (P,). martingale: a key of MARTINGALES; other arguments as of `drift_walk` and `Drift.forward`."""
    out[:] = 0
    dcost = dloss / (len(start) * len(eps) * dt)  # 1/(B T) enters here
    return paths(theta, start, eps, dt, end, pull, MARTINGALES[martingale], dcost, out, workspace)


def paths(theta, start, eps, dt, end, pull, martingale, dcost, grad, workspace):
    """What the kernel leaves of its integrals (3, B)."""
    activation, *rest = workspace
    with one_worker:  # two that ask at once would compile it twice
        kernel = paths_kernel(activation)
    integrals = np.zeros((3, len(start)))
    kernel(theta, *rest, start, eps, dt, end, pull, martingale, float(dcost), grad, integrals)
    return integrals


# ------------------------------------------------------------------------------------------------------------------- one step


@functools.cache
def step_kernel(activation):
    """One step of a block of walkers, compiled."""
    network_forward = network_forward_kernel(activation)

    def _step(theta, networks, physics, z, eps, dt, inputs, floats, at, after):
        """One step from z (B, D): b, u, E at both ends are left in `at`, z̃ and z' in after[0] and after[1]."""
        (joined, pairs), (b, u, E) = inputs, at
        length, root, half = z.dtype.type(dt), z.dtype.type(math.sqrt(dt)), z.dtype.type(0.5)
        network_forward(theta, networks, physics, z, joined[0], pairs[0], floats, np.int64(0), u[0])
        base_and_energy(z, physics, b[0], E[0])
        for w in range(len(z)):
            for c in range(z.shape[1]):
                after[0, w, c] = z[w, c] + (b[0, w, c] + u[0, w, c]) * length + root * eps[w, c]
        network_forward(theta, networks, physics, after[0], joined[1], pairs[1], floats, np.int64(1), u[1])
        base_and_energy(after[0], physics, b[1], E[1])
        for w in range(len(z)):
            for c in range(z.shape[1]):
                mean = half * (b[0, w, c] + u[0, w, c] + b[1, w, c] + u[1, w, c])
                after[1, w, c] = z[w, c] + mean * length + root * eps[w, c]

    return jit(_step)


@functools.cache
def step_backward_kernel(activation):
    """The backward pass of a step whose forward pass has just been done, compiled."""
    network_backward = network_backward_kernel(activation)

    def _step_backward(theta, networks, physics, z, eps, dt, inputs, floats, at, after, martingale, dcost, grad, dz):
        """dz' (B, D) -> dz, in its place."""
        (joined, pairs), (b, u, _) = inputs, at
        half, length, root, cost = z.dtype.type(0.5), z.dtype.type(dt), z.dtype.type(math.sqrt(dt)), z.dtype.type(dcost)
        denergy, stages, adds = half * cost * length, np.arange(2), np.array([False, True])  # no literals: see `paths_kernel`
        df, dv, dmiddle, dfirst = np.empty_like(z), np.empty_like(z), np.zeros_like(z), np.zeros_like(z)
        for w in range(len(z)):
            for c in range(z.shape[1]):
                df[w, c] = half * dz[w, c] * length
                dv[w, c] = df[w, c] + denergy * u[1, w, c]
        add_base_gradient(after[0], physics, b[1], df, denergy, dmiddle)  # (HEUN-middle)
        network_backward(theta, networks, physics, after[0], joined[1], pairs[1], dv, floats, stages[1], adds[1], grad,
                         dmiddle)  # fmt: skip
        for w in range(len(z)):
            for c in range(z.shape[1]):
                df[w, c] = (half * dz[w, c] + dmiddle[w, c]) * length  # (HEUN-first)
                dv[w, c] = df[w, c] + denergy * u[0, w, c]
                if martingale == WHOLE:
                    dv[w, c] += cost * root * eps[w, c]
        add_base_gradient(z, physics, b[0], df, denergy, dfirst)
        network_backward(theta, networks, physics, z, joined[0], pairs[0], dv, floats, stages[0], adds[1], grad, dfirst)
        if martingale == HELD:
            for w in range(len(z)):
                for c in range(z.shape[1]):
                    dv[w, c] = cost * root * eps[w, c]  # (INCREMENT-u)
            network_backward(theta, networks, physics, z, joined[0], pairs[0], dv, floats, stages[0], adds[0], grad, dfirst)
        for w in range(len(z)):
            for c in range(z.shape[1]):
                dz[w, c] += dmiddle[w, c] + dfirst[w, c]  # (HEUN-z)

    return jit(_step_backward)


def _inputs_of(networks, physics, n, like):
    """What the networks read at both ends of a step of n walkers: (2, n N, ·), (2, n N (N − 1), ·)."""
    N, width = physics[0], 2 * len(physics[2]) + 1
    return np.empty((2, n * N, networks[0][0]["n_in"]), like.dtype), np.empty((2, n * N * (N - 1), width), like.dtype)


def _fields_of(n, D, like):
    """b, u and E_b at both ends of a step of n walkers."""
    return np.empty((2, n, D), like.dtype), np.empty((2, n, D), like.dtype), np.empty((2, n), like.dtype)


def _add_integrals(at, eps, dt, energy, martingale):
    """Add what a step adds to A and M (B,)."""
    _, u, E = at
    root = math.sqrt(dt)
    for w in range(len(eps)):
        squares, product = 0.0, 0.0
        for c in range(eps.shape[1]):
            squares += u[0, w, c] * u[0, w, c] + u[1, w, c] * u[1, w, c]
            product += u[0, w, c] * eps[w, c]
        energy[w] += 0.5 * dt * (0.5 * squares + E[0, w] + E[1, w])
        martingale[w] += root * product


def _add_work(before, after, r, r_after, work):
    """Add ½ (u + u')·(r' − r) to S (B,)."""
    for w in range(len(r)):
        total = 0.0
        for c in range(r.shape[1]):
            total += (before[w, c] + after[w, c]) * (r_after[w, c] - r[w, c])
        work[w] += 0.5 * total


inputs_of, fields_of, add_integrals, add_work = jit(_inputs_of), jit(_fields_of), jit(_add_integrals), jit(_add_work)


# --------------------------------------------------------------------------------------------------------------- whole paths


@functools.cache
def paths_kernel(activation):
    """The kernel of `drift_walk` and `drift_gradient`, for this activation alone. They are one, and no network is called with
    a literal number, for which Numba would compile it once more: compilation takes long enough."""
    step, step_backward = step_kernel(activation), step_backward_kernel(activation)
    network_forward = network_forward_kernel(activation)

    def _paths(theta, networks, physics, floats, start, eps, dt, end, pull, martingale, dcost, grad, integrals):
        n_steps, D = len(eps), start.shape[1]
        for first in range(0, len(start), ROWS):
            n = min(ROWS, len(start) - first)
            rows = slice(first, first + n)
            inputs, at = inputs_of(networks, physics, n, start), fields_of(n, D, start)
            places, after = np.empty((n_steps + 1, n, D), start.dtype), np.empty((2, n, D), start.dtype)
            before = np.empty((n, D), start.dtype)  # u at the beginning of the step before
            places[0] = start[rows]
            for k in range(n_steps):
                step(theta, networks, physics, places[k], eps[k, rows], dt, inputs, floats, at, after)
                add_integrals(at, eps[k, rows], dt, integrals[0, rows], integrals[1, rows])
                if martingale == WALK and k > 0:
                    add_work(before, at[1][0], places[k - 1], places[k], integrals[2, rows])
                before[:], places[k + 1] = at[1][0], after[1]
            if martingale == WALK:
                network_forward(theta, networks, physics, places[n_steps], inputs[0][0], inputs[1][0], floats, np.int64(0),
                                at[1][0])  # fmt: skip
                add_work(before, at[1][0], places[n_steps - 1], places[n_steps], integrals[2, rows])
                end[rows], pull[rows] = places[n_steps], at[1][0]
                continue
            dz = np.empty((n, D), start.dtype)
            for w in range(n):
                for c in range(D):
                    dz[w, c] = -dcost * pull[first + w, c]
                    integrals[2, first + w] += pull[first + w, c] * (places[n_steps, w, c] - end[first + w, c])
            for k in range(n_steps - 1, -1, -1):
                if k < n_steps - 1:  # the last step is still there
                    step(theta, networks, physics, places[k], eps[k, rows], dt, inputs, floats, at, after)
                step_backward(theta, networks, physics, places[k], eps[k, rows], dt, inputs, floats, at, after, martingale,
                              dcost, grad, dz)  # fmt: skip

    return jit(_paths)
