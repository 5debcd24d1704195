"""Mistakes in a diffusion."""

import numpy as np

from npvae.ops import diffusion
from npvae.ops.diffusion import (
    denoising_backward,
    denoising_forward,
    diffuse_backward,
    gaussian_reconstruction_backward,
    gaussian_reconstruction_forward,
    levels_nll_backward,
    levels_nll_forward,
    predict_backward,
    prior_kl_backward,
    prior_kl_forward,
    transition,
    weight_backward,
)
from npvae.ops.noise_schedule import blocks_input_backward, schedule_backward
from wrong_code import mistake, pair, probability_mistake

DIFFUSION = ("numpy Diffusion 2 columns, T 5, linear, noise, fourier, gaussian, matching, B 4, fresh",)
DATA = ("numpy Diffusion 3 columns, T 4, cosine, data, fourier, gaussian, continuous, B 3, fresh",)
LEARNED_ENDS = ("numpy Diffusion 2 columns, T 3, learned, noise, steps, gaussian, matching, B 4, fresh",)
LEVELS = ("numpy Diffusion 2 columns, T 4, learned, score, fourier, levels, matching, B 3, fresh",)
CONTINUOUS = ("numpy Diffusion 1 columns, T 3, learned, data, fourier, gaussian, continuous, B 1, fresh",)
CONSISTENCY = ("numpy Diffusion 2 columns, T 4, linear, noise, steps, gaussian, consistency, B 4, fresh",)


@mistake("denoising_backward", *DIFFUSION)
def weight_of_the_step_dropped(dterm, cache):
    """The "simple" loss in backward, the weighted one in forward."""
    missed, squared, weight = cache
    return denoising_backward(dterm, (missed, squared, np.ones_like(weight)))


@mistake("denoising_backward", *DIFFUSION)
def sign_of_the_predicted_noise(dterm, cache):
    """ε̂ − ε differentiated as ε − ε̂."""
    deps_hat, dweight = denoising_backward(dterm, cache)
    return -deps_hat, dweight


@mistake("denoising_backward", *LEARNED_ENDS)
def weight_not_differentiated(dterm, cache):
    """The schedule's ends are learned, and the weight of the step is taken for a constant."""
    deps_hat, dweight = denoising_backward(dterm, cache)
    return deps_hat, 0 * dweight


@mistake("predict_backward", *DATA)
def output_taken_for_the_noise(deps_hat, cache):
    """The network says x̂_0 or the score, and is trained as if it said ε̂."""
    dx_t, _, dgamma = predict_backward(deps_hat, cache)
    return dx_t, deps_hat.copy(), dgamma


@mistake("predict_backward", *LEARNED_ENDS)
def latent_beside_the_network_forgotten(deps_hat, cache):
    """ε̂ = s x_t + k output: x_t reaches it through the network alone."""
    dx_t, doutput, dgamma = predict_backward(deps_hat, cache)
    return 0 * dx_t, doutput, dgamma


@mistake("predict_backward", *LEARNED_ENDS)
def coefficients_not_differentiated(deps_hat, cache):
    """s and k depend on γ, which is learned."""
    dx_t, doutput, dgamma = predict_backward(deps_hat, cache)
    return dx_t, doutput, 0 * dgamma


@mistake("diffuse_backward", *LEARNED_ENDS)
def latent_taken_for_data(dx_t, cache):
    """x_t is made with a and s of a learned γ, and kept for a constant."""
    dx, dgamma = diffuse_backward(dx_t, cache)
    return dx, 0 * dgamma


@mistake("diffuse_backward", *LEARNED_ENDS)
def noise_grows_and_data_too(dx_t, cache):
    """da/dγ with the sign of ds/dγ."""
    x, eps, a, s = cache
    return diffuse_backward(dx_t, (-x, eps, a, s))


@mistake("weight_backward", *LEARNED_ENDS)
def one_end_of_the_step(dw, cache):
    """γ of the level below is taken for a constant."""
    dgamma_s, dgamma_t = weight_backward(dw, cache)
    return 0 * dgamma_s, dgamma_t


@mistake("weight_backward", *LEARNED_ENDS)
def derivative_of_the_exponential_without_its_one(dw, cache):
    """w for w + 1: that of e^x − 1 is e^x."""
    return weight_backward(dw, cache - 1)


@mistake("prior_kl_backward", *LEARNED_ENDS)
def last_latent_costs_nothing(dkl, cache):
    """The prior term has no weights, so it is left out, though γ_T is learned."""
    return 0 * prior_kl_backward(dkl, cache)


@mistake("gaussian_reconstruction_backward", *LEARNED_ENDS)
def reconstruction_has_no_weights(dnll, cache):
    """Nor has the reconstruction, but γ_1 is learned."""
    return 0 * gaussian_reconstruction_backward(dnll, cache)


@mistake("levels_nll_backward", *LEVELS)
def levels_summed_without_their_weights(dnll, cache):
    """The derivative of log Σ e^... without division by the sum."""
    slope, total = cache
    return levels_nll_backward(dnll, (slope, np.ones_like(total)))


