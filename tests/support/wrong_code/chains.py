"""Mistakes in a chain of latents."""

import numpy as np

from npvae.ops import chains
from npvae.ops.chains import (
    descend_back,
    noise_of_each,
    per_sample_backward,
    transition_backward,
    transition_forward,
    transition_kl_backward,
    transition_kl_forward,
)
from wrong_code import mistake, pair, probability_mistake

CHAIN = ("numpy HierarchicalVAE 3-3-(2)-2-(2) tanh bernoulli, S 2, after",)
CHAIN_IWAE = "numpy HierarchicalVAE 3-2-(2)-2-(1)-2-(2) tanh bernoulli iwae, S 2, after"


@mistake("transition_backward", "Gaussian transition", *CHAIN)
def log_variance_of_the_divergence_dropped(dz, dlogvar, cache):
    """logvar of q goes through the sample alone, not through log q."""
    return transition_backward(dz, 0 * dlogvar, cache)


@mistake("transition_kl_backward", "sampled KL of a transition", *CHAIN)
def divergence_of_a_latent_not_through_it(dkl, cache):
    """z_t is a constant in log p(z_t given z_t+1), as if its gradient came from the decoder alone."""
    dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
    return 0 * dz, dlogvar, dprior


@mistake("transition_kl_backward", "sampled KL of a transition", *CHAIN)
def prior_of_a_latent_not_trained(dkl, cache):
    """The gradient stops at the prior's output, which N(0, I) never had."""
    dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
    return dz, dlogvar, 0 * dprior


@mistake("transition_kl_backward", "sampled KL of a transition", *CHAIN)
def variance_of_the_prior_not_trained(dkl, cache):
    """Only the mean of p(z_t given z_t+1) is differentiated."""
    dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
    dprior[:, dprior.shape[1] // 2 :] = 0
    return dz, dlogvar, dprior


@mistake("per_sample_backward", "row for each sample", *CHAIN)
def samples_averaged_that_share_a_row(dout, cache):
    """mean for sum where S samples share one q."""
    return per_sample_backward(dout, cache) / cache[0]


@mistake("per_sample_backward", "row for each sample", CHAIN_IWAE)
def samples_and_rows_exchanged(dout, cache):
    """Rows read as (B, S) where they stand as (S, B); the ELBO, which weighs all samples alike, does not show it."""
    S, B, n = cache
    return dout.reshape(B, S, n).sum(axis=1)


@mistake("ascend_back", *CHAIN)
def upper_latents_pass_nothing_down(ops, dz, dof_q, caches, latent_backward):
    """z_t+1 is drawn from z_t, and the gradient of that way is forgotten: each q is trained as if it stood alone."""
    grads = []
    for t in reversed(range(len(caches))):
        encoder_cache, cache = caches[t]
        backward = latent_backward if t == len(caches) - 1 else chains.transition_backward
        grads = ops.mlp_backward(backward(dz[t], dof_q[t], cache), encoder_cache, need_dx=False)[1] + grads
    return grads


@mistake("descend_back", *CHAIN)
def latent_above_not_reached_by_the_prior(ops, dz_1, dkls, caches):
    """dx of the prior's network is thrown away: z_t+1 gets no gradient for what it predicts."""
    (dz, dof_q), grads = descend_back(ops, dz_1, dkls, caches)
    return (dz[:1] + [0 * part for part in dz[1:]], dof_q), grads


@mistake("descend_back", *CHAIN)
def decoder_overwritten_by_the_divergence(ops, dz_1, dkls, caches):
    """dz = ... where it ought to be dz += ...: what came from the decoder is lost."""
    (dz, dof_q), grads = descend_back(ops, dz_1, dkls, caches)
    return ([dz[0] - dz_1, *dz[1:]], dof_q), grads


@mistake("descend_back", *CHAIN)
def topmost_divergence_counted_twice(ops, dz_1, dkls, caches):
    """Added in the loop over the latents, and once more behind it."""
    (dz, dof_q), grads = descend_back(ops, dz_1, dkls, caches)
    return (dz, [*dof_q[:-1], 2 * dof_q[-1]]), grads


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*CHAIN)
def every_latent_against_the_standard_normal():
    """log q/p of each latent against N(0, I): what is above has no say, and the sum is no bound of the model that samples."""

    def forward(z, logvar, eps, prior):
        return transition_kl_forward(z, logvar, eps, 0 * prior)

    def backward(dkl, cache):
        dz, dlogvar, dprior = transition_kl_backward(dkl, cache)
        return dz, dlogvar, 0 * dprior

    return pair("transition_kl", forward, backward)


@probability_mistake(*CHAIN)
def density_of_q_without_its_noise():
    """log q(z_t) without −½ eps²: constant in the parameters, so that no gradient changes, but not in the weights."""

    def forward(z, logvar, eps, prior):
        kl, cache = transition_kl_forward(z, logvar, eps, prior)
        return kl + 0.5 * eps * eps, cache

    return {"transition_kl_forward": forward}


@probability_mistake(*CHAIN)
def noise_turned_down_between_latents():
    """z_t drawn with 0.9 σ ("looks cleaner"), its density taken with σ."""
    return {"transition_forward": lambda posterior, eps: transition_forward(posterior, 0.9 * eps)}


@probability_mistake(*CHAIN)
def one_noise_for_all_latents():
    """The noise of z_1 is used again above it: its latents are not independent given what is below."""

    def wrong(eps, widths):
        first, *others = noise_of_each(eps, widths)
        rows = first.reshape(1, -1, first.shape[-1])
        return [first, *(np.ascontiguousarray(np.tile(rows, part.shape[-1])[..., : part.shape[-1]]) for part in others)]

    return {"noise_of_each": wrong}
