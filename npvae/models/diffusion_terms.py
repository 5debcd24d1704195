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


def matching_forward(model, x, eps, at):
    """½ w ‖ε − ε̂(x_t)‖² and the KL of x_T, of each row: x (B, D) centred, eps (2, B, D) -> (B,), (B,), and the caches."""
    if at.step is None and model.time == "steps":
        raise ValueError('the objective "continuous" needs a network for all times: time "fourier", not "steps"')
    gamma, slope = model.levels(at.u)
    x_t, diffuse_cache = diffusion.diffuse_forward(x, eps[0], model.own(gamma))  # (B, D)
    eps_hat, network_cache = model.denoise(x_t, at.u, gamma, at.step)
    weight, weight_cache = slope, None
    if at.step is not None:
        weight, weight_cache = diffusion.weight_forward(model.levels(at.below)[0], gamma)
    term, term_cache = diffusion.denoising_forward(eps[0], eps_hat, weight)  # (B, D) -> (B,)
    prior, prior_cache = diffusion.prior_kl_forward(x, model.levels(np.ones(len(x)))[0])
    return (term, prior), (term_cache, network_cache, diffuse_cache, weight_cache, prior_cache)


def consistency_forward(model, x, eps, at):
    """log q(x_t|x_t-1)/p(x_t|x_t+1) and the KL of the last transition, of each row, as `matching_forward`."""
    if model.schedule == "learned":
        raise ValueError('the objective "consistency" takes a schedule whose ends are not learned; use "matching"')
    gamma, gamma_above = model.levels(at.below)[0], model.levels(at.u)[0]
    gamma_below = np.where(at.step > 0, model.levels(np.maximum(at.step - 1, 0) / at.n)[0], -np.inf)  # x_0, the data, has −∞
    x_below, _ = diffusion.diffuse_forward(x, eps[1], gamma_below)
    ratio, variance = diffusion.transition(gamma_below, gamma_above)
    x_above = ratio * x_below + np.sqrt(variance) * eps[0]  # x_t is not drawn: the term is a mean over it
    eps_hat, network_cache = model.denoise(model.own(x_above), at.u, gamma_above, at.step)
    term, term_cache = diffusion.consistency_forward(x_below, x_above, eps_hat, gamma_below, gamma, gamma_above)
    before_last, last = (model.levels(np.full(len(x), u))[0] for u in ((at.n - 1) / at.n, 1.0))
    prior = diffusion.last_step_kl(diffusion.diffuse_forward(x, eps[1], before_last)[0], before_last, last)
    return (term, prior), (term_cache, network_cache, None, None, None)


def ends_backward(model, dmean, dweight, dx_t, dgamma, cache):
    """The gradient of the schedule's ends, (2,): γ is in ε̂ and in x_t, in the weight, and at both ends of the chain."""
    at, zero = cache.at, np.zeros(len(dmean))
    dgamma = dgamma + diffusion.diffuse_backward(dx_t, cache.diffuse)[1]
    dbelow, dabove = (zero, zero) if at.step is None else diffusion.weight_backward(dweight, cache.weight)
    dslope = dweight if at.step is None else zero
    dlast = diffusion.prior_kl_backward(dmean, cache.prior)
    dfirst = model.reconstruction_backward(dmean, cache.reconstruction)
    parts = [(dgamma + dabove, dslope, at.u), (dbelow, zero, at.below), (dlast, zero, zero + 1), (dfirst, zero, zero)]
    return sum(noise_schedule.schedule_backward(*part) for part in parts)


def denoise(model, x_t, u, gamma, step=None):
    """ε̂ at x_t (B, D), for times u, levels gamma (B,) and, for time "steps", the steps' numbers (B,): (B, D), the cache."""
    if model.time == "steps":
        read = noise_schedule.blocks_input(x_t, step, model.n_steps - 1)  # -> (B, (T − 1)(D + 1))
    else:
        read = noise_schedule.fourier_input(x_t, u, model.n_frequencies)  # -> (B, D + 1 + 2 n_frequencies)
    output, mlp_cache = model.ops.mlp_forward(read, model.layers)  # -> (B, D)
    eps_hat, predict_cache = diffusion.predict_forward(x_t, output, model.own(gamma), model.predicts)
    return eps_hat, (mlp_cache, predict_cache)


def denoise_backward(model, deps_hat, cache, step):
    """Backward of `denoise`: deps_hat (B, D) -> dx_t (B, D), dgamma (B,), and (dW, db) of each layer. Where nothing of the
    schedule is learned, dx_t is without the network's part."""
    mlp_cache, predict_cache = cache
    dx_t, doutput, dgamma = diffusion.predict_backward(model.own(deps_hat), predict_cache)
    dread, grads = model.ops.mlp_backward(doutput, mlp_cache, need_dx=model.schedule == "learned")
    if dread is None:
        return dx_t, dgamma, grads
    # x_t is in ε̂ beside the network, and the network reads it: two gradients.
    if model.time == "steps":
        return dx_t + noise_schedule.blocks_input_backward(dread, step, model.n_features), dgamma, grads
    return dx_t + dread[:, : model.n_features], dgamma, grads


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
