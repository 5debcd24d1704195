"""Mistakes in stochastic differential equations, and in the posterior of their paths."""

import numpy as np

from npvae.models.path_posterior import PathPosterior
from npvae.ops.sde import (
    accumulate,
    heun_step_forward,
    increment_backward,
    increment_forward,
    integrate_backward,
    integrate_forward,
    polynomial_backward,
    summed_like,
)
from wrong_code import mistake, pair, probability_mistake

POLYNOMIAL = ("polynomial field",)
PATH = ("Euler path",)  # of the op: σ and the coefficients of both fields are differentiated too
HEUN = ("Heun path",)
EULER = ("numpy PathPosterior 1 columns, D 1, 3 steps, euler, elbo, S 1, B 1, fresh",)
WEIGHTED = ("numpy PathPosterior 2 columns, D 1, 2 steps, heun, iwae, S 3, B 2, fresh",)
RIGHT = {name: getattr(PathPosterior, name) for name in ("control", "paths_forward", "paths_backward")}


def with_more_dv(more, dincrement, denergy, dmartingale, cache):
    """The gradient of an increment with `more` added to the right dv."""
    *_, control, v_cache = cache
    dz, dsigma, ddrift, dcontrol = increment_backward(dincrement, denergy, dmartingale, cache)
    more_dz, more_dcontrol = control.backward(more, v_cache)
    return dz + more_dz, dsigma, ddrift, [a + b for a, b in zip(dcontrol, more_dcontrol)]


def heun_backward(douts, cache, second=0.5, to_first=1.0, to_z=1.0, martingales=(1.0, 0.0)):
    """That of a Heun step where the numbers are as they are here: what the second increment has in z', what dz̃ has in d i(z)
    and in dz, and what both ends have in the martingale."""
    (dz, denergy, dmartingale), (cache_1, cache_2) = douts, cache
    of_2 = increment_backward(second * dz, 0.5 * denergy, martingales[1] * dmartingale, cache_2)
    of_1 = increment_backward(0.5 * dz + to_first * of_2[0], 0.5 * denergy, martingales[0] * dmartingale, cache_1)
    ddrift, dcontrol = ([a + b for a, b in zip(of_1[i], of_2[i])] for i in (2, 3))
    return dz + to_z * of_2[0] + of_1[0], (of_1[1], of_2[1]), ddrift, dcontrol


# --------------------------------------------------------------------------------------------------------- increments


@mistake("increment_backward", *PATH)
def half_of_the_energy_lost_in_the_gradient(dincrement, denergy, dmartingale, cache):
    """d(½ v²) = 2v, as for v²."""
    return increment_backward(dincrement, 2 * denergy, dmartingale, cache)


@mistake("increment_backward", *PATH)
def control_costs_nothing(dincrement, denergy, dmartingale, cache):
    """dv without the energy: the path alone trains the control."""
    return increment_backward(dincrement, 0 * denergy, dmartingale, cache)


@mistake("increment_backward", *PATH)
def martingale_taken_for_a_constant(dincrement, denergy, dmartingale, cache):
    """dv without the martingale, whose mean is 0 for every control; but here it stands in a weight."""
    return increment_backward(dincrement, denergy, 0 * dmartingale, cache)


@mistake("increment_backward", *PATH)
def control_moves_nothing(dincrement, denergy, dmartingale, cache):
    """dv without the path: the control is trained to cost little."""
    _, _, dt, sigma, *_ = cache
    return with_more_dv(-dincrement * sigma * dt, dincrement, denergy, dmartingale, cache)


@mistake("increment_backward", *PATH)
def control_in_units_of_the_state_in_backward(dincrement, denergy, dmartingale, cache):
    """dv = dincrement dt, as if v stood beside f, not beside dW: the factor σ is forgotten."""
    _, _, dt, sigma, *_ = cache
    return with_more_dv(dincrement * (1 - sigma) * dt, dincrement, denergy, dmartingale, cache)


@mistake("increment_backward", *PATH)
def noise_of_the_control_forgotten(dincrement, denergy, dmartingale, cache):
    """dsigma = dincrement dW: σ multiplies v dt too."""
    _, dW, _, sigma, *_ = cache
    dz, _, ddrift, dcontrol = increment_backward(dincrement, denergy, dmartingale, cache)
    return dz, summed_like(sigma, dincrement * dW), ddrift, dcontrol