@mistake("schedule_backward", *CONTINUOUS)
def slope_of_the_schedule_forgotten(dgamma, dbelow, dslope, dfirst, dlast, cache):
    """In continuous time the weight is dγ/du, which the ends decide as well."""
    return schedule_backward(dgamma, dbelow, 0 * dslope, dfirst, dlast, cache)


@mistake("schedule_backward", *LEARNED_ENDS)
def ends_exchanged(dgamma, dbelow, dslope, dfirst, dlast, cache):
    """u is 0 at the data's end."""
    return schedule_backward(dgamma, dbelow, dslope, dfirst, dlast, cache)[::-1]


@mistake("blocks_input_backward", *LEARNED_ENDS)
def block_of_another_step(dread, cache):
    """Rows of the batch are at different steps."""
    step, n_columns = cache
    return blocks_input_backward(dread, (np.zeros_like(step), n_columns))


@mistake("consistency_backward", *CONSISTENCY)
def consistency_without_the_factor_of_the_noise(dterm, cache):
    """∂m/∂ε̂ is negative: without it the network is driven away from the noise."""
    return -dterm[:, None] * cache


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*DIFFUSION)
def continuous_weight_for_a_step():
    """γ_t − γ_s for e^(γ_t − γ_s) − 1, with its right gradient: of T → ∞, too small for any T."""
    return pair("weight", lambda gamma_s, gamma_t: (gamma_t - gamma_s, None), lambda dw, cache: (-dw, dw))


@probability_mistake(*DIFFUSION)
def half_of_the_divergence_lost():
    """‖ε − ε̂‖² without ½, with its right gradient."""

    def forward(eps_hat, eps, weight):
        term, cache = denoising_forward(eps_hat, eps, weight)
        return 2 * term, cache

    def backward(dterm, cache):
        return denoising_backward(2 * dterm, cache)

    return pair("denoising", forward, backward)


@probability_mistake(*DIFFUSION)
def variance_for_standard_deviation_of_a_latent():
    """x_t = a² x + s² ε: a² + s² is 1 as well."""

    def forward(x, eps, gamma):
        a, s = diffusion.signal_and_noise(gamma)
        return a * a * x + s * s * eps, (x, eps, a, s)

    return {"diffuse_forward": forward}


@probability_mistake(*LEARNED_ENDS)
def prior_without_its_logarithm():
    """½ Σ a² (x² − 1) alone, with its right gradient: the KL of the means."""

    def forward(x, gamma):
        kl, cache = prior_kl_forward(x, gamma)
        return kl - 0.5 * x.shape[1] * np.log1p(np.exp(-gamma)), cache

    def backward(dkl, cache):
        _, signal, _, n_columns = cache
        return prior_kl_backward(dkl, cache) + 0.5 * dkl * signal * n_columns

    return pair("prior_kl", forward, backward)


@probability_mistake(*LEARNED_ENDS)
def reconstruction_without_the_mean_of_the_square():
    """−log N at its mean: ½ D is lost, a constant."""

    def forward(x, gamma):
        nll, cache = gaussian_reconstruction_forward(x, gamma)
        return nll - 0.5 * x.shape[1], cache

    return {"gaussian_reconstruction_forward": forward}


@probability_mistake(*LEVELS)
def density_of_grey_levels_for_their_probability():
    """A density at the level, not divided by the sum over all levels."""

    def forward(x, eps, gamma):
        _, (slope, total) = levels_nll_forward(x, eps, gamma)
        return 0.5 * (eps * eps + gamma[:, None] + np.log(2 * np.pi)).sum(axis=1), (np.ones_like(slope), np.ones_like(total))

    return {"levels_nll_forward": forward}


@probability_mistake(*CONSISTENCY)
def divergence_of_the_lecture_for_the_consistency_term():
    """The KL of the step from x_s and the step back from x_u, as if x_t and x_u were independent given x_s."""

    def forward(eps_hat, x_s, x_u, gamma_s, gamma_t, gamma_u):
        ratio, v_q = transition(gamma_s, gamma_t)
        mean, v_p, c = diffusion.backward_step(x_u, eps_hat, gamma_t, gamma_u)
        missed = mean - ratio * x_s
        of_variances = x_s.shape[1] * (v_q / v_p - 1 - np.log(v_q / v_p))[:, 0]
        return 0.5 * (of_variances + (missed * missed / v_p).sum(axis=1)), c * missed / v_p

    return {"consistency_forward": forward}


@probability_mistake(*CONSISTENCY)
def step_back_as_wide_as_the_step_forward():
    """The variance 1 − α_t of the step forward for that of the step back."""

    def wrong(x_t, eps_hat, gamma_s, gamma_t):
        ratio, v = transition(gamma_s, gamma_t)
        c = -v / (diffusion.signal_and_noise(gamma_t)[1] * ratio)
        return x_t / ratio + c * eps_hat, v, c

    return {"backward_step": wrong}
