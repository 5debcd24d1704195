"""A chain of VAEs: p(x, z_1, ..., z_T) = p(z_T) Π_t p(z_t|z_t+1) p(x|z_1), each latent made from the one above it.

    x ─ encoder.1 ─▶ z_1 ─ encoder.2 ─▶ z_2 ─ ... ─ encoder.T ─▶ z_T ─▶ kl_T, against N(0, I)
                      │                  │                        │
    nll ◀─ decoder ───┴──▶ kl_1 ◀ prior.1┴──▶ ... kl_T-1 ◀ prior.T-1┘          loss = mean of nll + beta Σ_t kl_t

Upwards the posterior is a chain of transitions too, q(z_1|x) Π_t q(z_t|z_t-1), each a diagonal Gaussian with mean and
log-variance from a network of its own, as are those downwards. Inserting both into the ELBO gives one divergence for each
transition, E_q[log q(z_t|z_t-1)/p(z_t|z_t+1)], and the VAE's nll. With one latent it is `npvae.VAE`. Lectures (2024), "Chains
of VAEs"; the transitions and objectives of Burda, Grosse & Salakhutdinov 2016.

z = (z_1, ..., z_T) side by side is one latent variable of n_latent = Σ_t L_t dimensions, whose prior and posterior have
structure: noise, importance weights and bounds are those of a VAE. Shapes: B batch, D data (n_features), L_t latent t (latent),
L all of them together (n_latent), S samples per datum.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.numerics import accumulator
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, evaluate, fused, latent_chain, latent_variable, objectives, saved
from npvae.models.likelihoods import LIKELIHOODS, SMALLEST_SIGMA, likelihood_called
from npvae.models.objectives import Objective, objective_ops
from npvae.models.protocol import Example
from npvae.models.vae import VAE
from npvae.ops import chains
from npvae.ops.chains import in_rows

TOP_KLS = ("closed", "sampled")
TOP_KL = Option("top_kl", "closed", "the topmost latent's KL in the ELBO: in closed form, or sampled as all others are",
                options.one_of(*TOP_KLS), use="training", metavar="K", choices=TOP_KLS)  # fmt: skip
LATENT = Option("latent", [16, 2], "dimensions of the latents z_1, z_2, ..., from the data upwards", options.integer(1),
                metavar="L", many=True)  # fmt: skip
HIDDEN = Option("hidden", [128], "width of the hidden layers of each transition, from the data upwards; one number for all; "
                "none for a linear chain", options.integer(1), metavar="H", many=True)  # fmt: skip
DEPTH = Option("depth", 2, "hidden layers of each transition", options.integer(1), metavar="N")


class Terms(NamedTuple):
    """The loss and its parts in nats, summed over dimensions, mean over the batch (and over samples)."""

    loss: float  # nll + beta * kl, −ELBO for beta = 1; of the objective "iwae" its bound, which is at most that
    nll: float
    kl: float  # of all latents; its samples may be negative, but for that of the topmost in closed form
    kl_top: float  # the part of z_T: 0 where the topmost latent has collapsed
    clipped: float  # share of the transitions' log-variances that were clipped, 0 to 1


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the objective, and the caches of its ops; lists have an entry for each latent, or for
    each but the topmost, from the data upwards."""

    objective: Objective
    ascent: list
    descent: list
    kl_shapes: list
    decoder: list
    nll: tuple
    bound: tuple


