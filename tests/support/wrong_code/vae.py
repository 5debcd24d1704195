"""Mistakes in the bounds, in networks and in a whole VAE."""

import numpy as np

from npvae.models.vae import VAE
from npvae.ops.bounds import elbo_backward, iwae_backward, iwae_forward
from npvae.ops.latent import latent_sampled_backward, sampled_kl_backward, sampled_kl_forward
from npvae.ops.mlp import mlp_backward
from wrong_code import SAMPLES, mistake, probability_mistake

DEEP = "numpy VAE 7-5-4-3-2 relu gaussian, B 3, S 1, fresh"
IWAE_MODEL = "numpy VAE 7-6-2 tanh gaussian iwae, B 3, S 4, after"
PLAIN = "numpy VAE 7-2 relu gaussian, B 1, S 1, after"
ELBO, IWAE = ("−ELBO",), ("−IWAE", IWAE_MODEL)
SAMPLED_KL = ("sampled KL", "numpy latent sampled", IWAE_MODEL)
RIGHT = {name: getattr(VAE, name) for name in ("forward", "backward", "gradient")}


@mistake("elbo_backward", *ELBO, SAMPLES)
def batch_size_forgotten(dloss, cache):
    """The loss is a mean over the batch, the gradient a sum."""
    dnll, dkl = elbo_backward(dloss, cache)
    return len(dkl) * dnll, len(dkl) * dkl


@mistake("elbo_backward", *ELBO, SAMPLES)
def number_of_samples_forgotten(dloss, cache):
    """The loss is a mean over the samples, the gradient a sum."""
    dnll, dkl = elbo_backward(dloss, cache)
    return dnll.size // len(dkl) * dnll, dkl


@mistake("elbo_backward", *ELBO, SAMPLES)
def beta_forgotten_in_backward(dloss, cache):
    """beta weighs the KL in the loss only."""
    nll, kl, _ = cache
    return elbo_backward(dloss, (nll, kl, 1.0))


@mistake("elbo_backward", *ELBO, SAMPLES)
def beta_on_the_nll(dloss, cache):
    """beta weighs the other term in the gradient."""
    nll, kl, beta = cache
    return np.mean(beta) * elbo_backward(dloss, cache)[0], elbo_backward(dloss, (nll, kl, 1.0))[1]


@mistake("elbo_backward", *ELBO, SAMPLES)
def KL_averaged_over_latents_in_the_gradient(dloss, cache):
    """kl.mean() in the gradient, the sum over L in the loss."""
    dnll, dkl = elbo_backward(dloss, cache)
    return dnll, dkl / dkl.shape[1]


@mistake("iwae_backward", *IWAE)
def importance_weights_not_applied(dloss, cache):
    """The gradient of the ELBO of S samples: every sample has the weight 1/S."""
    share, *others = cache
    return iwae_backward(dloss, (np.full_like(share, 1 / len(share)), *others))


@mistake("iwae_backward", *IWAE)
def importance_weights_squared(dloss, cache):
    """The weights are applied to the loss, and once more to its gradient."""
    share, *others = cache
    return iwae_backward(dloss, (share * share, *others))


@mistake("iwae_backward", *IWAE)
def importance_weights_normalised_over_the_batch(dloss, cache):
    """The softmax runs along the wrong axis, or along both."""
    share, *others = cache
    return iwae_backward(dloss, (share / share.shape[1], *others))


@mistake("iwae_backward", *IWAE)
def importance_weights_on_the_nll_only(dloss, cache):
    """The divergence in the weights is taken for a constant."""
    dnll, dkl = iwae_backward(dloss, cache)
    return dnll, 0 * dkl


@mistake("sampled_kl_backward", *SAMPLED_KL)
def divergence_of_samples_not_through_z(dkl, cache):
    """log p(z) depends on z, which depends on mu and logvar: the term dkl z is forgotten."""
    dz, dlogvar = sampled_kl_backward(dkl, cache)
    return 0 * dz, dlogvar


@mistake("sampled_kl_backward", *SAMPLED_KL)
def log_of_the_variance_not_differentiated(dkl, cache):
    """The density of q holds log σ, whose derivative is forgotten."""
    dz, dlogvar = sampled_kl_backward(dkl, cache)
    return dz, 0 * dlogvar


@mistake("latent_sampled_backward", *SAMPLED_KL)
def gradient_through_z_and_divergence_overwritten(dz, dkl, cache):
    """z feeds the decoder and the divergence, and only the second gradient is kept."""
    return latent_sampled_backward(0 * dz, dkl, cache)


@mistake("free_bits_backward", "free bits")
def free_bits_ignored_in_backward(dkl, cache):
    """The loss has its floor, the gradient pulls on every dimension all the same."""
    return np.full(len(cache), dkl)


