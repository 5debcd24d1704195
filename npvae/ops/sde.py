"""Stochastic differential equations: two integrators, backward through the whole path, and the KL between two path measures.

    dz = f(z, t) dt + σ(t) (v(z, t) dt + dW)        from z(t_0) to z(t_T)

f is the drift, σ the strength of the noise, the same for every state, and v the control, a drift in units of the noise: the
lecture's dz = μ dt + dW (Lamacraft, "Markov chain autoencoders") has σ = 1 and μ = f + v. W is Brownian motion; the noise eps
gives its increments, dW = √dt eps.

Let Q be the distribution of the paths with the control and P that without it. Girsanov's theorem says how likely a path is
under the one and the other (Lamacraft, "Learning the path integral", ℓ_T with V = 0; Øksendal 2003, section 8.6):

    log dQ/dP = ½ ∫ |v|² dt + ∫ v·dW,        KL(Q ‖ P) = E_Q[½ ∫ |v|² dt],

where W is the Brownian motion of Q, so that the second integral, a martingale, has the mean 0. Both integrals are returned for
each path: the first, `energy`, as the loss of a training; their sum for the weights of single paths.

A potential V costs along the path too: then energy = ∫ (½ |v|² + V) dt, and both integrals add up to ℓ_T of that lecture, whose
mean over stationary paths is at least E_0 T, with E_0 the ground state's energy of −½ ∇² + V.

The martingale has the mean 0 whatever the control is: so it has no mean gradient, but noise that can cancel that of the energy.
`held` is for that: a control for the martingale alone, whose parameters are held constant. With the values of the control's it
changes no number of a forward pass, and where v is the best control the gradient of each single path vanishes (Xu, Chen, Li &
Duvenaud 2022, section 4.3, after Roeder, Wu & Duvenaud 2017).

A chain of Gaussian steps N(z + (f + σ v) dt, σ² dt) is the Euler–Maruyama scheme; the KL of each step from that without v is
½ |v|² dt. So the sum of the energies is the KL of the two chains, sample by sample, and for dt → 0 it is Girsanov's.

See `npvae.ops.layers` for how to read a pair. Shapes: B paths, D columns of the state, T steps, K states that are kept.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npvae.core.numerics import accumulator
from npvae.ops.mlp import mlp_backward, mlp_forward


class Field(NamedTuple):
    """A function of state and time, f, v or V above, as a pair of functions, with what it depends on beside them."""

    forward: Callable  # (z (B, D), t, parameters) -> value (B, D), of a potential (B,), and a cache
    backward: Callable  # (dvalue, of the value's shape, cache) -> dz (B, D), dparameters: a list of arrays
    parameters: object = ()


def zero_forward(z, t, parameters):
    """The field that is 0 everywhere: no drift, or no control."""
    return np.zeros_like(z), None


def zero_backward(dvalue, cache):
    """Backward of the field that is 0."""
    return np.zeros_like(dvalue), []


ZERO = Field(zero_forward, zero_backward)


def free_forward(z, t, parameters):
    """The potential that is 0 everywhere: (B,)."""
    return np.zeros(len(z), z.dtype), z.shape


def free_backward(dvalue, shape):
    """Backward of the potential that is 0."""
    return np.zeros(shape, dvalue.dtype), []


FREE = Field(free_forward, free_backward)


def polynomial_forward(z, t, coefficients):
    """The field f_d = Σ_k c_k z_d^k, by Horner's rule: z (B, D), t unused, coefficients c (n,) of 1, z, z², ... -> (B, D).

    (POLYNOMIAL-z)  dz = df Σ_k k c_k z^(k−1)
    (POLYNOMIAL-c)  dc_k = Σ_bd df_bd z_bd^k
    """
    f = np.zeros_like(z)
    for c in coefficients[::-1]:
        f = f * z + c
    return f, (z, coefficients)


def polynomial_backward(df, cache):
    """Backward of f = Σ_k c_k z^k: df (B, D) -> dz (B, D), and a list with dcoefficients (n,)."""
    z, coefficients = cache
    slope, power = np.zeros_like(z), np.ones_like(z)
    dcoefficients = np.zeros(len(coefficients), df.dtype)
    for k in range(len(coefficients)):
        dcoefficients[k] = (df * power).sum()  # (POLYNOMIAL-c)
        if k + 1 < len(coefficients):
            slope = slope + (k + 1) * coefficients[k + 1] * power
            power = power * z
    return df * slope, [dcoefficients]  # (POLYNOMIAL-z)


def network_forward(z, t, parameters, mlp_forward=mlp_forward):
    """A network's output as a field: z (B, D), t a number -> value (B, D).

    parameters are (layers, context): layers as `ops.mlp.mlp_forward` takes them, whose input are the columns of z, t and
    context (B, C), which is the same at all times.
    """
    layers, context = parameters
    time = np.full((len(z), 1), t, z.real.dtype)
    value, mlp_cache = mlp_forward(np.concatenate([z, time, context], axis=1), layers)  # (B, D + 1 + C) -> (B, D)
    return value, (mlp_cache, z.shape[1])


def network_backward(dvalue, cache, mlp_backward=mlp_backward):
    """Backward of `network_forward`: dvalue (B, D) -> dz (B, D), and dW, db of each layer in one list."""
    mlp_cache, n_columns = cache
    dinput, grads = mlp_backward(dvalue, mlp_cache)  # (B, D) -> (B, D + 1 + C)
    return dinput[:, :n_columns], [grad for layer in grads for grad in layer]


def increment_forward(z, dW, t, dt, sigma, drift, control, potential=FREE, held=None):
    """What a step from z, t adds: increment = f dt + σ (v dt + dW), energy = (½ |v|² + V) dt, martingale = u·dW.

    z, dW (B, D), sigma a number or (D,), drift f, control v, potential V and held u Fields -> (B, D), (B,), (B,), the last two
    in nats. Without `held`, u is v. Parameters of V and of `held` are given, not trained. With f = f(z, t) and so on,
        (INCREMENT-f)      df = dincrement dt
        (INCREMENT-v)      dv = dincrement σ dt + denergy v dt
        (INCREMENT-u)      du = dmartingale dW
        (INCREMENT-V)      dV = denergy dt
        (INCREMENT-sigma)  dsigma = Σ_b dincrement (v dt + dW)
        (INCREMENT-z)      dz = df ∂f/∂z + dv ∂v/∂z + du ∂u/∂z + dV ∂V/∂z
    """
    f, f_cache = drift.forward(z, t, drift.parameters)  # (B, D)
    v, v_cache = control.forward(z, t, control.parameters)  # (B, D)
    moved = v * dt + dW
    increment = f * dt + sigma * moved
    V, V_cache = potential.forward(z, t, potential.parameters)  # (B,)
    energy = 0.5 * dt * (v * v).sum(axis=1, dtype=accumulator(v)) + dt * V  # (B, D) -> (B,)
    u, u_cache = (v, None) if held is None else held.forward(z, t, held.parameters)  # (B, D)
    martingale = (u * dW).sum(axis=1, dtype=accumulator(u))  # (B, D) -> (B,)
    fields = drift, f_cache, potential, V_cache, held, u_cache, control, v_cache
    return (increment, energy, martingale), (v, dW, dt, sigma, moved, *fields)


def increment_backward(dincrement, denergy, dmartingale, cache):
    """Backward of `increment_forward`: dincrement (B, D), denergy, dmartingale (B,) -> dz (B, D), dsigma like sigma, and the
    lists of the gradients of the drift's and the control's parameters."""
    v, dW, dt, sigma, moved, drift, f_cache, potential, V_cache, held, u_cache, control, v_cache = cache
    dV = (denergy * dt).astype(dincrement.dtype)  # (INCREMENT-V)
    denergy, dmartingale = (d[:, None].astype(dincrement.dtype) for d in (denergy, dmartingale))  # (B,) -> (B, 1)
    df = dincrement * dt  # (INCREMENT-f)
    dv = dincrement * (sigma * dt) + denergy * v * dt  # (INCREMENT-v)
    du = dmartingale * dW  # (INCREMENT-u)
    dsigma = summed_like(sigma, dincrement * moved)  # (INCREMENT-sigma) (B, D) -> () or (D,)
    dz_f, ddrift = drift.backward(df, f_cache)
    dz_v, dcontrol = control.backward(dv + du if held is None else dv, v_cache)
    dz_u = 0 if held is None else held.backward(du, u_cache)[0]
    dz_V, _ = potential.backward(dV, V_cache)
    return dz_f + dz_v + dz_u + dz_V, dsigma, ddrift, dcontrol  # (INCREMENT-z)


def summed_like(sigma, values):
    """values (B, D) summed over what broadcasting has made of sigma, () or (1,) or (D,), in the shape of sigma."""
    columns = values.sum(axis=0)  # (B, D) -> (D,)
    return columns.sum().reshape(np.shape(sigma)) if np.size(sigma) == 1 else columns


def euler_step_forward(z, dW, t, dt, sigmas, *fields):
    """Euler–Maruyama, weak order 1: z' = z + i(z, t), with the increment i. Kloeden & Platen 1992, section 10.2.

    z, dW (B, D), sigmas: σ at t and at t + dt; fields: drift, control, potential, held -> z' (B, D), energy and martingale (B,)
    of the step. The old state is a summand of the new one, and what the increment is computed from:
        (EULER-z)  dz = dz' + [dz through i]
    """
    (increment, energy, martingale), cache = increment_forward(z, dW, t, dt, sigmas[0], *fields)
    return (z + increment, energy, martingale), cache


def euler_step_backward(dz, denergy, dmartingale, cache):
    """Backward of z' = z + i(z, t): dz' (B, D), denergy, dmartingale (B,) -> dz, the two dsigmas, and the Fields' gradients."""
    through_i, dsigma, ddrift, dcontrol = increment_backward(dz, denergy, dmartingale, cache)
    return dz + through_i, (dsigma, 0 * dsigma), ddrift, dcontrol  # (EULER-z)


