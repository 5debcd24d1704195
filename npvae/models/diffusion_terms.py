"""The terms of a diffusion's loss: the steps' divergences in both decompositions of the ELBO, and both ends of the chain.

These functions are methods of `npvae.models.Diffusion`, whose `forward` adds them up; the mathematics is in
`npvae.ops.diffusion`. Shapes: B batch, D data and each latent, T steps of the chain.
"""

from typing import NamedTuple

import numpy as np

from npvae.ops import diffusion, noise_schedule


class Times(NamedTuple):
    """Where on the chain the rows of a batch are looked at."""

    u: np.ndarray  # (B,), of the x_t that the network reads, in [0, 1]
    below: np.ndarray  # (B,), of the latent before it
    step: np.ndarray | None  # (B,), the number of the step between the two, 0 to T − 2; None in continuous time
    n: int  # steps that one stands for: T − 1, or 1 in continuous time


def ends(model):
    """γ at times 0 and 1: two numbers, or learned ones (2,) in float64."""
    if model.schedule != "learned":
        return model.gamma_min, model.gamma_max
    return model.parameters["schedule.ends"].astype(np.result_type(model.dtype, np.float64), copy=False)


def schedule_forward(model, at):
    """The Levels of a batch, in float64, and the cache for its backward."""
    below = None if at.step is None else at.below
    return noise_schedule.schedule_forward(model.ends, at.u, below, model.schedule)


def matching_forward(model, x, eps, at, levels):
    """½ w ‖ε − ε̂(x_t)‖² and the KL of x_T, of each row: x (B, D) centred, eps two arrays (B, D) -> (B,), (B,), and caches."""
    if at.step is None and model.time == "steps":
        raise ValueError('the objective "continuous" needs a network for all times: time "fourier", not "steps"')
    eps, _ = eps
    x_t, diffuse_cache = diffusion.diffuse_forward(x, eps, model.own(levels.gamma))  # (B, D)
    eps_hat, network_cache = model.denoise(x_t, at.u, levels.gamma, at.step)
    weight, weight_cache = levels.slope, None
    if at.step is not None:
        weight, weight_cache = diffusion.weight_forward(levels.below, levels.gamma)
    term, term_cache = diffusion.denoising_forward(eps_hat, eps, weight)  # (B, D) -> (B,)
    prior, prior_cache = diffusion.prior_kl_forward(x, levels.last)
    return (term, prior), (term_cache, network_cache, diffuse_cache, weight_cache, prior_cache)


def consistency_forward(model, x, eps, at, levels):
    """log q(x_t|x_t-1)/p(x_t|x_t+1) and the KL of the last transition, of each row, as `matching_forward`."""
    if model.schedule == "learned":
        raise ValueError('the objective "consistency" takes a schedule whose ends are not learned; use "matching"')
    eps_above, eps_below = eps
    gamma_below = np.where(at.step > 0, model.levels(np.maximum(at.step - 1, 0) / at.n)[0], -np.inf)  # x_0, the data, has −∞
    x_below, _ = diffusion.diffuse_forward(x, eps_below, gamma_below)
    ratio, variance = diffusion.transition(gamma_below, levels.gamma)
    x_above = ratio * x_below + np.sqrt(variance) * eps_above  # x_t is not drawn: the term is a mean over it
    eps_hat, network_cache = model.denoise(model.own(x_above), at.u, levels.gamma, at.step)
    term, term_cache = diffusion.consistency_forward(eps_hat, x_below, x_above, gamma_below, levels.below, levels.gamma)
    before_last = model.levels(np.full(len(x), (at.n - 1) / at.n))[0]
    x_before_last, _ = diffusion.diffuse_forward(x, eps_below, before_last)
    prior = diffusion.last_step_kl(x_before_last, before_last, levels.last)
    return (term, prior), (term_cache, network_cache, None, None, None)


def ends_backward(model, dmean, dweight, dx_t, dgamma, cache):
    """The gradient of the schedule's ends, (2,): γ is in ε̂ and in x_t, in the weight, and at both ends of the chain."""
    dgamma = dgamma + diffusion.diffuse_backward(dx_t, cache.diffuse)[1]
    dbelow, dslope = None, dweight
    if cache.at.step is not None:
        dbelow, dabove = diffusion.weight_backward(dweight, cache.weight)
        dgamma, dslope = dgamma + dabove, None
    dlast = diffusion.prior_kl_backward(dmean, cache.prior)
    dfirst = model.reconstruction_backward(dmean, cache.reconstruction)
    return noise_schedule.schedule_backward(dgamma, dbelow, dslope, dfirst, dlast, cache.schedule)


def denoise(model, x_t, u, gamma, step=None):
    """ε̂ at x_t (B, D), for times u, levels gamma (B,) and, for time "steps", the steps' numbers (B,): (B, D), the cache."""
    if model.time == "steps":
        read, input_cache = noise_schedule.blocks_input_forward(x_t, step, model.n_steps - 1)  # -> (B, (T − 1)(D + 1))
    else:
        read, input_cache = noise_schedule.fourier_input_forward(x_t, u, model.n_frequencies)  # -> (B, D + 1 + 2 frequencies)
    output, mlp_cache = model.ops.mlp_forward(read, model.layers)  # -> (B, D), or (B, 7 D) for a prior of each pixel
    if model.predicts == "mixture":
        eps_hat, predict_cache = model.ops.pixel_mixture_forward(x_t, output, model.own(gamma))
    else:
        eps_hat, predict_cache = diffusion.predict_forward(x_t, output, model.own(gamma), model.predicts)
    return eps_hat, (input_cache, mlp_cache, predict_cache)


def denoise_backward(model, deps_hat, cache):
    """Backward of `denoise`: deps_hat (B, D) -> dx_t (B, D), dgamma (B,), and (dW, db) of each layer. Where nothing of the
    schedule is learned, dx_t is without the network's part."""
    input_cache, mlp_cache, predict_cache = cache
    predict_backward = model.ops.pixel_mixture_backward if model.predicts == "mixture" else diffusion.predict_backward
    dx_t, doutput, dgamma = predict_backward(model.own(deps_hat), predict_cache)
    dread, grads = model.ops.mlp_backward(doutput, mlp_cache, need_dx=model.schedule == "learned")
    if dread is not None:  # x_t is in ε̂ beside the network, and the network reads it: two gradients
        steps = model.time == "steps"
        input_backward = noise_schedule.blocks_input_backward if steps else noise_schedule.fourier_input_backward
        dx_t = dx_t + input_backward(dread, input_cache)
    return dx_t, dgamma, grads


def reconstruction_forward(model, x, eps, gamma):
    """−log p(x|x_1) of centred x (B, D) at levels gamma (B,): (B,) in nats, and the cache."""
    if model.likelihood == "levels":
        return diffusion.levels_nll_forward(x, eps, gamma)
    return diffusion.gaussian_reconstruction_forward(x, gamma)


def reconstruction_backward(model, dnll, cache):
    """Backward of `reconstruction_forward`: dnll (B,) -> dgamma (B,)."""
    if model.likelihood == "levels":
        return diffusion.levels_nll_backward(dnll, cache)
    return diffusion.gaussian_reconstruction_backward(dnll, cache)
