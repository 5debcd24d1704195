"""Mistakes in a Boltzmann machine."""

from itertools import pairwise

import numpy as np

from npvae.models import BoltzmannMachine
from npvae.ops import boltzmann, partition
from npvae.ops.boltzmann import (
    binary_free_energy_backward,
    binary_free_energy_forward,
    centre_backward,
    gaussian_free_energy_backward,
    gaussian_free_energy_forward,
    gibbs_step,
    phases_backward,
)
from npvae.ops.layers import dense_backward
from npvae.ops.partition import enumerated_log_partition
from wrong_code import mistake, pair, probability_mistake

BINARY = ("binary free energy", "numpy BoltzmannMachine 6-4, binary, CD-1, B 4, fresh")
GAUSSIAN = ("Gaussian free energy", "numpy BoltzmannMachine 4-5, gaussian, CD-1, B 4, fresh")
CENTRED = ("centred biases", "numpy BoltzmannMachine 5-7, binary, centred, CD-3, B 3, fresh")
CENTRED_GAUSSIAN = ("centred biases, Gaussian units", "numpy BoltzmannMachine 3-4, gaussian, centred, CD-3, B 3, fresh")
CLIPPED = ("numpy BoltzmannMachine 3-4, gaussian, centred, clipped, CD-1, B 4, fresh",)
PHASES = ("phases", "numpy BoltzmannMachine 6-4, binary, CD-1, B 4, fresh")
MACHINE = ("numpy BoltzmannMachine 6-4, binary, CD-1, B 4, fresh",)

through_machine = BoltzmannMachine.through_machine


@mistake("binary_free_energy_backward", *BINARY)
def energy_taken_for_its_negative(dfree_energy, cache):
    """The gradient of log e^−F, not of F: all signs are turned, and the machine unlearns."""
    return tuple(-grad for grad in binary_free_energy_backward(dfree_energy, cache))


@mistake("binary_free_energy_backward", *BINARY)
def sign_of_the_visible_bias(dfree_energy, cache):
    """∂F/∂a is −x, as ∂E/∂a is."""
    dvisible_bias, dhidden_bias, dW = binary_free_energy_backward(dfree_energy, cache)
    return -dvisible_bias, dhidden_bias, dW


@mistake("binary_free_energy_backward", *BINARY)
def hidden_units_as_zeros_and_ones(dfree_energy, cache):
    """h rounded to a state where its mean belongs."""
    x, shape, (affine_cache, pre, activation) = cache
    saturated = np.where(pre.real > 0, 1e3, -1e3)
    return binary_free_energy_backward(dfree_energy, (x, shape, (affine_cache, saturated, activation)))


@mistake("binary_free_energy_backward", *BINARY)
def hidden_units_that_are_off(dfree_energy, cache):
    """1 − p(h = 1 given x) for p(h = 1 given x)."""
    x, shape, (affine_cache, pre, activation) = cache
    return binary_free_energy_backward(dfree_energy, (x, shape, (affine_cache, -pre, activation)))


@mistake("phases_backward", *PHASES)
def negative_phase_forgotten(dloss, cache):
    """Only the energy of the data is lowered."""
    at_data, at_chains = phases_backward(dloss, cache)
    return at_data, 0 * at_chains


@mistake("phases_backward", *PHASES)
def negative_phase_added(dloss, cache):
    """The energy of the chains is lowered like that of the data."""
    at_data, at_chains = phases_backward(dloss, cache)
    return at_data, -at_chains


@mistake("phases_backward", *PHASES)
def sum_over_the_chains_for_their_mean(dloss, cache):
    """The negative phase is not divided by the number of chains."""
    at_data, at_chains = phases_backward(dloss, cache)
    return at_data, len(at_chains) * at_chains


@mistake("gaussian_free_energy_backward", *GAUSSIAN)
def distance_without_its_variance(dfree_energy, cache):
    """∂F/∂a as x − a, which is right for σ = 1 alone."""
    _, *grads = gaussian_free_energy_backward(dfree_energy, cache)
    return -(dfree_energy @ cache[0]), *grads


