"""The variational autoencoder: `VAE.forward` and, in mirrored order, `VAE.backward`.

    x ─ encoder ─▶ posterior ─(+eps) latent ─▶ z ─ decoder ─▶ output ─ nll ─▶ nll
                                     └─▶ kl ──────────────────────────────────┴─ bound ─▶ loss

Training calls `VAE.gradient`: on the back end "numba" one compiled call (`npvae.kernels.vae`) that equals forward, then
backward; a test holds the two together. Shapes: B batch, D data (n_features), L latent (n_latent), S samples per datum.
"""

from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.numerics import accumulator
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, evaluate, objectives, saved
from npvae.models.objectives import Objective, objective_ops
from npvae.models.protocol import Example
from npvae.ops.latent import clipped_share
from npvae.ops.likelihood import bernoulli_mean

LIKELIHOODS = ("bernoulli", "gaussian")


class Terms(NamedTuple):
    """The loss and its parts in nats, summed over dimensions, mean over the batch (and over samples)."""

    loss: float  # nll + beta * kl, −ELBO for beta = 1; of the objective "iwae" its bound, which is at most that
    nll: float
    kl: float  # in closed form; of "iwae" the mean over its samples
    clipped: float  # share of the posterior's log-variances that were clipped, 0 to 1


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the objective, and the caches of its ops."""

    objective: Objective
    encoder: list
    latent: tuple
    decoder: list
    nll: tuple
    bound: tuple


class VAE:
    """A variational autoencoder with diagonal Gaussian posterior and prior N(0, I). Kingma & Welling 2013.

    n_features       D, width of the data
    n_latent         L, width of z
    hidden           widths of the encoder's hidden layers; may be empty
    activation       "relu", "tanh", "sigmoid", "softplus" or "silu", of every hidden layer
    likelihood       "bernoulli" (x in [0, 1], logits) or "gaussian" (mean, with fixed standard deviation sigma)
    backend          "numba" (compiled ops) or "numpy" (the ops as they read)
    dtype            "float32" to train, "float64" to check, "complex128" for the complex step
    seed             of the initial weights; biases start at 0
    decoder_hidden   widths of the decoder's hidden layers, the mirrored `hidden` if None
    initialization   of the weights: "glorot" (uniform), or "he" (normal), made for relu

    `theta` is the flat vector of every parameter, `parameters` maps names to its views. Raises ValueError for what cannot
    be: unknown names, sizes below 1 or of more than 2^31 parameters.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "nats per datum"
    terms_help = {"loss": "what is minimised", "nll": "reconstruction", "kl": "posterior against prior",
                  "clipped": "share of log-variances clipped"}  # fmt: skip
    options = (
        Option("latent", 2, "dimensions of the latent z", options.integer(1), "n_latent", metavar="L"),
        Option("hidden", [256], "widths of the encoder's hidden layers, which the decoder mirrors; none for a linear model",
               options.integer(1), metavar="H", many=True),
        common.ACTIVATION,
        Option("likelihood", "bernoulli", "bernoulli, for data in [0, 1] (grey levels are binarised afresh for every "
               "minibatch), or gaussian, with fixed --sigma", options.one_of(*LIKELIHOODS), metavar="K", choices=LIKELIHOODS),
        Option("sigma", 0.1, "standard deviation of the gaussian likelihood, in units of the data", options.positive,
               metavar="S"),
        common.INITIALIZATION,
        Option("output_bias", False, "start the output's bias at the data's mean", options.flag, "set_output_bias", "start"),
        *objectives.OPTIONS,
    )  # fmt: skip

    def __init__(self, n_features, n_latent=2, hidden=(400,), activation="relu", likelihood="bernoulli", backend="numba",
                 dtype="float32", seed=0, decoder_hidden=None, sigma=0.1, initialization="glorot"):  # fmt: skip
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_latent = checks.integer("n_latent", n_latent, 1)
        self.hidden = common.widths_of("hidden", hidden)
        decoder_hidden = self.hidden[::-1] if decoder_hidden is None else decoder_hidden
        self.decoder_hidden = common.widths_of("decoder_hidden", decoder_hidden)
        self.likelihood, self.sigma = likelihood, checks.number("sigma", sigma, 0, exclusive=True)
        shapes = self.shapes(self.n_features, self.n_latent, self.hidden, self.decoder_hidden)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)

    @staticmethod
    def shapes(n_features, n_latent=2, hidden=(400,), decoder_hidden=None, **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        decoder_hidden = common.widths_of("decoder_hidden", hidden[::-1] if decoder_hidden is None else decoder_hidden)
        encoder = [*(f"encoder.{i}" for i in range(len(hidden))), "posterior"]
        decoder = [*(f"decoder.{i}" for i in range(len(decoder_hidden))), "likelihood"]
        widths_in = [n_features, *hidden, n_latent, *decoder_hidden]
        widths_out = [*hidden, 2 * n_latent, *decoder_hidden, n_features]
        return dense_shapes(dict(zip(encoder + decoder, zip(widths_in, widths_out))))

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, eps, beta=1.0, objective="elbo", n_samples=None, free_bits_per_dimension=0.0, free_bits_total=0.0,
                check=True):  # fmt: skip
        """Loss of a batch: mean over the batch of nll + beta kl, or another bound on −log p(x).

        x (B, D); eps (B, L) standard normal noise, or (S, B, L) for S samples per datum (n_samples is a setting of `draw`);
        beta the weight of the KL (Higgins et al. 2017; 1 gives −ELBO), a number or one for each latent dimension, (L,);
        objective "elbo", with nll averaged over the samples (`bounds.elbo_forward`), or "iwae", the importance-weighted bound
        (`bounds.iwae_forward`); free bits as in `bounds.free_bits_forward`. Returns Terms and the cache for `backward`, which
        refers to x, eps and theta: call backward before they change. check=False skips the validation of the arguments.
        """
        if check:
            (x,), eps = self.check(x), self.check_noise(eps, len(x))
            free = {"free_bits_per_dimension": free_bits_per_dimension, "free_bits_total": free_bits_total}
            self.check_settings(objective=objective, **free)
        eps = eps[None] if objective == "iwae" and eps.ndim == 2 else eps
        ops = objective_ops(self.ops, objective, free_bits_per_dimension, free_bits_total)

        posterior, encoder_cache = self.ops.mlp_forward(x, self.encoder)  # (B, D) -> (B, 2L)
        (z, kl), latent_cache = ops.latent_forward(posterior, eps)  # (B, 2L) -> (S, B, L), (B, L) or (S, B, L)
        z = z.reshape(-1, self.n_latent)  # -> (S B, L)
        output, decoder_cache = self.ops.mlp_forward(z, self.decoder)  # (S B, L) -> (S B, D)
        output = output.reshape(*eps.shape[:-1], self.n_features)  # -> (S, B, D)
        nll, nll_cache = self.nll_forward(output, x)  # (S, B, D), (B, D) -> (S, B)
        loss, bound_cache = ops.bound_forward(nll, kl, beta)

        mean_kl = kl.sum(axis=-1, dtype=accumulator(kl)).mean()
        terms = Terms(loss.item(), nll.mean().item(), mean_kl.item(), clipped_share(posterior))
        return terms, Cache(ops, encoder_cache, latent_cache, decoder_cache, nll_cache, bound_cache)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        ops = cache.objective
        dnll, dkl = ops.bound_backward(dloss, cache.bound)  # -> (S, B), (B, L) or (S, B, L)
        doutput = self.nll_backward(dnll, cache.nll)  # (S, B) -> (S, B, D)
        doutput = doutput.reshape(-1, self.n_features)  # -> (S B, D)
        dz, decoder_grads = self.ops.mlp_backward(doutput, cache.decoder)  # (S B, D) -> (S B, L)
        dz = dz.reshape(*dnll.shape, self.n_latent)  # -> (S, B, L)
        dposterior = ops.latent_backward(dz, dkl, cache.latent)  # (S, B, L), (B, L) -> (B, 2L)
        _, encoder_grads = self.ops.mlp_backward(dposterior, cache.encoder, need_dx=False)

        return common.laid_out(self, encoder_grads + decoder_grads, out)

    def gradient(self, x, eps, beta=1.0, objective="elbo", n_samples=None, free_bits_per_dimension=0.0, free_bits_total=0.0,
                 dloss=1.0, out=None, workspace=None):  # fmt: skip
        """`forward`, then `backward`, in one call that need not keep what is between them: what a training step uses.

        Arguments as in forward and backward, not checked; out (P,) gets the gradient; workspace: a `workspace` to be used
        again. Returns Terms and a number that no square of an entry of the gradient exceeds.
        """
        out = np.empty_like(self.theta) if out is None else out
        free_bits = free_bits_per_dimension, free_bits_total
        if not hasattr(self.ops, "vae_gradient") or self.dtype.kind == "c" or any(free_bits):
            with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
                terms, cache = self.forward(x, eps, beta, objective, n_samples, *free_bits, check=False)
                self.backward(cache, dloss, out)
                return terms, np.dot(out, out)
        workspace = self.workspace(len(x), len(eps) if eps.ndim == 3 else 1) if workspace is None else workspace
        likelihood = self.likelihood, self.sigma**2
        *terms, bound = self.ops.vae_gradient(self.theta, x, eps, beta, objective, *likelihood, dloss, out, workspace)
        return Terms(*terms), bound

    def workspace(self, n_rows, n_samples=1, **_):
        """Buffers for `gradient` of at most n_rows rows with n_samples samples each; None where the back end has none."""
        make = getattr(self.ops, "vae_workspace", None)
        return make and make(self.encoder, self.decoder, n_rows, n_samples)

    @property
    def encoder(self):
        """The encoder's layers, (W, b, activation) each, as `ops.mlp_forward` takes them."""
        names = [*(f"encoder.{i}" for i in range(len(self.hidden))), "posterior"]
        return common.dense_layers(self.parameters, names, self.activation)

    @property
    def decoder(self):
        """The decoder's layers."""
        names = [*(f"decoder.{i}" for i in range(len(self.decoder_hidden))), "likelihood"]
        return common.dense_layers(self.parameters, names, self.activation)

    nll_forward, nll_backward = common.nll_forward, common.nll_backward

    # ------------------------------------------------------------------------------------------------------- training

    def draw(self, rng, x, n_samples=1, **_):
        """The noise of a step, standard normal eps (S, B, L)."""
        return rng.standard_normal((n_samples, len(x), self.n_latent), self.theta.real.dtype)

    check_settings = staticmethod(objectives.check_settings)
    validation_settings = staticmethod(objectives.validation_settings)
    couples_rows, join = staticmethod(objectives.couples_rows), staticmethod(objectives.join)

    data_kind = property(common.data_kind_of)

    def set_output_bias(self, x):
        """Set likelihood.b so that the decoder's output is the mean of the rows x (n, D) where z says nothing.

        Bernoulli: the logit of (k + 1)/(n + 2), k the sum over the n rows, Laplace's rule, which is finite where a pixel is
        always black. Gaussian: the mean itself.
        """
        (x,) = self.check(x)
        mean, n = x.mean(axis=0, dtype=np.float64), len(x)  # (D,)
        if self.likelihood == "bernoulli":
            mean = np.log((n * mean + 1) / (n * (1 - mean) + 1))
        self.parameters["likelihood.b"] = mean

    # ----------------------------------------------------------------------------------------- using a trained model

    def encode(self, x):
        """Parameters of q(z|x): x (B, D) -> mu (B, L), logvar (B, L), the latter clipped to [−30, 20]."""
        posterior, _ = self.ops.mlp_forward(self.check(x)[0], self.encoder)  # (B, D) -> (B, 2L)
        (mu, logvar), _ = self.ops.posterior_forward(posterior)
        return mu.copy(), logvar

    def decode(self, z):
        """E[x|z]: z (B, L) -> (B, D); for the Bernoulli likelihood the probability of a one."""
        z = checks.converted("z", checks.real_array("z", z, n_columns=self.n_latent), self.dtype)
        output = self.decoder_output(z)  # (B, L) -> (B, D)
        return bernoulli_mean(output) if self.likelihood == "bernoulli" else output

    def reconstruct(self, x):
        """E[x|z] at the posterior mean z = mu(x): (B, D) -> (B, D)."""
        mu, _ = self.encode(x)
        return self.decode(mu)

    def sample(self, n, rng=None):
        """E[x|z] for n draws of z ~ N(0, I), (n, D); rng is a Generator or a seed."""
        rng = np.random.default_rng(rng)
        return self.decode(rng.standard_normal((checks.integer("n", n, 1), self.n_latent)))

    def decoder_output(self, z):
        """The likelihood's parameters at z (B, L) of the model's dtype, unchecked: logits or means, (B, D)."""
        return self.ops.mlp_forward(z, self.decoder)[0]

    def log_likelihood(self, x, n_samples=100, rng=None):
        """Importance-weighted estimate of log p(x), (B,) in nats: `npvae.evaluate.log_likelihood`."""
        return evaluate.log_likelihood(self, x, n_samples, rng)

    def measure(self, x, n_samples=100, seed=0, progress=False):
        """Everything `npvae evaluate` tells of a model on rows x (n, D): Measures."""
        return evaluate.measures(self, x, n_samples, seed, progress)

    def pictures(self, plots, x, dataset):
        """The pictures of a run: (file name, what it shows, Figure) each; x (n, D) are the validation rows of the dataset."""
        return plots.latent_variable_pictures(self, x, dataset, evaluate.kl_per_dimension(self, x))

    @classmethod
    def examples(cls, backend):
        """Depths 0 to 3, every activation, both likelihoods and objectives, one and several rows and samples."""
        rng = np.random.default_rng(3)

        def example(n_features, hidden, activation, likelihood, B, p=0.5, note="", **settings):
            model = cls(n_features, 2, hidden, activation, likelihood, backend, "float64", seed=4, sigma=0.5)
            shape = (2 * B, n_features)
            x = (rng.random(shape) < p).astype(float) if likelihood == "bernoulli" else rng.standard_normal(shape)
            widths = "-".join(map(str, [n_features, *hidden, 2]))
            name = f"{backend} VAE {widths} {activation} {likelihood}{note}, B {B}, S {settings.get('n_samples', 1)}"
            return Example(name, model, (x,), settings)

        yield example(40, (110,), "relu", "bernoulli", 5, p=0.15)  # 15 % ones: products over the non-zeros
        for likelihood in LIKELIHOODS:
            yield example(7, (), "relu", likelihood, 1)
            yield example(7, (6,), "relu", likelihood, 4)
            yield example(7, (6,), "tanh", likelihood, 3, n_samples=4, beta=0.5)
            yield example(7, (6, 4), "sigmoid", likelihood, 3, beta=2.0)
            yield example(7, (6, 4), "softplus", likelihood, 4)
            yield example(7, (5, 4, 3), "silu", likelihood, 3, n_samples=2)
            yield example(7, (5, 4, 3), "relu", likelihood, 3)
            for hidden, S, beta in [((6,), 4, 2.0), ((5, 4, 3), 1, 1.0)]:
                yield example(7, hidden, "tanh", likelihood, 3, note=" iwae", objective="iwae", n_samples=S, beta=beta)
            yield example(7, (6,), "tanh", likelihood, 4, note=" free bits", free_bits_per_dimension=0.1, beta=0.5)
            yield example(7, (6,), "tanh", likelihood, 4, note=" free bits in total", free_bits_total=0.3)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def check_noise(self, eps, n_rows):
        """eps (B, L) or (S, B, L) as a C-contiguous array of the model's (real) dtype, or ValueError."""
        eps = checks.real_array("eps", eps, ndims=(2, 3), n_columns=self.n_latent)
        if eps.shape[-2] != n_rows:
            raise ValueError(f"eps must have one row for each of the {n_rows} rows of x; got shape {eps.shape}")
        return checks.converted("eps", eps, self.dtype)

    @property
    def widths(self):
        """The widths of all layers, as in "784-400-20-400-784"."""
        widths = [self.n_features, *self.hidden, self.n_latent, *self.decoder_hidden, self.n_features]
        return "-".join(map(str, widths))

    def __repr__(self):
        return (
            f"VAE({self.widths}, {self.activation}, {self.likelihood}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )
