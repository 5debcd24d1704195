"""Mistakes in the drift of quantum systems: the network of particles, the costs of a path, the loss."""

import numpy as np

from npvae.models.drift import Drift
from npvae.ops import sde
from npvae.ops.pair_features import (
    lengths_backward,
    pair_features_backward,
    pushes_backward,
)
from npvae.ops.sde import increment_backward, increment_forward
from wrong_code import mistake, pair, probability_mistake

HELD = ("numpy Drift oscillator, 3 tanh, base, heun, held, 2 steps, B 4, fresh",)
NONE = ("numpy Drift hydrogen, 3 tanh, brownian, heun, none, 2 steps, B 8, fresh",)
SEVERAL = ("numpy Drift bosons, 2 tanh, base, heun, held, 2 steps, B 2, fresh",)
RIGHT = {name: getattr(Drift, name) for name in ("forward", "backward")}


# -------------------------------------------------------------------------------------------------- the network of particles


@mistake("lengths_backward", "lengths")
def direction_not_of_length_1(ds, cache):
    """ds x for ds x/s: the gradient of ½ s²."""
    _, s = cache
    return lengths_backward(ds * s, cache)


@mistake("pair_features_backward", "features of pairs")
def distances_of_the_other_forgotten(dp, cache):
    """Each s_i stands in the rows of its own pairs and in those of all others: one of two gradients."""
    _, A = cache
    return dp[..., :A].sum(axis=2), pair_features_backward(dp, cache)[1]


@mistake("pushes_backward", "pushes")
def vectors_taken_for_constants(du, cache):
    """Only the strengths have a gradient: that x_iA = r_i − R_A moves with the particle is forgotten."""
    dalpha, dx, dbeta, dy = pushes_backward(du, cache)
    return dalpha, 0 * dx, dbeta, dy


@mistake("pushes_backward", "pushes")
def pushes_of_pairs_taken_for_those_of_centres(du, cache):
    """dβ_ij of the first y for all of them."""
    dalpha, dx, dbeta, dy = pushes_backward(du, cache)
    return dalpha, dx, np.broadcast_to(dbeta[..., :1], dbeta.shape).copy(), dy


# ------------------------------------------------------------------------------------------------------- the costs of a path


def of_potential(denergy, cache):
    """What the potential gives to dz."""
    *_, potential, V_cache, _, _, _, _ = cache
    return potential.backward(denergy * cache[2], V_cache)[0]


@mistake("increment_backward", *NONE)
def potential_taken_for_a_constant(dincrement, denergy, dmartingale, cache):
    """∫ V dt has no parameters, so that it is left out, though the path has them."""
    dz, *others = increment_backward(dincrement, denergy, dmartingale, cache)
    return dz - of_potential(denergy, cache), *others


@mistake("increment_backward", *NONE)
def potential_without_the_length_of_the_step(dincrement, denergy, dmartingale, cache):
    """dV = denergy, as if the energy were a sum of V, not its integral."""
    dz, *others = increment_backward(dincrement, denergy, dmartingale, cache)
    return dz + of_potential(denergy * (1 / cache[2] - 1), cache), *others


@mistake("increment_backward", *HELD)
def parameters_not_held(dincrement, denergy, dmartingale, cache):
    """The martingale's gradient reaches the parameters as well, which are constants in it."""
    *_, held, _, control, v_cache = cache
    dz, dsigma, ddrift, dcontrol = increment_backward(dincrement, denergy, dmartingale, cache)
    if held is not None:
        _, more = control.backward(dmartingale[:, None] * cache[1], v_cache)
        dcontrol = [a + b for a, b in zip(dcontrol, more)]
    return dz, dsigma, ddrift, dcontrol


@mistake("increment_backward", *HELD)
def held_martingale_taken_for_a_constant(dincrement, denergy, dmartingale, cache):
    """Its parameters are held, and the path in it as well."""
    return increment_backward(dincrement, denergy, 0 * dmartingale, cache)


# ---------------------------------------------------------------------------------------------------------------- the loss


@mistake("Drift.backward", *HELD)
def ends_without_a_pull(model, cache, dloss=1.0, out=None):
    """The boundary term is a constant in value, so that it is left out of the gradient."""
    return RIGHT["backward"](model, cache._replace(pull=0 * cache.pull), dloss, out)


@mistake("Drift.backward", *HELD)
def ends_pulled_the_other_way(model, cache, dloss=1.0, out=None):
    """+u_T·r_T for −u_T·r_T."""
    return RIGHT["backward"](model, cache._replace(pull=-cache.pull), dloss, out)


@mistake("Drift.backward", *HELD)
def cost_of_the_whole_time(model, cache, dloss=1.0, out=None):
    """The gradient of ℓ_T for that of ℓ_T/T."""
    return RIGHT["backward"](model, cache, dloss * model.n_steps * model.dt, out)


@mistake("Drift.backward", *NONE)
def martingale_left_in_the_gradient(model, cache, dloss=1.0, out=None):
    """The loss is without ∫ u·dW, its gradient is with it: right in the mean over paths, but that of another loss."""
    return RIGHT["backward"](model, cache._replace(martingale="whole"), dloss, out)


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*SEVERAL)
def distances_squared():
    """x·x for its square root, with its right gradient: smooth where charges meet, and φ0 has a kink there."""

    def forward(x):
        return (x * x).sum(axis=-1), x

    def backward(ds, x):
        return 2 * ds[..., None] * x

    return pair("lengths", forward, backward)


@probability_mistake(*HELD)
def potential_in_full_at_both_ends():
    """2 V dt for V dt, with its right gradient: each end of a step adds V dt, and not half of it."""

    def forward(z, dW, t, dt, *more):
        (increment, energy, martingale), cache = increment_forward(z, dW, t, dt, *more)
        potential = more[3]
        return (increment, energy + dt * potential.forward(z, t, potential.parameters)[0], martingale), cache

    def backward(dincrement, denergy, dmartingale, cache):
        dz, *others = increment_backward(dincrement, denergy, dmartingale, cache)
        return dz + of_potential(denergy, cache), *others

    return pair("increment", forward, backward)


@probability_mistake(*HELD)
def potential_in_the_place_of_the_local_energy():
    """V beside the paths of the base, where E_b belongs: the kinetic energy of ψ_b is lost."""

    def forward(model, start, eps, network, held=None, keep=None, dt=None):
        times = (model.dt if dt is None else dt) * np.arange(len(eps) + 1)
        physics = model.physics
        return sde.integrate_forward(start, eps, times, 1.0, physics.base, network, model.scheme, keep, model.segment,
                                     physics.potential, held)  # fmt: skip

    return {"Drift.paths_forward": forward}


@probability_mistake(*HELD)
def martingale_of_the_other_sign():
    """ℓ_T = −∫ u·dW + ..., with its right gradient: the mean is the same, and no path costs what it should."""

    def forward(*arguments):
        (increment, energy, martingale), cache = increment_forward(*arguments)
        return (increment, energy, -martingale), cache

    def backward(dincrement, denergy, dmartingale, cache):
        return increment_backward(dincrement, denergy, -dmartingale, cache)

    return pair("increment", forward, backward)


@probability_mistake(*HELD)
def no_boundary_term():
    """The mean of ℓ_T/T alone, with its right gradient: ends of paths are moved to where V is low."""

    def forward(model, noise, *more, **settings):
        start, eps, end, pull, level = noise
        return RIGHT["forward"](model, (start, eps, end, 0 * pull, level), *more, **settings)

    return {"Drift.forward": forward}
