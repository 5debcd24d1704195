"""Mistakes in the sample of a latent variable, its divergence and the clip of its log-variance."""

import numpy as np

from npvae.ops.latent import (
    LOGVAR_MAX,
    LOGVAR_MIN,
    clip_logvar_backward,
    clip_logvar_forward,
    gaussian_kl_backward,
    gaussian_kl_forward,
    latent_backward,
    reparameterize_backward,
    reparameterize_forward,
)
from wrong_code import SAMPLER, SAMPLES, mistake, mistake_in_pair, pair, probability_mistake

KL = ("Gaussian KL", "numpy latent")
CLIP = ("clip logvar", "numpy latent, clipped")


# ------------------------------------------------------------------------------------------------------------- sampler


@mistake("reparameterize_backward", *SAMPLER)
def sampler_without_half(dz, cache):
    """∂σ/∂logvar = σ: the derivative with respect to log σ, the network gives log σ²."""
    dmu, dlogvar = reparameterize_backward(dz, cache)
    return dmu, 2 * dlogvar


@mistake("reparameterize_backward", *SAMPLER)
def sampler_with_variance_for_sigma(dz, cache):
    """½ σ² eps: e^logvar in place of e^(logvar/2), in backward only."""
    sigma, eps = cache
    return reparameterize_backward(dz, (sigma * sigma, eps))


@mistake("reparameterize_backward", *SAMPLER)
def sampler_without_eps(dz, cache):
    """dlogvar = dz σ/2: the noise is taken for a constant that drops out."""
    sigma, eps = cache
    return reparameterize_backward(dz, (sigma, np.ones_like(eps)))


@mistake("reparameterize_backward", *SAMPLER)
def sampler_trains_mu_only(dz, cache):
    """The path from z to logvar is cut: σ is taken for a constant."""
    dmu, dlogvar = reparameterize_backward(dz, cache)
    return dmu, 0 * dlogvar


@mistake("reparameterize_backward", *SAMPLER)
def samples_averaged(dz, cache):
    """mean over the samples: the loss has divided by S before."""
    dmu, dlogvar = reparameterize_backward(dz, cache)
    S = dz.shape[0] if dz.ndim == 3 else 1
    return dmu / S, dlogvar / S


@mistake("reparameterize_backward", *SAMPLER)
def samples_not_summed(dz, cache):
    """The gradients keep the axis of the samples that mu and logvar do not have."""
    sigma, eps = cache
    return dz, dz * eps * (0.5 * sigma)


@mistake("reparameterize_backward", *SAMPLER)
def first_sample_only(dz, cache):
    """dz[0]: written for S = 1, and never revisited."""
    sigma, eps = cache
    return reparameterize_backward(dz[0], (sigma, eps[0])) if dz.ndim == 3 else reparameterize_backward(dz, cache)


@mistake("reparameterize_backward", *SAMPLER)
def rows_and_samples_swapped(dz, cache):
    """(S, B, L) is reshaped to (B, S, L), not transposed, so that gradients land in other rows."""
    sigma, eps = cache
    per_row = (*sigma.shape[:1], -1, *sigma.shape[1:])
    dlogvar = (dz * eps).reshape(per_row).sum(axis=1) * (0.5 * sigma)
    return dz.reshape(per_row).sum(axis=1), dlogvar


# ------------------------------------------------------------------------------------------------- divergence and clip


@mistake("gaussian_kl_backward", *KL)
def KL_without_half(dkl, cache):
    """dlogvar = e^logvar − 1: the ½ of the KL is lost."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return dmu, 2 * dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_for_log_std(dkl, cache):
    """σ² written e^(2 logvar): the formula of a network that gives log σ."""
    mu, variance_minus_1 = cache
    return dkl * mu, dkl * ((1 + variance_minus_1) ** 2 - 1)


@mistake("gaussian_kl_backward", *KL)
def KL_of_logvar_with_the_sign_of_the_ELBO(dkl, cache):
    """½(1 − e^logvar), copied from a paper that maximises."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return dmu, -dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_of_mu_dropped(dkl, cache):
    """The KL's gradient goes to logvar only."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return 0 * dmu, dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_of_logvar_dropped(dkl, cache):
    """The KL's gradient goes to mu only."""
    dmu, dlogvar = gaussian_kl_backward(dkl, cache)
    return dmu, 0 * dlogvar


