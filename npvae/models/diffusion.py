"""Variational diffusion: a chain of latents x_1, ..., x_T as wide as the data, whose encoder is fixed and only adds noise.

    x, eps ─ diffuse ─▶ x_t ─▶ network(x_t, t) ─▶ ε̂ ─ against ε ─▶ one step's KL, T − 1 times it stands for all ──┐
    x ─────────────────▶ kl of x_T against N(0, I) ─▶ prior ─────────────────────────────────────────────────────┤
    x ─────────────────▶ −log p(x|x_1) ─▶ reconstruction ────────────────────────────────────────────────────────┴─▶ loss

It is a chain of VAEs (`npvae.models.HierarchicalVAE`) with q(x_t|x_t-1) = N(√α_t x_t-1, (1 − α_t) I): nothing of the encoder is
learned, and every x_t is drawn in one go. So a training step looks at one random t for each row, and one network serves all
steps. Lectures (2024), "Variational diffusion models"; Luo 2022; Kingma, Salimans, Poole & Ho 2021; `npvae.ops.diffusion` has
the formulas, `npvae.models.reverse_process` what is done with a trained model.

The levels γ_1 < ... < γ_T stand at times u = 0, 1/(T − 1), ..., 1. So T says how finely the same range is cut, and T → ∞ is the
continuous limit. Shapes: B batch, D data and each latent, T steps of the chain.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, diffusion_terms, fused, reverse_process, saved
from npvae.models.diffusion_terms import Times
from npvae.models.protocol import Example
from npvae.ops import diffusion, noise_schedule, pixel_mixture
from npvae.ops.diffusion import PREDICTIONS

OUTPUTS = (*PREDICTIONS, "mixture")  # what the network's output can mean
SCHEDULES, LIKELIHOODS, TIMES = ("linear", "cosine", "learned"), ("gaussian", "levels"), ("fourier", "steps")
OBJECTIVES, DRAWS = ("matching", "consistency", "continuous"), ("spread", "independent")
ENDS, LAST = "schedule.ends", "denoiser"  # names of parameters


class Terms(NamedTuple):
    """The loss and its parts in nats, mean over the batch."""

    loss: float  # −ELBO = reconstruction + prior + steps
    reconstruction: float  # −log p(x|x_1)
    prior: float  # of x_T, or of the last transition for the objective "consistency"
    steps: float  # all steps between, an estimate from one of them for each row


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the times, and the caches of the ops, None where there is none."""

    at: Times
    schedule: tuple
    term: object
    network: tuple
    diffuse: tuple | None
    weight: object
    prior: object
    reconstruction: object


