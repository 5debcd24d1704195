"""The conditional VAE: p(x|condition) = ∫ p(x|z, condition) p(z|condition) dz, for a class label or any other condition.

    x, condition ─ encoder ─▶ posterior ─(+eps)─┐
    condition ─ prior network ─▶ prior ─────────┴─ latent ─▶ z, condition ─ decoder ─▶ output ─ nll ─▶ nll
                                                       └─▶ kl ──────────────────────────────────┴─ bound ─▶ loss

It is the VAE with the condition handed to everything: encoder q(z|x, condition), decoder p(x|z, condition), and prior, which is
N(0, I) or a network's N(mu(condition), σ²(condition)). Every step of the ELBO's derivation holds for a fixed condition. Sohn,
Lee & Yan 2015; lectures (2025), "Rearranging", where log p(y|x) is derived: what is x there is the condition here, and y is x.

Shapes: B batch, D data (n_features), C condition (n_condition), L latent (n_latent), S samples per datum.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae import ops
from npvae.core import checks, options
from npvae.core.numerics import accumulator
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, conditions, evaluate, latent_variable, objectives, saved
from npvae.models.likelihoods import LIKELIHOODS, SMALLEST_SIGMA, likelihood_called
from npvae.models.objectives import Objective, latent_ops, objective_ops
from npvae.models.protocol import Example
from npvae.models.vae import VAE, Terms
from npvae.ops.latent import clipped_share

PRIORS = ("standard", "learned")
PRIOR = Option("prior", "standard", "p(z|condition): standard, which is N(0, I) for every condition, or learned, a Gaussian "
               "from a network of its own", options.one_of(*PRIORS), metavar="P", choices=PRIORS)  # fmt: skip


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the objective, and the caches of its ops."""

    objective: Objective
    encoder: list
    prior: list
    latent: tuple
    join: tuple
    decoder: list
    nll: tuple
    bound: tuple


