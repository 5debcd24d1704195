"""Bounds on log p(x): how nll and kl become the loss that is minimised, and the upstream gradients that they receive from it.

See `npvae.ops.layers` for how to read a pair. Shapes: B batch, L latent, S samples per datum.
"""

import numpy as np

from npvae.core.numerics import accumulator, log_sum_exp

OBJECTIVES = ("elbo", "iwae")


def elbo_forward(nll, kl, beta):
    """−ELBO, with weight beta of the KL: the mean over the batch of nll + beta kl, nll averaged over the samples.

    nll (B,) or (S, B); kl (B, L) in closed form; beta a number or one for each latent dimension, (L,) -> loss, a number in
    nats. Kingma & Welling 2013, equation 10; with beta ≠ 1 the objective of Higgins et al. 2017.

        loss = 1/(B S) Σ_bs nll_sb + 1/B Σ_bl beta_l kl_bl
        (ELBO-nll)  dnll = dloss/(B S)
        (ELBO-kl)   dkl  = dloss beta/B
    """
    mean_kl = kl.mean(axis=0, dtype=accumulator(kl))  # (B, L) -> (L,)
    loss = nll.mean() + (beta * mean_kl).sum()
    return loss, (nll, kl, beta)


def elbo_backward(dloss, cache):
    """Backward of the −ELBO: dnll of nll's shape, dkl (B, L)."""
    nll, kl, beta = cache
    dnll = np.full_like(nll, dloss / nll.size)  # (ELBO-nll) 1/B and 1/S enter the gradient here
    dkl = np.full_like(kl, dloss * beta / len(kl))  # (ELBO-kl) and beta/B here
    return dnll, dkl


def iwae_forward(nll, kl, beta):
    """The negative importance-weighted bound of S samples, −L_S. Burda, Grosse & Salakhutdinov 2016, equation 8.

    nll (S, B); kl (S, B, L), log q(z|x)/p(z) of each sample (`latent_sampled_forward`); beta as in `elbo_forward` -> loss, a
    number in nats. With the weights w = p(x, z)/q(z|x),

        loss = −1/B Σ_b log 1/S Σ_s w_sb,  log w_sb = −nll_sb − Σ_l beta_l kl_sbl

    The derivative of log Σ_s w_s with respect to log w_s is the share w̃_s = w_s/Σ_s' w_s' (a softmax over the samples), so that
    the gradient weighs each sample by its share where the ELBO weighs all by 1/S (their equation 14):
        (IWAE-nll)  dnll_sb  = dloss w̃_sb/B
        (IWAE-kl)   dkl_sbl  = dloss w̃_sb beta_l/B
    """
    log_w = -nll - (beta * kl).sum(axis=-1, dtype=accumulator(kl))  # (S, B)
    total = log_sum_exp(log_w)  # (S, B) -> (B,)
    loss = -(total - np.log(len(log_w))).mean()
    return loss, (np.exp(log_w - total), nll, kl, beta)


def iwae_backward(dloss, cache):
    """Backward of −L_S: dnll (S, B), dkl (S, B, L)."""
    share, nll, kl, beta = cache
    dlog_w = -dloss * share / nll.shape[1]  # 1/B enters the gradient here
    dnll, dkl = np.empty_like(nll), np.empty_like(kl)
    dnll[:] = -dlog_w  # (IWAE-nll)
    dkl[:] = -dlog_w[..., None] * beta  # (IWAE-kl) (S, B, 1) * (L,) -> (S, B, L)
    return dnll, dkl


def free_bits_forward(mean_kl, per_dimension=0.0, total=0.0):
    """The KL of a batch where the first nats cost nothing, against posterior collapse: Kingma et al. 2016, equation 15.

    mean_kl (L,), the mean KL over the batch of each latent dimension -> a number in nats (the name says bits):

        per_dimension = λ:  Σ_l max(λ, mean_kl_l): each dimension has λ nats free, an idle one gains nothing by idling further
        total = λ:          max(λ, Σ_l mean_kl_l): all dimensions together have λ nats free, and few of them may take all

    Only one of the two may be above 0. A dimension's gradient is switched off while its group is below λ:
        (FREE-BITS)  dmean_kl_l = dkl if the KL of l's group exceeds λ, else 0
    """
    if per_dimension > 0:
        counts = mean_kl.real > per_dimension
        return np.where(counts, mean_kl, per_dimension).sum(), counts
    counts = np.full(mean_kl.shape, mean_kl.sum().real > total)
    return np.where(counts.any(), mean_kl.sum(), total), counts


def free_bits_backward(dkl, cache):
    """Backward of `free_bits_forward`: dmean_kl (L,)."""
    counts = cache
    return np.where(counts, dkl, 0)  # (FREE-BITS)


def free_bits_elbo_forward(nll, kl, beta, per_dimension, total):
    """−ELBO whose first nats of KL cost nothing: 1/(B S) Σ_bs nll_sb + beta free_bits(mean_kl), arguments as in the pairs
    above.

    The gradient is that of the −ELBO with the weight beta for each dimension that counts and 0 for the others.
    """
    mean_kl = kl.mean(axis=0, dtype=accumulator(kl))  # (B, L) -> (L,)
    free_kl, counts = free_bits_forward(mean_kl, per_dimension, total)
    return nll.mean() + beta * free_kl, (nll, kl, beta, per_dimension, total, counts)


def free_bits_elbo_backward(dloss, cache):
    """Backward of the −ELBO with free bits: dnll of nll's shape, dkl (B, L)."""
    nll, kl, beta, _, _, counts = cache
    return elbo_backward(dloss, (nll, kl, free_bits_backward(beta, counts)))


def free_bits_elbo_join(caches, weights):
    """Free bits look at the mean KL of the whole batch: from the caches of its shards, with the shares of rows as weights, the
    loss of the batch and the caches with which each shard's backward pass gives its share of the batch's gradient."""
    nll = sum(weight * cache[0].mean() for weight, cache in zip(weights, caches))
    mean_kl = sum(weight * cache[1].mean(axis=0, dtype=accumulator(cache[1])) for weight, cache in zip(weights, caches))
    _, _, beta, per_dimension, total, _ = caches[0]
    free_kl, counts = free_bits_forward(mean_kl, per_dimension, total)
    return nll + beta * free_kl, [(*cache[:-1], counts) for cache in caches]