@mistake("gaussian_free_energy_backward", *GAUSSIAN)
def variance_of_the_input_kept_constant(dfree_energy, cache):
    """σ² divides x in the input of the hidden units as well, where it is not differentiated."""
    offset, distance, *_ = cache
    *grads, _ = gaussian_free_energy_backward(dfree_energy, cache)
    return *grads, -0.5 * (dfree_energy @ (distance * offset))


@mistake("gaussian_free_energy_backward", *GAUSSIAN)
def log_of_sigma_for_that_of_its_square(dfree_energy, cache):
    """The gradient with respect to log σ, twice that of logvar."""
    *grads, dlogvar = gaussian_free_energy_backward(dfree_energy, cache)
    return *grads, 2 * dlogvar


@mistake("gaussian_free_energy_backward", *GAUSSIAN)
def weights_of_an_input_that_is_not_scaled(dfree_energy, cache):
    """∂F/∂w_ij as −x_i σ(pre_j), without 1/σ_i²."""
    offset, distance, u, shape, ((_, W), *others) = cache
    dh = np.repeat(-dfree_energy, shape[1]).reshape(shape)
    x = u * offset / np.where(distance == 0, 1, distance)  # σ² = offset/distance
    _, dW, _ = dense_backward(dh, ((x, W), *others))
    dvisible_bias, dhidden_bias, _, dlogvar = gaussian_free_energy_backward(dfree_energy, cache)
    return dvisible_bias, dhidden_bias, dW, dlogvar


@mistake("centre_backward", *CENTRED)
def offsets_without_a_gradient(dvisible_bias, dhidden_bias, cache):
    """The biases of the centred machine are taken for parameters of their own."""
    return tuple(grad * keep for grad, keep in zip(centre_backward(dvisible_bias, dhidden_bias, cache), (1, 1, 0, 1)))


@mistake("centre_backward", *CENTRED)
def offset_of_one_layer_alone(dvisible_bias, dhidden_bias, cache):
    """Only the data are centred, in backward."""
    u, W, hidden_offset, *others = cache
    return centre_backward(dvisible_bias, dhidden_bias, (u, W, 0 * hidden_offset, *others))


@mistake("centre_backward", *CENTRED_GAUSSIAN)
def variance_in_the_offset_kept_constant(dvisible_bias, dhidden_bias, cache):
    """u = μ/σ² depends on logvar."""
    *grads, dlogvar = centre_backward(dvisible_bias, dhidden_bias, cache)
    return *grads, 0 * dlogvar


@mistake("BoltzmannMachine.through_machine", *CLIPPED)
def clip_forgotten_on_the_way_back(model, grads, cache):
    """F takes the clipped logvar, and its gradient goes to the one that runs away."""
    return through_machine(model, grads, cache._replace(clip=None))


@mistake("BoltzmannMachine.through_machine", *CLIPPED)
def clip_of_the_variance_but_not_of_that_in_the_offsets(model, grads, cache):
    """What reaches logvar by u = μ/σ² is added behind the clip."""
    *_, by_biases = centre_backward(*grads[:2], cache.centre)
    *others, dlogvar = through_machine(model, grads, cache)
    return [*others, np.where(cache.clip, dlogvar, by_biases)]


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake("Gaussian free energy")
def weights_without_the_variance():
    """x w h for x w h/σ², with its right gradient: p(x given h) has another mean then."""

    def forward(x, visible_bias, hidden_bias, W, logvar):
        F, cache = gaussian_free_energy_forward(x, visible_bias, hidden_bias, W * np.exp(logvar)[:, None], logvar)
        return F, (cache, W, logvar)

    def backward(dfree_energy, cache):
        inner, W, logvar = cache
        da, db, dW, dlogvar = gaussian_free_energy_backward(dfree_energy, inner)
        dW = dW * np.exp(logvar)[:, None]
        return da, db, dW, dlogvar + (dW * W).sum(axis=1)

    return pair("gaussian_free_energy", forward, backward)


@probability_mistake(*BINARY[:1])
def maximum_for_the_sum_over_hidden_states():
    """F as the energy of the best hidden state, Σ max(pre, 0), with its right gradient."""

    def forward(x, visible_bias, hidden_bias, W):
        pre = x @ W + hidden_bias
        return -(x @ visible_bias) - np.where(pre.real > 0, pre, 0).sum(axis=1), (x, pre)

    def backward(dfree_energy, cache):
        x, pre = cache
        dpre = -dfree_energy[:, None] * (pre.real > 0)
        return -(dfree_energy @ x), dpre.sum(axis=0), x.T @ dpre

    return pair("binary_free_energy", forward, backward)