class ConditionalVAE:
    """A conditional VAE with a diagonal Gaussian posterior. Sohn, Lee & Yan 2015.

    n_features       D, width of the data
    n_condition      C, width of the condition; of a class label the number of classes
    prior            p(z|condition): "standard", N(0, I), or "learned", from a network with the encoder's hidden layers
    The others are those of `npvae.VAE`. Parameters: encoder.0.W (D + C, H) ... posterior.b, of a learned prior prior.0.W (C, H)
    ... prior.W (H, 2L), prior.b, then decoder.0.W (L + C, H) ... likelihood.b.

    A condition is an array (B, C) of numbers, best of the order of 1, or (B,) whole numbers 0 to C − 1, class labels, which
    become rows with a one in the place of the class. With n_condition = 1 (B,) is numbers, not labels.
    """

    theta, ops = Theta(), common.ops
    Terms, units, terms_help = Terms, VAE.units, VAE.terms_help
    takes_condition = True
    options = tuple(PRIOR if option.name == "posterior" else option for option in VAE.options)

    def __init__(self, n_features, n_condition, n_latent=2, hidden=(400,), activation="relu", likelihood="bernoulli",
                 backend="numba", dtype="float32", seed=0, decoder_hidden=None, sigma=0.1, initialization="glorot",
                 min_sigma=SMALLEST_SIGMA, prior="standard"):  # fmt: skip
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        checks.choice("prior", prior, PRIORS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_condition = checks.integer("n_condition", n_condition, 1)
        self.n_latent = checks.integer("n_latent", n_latent, 1)
        self.hidden = common.widths_of("hidden", hidden)
        decoder_hidden = self.hidden[::-1] if decoder_hidden is None else decoder_hidden
        self.decoder_hidden = common.widths_of("decoder_hidden", decoder_hidden)
        self.likelihood, self.prior = likelihood, prior
        self.sigma = checks.number("sigma", sigma, 0, exclusive=True)
        self.min_sigma = checks.number("min_sigma", min_sigma, 0, exclusive=True)
        self.p_x_given_z = likelihood_called(likelihood, self.sigma, self.min_sigma)
        sizes = self.n_features, self.n_condition, self.n_latent, self.hidden, self.decoder_hidden
        common.prepare(self, self.shapes(*sizes, likelihood, prior), activation, backend, dtype, seed, initialization)

    @staticmethod
    def shapes(n_features, n_condition, n_latent=2, hidden=(400,), decoder_hidden=None, likelihood="bernoulli",
               prior="standard", **_):  # fmt: skip
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        decoder_hidden = common.widths_of("decoder_hidden", hidden[::-1] if decoder_hidden is None else decoder_hidden)
        p_x_given_z, widths = likelihood_called(likelihood), {}
        parts = [("encoder", "posterior", n_features + n_condition, hidden, 2 * n_latent)]
        if prior == "learned":
            parts.append(("prior", "prior", n_condition, hidden, 2 * n_latent))
        parts.append(("decoder", "likelihood", n_latent + n_condition, decoder_hidden, p_x_given_z.columns * n_features))
        for part, last, n_in, between, n_out in parts:
            names = [*(f"{part}.{i}" for i in range(len(between))), last]
            widths |= dict(zip(names, pairwise([n_in, *between, n_out])))
        return dense_shapes(widths) | p_x_given_z.shapes

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, condition, eps, beta=1.0, objective="elbo", n_samples=None, free_bits_per_dimension=0.0,
                free_bits_total=0.0, check=True):  # fmt: skip
        """Loss of a batch x (B, D) with its conditions (B, C), or (B,) class labels; the other arguments, and what is returned,
        as in `npvae.VAE.forward`."""
        if check:
            (x, condition), eps = self.check(x, condition), latent_variable.checked_noise(self, eps, len(x))
            free = {"free_bits_per_dimension": free_bits_per_dimension, "free_bits_total": free_bits_total}
            self.check_settings(objective=objective, **free)
        eps = eps[None] if objective == "iwae" and eps.ndim == 2 else eps
        ops = objective_ops(self.ops, objective, free_bits_per_dimension, free_bits_total, self.kind_of_latent)

        data = self.ops.joined(x, condition)  # (B, D) -> (B, D + C)
        posterior, encoder_cache = self.ops.mlp_forward(data, self.encoder)  # (B, D + C) -> (B, 2L)
        if self.prior == "learned":
            prior, prior_cache = self.ops.mlp_forward(condition, self.prior_layers)  # (B, C) -> (B, 2L)
            (z, kl), latent_cache = ops.latent_forward(posterior, prior, eps)  # -> (S, B, L), (B, L) or (S, B, L)
        else:
            prior_cache = None
            (z, kl), latent_cache = ops.latent_forward(posterior, eps)  # (B, 2L) -> (S, B, L), (B, L) or (S, B, L)
        code, join_cache = self.ops.join_forward(z.reshape(-1, self.n_latent), condition)  # (S, B, L) -> (S B, L + C)
        output, decoder_cache = self.ops.mlp_forward(code, self.decoder)  # (S B, L + C) -> (S B, D)
        output = output.reshape(*eps.shape[:-1], -1)  # -> (S, B, D)
        nll, nll_cache = self.nll_forward(output, x)  # (S, B, D), (B, D) -> (S, B)
        loss, bound_cache = ops.bound_forward(nll, kl, beta)

        mean_kl = kl.sum(axis=-1, dtype=accumulator(kl)).mean()
        terms = Terms(loss.item(), nll.mean().item(), mean_kl.item(), clipped_share(posterior))
        return terms, Cache(ops, encoder_cache, prior_cache, latent_cache, join_cache, decoder_cache, nll_cache, bound_cache)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter, as that of `npvae.VAE.backward`."""
        ops = cache.objective
        dnll, dkl = ops.bound_backward(dloss, cache.bound)  # -> (S, B), (B, L) or (S, B, L)
        doutput, own_grads = self.nll_backward(dnll, cache.nll)  # (S, B) -> (S, B, D)
        doutput = doutput.reshape(-1, doutput.shape[-1])  # -> (S B, D)
        dcode, decoder_grads = self.ops.mlp_backward(doutput, cache.decoder)  # (S B, D) -> (S B, L + C)
        dz = self.ops.join_backward(dcode, cache.join).reshape(*dnll.shape, self.n_latent)  # (S B, L + C) -> (S, B, L)
        prior_grads = []
        if self.prior == "learned":
            dposterior, dprior = ops.latent_backward(dz, dkl, cache.latent)  # (S, B, L), (B, L) -> (B, 2L), (B, 2L)
            _, prior_grads = self.ops.mlp_backward(dprior, cache.prior, need_dx=False)
        else:
            dposterior = ops.latent_backward(dz, dkl, cache.latent)  # (S, B, L), (B, L) -> (B, 2L)
        _, encoder_grads = self.ops.mlp_backward(dposterior, cache.encoder, need_dx=False)

        return common.laid_out(self, [*encoder_grads, *prior_grads, *decoder_grads, own_grads], out)

    def gradient(self, x, condition, eps, beta=1.0, objective="elbo", n_samples=None, free_bits_per_dimension=0.0,
                 free_bits_total=0.0, dloss=1.0, out=None, workspace=None):  # fmt: skip
        """`forward`, then `backward`, in one call: as `npvae.VAE.gradient`."""
        out = np.empty_like(self.theta) if out is None else out
        free_bits = free_bits_per_dimension, free_bits_total
        workspace = self.workspace(len(x), len(eps) if eps.ndim == 3 else 1) if workspace is None else workspace
        if workspace is None or self.dtype.kind == "c" or any(free_bits):
            with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
                terms, cache = self.forward(x, condition, eps, beta, objective, n_samples, *free_bits, check=False)
                self.backward(cache, dloss, out)
                return terms, np.dot(out, out)
        kind = "diagonal", objective, self.likelihood, self.p_x_given_z.number
        *terms, bound = self.ops.vae_gradient(self.theta, x, eps, beta, *kind, dloss, out, workspace, condition)
        return Terms(*terms), bound

    def workspace(self, n_rows, n_samples=1, n_shards=1, **_):
        """Buffers for `gradient`, as those of `npvae.VAE.workspace`."""
        make = getattr(self.ops, "vae_workspace", None)
        return make and make(self.encoder, self.decoder, n_rows, n_samples, self.likelihood, self.prior_layers, n_shards)

    @property
    def encoder(self):
        """The encoder's layers, (W, b, activation) each, as `ops.mlp_forward` takes them."""
        return common.layers_called(self, "encoder", self.hidden, "posterior")

    @property
    def prior_layers(self):
        """The layers of a learned prior; none of the standard one."""
        return common.layers_called(self, "prior", self.hidden, "prior") if self.prior == "learned" else []

    @property
    def decoder(self):
        """The decoder's layers."""
        return common.layers_called(self, "decoder", self.decoder_hidden, "likelihood")

    kind_of_latent = property(lambda self: "prior" if self.prior == "learned" else "diagonal")
    nll_forward, nll_backward = common.nll_forward, common.nll_backward

    # ------------------------------------------------------------------------------------------------------- training

    draw = latent_variable.draw
    check_settings = staticmethod(objectives.check_settings)
    validation_settings = staticmethod(objectives.validation_settings)
    couples_rows, join = staticmethod(objectives.couples_rows), staticmethod(objectives.join)

    data_kind = property(lambda self: self.p_x_given_z.data_kind)

    def set_output_bias(self, x, condition=None):
        """As `npvae.VAE.set_output_bias`: for all rows together, whatever their condition."""
        self.parameters.update(self.p_x_given_z.bias(common.checked(self, x)))

    # ----------------------------------------------------------------------------------------- using a trained model

    encode = latent_variable.encode
    nll = latent_variable.nll_of

    def infer(self, eps, x, condition, objective="iwae"):
        """As `npvae.models.latent_variable.infer`; the kl is that against p(z|condition)."""
        latent_forward, _ = latent_ops(ops, objective, self.kind_of_latent)
        outputs = [self.encoder_output(x, condition).astype(np.float64)]
        if self.prior == "learned":
            outputs.append(self.prior_output(condition).astype(np.float64))
        return latent_forward(*outputs, eps)[0]

    def decode(self, z, condition):
        """E[x|z, condition]: z (B, L), condition (B, C) or (B,) -> (B, D)."""
        return self.p_x_given_z.mean(self.decoder_output(*self.checked_code(z, condition)))

    def draw_data(self, z, condition, rng=None):
        """x ~ p(x|z, condition), where `decode` has its mean: (B, D); rng is a Generator or a seed."""
        output = self.decoder_output(*self.checked_code(z, condition))
        return self.p_x_given_z.draw(output, np.random.default_rng(rng), self.parameters)

    def reconstruct(self, x, condition):
        """E[x|z, condition] at the posterior mean: x (B, D), condition (B, C) or (B,) -> (B, D)."""
        mu, _ = self.encode(x, condition)
        return self.decode(mu, condition)

    def sample(self, condition, rng=None):
        """E[x|z, condition] for one draw of z ~ p(z|condition) of each condition, (n, C) or (n,) -> (n, D)."""
        condition, rng = conditions.checked(self, condition), np.random.default_rng(rng)
        z = rng.standard_normal((len(condition), self.n_latent))
        if self.prior == "learned":
            (mu, logvar), _ = ops.posterior_forward(self.prior_output(condition).astype(np.float64))
            z = mu + np.exp(0.5 * logvar) * z
        return self.decode(z, condition)

    def encoder_output(self, x, condition):
        """The posterior's parameters, unchecked: x (B, D), condition (B, C) -> (B, 2L)."""
        return self.ops.mlp_forward(self.ops.joined(x, condition), self.encoder)[0]

    def prior_output(self, condition):
        """The parameters of a learned prior, unchecked: condition (B, C) -> (B, 2L)."""
        return self.ops.mlp_forward(condition, self.prior_layers)[0]

    def decoder_output(self, z, condition):
        """The likelihood's parameters, unchecked: z (B, L) or (S B, L), condition (B, C) -> (B, D), or more columns."""
        return self.ops.mlp_forward(self.ops.joined(z, condition), self.decoder)[0]

    def log_likelihood(self, x, condition, n_samples=100, rng=None):
        """Importance-weighted estimate of log p(x|condition), (B,) in nats: `npvae.evaluate.log_likelihood`."""
        return evaluate.log_likelihood(self, (x, condition), n_samples, rng)

    def measure(self, x, condition, n_samples=100, seed=0, progress=False):
        """Everything `npvae evaluate` tells of a model on rows x (n, D) with their conditions: Measures."""
        return evaluate.measures(self, (x, condition), n_samples, seed, progress)

    def pictures(self, plots, x, condition, dataset):
        """The pictures of a run: (file name, what it shows, Figure) each, of the validation rows of the dataset."""
        return plots.conditional_pictures(self, x, condition, dataset, evaluate.kl_per_dimension(self, (x, condition)))

    @classmethod
    def examples(cls, backend):
        """Both priors and objectives, likelihoods of each kind, no hidden layer and several, labels and numbers."""
        rng = np.random.default_rng(3)
        for prior in PRIORS:
            for hidden, likelihood, labels, settings, compiled_with in [
                ((), "bernoulli", True, {}, "learned"),
                ((6,), "bernoulli", True, {"n_samples": 3, "beta": 0.5}, "standard"),
                ((5, 4), "gaussian_learned", False, {"n_samples": 2}, "learned"),
                ((6,), "gaussian_global", False, {"beta": 2.0}, prior),
                ((6,), "beta_binomial", True, {"objective": "iwae", "n_samples": 3}, "standard"),
                ((5, 4), "bernoulli", False, {"objective": "iwae", "n_samples": 1}, "learned"),
                ((6,), "gaussian", True, {"free_bits_per_dimension": 0.1}, prior),
            ]:
                if backend == "numba" and prior != compiled_with:  # a kernel for each, whose parts are the same: one will do
                    continue
                model = cls(7, 3, 2, hidden, "tanh", likelihood, backend, "float64", 4, sigma=0.5, prior=prior)
                x = {"binary": lambda: (rng.random((8, 7)) < 0.5).astype(float), "real": lambda: rng.standard_normal((8, 7)),
                     "levels": lambda: rng.integers(0, 256, (8, 7)) / 255}[model.data_kind]()  # fmt: skip
                condition = rng.integers(0, 3, 8) if labels else rng.standard_normal((8, 3))
                name = f"{backend} ConditionalVAE 7+3-{'-'.join(map(str, [*hidden, 2]))} {prior} {likelihood}"
                name += " iwae" if "objective" in settings else " free bits" if "free_bits_per_dimension" in settings else ""
                name += f", S {settings.get('n_samples', 1)}"
                yield Example(name, model, model.check(x, condition), settings)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, condition=None):
        """x (B, D) and the condition (B, C) as C-contiguous arrays of the model's (real) dtype, or ValueError."""
        x, condition = common.checked(self, x), conditions.checked(self, condition)
        conditions.same_rows("x", x, condition)
        return x, condition

    def checked_code(self, z, condition):
        """z (B, L) and its conditions (B, C) as arrays of the model's (real) dtype, or ValueError."""
        z, condition = latent_variable.checked_latent(self, z), conditions.checked(self, condition)
        conditions.same_rows("z", z, condition)
        return z, condition

    def __repr__(self):
        widths = "-".join(map(str, [*self.hidden, self.n_latent, *self.decoder_hidden, self.n_features]))
        return (
            f"ConditionalVAE({self.n_features}+{self.n_condition}-{widths}, {self.activation}, {self.likelihood}, "
            f"{self.prior} prior, {self.dtype.name}, {self.backend}: {self.theta.size:,} parameters)"
        )

