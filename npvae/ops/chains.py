"""A chain of Gaussian transitions: z ~ q(z|below) drawn from the state below it, judged by p(z|above), which the state above
predicts.

A hierarchical VAE draws z_1 ~ q(z_1|x), z_2 ~ q(z_2|z_1), ..., z_T upwards and then asks p(z_t|z_t+1) on the way down how
probable each was. Both are diagonal Gaussians whose parameters, mu and then the raw logvar, are a network's output. The KL of a
transition in the middle has no closed form: z_t+1, on which p depends, is drawn after z_t and from it. So its divergence is
that of the sample, log q(z_t|z_t-1)/p(z_t|z_t+1). At the top p is N(0, I), and `npvae.ops.latent` has both forms. The ops of a
transition are composed of those of `npvae.ops.latent` and `npvae.ops.gaussian_kl`, where the labels stand. `ascend` and
`descend` go through a whole chain, with the networks between its transitions; `ascend_back` and `descend_back` are their
backward passes.

Lectures (2024), "Chains of VAEs". Shapes: B rows, S samples for each, L latent.
"""

import numpy as np

from npvae.ops.gaussian_kl import pair_sampled_kl_backward, pair_sampled_kl_forward
from npvae.ops.latent import (
    clipped_share,
    posterior_backward,
    posterior_forward,
    reparameterize_backward,
    reparameterize_forward,
)


def transition_forward(posterior, eps):
    """z ~ q(z|below): posterior (B, 2L), eps (S, B, L) standard normal -> z (S, B, L), and q's clipped logvar (B, L), which its
    divergence needs.

    z and logvar are both handed on, and both come back with a gradient: mu receives (Z-mu), logvar the sum of (Z-logvar) and
    dlogvar, and the raw log-variances that were clipped receive 0 by (CLIP).
    """
    (mu, logvar), inside = posterior_forward(posterior)  # (B, 2L) -> (B, L), (B, L)
    z, z_cache = reparameterize_forward(mu, logvar, eps)  # (B, L) -> (S, B, L)
    return (z, logvar), (inside, z_cache)


def transition_backward(dz, dlogvar, cache):
    """Backward of `transition_forward`: dz (S, B, L), dlogvar (B, L) -> dposterior (B, 2L)."""
    inside, z_cache = cache
    dmu, dlogvar_z = reparameterize_backward(dz, z_cache)  # (S, B, L) -> (B, L)
    return posterior_backward(dmu, dlogvar_z + dlogvar, inside)  # (B, L), (B, L) -> (B, 2L)


def per_sample_forward(a, n_samples):
    """What S samples of each row share, once for each: a (B, n) -> (S B, n), row s B + b that of datum b.

    Each row of a reaches S rows, so that da = Σ_s dout_s.
    """
    out = np.broadcast_to(a, (n_samples, *a.shape)).reshape(-1, a.shape[1])  # (B, n) -> (S B, n)
    return out, (n_samples, *a.shape)


def per_sample_backward(dout, cache):
    """Backward of per_sample: dout (S B, n) -> da (B, n)."""
    return dout.reshape(cache).sum(axis=0)  # (S B, n) -> (B, n)


def transition_kl_forward(z, logvar, eps, prior):
    """log q(z|below)/p(z|above) of each sample and dimension, in nats, its mean over eps a KL where `above` is fixed.

    z, eps (S, B, L), logvar (B, L) of q, and prior (S B, 2L), which is another for each sample -> kl (S, B, L).
    Each sample is a pair of its own q and its own p: `gaussian_kl.pair_sampled_kl_forward` of S B rows with one sample each, so
    that the sums over s in (PAIR-SAMPLED-mu_p) and (PAIR-SAMPLED-logvar_p) have one term. The S samples of a row share q's
    logvar (`per_sample_forward`).
    """
    (mu_p, logvar_p), inside = posterior_forward(prior)  # (S B, 2L) -> (S B, L), (S B, L)
    logvar_q, samples = per_sample_forward(logvar, len(z))  # (B, L) -> (S B, L)
    rows = (1, *mu_p.shape)  # (1, S B, L)
    kl, kl_cache = pair_sampled_kl_forward(z.reshape(rows), logvar_q, eps.reshape(rows), mu_p, logvar_p)
    return kl.reshape(z.shape), (inside, samples, kl_cache)


def transition_kl_backward(dkl, cache):
    """Backward of `transition_kl_forward`: dkl (S, B, L) -> dz (S, B, L), dlogvar (B, L), dprior (S B, 2L)."""
    inside, samples, kl_cache = cache
    dz, dlogvar_q, dmu_p, dlogvar_p = pair_sampled_kl_backward(dkl.reshape(1, *inside.shape), kl_cache)
    dprior = posterior_backward(dmu_p, dlogvar_p, inside)  # (S B, L), (S B, L) -> (S B, 2L)
    dlogvar = per_sample_backward(dlogvar_q, samples)  # (S B, L) -> (B, L)
    return dz.reshape(dkl.shape), dlogvar, dprior


