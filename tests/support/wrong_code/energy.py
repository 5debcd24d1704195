"""Mistakes in an energy-based model."""

import math

import numpy as np

from npvae.ops.energy import (
    DERIVATIVES,
    contrastive_backward,
    score_backward,
    score_forward,
    score_matching_backward,
    score_matching_forward,
)
from npvae.ops.langevin import log_acceptance
from wrong_code import mistake, mistake_in_pair, pair, probability_mistake

SCORE = ("numpy score silu", "numpy EnergyModel 2 columns, 5-4 silu, confinement 1, score, B 4, fresh")
PHASES = ("contrastive", "numpy EnergyModel 3 columns, 6 tanh, confinement 0, contrastive, 0.1, B 3, fresh")
MATCHING = ("score matching", "numpy EnergyModel 3 columns, 5-4-3 tanh, confinement 0, score, 0.3, B 3, fresh")


def with_steps(cache, **changed):
    """The cache of `score_forward` with one of its arrays, of each layer, replaced by a function of it."""
    names = "h", "W", "slope", "curvature", "g", "q"
    x, confinement, steps = cache
    return x, confinement, [tuple(changed.get(name, lambda a: a)(a) for name, a in zip(names, step)) for step in steps]


@mistake("score_backward", *SCORE)
def slope_taken_for_a_constant(denergy, dscore, cache):
    """The backward pass is differentiated, but not the a'(pre) in it."""
    return score_backward(denergy, dscore, with_steps(cache, curvature=np.zeros_like))


@mistake("score_backward", *SCORE)
def score_detached(denergy, dscore, cache):
    """The score is taken for data, as the samples of a sampler are: only the energy has a gradient."""
    return score_backward(denergy, 0 * dscore, cache)


@mistake("score_backward", *SCORE)
def weights_of_the_way_back_forgotten(denergy, dscore, cache):
    """W is used twice, on the way up and on the way back: one of two gradients."""
    return score_backward(denergy, dscore, with_steps(cache, q=np.zeros_like))


@mistake("score_backward", *SCORE)
def sign_of_the_score(denergy, dscore, cache):
    """∂E/∂x for −∂E/∂x."""
    return score_backward(denergy, -dscore, cache)


@mistake("score_backward", *SCORE)
def confinement_without_a_gradient(denergy, dscore, cache):
    """c ‖x‖² has no weights, so that it is left out, though x has a gradient."""
    x, _, steps = cache
    return score_backward(denergy, dscore, (x, 0.0, steps))


@mistake("score_backward", *SCORE)
def gradient_from_above_forgotten(denergy, dscore, cache):
    """dpre = dq a''(pre) for dq g a''(pre)."""
    return score_backward(denergy, dscore, with_steps(cache, g=np.ones_like))


def with_derivatives(activation, of):
    """`score_forward` and its backward with other derivatives of an activation: of(h, slope, curvature, pre)."""

    def derivatives(pre):
        return of(*DERIVATIVES[activation](pre), pre)

    return lambda x, layers, c: score_forward(x, layers, c, {**DERIVATIVES, activation: derivatives}), score_backward


@mistake_in_pair("score", "numpy score tanh")
def second_derivative_of_tanh_without_its_slope():
    """−2 h for −2 h (1 − h²)."""
    return with_derivatives("tanh", lambda h, slope, curvature, pre: (h, slope, -2 * h))


@mistake_in_pair("score", "numpy score sigmoid")
def second_derivative_of_sigmoid_turned_round():
    """σ(pre) − σ(−pre) for σ(−pre) − σ(pre)."""
    return with_derivatives("sigmoid", lambda h, slope, curvature, pre: (h, slope, -curvature))


@mistake_in_pair("score", "numpy score softplus")
def second_derivative_of_softplus_is_its_first():
    """The derivative of the sigmoid forgotten."""
    return with_derivatives("softplus", lambda h, slope, curvature, pre: (h, slope, slope))


@mistake_in_pair("score", "numpy score silu")
def product_rule_of_silu_applied_once():
    """2 σ' for 2 σ' + pre σ''."""

    def of(h, slope, curvature, pre):
        sigma = 1 / (1 + np.exp(-pre))
        return h, slope, 2 * sigma * (1 - sigma)

    return with_derivatives("silu", of)