@mistake("VAE.gradient", IWAE_MODEL)
def fused_step_without_the_objective(model, x, eps, beta=1.0, objective="elbo", *args, **options):
    """The fast path of training knows the ELBO only."""
    return RIGHT["gradient"](model, x, eps, beta, "elbo", *args, **options)


@mistake("VAE.gradient", SAMPLES)
def fused_step_without_beta(model, x, eps, beta=1.0, *args, **options):
    """The fast path of training was not told of a new argument; forward and backward are right."""
    return RIGHT["gradient"](model, x, eps, 1.0, *args, **options)


@mistake("VAE.backward", SAMPLES)
def KL_averaged_over_latents(model, cache, dloss=1.0, out=None):
    """kl.mean() in the gradient, the sum over L in the loss."""
    nll, kl, beta = cache.bound
    return RIGHT["backward"](model, cache._replace(bound=(nll, kl, beta / model.n_latent)), dloss, out)


@mistake("VAE.backward", DEEP)
def middle_layer_not_trained(model, cache, dloss=1.0, out=None):
    """Gradients written out by hand for two layers; a third is silently left at zero."""
    grads = RIGHT["backward"](model, cache, dloss, out)
    grads["encoder.1.W"][:] = 0
    grads["encoder.1.b"][:] = 0
    return grads


@mistake("VAE.backward", PLAIN)
def bias_of_the_posterior_not_trained(model, cache, dloss=1.0, out=None):
    """The head's bias is left out of the update."""
    grads = RIGHT["backward"](model, cache, dloss, out)
    grads["posterior.b"][:] = 0
    return grads


@mistake("VAE.backward", PLAIN)
def key_missing(model, cache, dloss=1.0, out=None):
    """A parameter that was added later has no gradient at all."""
    grads = RIGHT["backward"](model, cache, dloss, out)
    del grads["likelihood.b"]
    return grads


@mistake("VAE.backward", PLAIN)
def gradients_accumulate(model, cache, dloss=1.0, out=None):
    """Gradients are added up, and nobody zeroes them between two steps."""
    totals = vars(model).setdefault("totals", {name: 0 for name in model.parameters})
    for name, grad in RIGHT["backward"](model, cache, dloss, out).items():
        totals[name] = totals[name] + grad
    return dict(totals)


@mistake("VAE.backward", SAMPLES)
def KL_divided_by_the_samples(model, cache, dloss=1.0, out=None):
    """1/S on everything: but the KL is in closed form and has no samples."""
    nll, kl, beta = cache.bound
    return RIGHT["backward"](model, cache._replace(bound=(nll, kl, beta * len(kl) / nll.size)), dloss, out)


@mistake("mlp_backward", DEEP)
def layers_not_reversed(dh, caches, need_dx=True):
    """Backward visits the layers in the order of forward."""
    dx, grads = mlp_backward(dh, caches[::-1], need_dx)
    return dx, grads[::-1]


@mistake("mlp_backward", SAMPLES)
def first_decoder_layer_passes_nothing_on(dh, caches, need_dx=True):
    """Every stack's first layer saves dx, the decoder's too, and the encoder is left without a gradient."""
    return mlp_backward(dh, caches, need_dx=False)


@mistake("VAE.backward", PLAIN)
def gradients_of_the_model_in_one_buffer(model, cache, dloss=1.0, out=None):
    """The model keeps one gradient vector: the gradients of the step before change under their owner."""
    buffer = vars(model).setdefault("buffer", np.empty_like(model.theta))
    return RIGHT["backward"](model, cache, dloss, buffer)


@mistake("VAE.backward", PLAIN)
def out_ignored(model, cache, dloss=1.0, out=None):
    """The buffer is accepted, and a fresh one is filled."""
    return RIGHT["backward"](model, cache, dloss)


# ------------------------------------------------------------------------------- probability: forward and backward agree


@probability_mistake(SAMPLES)
def KL_averaged_over_latents_in_both():
    """kl.mean() in loss and gradient: what is called ELBO can exceed log p(x)."""

    def forward(model, x, eps, beta=1.0, *args, **options):
        return RIGHT["forward"](model, x, eps, beta / model.n_latent, *args, **options)

    return {"VAE.forward": forward}


@probability_mistake(*IWAE)
def number_of_samples_not_divided_out():
    """log Σ w for log 1/S Σ w, the forgotten −log S: the bound exceeds log p(x)."""

    def forward(nll, kl, beta):
        loss, cache = iwae_forward(nll, kl, beta)
        return loss - np.log(len(nll)), cache

    return {"iwae_forward": forward}


@probability_mistake(*SAMPLED_KL)
def divergence_of_samples_without_their_noise():
    """The log-density of q without −½ eps²: the mean over samples is not the KL."""

    def forward(z, logvar, eps):
        kl, cache = sampled_kl_forward(z, logvar, eps)
        return kl + 0.5 * eps * eps, cache

    return {"sampled_kl_forward": forward}