def heun_step_forward(z, dW, t, dt, sigmas, *fields):
    """Heun's scheme, weak order 2: z' = z + ½ (i(z, t) + i(z̃, t + dt)) with the Euler step z̃ = z + i(z, t) and the same dW.

    For noise that does not depend on the state this is Platen's scheme of weak order 2, Kloeden & Platen 1992, section 15.1.
    Arguments and results as those of `euler_step_forward`. The energy is the mean of both ends too. The martingale is v·dW at
    the beginning of the step, which dW does not know, so that its mean is 0 exactly.
        (HEUN-middle)  dz̃ = [½ dz' through i(z̃)]
        (HEUN-first)   d i(z) = ½ dz' + dz̃
        (HEUN-z)       dz = dz' + dz̃ + [d i(z) through i(z)]
    """
    (first, energy_1, martingale), cache_1 = increment_forward(z, dW, t, dt, sigmas[0], *fields)
    (second, energy_2, _), cache_2 = increment_forward(z + first, dW, t + dt, dt, sigmas[1], *fields[:3])
    return (z + 0.5 * (first + second), 0.5 * (energy_1 + energy_2), martingale), (cache_1, cache_2)


def heun_step_backward(dz, denergy, dmartingale, cache):
    """Backward of z' = z + ½ (i(z) + i(z + i(z))), as `euler_step_backward`."""
    cache_1, cache_2 = cache
    douts_2 = 0.5 * dz, 0.5 * denergy, 0 * dmartingale
    dmiddle, dsigma_2, ddrift_2, dcontrol_2 = increment_backward(*douts_2, cache_2)  # (HEUN-middle)
    dfirst = 0.5 * dz + dmiddle  # (HEUN-first)
    through_i, dsigma_1, ddrift_1, dcontrol_1 = increment_backward(dfirst, 0.5 * denergy, dmartingale, cache_1)
    ddrift = [a + b for a, b in zip(ddrift_1, ddrift_2)]
    dcontrol = [a + b for a, b in zip(dcontrol_1, dcontrol_2)]
    return dz + dmiddle + through_i, (dsigma_1, dsigma_2), ddrift, dcontrol  # (HEUN-z)


