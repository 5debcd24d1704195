"""A plain autoencoder: the VAE without noise and without a prior. Its linear case is principal component analysis.

    x ─ encoder ─▶ z ─ decoder ─▶ output ─ nll ─▶ loss

The loss is the VAE's nll at z = encoder(x). Nothing says how z is distributed, so there is nothing to sample z from: that is
what the VAE adds (lectures (2025), "VAEs versus autoencoders"). Rumelhart, Hinton & Williams 1986; Baldi & Hornik 1989 for the
linear case. Shapes: B batch, D data (n_features), L latent (n_latent).
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, ppca, saved
from npvae.models.likelihoods import likelihood_called
from npvae.models.protocol import Example, Measure

LIKELIHOODS = ("gaussian", "bernoulli")


class Terms(NamedTuple):
    """Mean over the batch, summed over dimensions."""

    loss: float  # −log p(x|z) in nats: for the gaussian likelihood squared_error/2σ² and a constant
    squared_error: float  # Σ_d (x − E[x|z])², in squared units of the data


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the caches of its ops, and the number of rows."""

    encoder: list
    decoder: list
    nll: tuple
    n_rows: int


class Autoencoder:
    """An autoencoder with n_latent numbers between encoder and decoder.

    likelihood "gaussian" (squared error, with sigma the unit of the error) or "bernoulli" (x in [0, 1], logits); the others as
    those of `npvae.VAE`. Parameters: encoder.0.W ... code.W, code.b, decoder.0.W ... output.W, output.b.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "nats per datum"
    terms_help = {"loss": "−log p(x|z)", "squared_error": "squared units of the data"}
    options = (
        Option("latent", 2, "dimensions of the code z", options.integer(1), "n_latent", metavar="L"),
        Option("hidden", [256], "widths of the encoder's hidden layers, which the decoder mirrors; none for principal "
               "component analysis", options.integer(1), metavar="H", many=True),
        common.ACTIVATION,
        Option("likelihood", "gaussian", "gaussian: squared error; bernoulli: cross entropy, for data in [0, 1]",
               options.one_of(*LIKELIHOODS), metavar="K", choices=LIKELIHOODS),
        Option("sigma", 1.0, "unit of the error of the gaussian likelihood", options.positive, metavar="S"),
        common.INITIALIZATION,
    )  # fmt: skip

    def __init__(self, n_features, n_latent=2, hidden=(400,), activation="relu", likelihood="gaussian", backend="numba",
                 dtype="float32", seed=0, sigma=1.0, initialization="glorot"):  # fmt: skip
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_latent = checks.integer("n_latent", n_latent, 1)
        self.hidden = common.widths_of("hidden", hidden)
        self.likelihood, self.sigma = likelihood, checks.number("sigma", sigma, 0, exclusive=True)
        self.p_x_given_z = likelihood_called(likelihood, self.sigma)
        shapes = self.shapes(self.n_features, self.n_latent, self.hidden)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)

    @staticmethod
    def shapes(n_features, n_latent=2, hidden=(400,), **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        widths, n = [n_features, *hidden, n_latent, *hidden[::-1], n_features], len(hidden)
        names = [*(f"encoder.{i}" for i in range(n)), "code", *(f"decoder.{i}" for i in range(n)), "output"]
        return dense_shapes(dict(zip(names, pairwise(widths))))

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, noise=None):
        """Loss of a batch x (B, D): Terms and the cache for `backward`. There is no noise."""
        (x,) = self.check(x)
        z, encoder_cache = self.ops.mlp_forward(x, self.encoder)  # (B, D) -> (B, L)
        output, decoder_cache = self.ops.mlp_forward(z, self.decoder)  # (B, L) -> (B, D)
        nll, nll_cache = self.nll_forward(output, x)  # (B, D), (B, D) -> (B,)
        loss = nll.mean()

        residual = self.p_x_given_z.mean(output) - x
        squared_error = (residual * residual).sum() / len(x)
        return Terms(loss.item(), squared_error.item()), Cache(encoder_cache, decoder_cache, nll_cache, len(x))

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter, as that of `npvae.VAE.backward`."""
        dnll = np.full(cache.n_rows, dloss / cache.n_rows)  # 1/B enters the gradient here
        doutput, _ = self.nll_backward(dnll, cache.nll)  # (B,) -> (B, D)
        dz, decoder_grads = self.ops.mlp_backward(doutput, cache.decoder)  # (B, D) -> (B, L)
        _, encoder_grads = self.ops.mlp_backward(dz, cache.encoder, need_dx=False)

        return common.laid_out(self, encoder_grads + decoder_grads, out)

    @property
    def encoder(self):
        """The encoder's layers, as `ops.mlp_forward` takes them."""
        return common.layers_called(self, "encoder", self.hidden, "code")

    @property
    def decoder(self):
        """The decoder's layers."""
        return common.layers_called(self, "decoder", self.hidden, "output")

    nll_forward, nll_backward = common.nll_forward, common.nll_backward

    # --------------------------------------------------------------------------------------------- training and using

    def draw(self, rng, x):
        """No noise."""
        return None

    data_kind = property(lambda self: self.p_x_given_z.data_kind)

    def encode(self, x):
        """The code: x (B, D) -> z (B, L)."""
        return self.ops.mlp_forward(self.check(x)[0], self.encoder)[0]

    def decode(self, z):
        """E[x|z]: z (B, L) -> (B, D)."""
        z = checks.converted("z", checks.real_array("z", z, n_columns=self.n_latent), self.dtype)
        return self.p_x_given_z.mean(self.ops.mlp_forward(z, self.decoder)[0])

    def reconstruct(self, x):
        """decode(encode(x)): (B, D) -> (B, D)."""
        return self.decode(self.encode(x))

    def measure(self, x, n_samples=None, seed=0, progress=False):
        """The errors on rows x (n, D), beside those of principal component analysis of the same rows, as Measures."""
        (x,) = self.check(x)
        terms, _ = self.forward(x)
        n_components = min(self.n_latent, self.n_features)
        _, _, variances = ppca.principal_components(x, n_components)
        note = f"of the best {n_components} linear dimensions for these very rows"
        return [
            Measure("nll", terms.loss, "nats", "−log p(x|z)"),
            Measure("squared_error", terms.squared_error, "x²", "Σ_d (x_d − E[x_d|z])², in squared units of the data"),
            Measure("pca_squared_error", float(variances[n_components:].sum()), "x²", note),
        ]

    def pictures(self, plots, x, dataset):
        """The pictures of a run: (file name, what it shows, Figure) each."""
        return plots.latent_variable_pictures(self, x, dataset)

    @classmethod
    def examples(cls, backend):
        """Depths 0 to 3, both likelihoods, one and several rows."""
        rng = np.random.default_rng(3)
        for likelihood in LIKELIHOODS:
            for hidden, activation, B in [((), "relu", 1), ((6,), "tanh", 4), ((5, 4, 3), "silu", 3)]:
                model = cls(7, 2, hidden, activation, likelihood, backend, "float64", seed=4, sigma=0.5)
                shape = (2 * B, 7)
                x = (rng.random(shape) < 0.5).astype(float) if likelihood == "bernoulli" else rng.standard_normal(shape)
                widths = "-".join(map(str, [7, *hidden, 2]))
                yield Example(f"{backend} Autoencoder {widths} {activation} {likelihood}, B {B}", model, (x,), {})

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def __repr__(self):
        widths = "-".join(map(str, [self.n_features, *self.hidden, self.n_latent, *self.hidden[::-1], self.n_features]))
        return (
            f"Autoencoder({widths}, {self.activation}, {self.likelihood}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )
