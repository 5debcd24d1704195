"""The mathematics: pairs of pure functions, forward and backward side by side, in NumPy.

This module is the table of ops of the back end "numpy": a model calls `ops.latent_forward`, where `ops` is this module or
`npvae.kernels`, which has the same names. To be read in the order layers, mlp, latent, likelihood, bounds.
"""

from npvae.ops.binarize import binarize
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
from npvae.ops.likelihood import (
    bernoulli_mean,
    bernoulli_nll_backward,
    bernoulli_nll_forward,
    gaussian_nll_backward,
    gaussian_nll_forward,
)
from npvae.ops.mlp import mlp_backward, mlp_forward
from npvae.ops.updates import adagrad_step, adam_step, momentum_step, rmsprop_step, sgd_step