SCHEMES = {"euler": (euler_step_forward, euler_step_backward), "heun": (heun_step_forward, heun_step_backward)}


class Steps(NamedTuple):
    """What the steps of an integration have in common."""

    eps: np.ndarray
    times: np.ndarray
    sigma: object
    scheme: str
    fields: tuple  # drift, control, potential, and held, which may be None

    def forward(self, k, z):
        """Step k from z: its results and its cache."""
        dt = float(self.times[k + 1] - self.times[k])
        sigmas = (self.sigma, self.sigma) if np.ndim(self.sigma) == 0 else self.sigma[k : k + 2]
        step_forward, _ = SCHEMES[self.scheme]
        dW = math.sqrt(dt) * self.eps[k]
        return step_forward(z, dW, float(self.times[k]), dt, sigmas, *self.fields)


def integrate_forward(z, eps, times, sigma, drift, control=ZERO, scheme="heun", keep=None, segment=None, potential=FREE,
                      held=None):  # fmt: skip
    """A path of T steps from each row of z, with the states that are kept, and both integrals of log dQ/dP.

    z (B, D); eps (T, B, D) standard normal; times (T + 1,) ascending; sigma a number, or (T + 1, 1) or (T + 1, D), its values
    at the times; drift, control, potential, held Fields as in `increment_forward`; scheme a key of SCHEMES; keep: the numbers
    of steps, ascending, after which the state is kept, the last alone if None -> states (K, B, D), energy, martingale (B,).

    segment: how many steps lie between two checkpoints, √T if None. Only the states at checkpoints are remembered for backward,
    which computes one segment anew at a time: the memory of √T steps, for one forward pass more (Chen, Xu, Zhang & Guestrin
    2016). With segment = 0 the caches of all steps are kept and nothing is computed twice; the gradient is the same to the bit.
    """
    n_steps = len(eps)
    keep = (n_steps,) if keep is None else tuple(keep)
    segment = math.isqrt(n_steps - 1) + 1 if segment is None else segment
    steps = Steps(eps, times, sigma, scheme, (drift, control, potential, held))
    states, checkpoints, caches = [], [], []
    energy = martingale = np.zeros(len(z))
    for k in range(n_steps):
        if segment and k % segment == 0:
            checkpoints.append(z)
        (z, step_energy, step_martingale), cache = steps.forward(k, z)
        energy, martingale = energy + step_energy, martingale + step_martingale
        if not segment:
            caches.append(cache)
        if k + 1 in keep:
            states.append(z)
    return (np.stack(states), energy, martingale), (steps, keep, segment, checkpoints, caches)  # K of (B, D) -> (K, B, D)


