"""Mistakes in the prior of a pixel."""

import numpy as np

from npvae.ops.pixel_mixture import gaussian_posteriors, pixel_mixture_backward
from wrong_code import mistake, probability_mistake

MIXTURE = ("numpy Diffusion 3 columns, T 4, learned, mixture, fourier, levels, matching, B 6, fresh",)


@mistake("pixel_mixture_backward", *MIXTURE)
def responsibilities_taken_for_constants(deps_hat, cache):
    """The mean of each component is differentiated, but not how probable the components are."""
    rho, apart, *others = cache
    return pixel_mixture_backward(deps_hat, (rho, 0 * apart, *others))


@mistake("pixel_mixture_backward", *MIXTURE)
def softmax_without_its_normalisation(deps_hat, cache):
    """ρ_j E_j for ρ_j (E_j − ε̂): the sum below the fraction is taken for a constant."""
    rho, apart, *_, eps_hat, _, _ = cache
    dx_t, doutput, dgamma = pixel_mixture_backward(deps_hat, cache)
    n = rho.shape[1] * deps_hat.shape[1]
    doutput[:, :n] = (deps_hat[:, None] * rho * (apart + eps_hat[:, None])).reshape(len(rho), -1)
    return dx_t, doutput, dgamma


@mistake("pixel_mixture_backward", *MIXTURE)
def width_without_the_slope_of_its_sigmoid(deps_hat, cache):
    """The gradient of q handed on as that of u."""
    rho, apart, S, T, g, q, dq, *others = cache
    return pixel_mixture_backward(deps_hat, (rho, apart, S, T, g, q, np.ones_like(dq), *others))


@mistake("pixel_mixture_backward", *MIXTURE)
def width_moves_the_mean_alone(deps_hat, cache):
    """That a wider Gaussian is also less dense is forgotten: (r² S − q)/q² without q."""
    rho, apart, _, _, _, q, dq, *_ = cache
    dx_t, doutput, dgamma = pixel_mixture_backward(deps_hat, cache)
    n = dq.shape[1] * deps_hat.shape[1]
    missing = 0.5 * deps_hat[:, None] * rho[:, 1:] * apart[:, 1:] / q * dq
    doutput[:, -n:] += missing.reshape(len(rho), -1)
    return dx_t, doutput, dgamma


@mistake("pixel_mixture_backward", *MIXTURE)
def own_value_beside_the_network_forgotten(deps_hat, cache):
    """x_t decides beside the network's prior: V is the part of dx_t that comes through x̂_0."""
    _, doutput, dgamma = pixel_mixture_backward(deps_hat, cache)
    return deps_hat / cache[-1], doutput, dgamma


@mistake("pixel_mixture_backward", *MIXTURE)
def levels_of_noise_taken_for_symmetric(deps_hat, cache):
    """The third central moment left out of dγ: that of the Gaussians is 0, that of their mixture is not."""
    dx_t, doutput, dgamma = pixel_mixture_backward(deps_hat, cache)
    rho, apart, S, *_ = cache
    W = (rho * apart**3).sum(axis=1) + 3 * (rho[:, 1:] * S * apart[:, 1:]).sum(axis=1)
    return dx_t, doutput, dgamma - 0.5 * (deps_hat * W).sum(axis=1)


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*MIXTURE)
def density_of_a_pixel_for_its_probability():
    """Levels are never told apart: a pixel costs what its Gaussian's density says where noise is less than a level."""
    return {"level_posteriors": gaussian_posteriors}


@probability_mistake(*MIXTURE)
def black_in_the_middle_of_the_scale():
    """0 for black, as in the file: on [−1, 1], where the chain has them, that is grey."""
    return {"BLACK": 0.0}


@probability_mistake(*MIXTURE)
def nearest_level_for_the_mean_of_levels():
    """A level is chosen where the neighbours are as likely."""
    return {"REACH": 0}
