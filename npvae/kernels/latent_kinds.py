"""The row loops between the encoder's output and z, of each kind of posterior and objective, with one signature for all."""

from npvae.kernels import full_posterior, latent
from npvae.kernels.compile import inlined
from npvae.kernels.learned_prior import (
    prior_latent_rows_backward,
    prior_latent_rows_forward,
    prior_latent_sampled_rows_backward,
    prior_latent_sampled_rows_forward,
)

SCRATCH = 3  # arrays (B, L) that a latent_forward leaves for its latent_backward


def latent_kernels(posterior, objective):
    """latent_forward(posterior, prior, eps, z, kl, scratch) and latent_backward(dz, dkl, posterior, prior, eps, z, scratch,
    dposterior, dprior) of `gradient_kernel`: the row loops of a kind of posterior, with one signature for all."""
    if posterior == "prior":
        return prior_latent_kernels(objective)
    diagonal = posterior == "diagonal"
    if objective == "iwae":
        rows_forward = latent.latent_sampled_rows_forward if diagonal else full_posterior.full_latent_sampled_rows_forward
        rows_backward = latent.latent_sampled_rows_backward if diagonal else full_posterior.full_latent_sampled_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, eps, z, kl, scratch[0])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl, posterior, eps, z, scratch[0], dposterior)
    else:
        rows_forward = latent.latent_rows_forward if diagonal else full_posterior.full_latent_rows_forward
        rows_backward = latent.latent_rows_backward if diagonal else full_posterior.full_latent_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, eps, z, kl[0], scratch[0], scratch[1])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl[0], posterior, eps, scratch[0], scratch[1], dposterior)

    return inlined(_forward), inlined(_backward)


def prior_latent_kernels(objective):
    """`latent_kernels` of a diagonal posterior against a learned prior."""
    if objective == "iwae":
        rows_forward, rows_backward = prior_latent_sampled_rows_forward, prior_latent_sampled_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, prior, eps, z, kl, scratch[0], scratch[1])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl, posterior, prior, eps, z, scratch[0], scratch[1], dposterior, dprior)
    else:
        rows_forward, rows_backward = prior_latent_rows_forward, prior_latent_rows_backward

        def _forward(posterior, prior, eps, z, kl, scratch):
            rows_forward(posterior, prior, eps, z, kl[0], scratch[0], scratch[1], scratch[2])

        def _backward(dz, dkl, posterior, prior, eps, z, scratch, dposterior, dprior):
            rows_backward(dz, dkl[0], posterior, prior, eps, scratch[0], scratch[1], scratch[2], dposterior, dprior)

    return inlined(_forward), inlined(_backward)
