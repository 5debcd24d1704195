"""The same ops compiled with Numba: the table of ops of the back end "numba".

This module has every name of `npvae.ops`, with the same signature; an op that gains nothing by being compiled is that of
`npvae.ops` itself. Of this table alone are the gradients in one call of a VAE, of a chain of VAEs, of a diffusion, of
a Boltzmann machine and of a drift, `vae_gradient` and so on, and their buffers, `vae_workspace` and so on.
"""
# ruff: noqa: I001

from npvae.ops import *  # the whole table first, then the compiled ops in their places

from npvae.kernels.binarize import binarize
from npvae.kernels.boltzmann import (
    binary_free_energy_backward,
    binary_free_energy_forward,
    boltzmann_gradient,
    boltzmann_workspace,
    gaussian_free_energy_backward,
    gaussian_free_energy_forward,
    gibbs,
)
from npvae.kernels.chains import chain_gradient, chain_workspace
from npvae.kernels.convolution import filter_backward, filter_forward
from npvae.kernels.diffusion import diffusion_gradient, diffusion_workspace
from npvae.kernels.discrete import (
    beta_binomial_nll_backward,
    beta_binomial_nll_forward,
    categorical_nll_backward,
    categorical_nll_forward,
)
from npvae.kernels.drift import drift_gradient, drift_walk, drift_workspace
from npvae.kernels.energy import energy_chain, score_backward, score_forward
from npvae.kernels.full_posterior import (
    full_latent_backward,
    full_latent_forward,
    full_latent_sampled_backward,
    full_latent_sampled_forward,
)
from npvae.kernels.gaussian_likelihoods import (
    gaussian_global_nll_backward,
    gaussian_global_nll_forward,
    gaussian_learned_nll_backward,
    gaussian_learned_nll_forward,
)
from npvae.kernels.latent import (
    clipped_share,
    latent_backward,
    latent_forward,
    latent_sampled_backward,
    latent_sampled_forward,
)
from npvae.kernels.layers import dense_backward, dense_forward
from npvae.kernels.learned_prior import (
    prior_latent_backward,
    prior_latent_forward,
    prior_latent_sampled_backward,
    prior_latent_sampled_forward,
)
from npvae.kernels.likelihood import (
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from npvae.kernels.mlp import mlp_backward, mlp_forward
from npvae.kernels.partition import anneal, enumerated_log_partition
from npvae.kernels.pixel_mixture import pixel_mixture_backward, pixel_mixture_forward
from npvae.kernels.updates import adagrad_step, adam_step, momentum_step, rmsprop_step, sgd_step
from npvae.kernels.vae import vae_gradient, vae_workspace

import npvae.kernels.bit_swap  # and bits_back, beside the table: else the files of ops that came with it would stand for them
