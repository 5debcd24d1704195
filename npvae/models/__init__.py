"""The models: one file each, on the same ops. A new model is its file and its import line here."""

from npvae.models.adversarial import GAN
from npvae.models.autoencoder import Autoencoder
from npvae.models.boltzmann import BoltzmannMachine
from npvae.models.conv_vae import ConvolutionalVAE
from npvae.models.cvae import ConditionalVAE
from npvae.models.diffusion import Diffusion
from npvae.models.drift import Drift
from npvae.models.energy import EnergyModel
from npvae.models.flow import Flow
from npvae.models.hierarchical import HierarchicalVAE
from npvae.models.path_posterior import PathPosterior
from npvae.models.vae import VAE


def classes():
    """name -> class of every model."""
    return {name: value for name, value in globals().items() if isinstance(value, type) and hasattr(value, "Terms")}