def in_rows(a):
    """(S, B, n) -> (S B, n)."""
    return a.reshape(-1, a.shape[-1])


def noise_of_each(eps, widths):
    """eps (S, B, Σ_t L_t) as noise of latents of these widths L_t: (S, B, L_1), and (1, S B, L_t) of the others, since each
    sample of what is below has a q(z_t|z_t-1) of its own."""
    first, *others = (np.ascontiguousarray(part) for part in np.split(eps, np.cumsum(widths)[:-1], axis=-1))
    return [first, *(part.reshape(1, -1, part.shape[-1]) for part in others)]


def clipped_share_of(outputs):
    """The share of the raw log-variances of several networks that were clipped, 0 to 1: outputs (., 2L_t) of each."""
    n_columns = [output.shape[1] for output in outputs]
    return float(np.dot(n_columns, [clipped_share(output) for output in outputs]) / sum(n_columns))


def ascend(ops, x, encoders, noise, latent_forward):
    """Up the chain: z_1 ~ q(z_1|x), z_2 ~ q(z_2|z_1), ..., z_T ~ q(z_T|z_T-1).

    ops       the table of ops of a back end
    x         (B, D), the data
    encoders  of each transition its layers, as `mlp.mlp_forward` takes them
    noise     T arrays, as `noise_of_each` returns them
    latent_forward   the op of z_T: `latent.latent_forward` or `latent.latent_sampled_forward`
    Returns z, arrays as the noise in shape; of_q, the logvar (B, L_1) or (S B, L_t) of each q but the topmost, then the kl of
    z_T; the networks' outputs (., 2L_t); and the caches. All are lists of T entries.
    """
    z, of_q, outputs, caches, below = [], [], [], [], x
    for t, (layers, eps) in enumerate(zip(encoders, noise), 1):
        posterior, encoder_cache = ops.mlp_forward(below, layers)  # (B, D) or (S B, L_t-1) -> (., 2L_t)
        sample_forward = transition_forward if t < len(noise) else latent_forward
        (z_t, logvar_or_kl), cache = sample_forward(posterior, eps)
        below = in_rows(z_t)  # -> (S B, L_t)
        z.append(z_t)
        of_q.append(logvar_or_kl)
        outputs.append(posterior)
        caches.append((encoder_cache, cache))
    return (z, of_q, outputs), caches


def ascend_back(ops, dz, dof_q, caches, latent_backward):
    """Backward of `ascend`: dz and dof_q, lists of T arrays -> (dW, db) of the layers of all encoders, in order."""
    grads, dbelow = [], 0
    for t in reversed(range(len(caches))):
        encoder_cache, cache = caches[t]
        sample_backward = latent_backward if t == len(caches) - 1 else transition_backward
        # z_t generates what is below it, is judged by its own divergence, and z_t+1 is drawn from it: three gradients, of which
        # the first two are in dz.
        dposterior = sample_backward(dz[t] + dbelow, dof_q[t], cache)  # -> (S B, 2L_t) or (B, 2L_1)
        dbelow, encoder_grads = ops.mlp_backward(dposterior, encoder_cache, need_dx=t > 0)  # -> (S B, L_t-1)
        dbelow = dbelow.reshape(dz[t - 1].shape) if t > 0 else None
        grads = encoder_grads + grads
    return grads


def descend(ops, z, of_q, noise, priors):
    """Down the chain: the divergence of each latent from what the one above it predicts.

    z, of_q as `ascend` returns them, priors the layers of p(z_1|z_2), ..., p(z_T-1|z_T). Returns kls, as the z in
    shape, of which the last is that in of_q; the networks' outputs (S B, 2L_t); and the caches of the T - 1 others.
    """
    kls, outputs, caches = [], [], []
    for t in reversed(range(len(priors))):
        prior, prior_cache = ops.mlp_forward(in_rows(z[t + 1]), priors[t])  # (S B, L_t+1) -> (S B, 2L_t)
        kl, cache = transition_kl_forward(z[t], of_q[t], noise[t], prior)
        kls.append(kl)
        outputs.append(prior)
        caches.append((prior_cache, cache))
    return ([*kls[::-1], of_q[-1]], outputs[::-1]), caches[::-1]  # from the data upwards


def descend_back(ops, dz_1, dkls, caches):
    """Backward of `descend`, dz_1 being what z_1 receives from the decoder: dz_1 (S, B, L_1), dkls as the kls in shape
    -> dz and dof_q, lists of T arrays, and (dW, db) of the layers of all priors, the topmost first."""
    dz, dof_q, grads = [dz_1], [], []
    for dkl, (prior_cache, cache) in zip(dkls, caches):
        dz_kl, dlogvar, dprior = transition_kl_backward(dkl, cache)
        dz[-1] = dz[-1] + dz_kl
        dof_q.append(dlogvar)
        dabove, prior_grads = ops.mlp_backward(dprior, prior_cache)  # (S B, 2L_t) -> (S B, L_t+1)
        dz.append(dabove[None])  # -> (1, S B, L_t+1)
        grads = prior_grads + grads
    return (dz, [*dof_q, dkls[-1]]), grads
