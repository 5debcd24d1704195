"""The mathematics: pairs of pure functions, forward and backward side by side, in NumPy.

This module is the table of ops of the back end "numpy": a model calls `ops.latent_forward`, where `ops` is this module or
`npvae.kernels`, which has the same names. To be read in the order layers, mlp, latent, likelihood, bounds.
"""

from npvae.ops.binarize import binarize
from npvae.ops.boltzmann import (
    binary_free_energy_backward,
    binary_free_energy_forward,
    gaussian_free_energy_backward,
    gaussian_free_energy_forward,
    gibbs,
)
from npvae.ops.convolution import filter_backward, filter_forward
from npvae.ops.coupling import (
    coupling_backward,
    coupling_forward,
    coupling_inverse,
    standard_normal_nll_backward,
    standard_normal_nll_forward,
    standardize_backward,
    standardize_forward,
    standardize_inverse,
)
from npvae.ops.discrete import (
    beta_binomial_from_moments,
    beta_binomial_mean,
    beta_binomial_nll_backward,
    beta_binomial_nll_forward,
    beta_binomial_sample,
    beta_binomial_variance,
    categorical_mean,
    categorical_nll_backward,
    categorical_nll_forward,
    categorical_sample,
    categorical_variance,
)
from npvae.ops.energy import energy_chain, score_backward, score_forward
from npvae.ops.full_posterior import (
    full_latent_backward,
    full_latent_forward,
    full_latent_sampled_backward,
    full_latent_sampled_forward,
    full_posterior_backward,
    full_posterior_forward,
    full_posterior_width,
    marginal_logvar,
)
from npvae.ops.gaussian_kl import (
    full_pair_kl_backward,
    full_pair_kl_forward,
    pair_kl_backward,
    pair_kl_forward,
    pair_sampled_kl_backward,
    pair_sampled_kl_forward,
)
from npvae.ops.gaussian_likelihoods import (
    gaussian_global_nll_backward,
    gaussian_global_nll_forward,
    gaussian_learned_nll_backward,
    gaussian_learned_nll_forward,
    gaussian_parameters,
    gaussian_sample,
    optimal_variance,
)
from npvae.ops.joining import join_backward, join_forward, joined
from npvae.ops.latent import (
    clipped_share,
    latent_backward,
    latent_forward,
    latent_sampled_backward,
    latent_sampled_forward,
    posterior_backward,
    posterior_forward,
)
from npvae.ops.layers import ACTIVATIONS, dense_backward, dense_forward
from npvae.ops.learned_prior import (
    prior_latent_backward,
    prior_latent_forward,
    prior_latent_sampled_backward,
    prior_latent_sampled_forward,
)
from npvae.ops.likelihood import (
    bernoulli_mean,
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from npvae.ops.mlp import mlp_backward, mlp_forward
from npvae.ops.partition import anneal, enumerated_log_partition
from npvae.ops.pixel_mixture import pixel_mixture_backward, pixel_mixture_forward
from npvae.ops.updates import adagrad_step, adam_step, momentum_step, rmsprop_step, sgd_step