class HierarchicalVAE:
    """A VAE with a chain of T latent variables, diagonal Gaussian transitions and the prior N(0, I) at the top.

    n_features       D, width of the data
    latent           L_1, ..., L_T, widths of the latents from the data upwards
    hidden           H_1, ..., H_T, width of the hidden layers of q(z_t|z_t-1) and of p(z_t-1|z_t), where z_0 is x; one number
                     for all; an empty tuple for linear transitions
    depth            hidden layers of each of these networks
    The others are those of `npvae.VAE`. Parameters: encoder.1.0.W (D, H_1) ... posterior.1.W (H_1, 2L_1), posterior.1.b, and so
    on to posterior.T.b; prior.T-1.0.W (L_T, H_T) ... prior.T-1.W (H_T, 2L_T-1), and so on to prior.1.b; then decoder.0.W
    (L_1, H_1) ... likelihood.b. With T = 1 they stand in theta as those of the VAE do.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = VAE.units
    terms_help = {"loss": "what is minimised", "nll": "reconstruction", "kl": "posterior against prior, all latents",
                  "kl_top": "the topmost latent's part", "clipped": "share of log-variances clipped"}  # fmt: skip
    options = (LATENT, HIDDEN, DEPTH, *(o for o in VAE.options if o.name not in ("latent", "hidden", "posterior")), TOP_KL)

    def __init__(self, n_features, latent=(100, 50), hidden=(200, 100), depth=2, activation="relu", likelihood="bernoulli",
                 backend="numba", dtype="float32", seed=0, sigma=0.1, initialization="glorot",
                 min_sigma=SMALLEST_SIGMA):  # fmt: skip
        checks.choice("likelihood", likelihood, LIKELIHOODS)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.latent, self.hidden = common.widths_of("latent", latent), common.widths_of("hidden", hidden)
        self.depth, self.n_latent = checks.integer("depth", depth, 1), sum(self.latent)
        self.between = hidden_layers(self.hidden, self.depth, len(self.latent))
        self.likelihood = likelihood
        self.sigma = checks.number("sigma", sigma, 0, exclusive=True)
        self.min_sigma = checks.number("min_sigma", min_sigma, 0, exclusive=True)
        self.p_x_given_z = likelihood_called(likelihood, self.sigma, self.min_sigma)
        shapes = self.shapes(self.n_features, self.latent, self.hidden, self.depth, likelihood)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)

    @staticmethod
    def shapes(n_features, latent=(100, 50), hidden=(200, 100), depth=2, likelihood="bernoulli", **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        latent, p_x_given_z, widths = common.widths_of("latent", latent), likelihood_called(likelihood), {}
        between, T = hidden_layers(hidden, depth, len(latent)), len(latent)
        below = [n_features, *latent]  # z_t-1 for t = 1, ..., T
        parts = [(f"encoder.{t}", f"posterior.{t}", below[t - 1], t, 2 * latent[t - 1]) for t in range(1, T + 1)]
        parts += [(f"prior.{t}", f"prior.{t}", latent[t], t + 1, 2 * latent[t - 1]) for t in range(T - 1, 0, -1)]
        parts.append(("decoder", "likelihood", latent[0], 1, p_x_given_z.columns * n_features))
        for part, last, n_in, t, n_out in parts:
            names = [*(f"{part}.{i}" for i in range(len(between[t - 1]))), last]
            widths |= dict(zip(names, pairwise([n_in, *between[t - 1], n_out])))
        return dense_shapes(widths) | p_x_given_z.shapes

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, eps, beta=1.0, objective="elbo", top_kl="closed", n_samples=None, free_bits_per_dimension=0.0,
                free_bits_total=0.0, check=True):  # fmt: skip
        """Loss of a batch x (B, D), with noise eps (B, L) or (S, B, L), columns in the order of the latents.

        top_kl: of the ELBO KL(q(z_T|z_T-1) ‖ N(0, I)), given each sample of z_T-1, in "closed" form, or "sampled" as those of
        the other latents must be, which the importance-weighted bound always takes. The other arguments, and what is returned,
        as in `npvae.VAE.forward`; beta and free bits go over all L dimensions.
        """
        free_bits = {"free_bits_per_dimension": free_bits_per_dimension, "free_bits_total": free_bits_total}
        if check:
            (x,), eps = self.check(x), latent_variable.checked_noise(self, eps, len(x))
            self.check_settings(objective=objective, top_kl=top_kl, **free_bits)
        eps = eps[None] if eps.ndim == 2 else eps
        goal = objective_ops(self.ops, objective, **free_bits)
        if top_kl == "sampled":
            sampled = self.ops.latent_sampled_forward, self.ops.latent_sampled_backward
            goal = Objective(*sampled, goal.bound_forward, goal.bound_backward)

        noise = chains.noise_of_each(eps, self.latent)
        (z, of_q, posteriors), up_cache = chains.ascend(self.ops, x, self.encoders, noise, goal.latent_forward)
        (kls, priors), down_cache = chains.descend(self.ops, z, of_q, noise, self.priors)
        output, decoder_cache = self.ops.mlp_forward(in_rows(z[0]), self.decoder_layers)  # (S B, L_1) -> (S B, D)
        nll, nll_cache = self.nll_forward(output.reshape(*eps.shape[:-1], -1), x)  # (S, B, D), (B, D) -> (S, B)
        kl = np.concatenate([in_rows(part) for part in kls], axis=1)  # T arrays (S B, L_t) -> (S B, L)
        kl = kl.reshape(*nll.shape, -1) if objective == "iwae" else kl  # -> (S, B, L)
        loss, bound_cache = goal.bound_forward(nll, kl, beta)

        mean_kl, mean_top = (part.sum(axis=-1, dtype=accumulator(part)).mean().item() for part in (kl, kls[-1]))
        terms = Terms(loss.item(), nll.mean().item(), mean_kl, mean_top, chains.clipped_share_of([*posteriors, *priors]))
        shapes = [part.shape for part in kls]
        return terms, Cache(goal, up_cache, down_cache, shapes, decoder_cache, nll_cache, bound_cache)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter, as that of `npvae.VAE.backward`."""
        goal = cache.objective
        dnll, dkl = goal.bound_backward(dloss, cache.bound)  # -> (S, B), (S B, L) or (S, B, L)
        parts = np.split(in_rows(dkl), np.cumsum(self.latent)[:-1], axis=1)  # -> T arrays (S B, L_t)
        dkls = [np.ascontiguousarray(part).reshape(shape) for part, shape in zip(parts, cache.kl_shapes)]
        doutput, own_grads = self.nll_backward(dnll, cache.nll)  # (S, B) -> (S, B, D)
        dz_1, decoder_grads = self.ops.mlp_backward(in_rows(doutput), cache.decoder)  # (S B, D) -> (S B, L_1)
        dz_1 = dz_1.reshape(*dnll.shape, -1)  # -> (S, B, L_1)
        (dz, dof_q), prior_grads = chains.descend_back(self.ops, dz_1, dkls, cache.descent)
        encoder_grads = chains.ascend_back(self.ops, dz, dof_q, cache.ascent, goal.latent_backward)

        return common.laid_out(self, [*encoder_grads, *prior_grads, *decoder_grads, own_grads], out)

    gradient, workspace = fused.chain_gradient, fused.chain_workspace
    nll_forward, nll_backward = common.nll_forward, common.nll_backward

    @property
    def encoders(self):
        """The layers of q(z_1|x), ..., q(z_T|z_T-1), (W, b, activation) each, as `ops.mlp_forward` takes them."""
        return [common.layers_called(self, f"encoder.{t}", between, f"posterior.{t}")
                for t, between in enumerate(self.between, 1)]  # fmt: skip

    @property
    def priors(self):
        """The layers of p(z_1|z_2), ..., p(z_T-1|z_T)."""
        return [common.layers_called(self, f"prior.{t}", between, f"prior.{t}")
                for t, between in enumerate(self.between[1:], 1)]  # fmt: skip

    @property
    def decoder_layers(self):
        """The layers of p(x|z_1)."""
        return common.layers_called(self, "decoder", self.between[0], "likelihood")

    # ------------------------------------------------------------------------------------------------------- training

    draw = latent_variable.draw
    validation_settings = staticmethod(objectives.validation_settings)
    couples_rows, join = staticmethod(objectives.couples_rows), staticmethod(objectives.join)

    @staticmethod
    def check_settings(top_kl="closed", **settings):
        """ValueError for settings that cannot be."""
        checks.choice("top_kl", top_kl, TOP_KLS)
        objectives.check_settings(**settings)

    data_kind = property(lambda self: self.p_x_given_z.data_kind)

    def set_output_bias(self, x):
        """As `npvae.VAE.set_output_bias`."""
        self.parameters.update(self.p_x_given_z.bias(self.check(x)[0]))

    # ----------------------------------------------------------------------------------------- using a trained model

    encode, infer, z_1_of = latent_chain.encode, latent_chain.infer, latent_chain.z_1_of

    def decode(self, z, t=1):
        """E[x|z_1], with z_1 at its mean given z_2, and so on up to z_t: z (B, L_t) -> (B, D). For t = 1 that is exact."""
        return self.p_x_given_z.mean(self.decoder_output(self.z_1_of(z, t)))

    def reconstruct(self, x):
        """E[x|z_1] at the posterior mean z_1 = mu(x): (B, D) -> (B, D)."""
        return self.decode(self.encode(x)[0])

    def sample(self, n, rng=None):
        """E[x|z_1] for n draws down the chain, from z_T ~ N(0, I) to z_1, (n, D); rng is a Generator or a seed."""
        rng = np.random.default_rng(rng)
        z = rng.standard_normal((checks.integer("n", n, 1), self.latent[-1]))
        return self.decode(self.z_1_of(z, len(self.latent), rng))

    def decoder_output(self, z):
        """The likelihood's parameters at z_1 (B, L_1) of the model's dtype, unchecked: (B, D), or more columns."""
        return self.ops.mlp_forward(z, self.decoder_layers)[0]

    def nll(self, z, x):
        """−log p(x|z) of samples z (S, B, L) of all latents for x (B, D), unchecked: (S, B) in nats."""
        return latent_variable.nll_of(self, z[..., : self.latent[0]], x)

    def log_likelihood(self, x, n_samples=100, rng=None):
        """Importance-weighted estimate of log p(x), (B,) in nats: `npvae.evaluate.log_likelihood`."""
        return evaluate.log_likelihood(self, x, n_samples, rng)

    def measure(self, x, n_samples=100, seed=0, progress=False):
        """Everything `npvae evaluate` tells of a model on rows x (n, D): Measures."""
        return latent_chain.measures(self, x, n_samples, seed, progress)

    def pictures(self, plots, x, dataset):
        """The pictures of a run: those of a VAE for z_1, and the plane of each latent above it."""
        kl = latent_chain.of_each(self, latent_chain.draws(self, x, rng=0).kl_per_dimension)
        yield from plots.latent_variable_pictures(self, x, dataset, kl["latent_1"])
        labels = dataset.labels_val, dataset.label_name
        for t in range(2, len(self.latent) + 1):
            plane = partial(plots.latent_plane, self.encode(x, t)[0], *labels, kl[f"latent_{t}"], f"latent {t}, mean of")
            yield f"latent_{t}.png", f"validation rows in the plane of z_{t}", plane

    @classmethod
    def examples(cls, backend):
        """Two and three latents, both forms of the topmost KL, no hidden layer and several; one latent is `npvae.VAE`."""
        rng = np.random.default_rng(3)
        for latent, hidden, depth, likelihood, settings in [
            ((2, 1), (), 1, "gaussian_global", {"free_bits_per_dimension": 0.1}),
            ((2, 2), (3, 2), 1, "bernoulli", {"n_samples": 2, "beta": 0.5}),
            ((2, 1), (2,), 2, "gaussian_learned", {"top_kl": "sampled"}),
            ((2, 1, 2), (2,), 1, "bernoulli", {"objective": "iwae", "n_samples": 2}),
        ]:
            model = cls(3, latent, hidden, depth, "tanh", likelihood, backend, "float64", 4, sigma=0.5)
            x = (rng.random((6, 3)) < 0.5).astype(float) if model.data_kind == "binary" else rng.standard_normal((6, 3))
            name = f"{backend} HierarchicalVAE {model.widths} tanh {likelihood}"
            name += "".join(f" {settings[key]}" for key in ("objective", "top_kl") if key in settings)
            name += " free bits" if "free_bits_per_dimension" in settings else ""
            yield Example(f"{name}, S {settings.get('n_samples', 1)}", model, (x,), settings)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    @property
    def widths(self):
        """The widths from the data to the topmost latent, latents in brackets, as in "784-200-200-(100)-100-100-(50)"."""
        parts = [str(self.n_features)]
        for widths, n_latent in zip(self.between, self.latent):
            parts += [*map(str, widths), f"({n_latent})"]
        return "-".join(parts)

    def __repr__(self):
        return (
            f"HierarchicalVAE({self.widths}, {self.activation}, {self.likelihood}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )


def hidden_layers(hidden, depth, n_latents):
    """The widths of the hidden layers of each of the T transitions, T tuples; ValueError where `hidden` has another number of
    widths than none, one, or T."""
    hidden = common.widths_of("hidden", hidden)
    if len(hidden) not in (0, 1, n_latents):
        raise ValueError(f"hidden must have one width for each of the {n_latents} latents, or one for all, or none for a "
                         f"linear chain; got {len(hidden)}")  # fmt: skip
    each = hidden * n_latents if len(hidden) == 1 else hidden
    return [(width,) * depth for width in each] if hidden else [()] * n_latents