@mistake("increment_backward", *PATH)
def state_reaches_the_drift_alone(dincrement, denergy, dmartingale, cache):
    """dz = df ∂f/∂z: that v is a function of z is forgotten."""
    _, _, dt, _, _, drift, f_cache, *_ = cache
    _, *others = increment_backward(dincrement, denergy, dmartingale, cache)
    return drift.backward(dincrement * dt, f_cache)[0], *others


@mistake("polynomial_backward", *POLYNOMIAL)
def powers_lowered_and_not_counted(df, cache):
    """d(z^k) = z^(k−1): the factor k is forgotten."""
    z, coefficients = cache
    slope = sum(c * z**k for k, c in enumerate(coefficients[1:]))
    return df * slope, polynomial_backward(df, cache)[1]


# ------------------------------------------------------------------------------------------------ steps and whole paths


@mistake("euler_step_backward", *PATH)
def old_state_is_no_summand(dz, denergy, dmartingale, cache):
    """dz = [dz' through i]: z in z' = z + i(z) is forgotten."""
    through_i, dsigma, ddrift, dcontrol = increment_backward(dz, denergy, dmartingale, cache)
    return through_i, (dsigma, 0 * dsigma), ddrift, dcontrol


@mistake("heun_step_backward", *HEUN)
def second_increment_in_full(dz, denergy, dmartingale, cache):
    """z' has the mean of both increments, and the second gets dz' without ½."""
    return heun_backward((dz, denergy, dmartingale), cache, second=1.0)


@mistake("heun_step_backward", *HEUN)
def first_increment_not_reached_by_the_second(dz, denergy, dmartingale, cache):
    """d i(z) = ½ dz': it stands in z̃ too, at which the second is taken."""
    return heun_backward((dz, denergy, dmartingale), cache, to_first=0.0)


@mistake("heun_step_backward", *HEUN)
def state_not_reached_by_the_second_increment(dz, denergy, dmartingale, cache):
    """dz = dz' + [d i(z) through i(z)]: z stands in z̃ = z + i(z) too."""
    return heun_backward((dz, denergy, dmartingale), cache, to_z=0.0)


@mistake("integrate_forward", *PATH)
def checkpoint_of_the_next_segment(*arguments, **options):
    """States are remembered at the end of a segment, and taken for those at its beginning."""
    results, (steps, keep, segment, checkpoints, caches) = integrate_forward(*arguments, **options)
    return results, (steps, keep, segment, [*checkpoints[1:], results[0][-1]], caches)


@mistake("accumulate", *PATH)
def gradient_of_the_last_step_visited(total, grads):
    """total = grads where it ought to be total += grads: each step uses the same parameters."""
    total[:] = [grad.copy() for grad in grads]


@mistake("PathPosterior.control", *EULER)
def bridge_not_differentiated(model, rows, k, end):
    """v = bridge + network, and the state's gradient comes from the network alone."""
    control = RIGHT["control"](model, rows, k, end)

    def backward(dv, cache):
        _, gain = cache
        dz, grads = control.backward(dv, cache)
        return dz + gain * dv, grads

    return control._replace(backward=backward)


@mistake("PathPosterior.paths_backward", *WEIGHTED)
def paths_begin_anew_at_each_outcome(model, dstates, denergy, dmartingale, caches):
    """The state at an outcome is measured, and its way on into the next stretch is forgotten."""
    D, totals = model.n_dimensions, []
    for k, cache in enumerate(caches):
        dstate = dstates[..., k * D : (k + 1) * D].reshape(len(dstates), -1, D)
        accumulate(totals, integrate_backward(dstate, denergy.reshape(-1), dmartingale.reshape(-1), cache)[3])
    return totals


@mistake("PathPosterior.paths_backward", *EULER)
def martingale_in_the_gradient_of_the_ELBO(model, dstates, denergy, dmartingale, caches):
    """The gradient of log dQ/dP for that of ½ ∫ v² dt: right in the mean over paths, but that of another loss."""
    return RIGHT["paths_backward"](model, dstates, denergy, denergy, caches)


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*EULER, *WEIGHTED)
def energy_without_half():
    """∫ v² dt in forward and backward alike."""

    def forward(*arguments):
        (increment, energy, martingale), cache = increment_forward(*arguments)
        return (increment, 2 * energy, martingale), cache

    def backward(dincrement, denergy, dmartingale, cache):
        return increment_backward(dincrement, 2 * denergy, dmartingale, cache)

    return pair("increment", forward, backward)