@probability_mistake(*BINARY[:1])
def units_of_minus_one_and_one():
    """log(2 cosh pre) for log(1 + e^pre), with its right gradient: the hidden units are spins."""

    def forward(x, visible_bias, hidden_bias, W):
        F, cache = binary_free_energy_forward(x, 0 * visible_bias, 2 * hidden_bias, 2 * W)
        return F - x @ visible_bias + (x @ W + hidden_bias).sum(axis=1), (x, cache)

    def backward(dfree_energy, cache):
        x, inner = cache
        _, db, dW = binary_free_energy_backward(dfree_energy, inner)
        ones = np.ones_like(db)
        return -(dfree_energy @ x), 2 * db + dfree_energy.sum() * ones, 2 * dW + np.outer(dfree_energy @ x, ones)

    return pair("binary_free_energy", forward, backward)


@probability_mistake("centred biases")
def offsets_with_the_other_sign():
    """x + μ and h + λ, with their right gradient."""

    def forward(visible_bias, hidden_bias, W, logvar, visible_offset, hidden_offset):
        return RIGHT_CENTRE(visible_bias, hidden_bias, W, logvar, -visible_offset, -hidden_offset)

    return {"centre_forward": forward}


RIGHT_CENTRE = boltzmann.centre_forward


@probability_mistake(*MACHINE)
def variance_for_standard_deviation_of_visible_units():
    """σ² for σ before the noise of x."""

    def wrong(x, hidden_noise, visible_noise, visible_bias, hidden_bias, W, logvar=None):
        if logvar is not None:
            visible_noise = visible_noise * np.exp(0.5 * logvar)
        return gibbs_step(x, hidden_noise, visible_noise, visible_bias, hidden_bias, W, logvar)

    return {"gibbs_step": wrong}


@probability_mistake(*MACHINE)
def probabilities_for_hidden_states():
    """x is drawn given the mean of h: a mean-field step, which has another stationary distribution."""

    def wrong(x, hidden_noise, visible_noise, visible_bias, hidden_bias, W, logvar=None):
        h = boltzmann.sigmoid_and_complement(boltzmann.hidden_input(x, hidden_bias, W, logvar))[0]
        mean = boltzmann.visible_mean(h, visible_bias, W, logvar)
        return (visible_noise < mean) * 1.0 if logvar is None else mean + np.exp(0.5 * logvar) * visible_noise, h

    return {"gibbs_step": wrong}


@probability_mistake(*MACHINE)
def one_random_number_for_a_layer():
    """All hidden units of a chain are drawn with the same number: they are no longer independent given x."""

    def wrong(x, hidden_noise, *others):
        return gibbs_step(x, np.repeat(hidden_noise[:, :1], hidden_noise.shape[1], axis=1), *others)

    return {"gibbs_step": wrong}


@probability_mistake(*MACHINE)
def sum_of_the_states_without_their_biases():
    """Z without e^(b·h)."""
    return {"enumerated_log_partition": lambda a, b, W, *logvar: enumerated_log_partition(a, 0 * b, W, *logvar)}


@probability_mistake(*MACHINE)
def base_without_the_hidden_units():
    """Z of independent units without the 2^H states of the hidden layer."""
    right = partition.base_log_partition
    return {"base_log_partition": lambda a, b, *logvar: right(a, b[:0], *logvar)}


@probability_mistake(*MACHINE)
def weight_after_the_step():
    """The weight takes the state that the next temperature has drawn, not the one that it starts from."""
    right = partition.anneal

    def wrong(x, states, betas, *machine):
        total = np.zeros(len(x))
        for before, beta in pairwise(betas):
            _, moved = right(x, states, [before, beta], *machine)
            total += right(moved, states.copy(), [before, beta], *machine)[0]
            x = moved
        return total, x

    return {"anneal": wrong}


@probability_mistake(*MACHINE)
def mean_of_the_log_weights():
    """The mean of the logarithms, a bound, for the logarithm of the mean."""
    right = partition.log_ratio
    return {"log_ratio": lambda log_weights: right(log_weights)._replace(log_mean=float(log_weights.mean()))}
