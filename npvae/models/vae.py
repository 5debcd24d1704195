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
from npvae.models import common, evaluate, latent_variable, objectives, saved
from npvae.models.likelihoods import LIKELIHOODS, SMALLEST_SIGMA, likelihood_called
from npvae.models.objectives import Objective, objective_ops
from npvae.models.protocol import Example
from npvae.ops.full_posterior import full_posterior_width
from npvae.ops.latent import clipped_share

POSTERIORS = ("diagonal", "full")


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
    """A variational autoencoder with a Gaussian posterior and the prior N(0, I). Kingma & Welling 2013.

    n_features       D, width of the data
    n_latent         L, width of z
    hidden           widths of the encoder's hidden layers; may be empty
    activation       "relu", "tanh", "sigmoid", "softplus" or "silu", of every hidden layer
    likelihood       p(x|z): "bernoulli" (x in [0, 1]); "gaussian" (real x, with the fixed standard deviation sigma),
                     "gaussian_global" (with one learned variance), "gaussian_learned" (with one for each dimension, from the
                     decoder); "categorical" or "beta_binomial" (grey levels 0 to 255): see `npvae.models.likelihoods`
    backend          "numba" (compiled ops) or "numpy" (the ops as they read)
    dtype            "float32" to train, "float64" to check, "complex128" for the complex step
    seed             of the initial weights; biases start at 0
    decoder_hidden   widths of the decoder's hidden layers, the mirrored `hidden` if None
    sigma            of the likelihood "gaussian", in units of the data
    initialization   of the weights: "glorot" (uniform), or "he" (normal), made for relu
    min_sigma        the smallest standard deviation that "gaussian_global" and "gaussian_learned" may learn (e^10 is the
                     largest); where it is reached its gradient is 0
    posterior        q(z|x): "diagonal" covariance, or "full", by its Cholesky factor

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
               "minibatch); gaussian, with fixed --sigma; gaussian_global, with one learned variance; gaussian_learned, with "
               "one for each dimension; beta_binomial or categorical, for the grey levels 0 to 255 of uint8 data",
               options.one_of(*LIKELIHOODS), metavar="K", choices=LIKELIHOODS),
        Option("sigma", 0.1, "standard deviation of the gaussian likelihood, in units of the data", options.positive,
               metavar="S"),
        Option("min_sigma", SMALLEST_SIGMA, "smallest standard deviation that gaussian_global and gaussian_learned may learn, "
               "in units of the data: without one, a pixel that never varies has a loss without bound", options.positive,
               metavar="S"),
        Option("posterior", "diagonal", "covariance of q(z|x): diagonal, or full", options.one_of(*POSTERIORS), metavar="Q",
               choices=POSTERIORS),
        common.INITIALIZATION,
        Option("output_bias", False, "start the output's bias at the data's mean", options.flag, "set_output_bias", "start"),
        *objectives.OPTIONS,
    )  # fmt: skip

    def __init__(self, n_features, n_latent=2, hidden=(400,), activation="relu", likelihood="bernoulli", backend="numba",
                 dtype="float32", seed=0, decoder_hidden=None, sigma=0.1, initialization="glorot", min_sigma=SMALLEST_SIGMA,
                 posterior="diagonal"):  # fmt: skip
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        checks.choice("posterior", posterior, POSTERIORS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_latent = checks.integer("n_latent", n_latent, 1)
        self.hidden = common.widths_of("hidden", hidden)
        decoder_hidden = self.hidden[::-1] if decoder_hidden is None else decoder_hidden
        self.decoder_hidden = common.widths_of("decoder_hidden", decoder_hidden)
        self.likelihood, self.posterior = likelihood, posterior
        self.sigma = checks.number("sigma", sigma, 0, exclusive=True)
        self.min_sigma = checks.number("min_sigma", min_sigma, 0, exclusive=True)
        self.p_x_given_z = likelihood_called(likelihood, self.sigma, self.min_sigma)
        shapes = self.shapes(self.n_features, self.n_latent, self.hidden, self.decoder_hidden, likelihood, posterior)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)

    @staticmethod
    def shapes(n_features, n_latent=2, hidden=(400,), decoder_hidden=None, likelihood="bernoulli", posterior="diagonal", **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        decoder_hidden = common.widths_of("decoder_hidden", hidden[::-1] if decoder_hidden is None else decoder_hidden)
        encoder = [*(f"encoder.{i}" for i in range(len(hidden))), "posterior"]
        decoder = [*(f"decoder.{i}" for i in range(len(decoder_hidden))), "likelihood"]
        widths_in = [n_features, *hidden, n_latent, *decoder_hidden]
        of_posterior = full_posterior_width(n_latent) if posterior == "full" else 2 * n_latent
        p_x_given_z = likelihood_called(likelihood)
        widths_out = [*hidden, of_posterior, *decoder_hidden, p_x_given_z.columns * n_features]
        return dense_shapes(dict(zip(encoder + decoder, zip(widths_in, widths_out)))) | p_x_given_z.shapes

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
            (x,), eps = self.check(x), latent_variable.checked_noise(self, eps, len(x))
            free = {"free_bits_per_dimension": free_bits_per_dimension, "free_bits_total": free_bits_total}
            self.check_settings(objective=objective, **free)
        eps = eps[None] if objective == "iwae" and eps.ndim == 2 else eps
        ops = objective_ops(self.ops, objective, free_bits_per_dimension, free_bits_total, self.posterior)

        posterior, encoder_cache = self.ops.mlp_forward(x, self.encoder)  # (B, D) -> (B, 2L), wider for a full posterior
        (z, kl), latent_cache = ops.latent_forward(posterior, eps)  # (B, 2L) -> (S, B, L), (B, L) or (S, B, L)
        z = z.reshape(-1, self.n_latent)  # -> (S B, L)
        output, decoder_cache = self.ops.mlp_forward(z, self.decoder)  # (S B, L) -> (S B, D), wider for some likelihoods
        output = output.reshape(*eps.shape[:-1], -1)  # -> (S, B, D)
        nll, nll_cache = self.nll_forward(output, x)  # (S, B, D), (B, D) -> (S, B)
        loss, bound_cache = ops.bound_forward(nll, kl, beta)

        mean_kl = kl.sum(axis=-1, dtype=accumulator(kl)).mean()
        terms = Terms(loss.item(), nll.mean().item(), mean_kl.item(), clipped_share(posterior[:, : 2 * self.n_latent]))
        return terms, Cache(ops, encoder_cache, latent_cache, decoder_cache, nll_cache, bound_cache)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        ops = cache.objective
        dnll, dkl = ops.bound_backward(dloss, cache.bound)  # -> (S, B), (B, L) or (S, B, L)
        doutput, own_grads = self.nll_backward(dnll, cache.nll)  # (S, B) -> (S, B, D)
        doutput = doutput.reshape(-1, doutput.shape[-1])  # -> (S B, D)
        dz, decoder_grads = self.ops.mlp_backward(doutput, cache.decoder)  # (S B, D) -> (S B, L)
        dz = dz.reshape(*dnll.shape, self.n_latent)  # -> (S, B, L)
        dposterior = ops.latent_backward(dz, dkl, cache.latent)  # (S, B, L), (B, L) -> (B, 2L)
        _, encoder_grads = self.ops.mlp_backward(dposterior, cache.encoder, need_dx=False)

        return common.laid_out(self, [*encoder_grads, *decoder_grads, own_grads], out)

    def gradient(self, x, eps, beta=1.0, objective="elbo", n_samples=None, free_bits_per_dimension=0.0, free_bits_total=0.0,
                 dloss=1.0, out=None, workspace=None):  # fmt: skip
        """`forward`, then `backward`, in one call that need not keep what is between them: what a training step uses.

        Arguments as in forward and backward, not checked; out (P,) gets the gradient; workspace: a `workspace` to be used
        again. Returns Terms and a number that no square of an entry of the gradient exceeds.
        """
        out = np.empty_like(self.theta) if out is None else out
        free_bits = free_bits_per_dimension, free_bits_total
        workspace = self.workspace(len(x), len(eps) if eps.ndim == 3 else 1) if workspace is None else workspace
        if workspace is None or self.dtype.kind == "c" or any(free_bits):
            with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
                terms, cache = self.forward(x, eps, beta, objective, n_samples, *free_bits, check=False)
                self.backward(cache, dloss, out)
                return terms, np.dot(out, out)
        kind = self.posterior, objective, self.likelihood, self.p_x_given_z.number
        *terms, bound = self.ops.vae_gradient(self.theta, x, eps, beta, *kind, dloss, out, workspace)
        return Terms(*terms), bound

    def workspace(self, n_rows, n_samples=1, n_shards=1, **_):
        """Buffers for `gradient` of at most n_rows rows with n_samples samples each, in so many shards; None where there is no
        such call."""
        make = getattr(self.ops, "vae_workspace", None)
        return make and make(self.encoder, self.decoder, n_rows, n_samples, self.likelihood, (), n_shards)

    @property
    def encoder(self):
        """The encoder's layers, (W, b, activation) each, as `ops.mlp_forward` takes them."""
        return common.layers_called(self, "encoder", self.hidden, "posterior")

    @property
    def decoder(self):
        """The decoder's layers."""
        return common.layers_called(self, "decoder", self.decoder_hidden, "likelihood")

    nll_forward, nll_backward = common.nll_forward, common.nll_backward

    # ------------------------------------------------------------------------------------------------------- training

    draw = latent_variable.draw
    check_settings = staticmethod(objectives.check_settings)
    validation_settings = staticmethod(objectives.validation_settings)
    couples_rows, join = staticmethod(objectives.couples_rows), staticmethod(objectives.join)

    data_kind = property(lambda self: self.p_x_given_z.data_kind)

    def set_output_bias(self, x):
        """Set likelihood.b (and likelihood.logvar) so that p(x|z) is right for the rows x (n, D) where z says nothing: it has
        their mean and, where it has more parameters, their variance or histogram (`bias` of `npvae.models.likelihoods`)."""
        self.parameters.update(self.p_x_given_z.bias(self.check(x)[0]))

    # ----------------------------------------------------------------------------------------- using a trained model

    encode = latent_variable.encode

    def decode(self, z):
        """E[x|z]: z (B, L) -> (B, D); for the Bernoulli likelihood the probability of a one."""
        return self.p_x_given_z.mean(self.decoder_output(latent_variable.checked_latent(self, z)))  # (B, L) -> (B, D)

    def draw_data(self, z, rng=None):
        """x ~ p(x|z), where `decode` has its mean: z (B, L) -> (B, D) in units of the data; rng is a Generator or a seed."""
        output = self.decoder_output(latent_variable.checked_latent(self, z))  # (B, L) -> (B, D)
        return self.p_x_given_z.draw(output, np.random.default_rng(rng), self.parameters)

    def reconstruct(self, x):
        """E[x|z] at the posterior mean z = mu(x): (B, D) -> (B, D)."""
        mu, _ = self.encode(x)
        return self.decode(mu)

    def sample(self, n, rng=None):
        """E[x|z] for n draws of z ~ N(0, I), (n, D); rng is a Generator or a seed."""
        rng = np.random.default_rng(rng)
        return self.decode(rng.standard_normal((checks.integer("n", n, 1), self.n_latent)))

    def encoder_output(self, x):
        """The posterior's parameters at x (B, D) of the model's dtype, unchecked: (B, 2L), mu and logvar as they are."""
        return self.ops.mlp_forward(x, self.encoder)[0]

    def decoder_output(self, z):
        """The likelihood's parameters at z (B, L) of the model's dtype, unchecked: (B, D) logits or means, or more."""
        return self.ops.mlp_forward(z, self.decoder)[0]

    infer, nll = latent_variable.infer, latent_variable.nll_of

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
        """Depths 0 to 3, every activation, likelihood, posterior and objective, one and several rows and samples."""
        rng = np.random.default_rng(3)

        def example(n_features, hidden, activation, likelihood, B, p=0.5, note="", posterior="diagonal", **settings):
            model = cls(n_features, 2, hidden, activation, likelihood, backend, "float64", 4, sigma=0.5, posterior=posterior)
            x = {"binary": lambda shape: (rng.random(shape) < p).astype(float), "real": rng.standard_normal,
                 "levels": lambda shape: rng.integers(0, 256, shape) / 255}[model.data_kind]((2 * B, n_features))  # fmt: skip
            widths = "-".join(map(str, [n_features, *hidden, 2]))
            name = f"{backend} VAE {widths} {activation} {likelihood}{note}, B {B}, S {settings.get('n_samples', 1)}"
            return Example(name, model, (x,), settings)

        # Compiled is one kernel for each activation, objective and likelihood, whose parts are the same in all: some will do.
        compiled = backend == "numba"
        yield example(40, (110,), "relu", "bernoulli", 5, p=0.15)  # 15 % ones: products over the non-zeros
        for likelihood in ("bernoulli", "gaussian"):
            in_full = likelihood == "bernoulli" or not compiled
            if in_full:
                yield example(7, (), "relu", likelihood, 1)
            yield example(7, (6,), "relu", likelihood, 4)
            yield example(7, (6,), "tanh", likelihood, 3, n_samples=4, beta=0.5)
            if in_full:
                yield example(7, (6, 4), "sigmoid", likelihood, 3, beta=2.0)
                yield example(7, (6, 4), "softplus", likelihood, 4)
                yield example(7, (5, 4, 3), "silu", likelihood, 3, n_samples=2)
            yield example(7, (5, 4, 3), "relu", likelihood, 3)
            for hidden, S, beta in [((6,), 4, 2.0), ((5, 4, 3), 1, 1.0)]:
                yield example(7, hidden, "tanh", likelihood, 3, note=" iwae", objective="iwae", n_samples=S, beta=beta)
            yield example(7, (6,), "tanh", likelihood, 4, note=" free bits", free_bits_per_dimension=0.1, beta=0.5)
            yield example(7, (6,), "tanh", likelihood, 4, note=" free bits in total", free_bits_total=0.3)
        for likelihood in ("gaussian_global", "gaussian_learned", "categorical", "beta_binomial"):
            n_features = 2 if likelihood == "categorical" else 5
            if likelihood != "beta_binomial" or not compiled:
                yield example(n_features, (4,), "tanh", likelihood, 3, n_samples=2, beta=0.5)
            if likelihood != "gaussian_learned" or not compiled:
                yield example(n_features, (4,), "tanh", likelihood, 3, note=" iwae", objective="iwae", n_samples=3)
        for S in (1, 3):
            yield example(7, (6,), "tanh", "bernoulli", 3, note=" full", posterior="full", n_samples=S, beta=0.5)
            yield example(7, (6,), "tanh", "gaussian", 3, note=" full iwae", posterior="full", objective="iwae", n_samples=S)
        yield example(7, (6,), "tanh", "gaussian", 4, note=" full free bits", posterior="full", free_bits_per_dimension=0.1)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

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