@probability_mistake(*EULER, *WEIGHTED)
def noise_of_P_in_the_martingale():
    """∫ v·(dW + v dt), with its right gradient: dW + v dt is Brownian motion under P, and paths are drawn from Q."""

    def forward(*arguments):
        (increment, energy, martingale), cache = increment_forward(*arguments)
        return (increment, energy, martingale + 2 * energy), cache

    def backward(dincrement, denergy, dmartingale, cache):
        return increment_backward(dincrement, denergy + 2 * dmartingale, dmartingale, cache)

    return pair("increment", forward, backward)


@probability_mistake(*HEUN, *EULER)
def control_in_units_of_the_state():
    """f dt + v dt + σ dW with the energy ½ v² dt, which belongs to σ v."""

    def forward(*arguments):
        (increment, *integrals), cache = increment_forward(*arguments)
        v, _, dt, sigma, *_ = cache
        return (increment + (1 - sigma) * v * dt, *integrals), cache

    def backward(dincrement, denergy, dmartingale, cache):
        v, _, dt, sigma, *_ = cache
        more = dincrement * (1 - sigma) * dt
        dz, dsigma, ddrift, dcontrol = with_more_dv(more, dincrement, denergy, dmartingale, cache)
        return dz, dsigma - summed_like(sigma, dincrement * v * dt), ddrift, dcontrol

    return pair("increment", forward, backward)


@probability_mistake(*HEUN, *EULER)
def noise_that_grows_with_the_step():
    """dW = dt ε for √dt ε: the noise vanishes as steps get shorter."""

    def forward(z, eps, times, *arguments, **options):
        return integrate_forward(z, eps * np.sqrt(np.diff(times))[:, None, None], times, *arguments, **options)

    return {"integrate_forward": forward}


@probability_mistake(*HEUN, *WEIGHTED)
def both_increments_at_the_time_of_the_first():
    """i(z̃, t) for i(z̃, t + dt): of first order where a field depends on time."""

    def forward(z, dW, t, dt, sigmas, *fields):
        (first, energy_1, martingale), cache_1 = increment_forward(z, dW, t, dt, sigmas[0], *fields)
        (second, energy_2, _), cache_2 = increment_forward(z + first, dW, t, dt, sigmas[1], *fields)
        return (z + 0.5 * (first + second), 0.5 * (energy_1 + energy_2), martingale), (cache_1, cache_2)

    return {"heun_step_forward": forward}


@probability_mistake(*HEUN, *WEIGHTED)
def martingale_of_both_ends():
    """v at the mean of both ends of a step, with its right gradient: Stratonovich's integral for Itô's, whose mean is not 0."""

    def forward(z, dW, t, dt, sigmas, *fields):
        (after, energy, martingale), (cache_1, cache_2) = heun_step_forward(z, dW, t, dt, sigmas, *fields)
        v, dW, *_ = cache_2
        return (after, energy, 0.5 * (martingale + (v * dW).sum(axis=1))), (cache_1, cache_2)

    def backward(dz, denergy, dmartingale, cache):
        return heun_backward((dz, denergy, dmartingale), cache, martingales=(0.5, 0.5))

    return pair("heun_step", forward, backward)


@probability_mistake(*EULER, *WEIGHTED)
def bridge_without_sigma():
    """v = (y − z)/r, with its right gradient: the bound is one still, but not that of the exact control."""

    def wrong(model, rows, k, end):
        control, share = RIGHT["control"](model, rows, k, end), 1 - 1 / model.sigma
        y = rows[:, k * model.n_dimensions : (k + 1) * model.n_dimensions]

        def forward(z, t, parameters):
            v, (network_cache, gain) = control.forward(z, t, parameters)
            return v - share * gain * (y - z), (network_cache, gain)

        def backward(dv, cache):
            dz, grads = control.backward(dv, cache)
            return dz + share * cache[1] * dv, grads

        return control._replace(forward=forward, backward=backward)

    return {"PathPosterior.control": wrong}


@probability_mistake(*WEIGHTED)
def weights_without_the_martingale():
    """log w = −nll − ½ ∫ v² dt, with its right gradient: the other integral has the mean 0, but not in a single weight."""

    def forward(*arguments):
        (states, energy, martingale), caches = RIGHT["paths_forward"](*arguments)
        return (states, energy, 0 * martingale), caches

    def backward(model, dstates, denergy, dmartingale, caches):
        return RIGHT["paths_backward"](model, dstates, denergy, 0 * dmartingale, caches)

    return {"PathPosterior.paths_forward": forward, "PathPosterior.paths_backward": backward}
