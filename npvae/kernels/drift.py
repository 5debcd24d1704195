"""Walkers that move by a drift, and the gradient of `npvae.models.Drift`, in one call each: what the readable passes compute
for the reference "base" and Heun's scheme, where base and local energy are among those of `npvae.kernels.particles`.

A block of few walkers goes through all its steps at once, so that its hidden units stay in a core's own cache. Of a path only
the places (T + 1, B, N d) are remembered: on the way back each step is computed anew from its beginning. `npvae.ops.sde`
derives what a step adds and its gradient, `npvae.ops.pair_features` the network.

Shapes: B walkers of a block, N particles, d dimensions, D = N d, A centres, T steps.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from npvae.kernels.compile import jit
from npvae.kernels.dense import times, times_transposed, transposed_times
from npvae.kernels.layers import BACKWARD, FORWARD, identity_backward, identity_forward
from npvae.kernels.mlp import InTheta, Places, matrix
from npvae.kernels.particles import (
    add_base_gradient,
    add_mean_of_others,
    base_and_energy,
    features,
    features_backward,
    mean_of_others,
    physics_of,
    pushes,
    pushes_backward,
)
from npvae.kernels.vae import one_worker

ROWS = 32  # walkers of a block
MARTINGALES = {"held": 0, "none": 1, "whole": 2}  # what is differentiated of the martingale, as numbers
HELD, WHOLE = MARTINGALES["held"], MARTINGALES["whole"]

# One layer: its widths, whether it has an activation, where W and b start in theta; where its arrays start in floats: pre and h
# of both ends of a step, `stage` numbers apart, then dpre, dx, db and dW of one.
LAYER = np.dtype([(name, np.int64) for name in (
    "n_in", "n_out", "activated", "W", "b", "stage", "pre", "h", "dpre", "dx", "db", "dW",
)])  # fmt: skip


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


def layer_table(layers, n_rows, parameters, floats):
    """The table, of LAYER, of layers (W, b, activation) for n_rows rows; its arrays are taken from the two Places."""
    table = np.zeros(len(layers), LAYER)
    for layer, (W, _, activation) in zip(table, layers):
        n_in, n_out = layer["n_in"], layer["n_out"] = W.shape
        layer["activated"], layer["stage"] = activation != "identity", n_rows * n_out
        layer["W"], layer["b"] = parameters.take(n_in * n_out), parameters.take(n_out)
        layer["pre"] = floats.take(2 * n_rows * n_out)
        layer["h"] = floats.take(2 * n_rows * n_out) if layer["activated"] else layer["pre"]
        layer["dpre"], layer["dx"] = floats.take(n_rows * n_out), floats.take(n_rows * n_in)
        layer["db"], layer["dW"] = floats.take(n_out), floats.take(n_in * n_out)
    return table


def drift_walk(theta, start, eps, dt, workspace):
    """Walkers from start (B, D), eps (T, B, D): their ends (B, D), u there (B, D), and A = ∫ (½ |u|² + E_b) dt, M = ∫ u·dW and
    S = ∫ u ∘ dr of each, (B,) in float64. Arrays are C-contiguous and of one dtype."""
    activation, *rest = workspace
    with one_worker:  # two that ask at once would compile it twice
        kernel, _ = drift_kernels(activation)
    end, pull, integrals = np.empty_like(start), np.empty_like(start), np.zeros((3, len(start)))
    kernel(theta, *rest, start, eps, dt, end, pull, integrals)
    return end, pull, *integrals


def drift_gradient(theta, start, eps, end, pull, dt, martingale, dloss, out, workspace):
    """A, M and the boundary term pull·(r_T − end) of each walker, (B,) in float64; the gradient of the mean loss, times dloss,
    is written to out (P,). martingale: a key of MARTINGALES; other arguments as of `drift_walk` and `Drift.forward`."""
    activation, *rest = workspace
    with one_worker:
        _, kernel = drift_kernels(activation)
    integrals = np.zeros((3, len(start)))
    out[:] = 0
    dcost = dloss / (len(start) * len(eps) * dt)  # 1/(B T) enters here
    kernel(theta, *rest, start, eps, end, pull, dt, MARTINGALES[martingale], dcost, out, integrals)
    return integrals


@functools.cache
def drift_kernels(activation):
    """The kernels of `drift_walk` and `drift_gradient` for this activation, compiled."""
    activation_forward, activation_backward = FORWARD[activation], BACKWARD[activation]

    def _layers_forward(theta, layers, x, floats, stage):
        """x (n, n_in) -> the output of the last layer (n, n_out), a view of floats."""
        h = x
        for i in range(len(layers)):
            layer = layers[i]
            n_out, place = layer["n_out"], stage * layer["stage"]
            b, pre = theta[layer["b"] : layer["b"] + n_out], matrix(floats, layer["pre"] + place, len(x), n_out)
            times(h, matrix(theta, layer["W"], layer["n_in"], n_out), pre)
            h = matrix(floats, layer["h"] + place, len(x), n_out)
            if layer["activated"]:
                activation_forward(pre, b, h)
            else:
                identity_forward(pre, b, h)
        return h

    def _layers_backward(theta, layers, x, dh, floats, stage, adds, grad):
        """dh (n, n_out) -> dx (n, n_in), a view of floats; adds: dW and db are added to grad (P,)."""
        n = len(x)
        for i in range(len(layers) - 1, -1, -1):
            layer = layers[i]
            n_in, n_out, place = layer["n_in"], layer["n_out"], stage * layer["stage"]
            pre, h = matrix(floats, layer["pre"] + place, n, n_out), matrix(floats, layer["h"] + place, n, n_out)
            db, dpre = floats[layer["db"] : layer["db"] + n_out], dh
            if layer["activated"]:
                dpre = matrix(floats, layer["dpre"], n, n_out)
                activation_backward(dh, pre, h, dpre, db)
            else:
                identity_backward(dh, pre, h, dh, db)
            if adds:
                below = x
                if i > 0:
                    below = matrix(floats, layers[i - 1]["h"] + stage * layers[i - 1]["stage"], n, n_in)
                transposed_times(below, dpre, matrix(floats, layer["dW"], n_in, n_out))
                add_to(grad[layer["W"] : layer["W"] + n_in * n_out], floats[layer["dW"] : layer["dW"] + n_in * n_out])
                add_to(grad[layer["b"] : layer["b"] + n_out], db)
            dh = matrix(floats, layer["dx"], n, n_in)
            times_transposed(dpre, matrix(theta, layer["W"], n_in, n_out), dh)
        return dh

    layers_forward, layers_backward = jit(_layers_forward), jit(_layers_backward)

    def _network_forward(theta, networks, physics, r, joined, pairs, floats, stage, u):
        """u (B, D) of places r (B, D); what f and g read is left in joined (B N, ·) and pairs (B N (N − 1), ·)."""
        f, g, w = networks
        N, d, centres = physics[0], physics[1], physics[2]
        features(r, N, d, centres, joined, pairs)
        beta = pairs  # which nobody reads where there are none
        if N > 1:
            q = layers_forward(theta, g, pairs, floats, stage)  # (B N (N − 1), M)
            mean_of_others(q, N, joined)
            beta = layers_forward(theta, w, q, floats, stage)
        pushes(r, N, d, centres, layers_forward(theta, f, joined, floats, stage), beta, u)

    def _network_backward(theta, networks, physics, r, joined, pairs, du, floats, stage, adds, grad, dr):
        """du (B, D) -> added to dr (B, D); adds: the parameters' gradient is added to grad (P,)."""
        f, g, w = networks
        N, d, centres = physics[0], physics[1], physics[2]
        alpha = output_of(f, floats, stage, len(joined))
        beta = output_of(w, floats, stage, len(pairs)) if N > 1 else pairs
        dalpha, dbeta = np.empty_like(alpha), np.empty((len(pairs), 1), r.dtype)
        pushes_backward(r, N, d, centres, alpha, beta, du, dalpha, dbeta, dr)
        djoined, dpairs = layers_backward(theta, f, joined, dalpha, floats, stage, adds, grad), pairs
        if N > 1:
            q = output_of(g, floats, stage, len(pairs)) if len(g) else pairs
            dq = layers_backward(theta, w, q, dbeta, floats, stage, adds, grad)
            add_mean_of_others(djoined, N, dq)
            dpairs = layers_backward(theta, g, pairs, dq, floats, stage, adds, grad)
        features_backward(r, N, d, centres, djoined, dpairs, dr)

    network_forward, network_backward = jit(_network_forward), jit(_network_backward)

    def _step(theta, networks, physics, z, eps, dt, inputs, floats, at, after):
        """One step from z (B, D): b, u, E at both ends are left in `at`, z̃ and z' in after[0] and after[1]."""
        b, u, E = at
        root, half = z.dtype.type(math.sqrt(dt)), z.dtype.type(0.5)
        step = z.dtype.type(dt)
        network_forward(theta, networks, physics, z, inputs[0][0], inputs[1][0], floats, 0, u[0])
        base_and_energy(z, physics, b[0], E[0])
        for w in range(len(z)):
            for c in range(z.shape[1]):
                after[0, w, c] = z[w, c] + (b[0, w, c] + u[0, w, c]) * step + root * eps[w, c]
        network_forward(theta, networks, physics, after[0], inputs[0][1], inputs[1][1], floats, 1, u[1])
        base_and_energy(after[0], physics, b[1], E[1])
        for w in range(len(z)):
            for c in range(z.shape[1]):
                mean = half * (b[0, w, c] + u[0, w, c] + b[1, w, c] + u[1, w, c])
                after[1, w, c] = z[w, c] + mean * step + root * eps[w, c]

    step = jit(_step)

    def _integrals(u, E, eps, dt, energy, martingale):
        """Add what a step adds to A and M (B,)."""
        root = math.sqrt(dt)
        for w in range(len(eps)):
            squares, product = 0.0, 0.0
            for c in range(eps.shape[1]):
                squares += u[0, w, c] * u[0, w, c] + u[1, w, c] * u[1, w, c]
                product += u[0, w, c] * eps[w, c]
            energy[w] += 0.5 * dt * (0.5 * squares + E[0, w] + E[1, w])
            martingale[w] += root * product

    integrals_of_step = jit(_integrals)

    def _walk(theta, networks, physics, floats, start, eps, dt, end, pull, integrals):
        n_steps, D = len(eps), start.shape[1]
        for first in range(0, len(start), ROWS):
            n = min(ROWS, len(start) - first)
            rows = slice(first, first + n)
            inputs = inputs_of(networks, physics, n, start)
            at = np.empty((2, n, D), start.dtype), np.empty((2, n, D), start.dtype), np.empty((2, n), start.dtype)
            z, after = start[rows].copy(), np.empty((2, n, D), start.dtype)
            u_before, moved = np.zeros((n, D), start.dtype), np.zeros((n, D), start.dtype)
            for k in range(n_steps):
                step(theta, networks, physics, z, eps[k, rows], dt, inputs, floats, at, after)
                integrals_of_step(at[1], at[2], eps[k, rows], dt, integrals[0, rows], integrals[1, rows])
                add_work(u_before, at[1][0], moved, integrals[2, rows])
                u_before[:], moved[:], z[:] = at[1][0], after[1] - z, after[1]
            network_forward(theta, networks, physics, z, inputs[0][0], inputs[1][0], floats, 0, at[1][0])
            add_work(u_before, at[1][0], moved, integrals[2, rows])
            end[rows], pull[rows] = z, at[1][0]

    def _gradient(theta, networks, physics, floats, start, eps, end, pull, dt, martingale, dcost, grad, integrals):
        n_steps, D = len(eps), start.shape[1]
        for first in range(0, len(start), ROWS):
            n = min(ROWS, len(start) - first)
            rows = slice(first, first + n)
            inputs = inputs_of(networks, physics, n, start)
            at = np.empty((2, n, D), start.dtype), np.empty((2, n, D), start.dtype), np.empty((2, n), start.dtype)
            places, after = np.empty((n_steps + 1, n, D), start.dtype), np.empty((2, n, D), start.dtype)
            places[0] = start[rows]
            for k in range(n_steps):
                step(theta, networks, physics, places[k], eps[k, rows], dt, inputs, floats, at, after)
                integrals_of_step(at[1], at[2], eps[k, rows], dt, integrals[0, rows], integrals[1, rows])
                places[k + 1] = after[1]
            dz = np.empty((n, D), start.dtype)
            for w in range(n):
                for c in range(D):
                    integrals[2, first + w] += pull[first + w, c] * (places[n_steps, w, c] - end[first + w, c])
                    dz[w, c] = -dcost * pull[first + w, c]
            for k in range(n_steps - 1, -1, -1):
                if k < n_steps - 1:  # the last step is still there
                    step(theta, networks, physics, places[k], eps[k, rows], dt, inputs, floats, at, after)
                backward_step(theta, networks, physics, places[k], eps[k, rows], dt, inputs, floats, at, after, martingale,
                              dcost, grad, dz)  # fmt: skip

    def _backward_step(theta, networks, physics, z, eps, dt, inputs, floats, at, after, martingale, dcost, grad, dz):
        """dz' (B, D) -> dz, in its place; see `npvae.ops.sde`."""
        u = at[1]
        n, D = z.shape
        half, length, root, cost = z.dtype.type(0.5), z.dtype.type(dt), z.dtype.type(math.sqrt(dt)), z.dtype.type(dcost)
        dv, df, du = np.empty_like(z), np.empty_like(z), np.empty_like(z)
        dmiddle, dfirst = np.zeros_like(z), np.zeros_like(z)
        for w in range(n):
            for c in range(D):
                df[w, c] = half * dz[w, c] * length
                dv[w, c] = df[w, c] + half * cost * length * u[1, w, c]
        add_base_gradient(after[0], physics, at[0][1], df, half * cost * length, dmiddle)  # (HEUN-middle)
        network_backward(theta, networks, physics, after[0], inputs[0][1], inputs[1][1], dv, floats, 1, True, grad, dmiddle)
        for w in range(n):
            for c in range(D):
                df[w, c] = (half * dz[w, c] + dmiddle[w, c]) * length  # (HEUN-first)
                dv[w, c] = df[w, c] + half * cost * length * u[0, w, c]
                du[w, c] = cost * root * eps[w, c]
                if martingale == WHOLE:
                    dv[w, c] += du[w, c]
        add_base_gradient(z, physics, at[0][0], df, half * cost * length, dfirst)
        network_backward(theta, networks, physics, z, inputs[0][0], inputs[1][0], dv, floats, 0, True, grad, dfirst)
        if martingale == HELD:
            network_backward(theta, networks, physics, z, inputs[0][0], inputs[1][0], du, floats, 0, False, grad, dfirst)
        for w in range(n):
            for c in range(D):
                dz[w, c] += dmiddle[w, c] + dfirst[w, c]  # (HEUN-z)

    backward_step = jit(_backward_step)
    return jit(_walk), jit(_gradient)


def _inputs_of(networks, physics, n, like):
    """What the networks read at both ends of a step of n walkers: (2, n N, ·), (2, n N (N − 1), ·)."""
    N, width = physics[0], 2 * len(physics[2]) + 1
    return np.empty((2, n * N, networks[0][0]["n_in"]), like.dtype), np.empty((2, n * N * (N - 1), width), like.dtype)


def _output_of(layers, floats, stage, n):
    """What the last layer has left, (n, n_out)."""
    last = layers[-1]
    return matrix(floats, last["h"] + stage * last["stage"], n, last["n_out"])


def _add_to(total, values):
    for i in range(len(total)):
        total[i] += values[i]


def _add_work(before, after, moved, work):
    """Add ½ (u + u')·(r' − r) to S (B,)."""
    for w in range(len(moved)):
        total = 0.0
        for c in range(moved.shape[1]):
            total += (before[w, c] + after[w, c]) * moved[w, c]
        work[w] += 0.5 * total


inputs_of, output_of, add_to, add_work = jit(_inputs_of), jit(_output_of), jit(_add_to), jit(_add_work)