@mistake("gaussian_kl_backward", *KL)
def KL_of_logvar_without_its_entropy(dkl, cache):
    """½ e^logvar: the term −logvar is overlooked."""
    dmu, _ = gaussian_kl_backward(dkl, cache)
    return dmu, dkl * 0.5 * (1 + cache[1])


@mistake("latent_backward", "numpy latent")
def gradient_through_z_overwritten(dz, dkl, cache):
    """dmu = ... twice, where the second should be +=: the gradient of the KL replaces the one through z."""
    return latent_backward(0 * dz, dkl, cache)


@mistake("latent_backward", "numpy latent")
def gradient_of_the_KL_overwritten(dz, dkl, cache):
    """The same, the other way round: what is left is the gradient of a noisy autoencoder."""
    return latent_backward(dz, 0 * dkl, cache)


@mistake("latent_backward", "numpy latent")
def mu_and_logvar_swapped(dz, dkl, cache):
    """concatenate([dlogvar, dmu]): the halves of the posterior in the wrong order."""
    dmu, dlogvar = np.split(latent_backward(dz, dkl, cache), 2, axis=1)
    return np.concatenate([dlogvar, dmu], axis=1)


@mistake("latent_backward", "numpy latent")
def clip_masks_mu_as_well(dz, dkl, cache):
    """The mask of the log-variance is applied to both halves."""
    return latent_backward(dz, dkl, cache) * np.tile(cache[0], 2)


@mistake("latent_backward", "numpy latent")
def clip_masks_only_the_path_through_z(dz, dkl, cache):
    """The KL's gradient of logvar goes round the clip."""
    inside, z_cache, kl_cache = cache
    through_z = latent_backward(dz, 0 * dkl, cache)
    through_kl = latent_backward(0 * dz, dkl, (np.ones_like(inside), z_cache, kl_cache))
    return through_z + through_kl


@mistake("clip_logvar_backward", *CLIP)
def clip_mask_ignored(dlogvar, cache):
    """np.clip in forward, nothing in backward."""
    return dlogvar.copy()


@mistake("clip_logvar_backward", *CLIP)
def clip_mask_inverted(dlogvar, cache):
    """The gradient passes where it was clipped."""
    return clip_logvar_backward(dlogvar, ~cache)


@mistake_in_pair("clip_logvar", *CLIP)
def clip_mask_excludes_the_bounds():
    """< and > where <= and >= belong: no gradient on the bounds themselves, where the clip changes nothing."""

    def forward(raw):
        logvar, _ = clip_logvar_forward(raw)
        return logvar, (raw.real > LOGVAR_MIN) & (raw.real < LOGVAR_MAX)

    return forward, clip_logvar_backward


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(*SAMPLER)
def variance_for_standard_deviation():
    """z = mu + e^logvar eps with its right gradient: the sample has variance σ⁴."""

    def backward(dz, cache):
        dmu, dlogvar = reparameterize_backward(dz, cache)
        return dmu, 2 * dlogvar

    return pair("reparameterize", lambda mu, logvar, eps: reparameterize_forward(mu, 2 * logvar, eps), backward)


@probability_mistake("sampler", SAMPLES)
def noise_turned_down():
    """A tenth of the noise, for sharper pictures: z is not a sample of q."""
    return {"reparameterize_forward": lambda mu, logvar, eps: reparameterize_forward(mu, logvar, 0.1 * eps)}


@probability_mistake(*KL)
def KL_of_the_prior_from_the_posterior():
    """KL(p ‖ q) for KL(q ‖ p), with its right gradient."""

    def forward(mu, logvar):
        precision = np.exp(-logvar)
        return 0.5 * ((1 + mu * mu) * precision - 1 + logvar), (mu, precision)

    def backward(dkl, cache):
        mu, precision = cache
        return dkl * mu * precision, dkl * 0.5 * (1 - (1 + mu * mu) * precision)

    return pair("gaussian_kl", forward, backward)


@probability_mistake(*KL)
def KL_without_half_in_both():
    """The ½ is lost in forward and backward alike."""

    def forward(mu, logvar):
        kl, cache = gaussian_kl_forward(mu, logvar)
        return 2 * kl, cache

    return pair("gaussian_kl", forward, lambda dkl, cache: gaussian_kl_backward(2 * dkl, cache))
