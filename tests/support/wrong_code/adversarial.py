"""Mistakes in an adversarial network."""

import numpy as np

from npvae.ops.adversarial import (
    logistic_critic_backward,
    logistic_critic_forward,
    minimax_generator_backward,
    minimax_generator_forward,
    non_saturating_generator_backward,
    slope_penalty_backward,
)
from wrong_code import mistake, pair, probability_mistake

PENALTY = ("slope penalty", "numpy GAN 2 columns, 5-4 silu, critic, wasserstein_penalty, 2, B 4, fresh")
LOGISTIC = ("logistic critic", "numpy GAN 3 columns, 5-4 silu, critic, non_saturating, 1, B 4, fresh")
CLIPPED = ("Wasserstein critic", "numpy GAN 2 columns, 5 softplus, critic, wasserstein, 1, B 3, fresh")
MINIMAX = ("minimax generator", "numpy GAN 3 columns, 5-4 silu, generator, minimax, 1, B 3, fresh")
SATURATING = ("non-saturating generator", "numpy GAN 2 columns, 6 tanh, generator, non_saturating, 1, B 4, fresh")


@mistake("slope_penalty_backward", *PENALTY)
def penalty_without_its_two(dloss, cache):
    """The derivative of the square is the difference."""
    return slope_penalty_backward(dloss, cache) / 2


@mistake("slope_penalty_backward", *PENALTY)
def direction_of_the_slope_not_normalised(dloss, cache):
    """d‖s‖ = s·ds for s·ds/‖s‖."""
    score, slope, weight = cache
    return (2 * weight * dloss * (slope - 1))[:, None] * score


@mistake("slope_penalty_backward", *PENALTY)
def slope_taken_for_the_square_of_itself(dloss, cache):
    """Forward penalises the norm, backward the squared norm."""
    score, slope, weight = cache
    return (4 * weight * dloss * (slope * slope - 1))[:, None] * score


@mistake("slope_penalty_backward", *PENALTY)
def penalty_of_every_slope(dloss, cache):
    """The gradient of λ ‖s‖², which wants the slope 0."""
    score, _, weight = cache
    return (2 * weight * dloss)[:, None] * score


@mistake("slope_penalty_backward", *PENALTY)
def slope_detached(dloss, cache):
    """The slope is the result of a backward pass, and so it is taken for data: the penalty has no gradient."""
    score, _, _ = cache
    return np.zeros_like(score)


@mistake("logistic_critic_backward", *LOGISTIC)
def sigmoid_of_the_other_sign(dloss, cache):
    """−σ(a) for −σ(−a): data that are known well push most."""
    of_data, of_samples = cache
    return logistic_critic_backward(dloss, (-of_data, of_samples))


@mistake("logistic_critic_backward", *LOGISTIC)
def data_and_samples_exchanged(dloss, cache):
    """The label 1 for samples, in backward alone."""
    dof_data, dof_samples = logistic_critic_backward(dloss, cache)
    return dof_samples, dof_data


@mistake("logistic_critic_backward", *LOGISTIC)
def samples_not_trained_on(dloss, cache):
    """The samples are constants, so that what the critic says of them is taken for one, too."""
    dof_data, dof_samples = logistic_critic_backward(dloss, cache)
    return dof_data, 0 * dof_samples


@mistake("wasserstein_critic_backward", *CLIPPED)
def critic_that_descends_where_it_should_rise(dloss, cache):
    """Both outputs are pulled down."""
    return dloss.copy(), dloss.copy()


@mistake("minimax_generator_backward", *MINIMAX)
def generator_pushed_by_the_critic_s_gradient(dloss, cache):
    """The sign of the critic's loss at the samples: the generator helps the critic."""
    return -minimax_generator_backward(dloss, cache)


@mistake("minimax_generator_backward", *MINIMAX)
def non_saturating_gradient_of_the_minimax_loss(dloss, cache):
    """Forward says log σ(−b), backward is that of −log σ(b)."""
    return non_saturating_generator_backward(dloss, cache)


@mistake("non_saturating_generator_backward", *SATURATING)
def derivative_of_log_sigma_as_sigma_times_its_complement(dloss, cache):
    """σ' for σ'/σ."""
    sigma = 1 / (1 + np.exp(-cache))
    return -dloss * sigma * (1 - sigma)


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*LOGISTIC)
def samples_weighed_half():
    """−log σ(a) − ½ log σ(−b): the best critic is log 2p/q."""

    def forward(of_data, of_samples):
        data, _ = logistic_critic_forward(of_data, 0 * of_samples)
        samples, _ = logistic_critic_forward(0 * of_data, of_samples)
        return data + 0.5 * samples, (of_data, of_samples)

    def backward(dloss, cache):
        dof_data, dof_samples = logistic_critic_backward(dloss, cache)
        return dof_data, 0.5 * dof_samples

    return pair("logistic_critic", forward, backward)


@probability_mistake(*PENALTY)
def penalty_that_wants_no_slope():
    """λ ‖∂f/∂x‖², with its right gradient: the best critic of two densities is flat."""

    def forward(score, weight):
        return weight * (score * score).sum(axis=1), (score, weight)

    def backward(dloss, cache):
        score, weight = cache
        return (2 * weight * dloss)[:, None] * score

    return pair("slope_penalty", forward, backward)


@probability_mistake(*PENALTY)
def penalty_of_the_squared_slope():
    """λ (‖∂f/∂x‖² − 1), without a square and with its right gradient: a slope below 1 is rewarded."""

    def forward(score, weight):
        return weight * ((score * score).sum(axis=1) - 1), (score, weight)

    def backward(dloss, cache):
        score, weight = cache
        return (2 * weight * dloss)[:, None] * score

    return pair("slope_penalty", forward, backward)


@probability_mistake(*MINIMAX)
def generator_that_wants_to_be_known():
    """log σ(b) for log σ(−b), with its right gradient: samples move to where the critic knows them."""

    def forward(of_samples):
        return minimax_generator_forward(-of_samples)[0], of_samples

    def backward(dloss, cache):
        return -minimax_generator_backward(dloss, -cache)

    return pair("minimax_generator", forward, backward)