class Diffusion:
    """Variational diffusion of real data, or of grey levels, with a multilayer perceptron that says what was added.

    n_features            D, width of the data, real ones with mean about 0 and standard deviation about 1
    n_steps               T, latents of the chain, at least 2; a copy with another T has the same network (time "fourier")
    schedule              of γ = −log SNR from gamma_min to gamma_max: "linear", "cosine", or "learned": linear, learned ends
    predicts              what the network's output means: "noise", "data" or "score" (`ops.diffusion.predict_forward`), or, for
                          grey levels, "mixture": a prior of each pixel (`ops.pixel_mixture`)
    time                  how the network is told t: "fourier", n_frequencies features of u; or "steps", a block of first
                          weights for each step, so that without hidden layers each step has a linear denoiser of its own
    likelihood            p(x|x_1): "gaussian" for real data, "levels" for grey levels k/255, which are put on [−1, 1]
    hidden, activation, backend, dtype, seed, initialization   as those of `npvae.Flow`; the last weights start at 0: a new
                          model is that of data of N(0, I), or one with the same prior for all pixels

    Parameters: schedule.ends (2,) if these are learned, denoiser.0.W, denoiser.0.b, ..., denoiser.W, denoiser.b. Raises
    ValueError for what cannot be.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "nats per datum"
    defaults = {"data": "toy:moons"}  # of `npvae train --model diffusion`
    terms_help = {"loss": "−ELBO", "reconstruction": "−log p(x|x_1)", "prior": "x_T against N(0, I)",
                  "steps": "denoising, all steps"}  # fmt: skip
    options = (
        Option("steps", 1000, "latents of the chain", options.integer(2), "n_steps", metavar="T"),
        Option("schedule", "linear", "of −log SNR: linear, cosine, or linear with learned ends", options.one_of(*SCHEDULES),
               metavar="S", choices=SCHEDULES),
        Option("gamma_min", -10.0, "−log SNR of the first latent", options.number(-np.inf), metavar="G"),
        Option("gamma_max", 5.0, "−log SNR of the last latent", options.number(-np.inf), metavar="G"),
        Option("predicts", "noise", "what the network's output means: noise, data, score, or mixture: a prior of each pixel",
               options.one_of(*OUTPUTS), metavar="P", choices=OUTPUTS),
        Option("time", "fourier", "how the network is told the step: features of the time, or weights for each step",
               options.one_of(*TIMES), metavar="F", choices=TIMES),
        Option("frequencies", 4, "of the features of the time", options.integer(0), "n_frequencies", metavar="N"),
        Option("hidden", [128, 128], "widths of the hidden layers", options.integer(1), metavar="H", many=True),
        common.ACTIVATION._replace(default="silu"),
        Option("likelihood", "gaussian", "of the data given the first latent: gaussian, or levels for grey levels",
               options.one_of(*LIKELIHOODS), metavar="L", choices=LIKELIHOODS),
        common.INITIALIZATION,
        Option("objective", "matching", "terms of the ELBO: matching, consistency, or continuous for T → ∞",
               options.one_of(*OBJECTIVES), use="training", metavar="O", choices=OBJECTIVES),
        Option("times", "spread", "steps of the rows of a batch: spread evenly, or independent", options.one_of(*DRAWS),
               use="training", metavar="D", choices=DRAWS),
    )  # fmt: skip

    def __init__(self, n_features, n_steps=1000, schedule="linear", gamma_min=-10.0, gamma_max=5.0, predicts="noise",
                 time="fourier", n_frequencies=4, hidden=(128, 128), activation="silu", likelihood="gaussian", backend="numba",
                 dtype="float32", seed=0, initialization="glorot"):  # fmt: skip
        for name, value, allowed in [("schedule", schedule, SCHEDULES), ("predicts", predicts, OUTPUTS),
                                     ("time", time, TIMES), ("likelihood", likelihood, LIKELIHOODS)]:  # fmt: skip
            checks.choice(name, value, allowed)
        if predicts == "mixture" and likelihood != "levels":
            raise ValueError(f'predicts "mixture" is for grey levels: it needs the likelihood "levels", not "{likelihood}"')
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_steps = checks.integer("n_steps", n_steps, 2)
        self.gamma_min = checks.number("gamma_min", gamma_min, -np.inf)
        self.gamma_max = checks.number("gamma_max", gamma_max, self.gamma_min, exclusive=True)
        self.schedule, self.predicts, self.time, self.likelihood = schedule, predicts, time, likelihood
        self.n_frequencies = checks.integer("n_frequencies", n_frequencies, 0)
        self.hidden = common.widths_of("hidden", hidden)
        shapes = self.shapes(self.n_features, self.n_steps, schedule, time, self.n_frequencies, self.hidden, predicts)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)
        self.start_network(np.random.default_rng([self.seed, 1]))
        if schedule == "learned":
            self.parameters[ENDS] = self.gamma_min, self.gamma_max

    def start_network(self, rng):
        """Initial weights: the last layer is 0, and the first layer's units are spread over the data, as those of
        `npvae.models.Flow.start_conditioner`; with zero biases structure on the scale of the data's details is hardly found.
        With a prior of each pixel the last biases are one for all, and images are learned best from zero biases."""
        if self.predicts == "mixture":
            self.parameters[f"{LAST}.b"] = np.repeat(pixel_mixture.START, self.n_features)
        elif self.hidden and self.time == "fourier":
            D, H, first = self.n_features, self.hidden[0], f"{LAST}.0"
            W, c = 3 / np.sqrt(D) * rng.standard_normal((D, H)), 1.5 * rng.standard_normal((D, H))
            self.parameters[f"{first}.W"][:D], self.parameters[f"{first}.b"] = W, -(c * W).sum(axis=0)
        self.parameters[f"{LAST}.W"] = 0

    @staticmethod
    def shapes(n_features, n_steps=1000, schedule="linear", time="fourier", n_frequencies=4, hidden=(128, 128),
               predicts="noise", **_):  # fmt: skip
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        n_input = n_features + 1 + 2 * n_frequencies if time == "fourier" else (n_steps - 1) * (n_features + 1)
        names = [*(f"{LAST}.{i}" for i in range(len(hidden))), LAST]
        ends = {ENDS: (2,)} if schedule == "learned" else {}
        n_output = n_features * (pixel_mixture.N_OUTPUTS if predicts == "mixture" else 1)
        return ends | dense_shapes(dict(zip(names, pairwise([n_input, *hidden, n_output]))))

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, noise, objective="matching", times="spread", check=True):
        """Loss of a batch, an estimate of the mean of −ELBO: x (B, D) -> Terms and the cache for `backward`.

        noise is (t, eps), as `draw` gives it: t (B,) in [0, 1) says which step each row is looked at, and eps (2, B, D) are
        standard normal. objective "matching": the steps' KL(q(x_t-1|x_t, x_0) ‖ p(x_t-1|x_t)); "consistency": their
        log q(x_t|x_t-1)/p(x_t|x_t+1), with which the loss has the same mean and a larger variance; "continuous": matching for
        T → ∞. times is a setting of `draw`. The cache refers to x, eps and theta: call backward before they change.
        """
        if check:
            (x,), noise = self.check(x), self.checked_noise(noise, len(x))
            self.check_settings(objective=objective, times=times)
        (t, eps), x = noise, self.centred(x)
        at = self.times_of(t, objective)
        levels, schedule_cache = self.schedule_forward(at)  # (B,) each
        terms_forward = self.consistency_forward if objective == "consistency" else self.matching_forward
        (steps, prior), caches = terms_forward(x, tuple(eps), at, levels)  # (B,), (B,)
        nll, nll_cache = self.reconstruction_forward(x, eps[1], levels.first)  # (B,)
        parts = [part.mean().item() for part in (nll, prior, at.n * steps)]
        return Terms(sum(parts), *parts), Cache(at, schedule_cache, *caches, nll_cache)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        n_rows = len(cache.at.u)
        dmean = np.full(n_rows, dloss / n_rows)  # 1/B enters here
        if cache.prior is None:
            deps_hat = diffusion.consistency_backward(cache.at.n * dmean, cache.term)  # (B,) -> (B, D)
        else:
            deps_hat, dweight = diffusion.denoising_backward(cache.at.n * dmean, cache.term)  # (B,) -> (B, D), (B,)
        dx_t, dgamma, grads = self.denoise_backward(deps_hat, cache.network)
        if self.schedule == "learned":
            grads = [(self.ends_backward(dmean, dweight, dx_t, dgamma, cache),), *grads]
        return common.laid_out(self, grads, out)

    gradient, workspace = fused.diffusion_gradient, fused.diffusion_workspace
    ends = property(diffusion_terms.ends)
    schedule_forward, ends_backward = diffusion_terms.schedule_forward, diffusion_terms.ends_backward
    matching_forward, consistency_forward = diffusion_terms.matching_forward, diffusion_terms.consistency_forward
    denoise, denoise_backward = diffusion_terms.denoise, diffusion_terms.denoise_backward
    reconstruction_forward = diffusion_terms.reconstruction_forward
    reconstruction_backward = diffusion_terms.reconstruction_backward

    def times_of(self, t, objective):
        """The Times of t (B,) in [0, 1]: the steps are cut from it in equal parts."""
        t = np.asarray(t, np.float64)
        if objective == "continuous":
            return Times(t, t, None, 1)
        n = self.n_steps - 1
        step = np.minimum((t * n).astype(int), n - 1)
        return Times((step + 1) / n, step / n, step, n)

    def levels(self, u):
        """γ and dγ/du at times u (B,), (B,) each in float64: at T points of [0, 1] these are γ_1, ..., γ_T."""
        return noise_schedule.level(u, self.ends, self.schedule)

    def own(self, values):
        """values in the model's dtype."""
        return values.astype(self.dtype, copy=False)

    @property
    def layers(self):
        """The network's layers, (W, b, activation) each, as `ops.mlp_forward` takes them."""
        return common.layers_called(self, LAST, self.hidden, LAST)

    # ------------------------------------------------------------------------------------------- training and using

    def draw(self, rng, x, objective="matching", times="spread", **_):
        """The noise of a step: t (B,) in [0, 1), and standard normal eps (2, B, D).

        times "independent": uniform draws; "spread": one of them, the others at equal distances behind it (Kingma et al.
        2021), so that each t is uniform, and all steps have their share of every batch.
        """
        dtype, n = self.theta.real.dtype, len(x)
        t = (rng.random() + np.arange(n) / n) % 1 if times == "spread" else rng.random(n)
        return t.astype(dtype), rng.standard_normal((2, n, self.n_features), dtype)

    @staticmethod
    def check_settings(objective="matching", times="spread"):
        """ValueError for settings that cannot be."""
        checks.choice("objective", objective, OBJECTIVES)
        checks.choice("times", times, DRAWS)

    @staticmethod
    def validation_settings(objective="matching", **_):
        """Validation rows are measured with the terms that spread least: of the same mean."""
        return {"objective": "continuous" if objective == "continuous" else "matching", "times": "spread"}

    data_kind = property(lambda self: "real" if self.likelihood == "gaussian" else "levels")

    def centred(self, x):
        """Data x as the chain takes them: real data as they are, grey levels of [0, 1] on [−1, 1]."""
        return x if self.likelihood == "gaussian" else 2 * x - 1

    def in_data_units(self, x):
        """What `centred` was given: levels clipped to [0, 1]."""
        return x if self.likelihood == "gaussian" else np.clip((x + 1) / 2, 0, 1)

    sample, chain, log_likelihood = reverse_process.sample, reverse_process.chain, reverse_process.log_likelihood
    to_noise, from_noise, elbo = reverse_process.to_noise, reverse_process.from_noise, reverse_process.elbo
    measure, pictures = reverse_process.measure, reverse_process.pictures

    @classmethod
    def examples(cls, backend):
        """Every prediction, schedule, likelihood and objective, both kinds of time, one and several rows and columns."""
        rng = np.random.default_rng(3)
        for D, T, schedule, predicts, time, hidden, likelihood, objective, B in [
            (2, 5, "linear", "noise", "fourier", (5, 4), "gaussian", "matching", 4),
            (3, 4, "cosine", "data", "fourier", (5,), "gaussian", "continuous", 3),
            (2, 4, "learned", "score", "fourier", (6,), "levels", "matching", 3),
            (2, 3, "learned", "noise", "steps", (), "gaussian", "matching", 4),
            (1, 3, "learned", "data", "fourier", (4,), "gaussian", "continuous", 1),
            (2, 4, "linear", "noise", "steps", (4,), "gaussian", "consistency", 4),
            (3, 4, "cosine", "score", "fourier", (5,), "levels", "consistency", 3),
            (3, 4, "learned", "mixture", "fourier", (5,), "levels", "matching", 6),
        ]:  # fmt: skip
            low = -2.0 if likelihood == "gaussian" else -9.0  # with less noise few levels are near, and it goes faster
            model = cls(D, T, schedule, low, 1.5, predicts, time, 2, hidden, "tanh", likelihood, backend, "float64", seed=4)
            model.theta += 0.3 * rng.standard_normal(model.theta.size)
            x = rng.standard_normal((2 * B, D)) if likelihood == "gaussian" else rng.integers(0, 256, (2 * B, D)) / 255
            how = f"T {T}, {schedule}, {predicts}, {time}, {likelihood}, {objective}"
            yield Example(f"{backend} Diffusion {D} columns, {how}, B {B}", model, (x,), {"objective": objective})

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def checked_noise(self, noise, n_rows):
        """noise (t, eps) as arrays (B,) in [0, 1] and (2, B, D), or ValueError."""
        t, eps = noise
        t = checks.real_array("t", np.asarray(t)[:, None])[:, 0]
        eps = checks.converted("eps", checks.real_array("eps", eps, ndims=(3,), n_columns=self.n_features), self.dtype)
        if t.shape != (n_rows,) or not ((t >= 0) & (t <= 1)).all() or eps.shape[:2] != (2, n_rows):
            wanted = f"t ({n_rows},) in [0, 1] and eps (2, {n_rows}, {self.n_features})"
            raise ValueError(f"noise must be {wanted}; got shapes {t.shape} and {eps.shape}")
        return t, eps

    def __repr__(self):
        how = f"{self.n_steps} steps, {self.schedule}, {self.predicts}, {self.likelihood}"
        widths = "-".join(map(str, self.hidden)) or "linear"
        return (
            f"Diffusion({self.n_features}, {how}, {widths}, {self.activation}, {self.dtype.name}, {self.backend}: "
            f"{self.theta.size:,} parameters)"
        )