@mistake("score_matching_backward", *MATCHING)
def noise_scale_forgotten(dloss, cache):
    """dscore = σ score + ε, without the σ before it."""
    missed, _ = cache
    return score_matching_backward(dloss, (missed, 1.0))


@mistake("score_matching_backward", *MATCHING)
def square_without_its_half(dloss, cache):
    """The loss has ½ ‖·‖², the gradient is that of ‖·‖²."""
    return 2 * score_matching_backward(dloss, cache)


@mistake("contrastive_backward", *PHASES)
def phase_of_the_samples_forgotten(dloss, cache):
    """The samples are constants, so their energy is taken for one, too."""
    of_data, of_samples = contrastive_backward(dloss, cache)
    return of_data, 0 * of_samples


@mistake("contrastive_backward", *PHASES)
def both_phases_of_one_sign(dloss, cache):
    """The energy of the samples is pulled down as well."""
    of_data, of_samples = contrastive_backward(dloss, cache)
    return of_data, -of_samples


@mistake("contrastive_backward", *PHASES)
def squares_without_their_two(dloss, cache):
    """α E for 2 α E."""
    of_data, of_samples, alpha = cache
    return contrastive_backward(dloss, (of_data, of_samples, alpha / 2))


@mistake("contrastive_backward", *PHASES)
def only_the_data_regularised(dloss, cache):
    """Forward has the squares of both energies."""
    of_data, _, _ = cache
    return dloss * (1 + 2 * cache[2] * of_data), -dloss


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*SCORE)
def Langevin_noise_of_the_variance():
    """ε² η for ε η: a chain at a far lower temperature."""

    def wrong(x, score, eps, step_size, temperature=1.0):
        return x + 0.5 * step_size**2 * score + math.sqrt(temperature) * step_size**2 * eps

    return {"langevin_step": wrong}


@probability_mistake(*SCORE)
def Langevin_drift_without_its_half():
    """ε² score for ½ ε² score: drift and noise are no longer those of one temperature."""

    def wrong(x, score, eps, step_size, temperature=1.0):
        return x + step_size**2 * score + math.sqrt(temperature) * step_size * eps

    return {"langevin_step": wrong}


@probability_mistake(*SCORE)
def proposals_taken_for_symmetric():
    """Metropolis without Hastings: a step along the score is as likely as the step back."""

    def wrong(x, energy, score, y, energy_y, score_y, step_size, temperature=1.0):
        return (energy - energy_y) / temperature

    return {"log_acceptance": wrong}


@probability_mistake(*SCORE)
def temperature_forgotten_in_the_test():
    """The proposals are those of T, the test that of T = 1."""

    def wrong(x, energy, score, y, energy_y, score_y, step_size, temperature=1.0):
        of_proposals = log_acceptance(x, energy, score, y, energy_y, score_y, step_size, temperature)
        return of_proposals + (energy - energy_y) * (1 - 1 / temperature)

    return {"log_acceptance": wrong}


@probability_mistake(*MATCHING)
def score_drawn_along_the_noise():
    """½ ‖σ score − ε‖², with its right gradient: away from the data."""

    def forward(score, eps, noise_scale):
        return score_matching_forward(score, -eps, noise_scale)

    return {"score_matching_forward": forward}


@probability_mistake(*SCORE)
def confinement_without_its_half():
    """c ‖x‖², with the score that belongs to it."""
    return {"score_forward": lambda x, layers, confinement: score_forward(x, layers, 2 * confinement)}


@probability_mistake(*PHASES)
def difference_of_the_energies_regularised():
    """α (E(x) − E(x⁻))², with its right gradient: the level of the energies is free."""

    def forward(energy_of_data, energy_of_samples, alpha):
        difference = energy_of_data - energy_of_samples
        return difference + alpha * difference * difference, (difference, alpha)

    def backward(dloss, cache):
        difference, alpha = cache
        of_data = dloss * (1 + 2 * alpha * difference)
        return of_data, -of_data

    return pair("contrastive", forward, backward)