def integrate_backward(dstates, denergy, dmartingale, cache):
    """Backward of `integrate_forward`, the adjoint state from the last step to the first: dstates (K, B, D), denergy,
    dmartingale (B,) -> dz (B, D), dsigma like sigma, and the lists of the gradients of the drift's and control's parameters.

    A state that is kept goes on into the next step, and out: two gradients. What a path costs is a sum over its steps, so every
    step has the same denergy and dmartingale. The parameters are those of every step: their gradients add up.
    """
    steps, keep, segment, checkpoints, caches = cache
    n_steps = len(steps.eps)
    _, step_backward = SCHEMES[steps.scheme]
    dz, dsigma, totals = np.zeros_like(dstates[0]), np.zeros(np.shape(steps.sigma), dstates.dtype), ([], [])
    caches = list(caches)
    for k in reversed(range(n_steps)):
        if not caches:  # the segment that ends here, anew from its checkpoint
            start = k - k % segment
            z = checkpoints[start // segment]
            for i in range(start, k + 1):
                (z, _, _), step_cache = steps.forward(i, z)
                caches.append(step_cache)
        if k + 1 in keep:
            dz = dz + dstates[keep.index(k + 1)]
        dz, dsigmas, *grads = step_backward(dz, denergy, dmartingale, caches.pop())
        if np.ndim(steps.sigma) == 0:
            dsigma += dsigmas[0] + dsigmas[1]
        else:
            dsigma[k] += dsigmas[0]
            dsigma[k + 1] += dsigmas[1]
        for total, grad in zip(totals, grads):
            accumulate(total, grad)
    return dz, dsigma, *totals


def accumulate(total, grads):
    """Add the arrays of a list to those of `total`, which is empty at first."""
    if not total:
        total += [grad.copy() for grad in grads]
    else:
        for array, grad in zip(total, grads):
            array += grad
