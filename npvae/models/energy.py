"""An energy-based model: p(x) = e^−E(x)/Z with E from a multilayer perceptron, and two ways to train it without knowing Z.

    contrastive   x ───────────────────────────▶ E(x) ───┐
                  x⁻ ─ Langevin steps ─▶ x⁻ ───▶ E(x⁻) ──┴─▶ loss = E(x) − E(x⁻) + α (E(x)² + E(x⁻)²)
    score         x, eps ─▶ x ± σ eps ─▶ score = −∂E/∂x ─▶ loss = ½ ‖σ score ± eps‖²

The first follows the gradient of log p(x), with samples of the model for the expectation under p (Hinton 2002; the buffer of
earlier samples is that of Tieleman 2008 and of Du & Mordatch 2019). The second needs no samples, and learns the density of data
with a little noise (Vincent 2011). Lectures, "Energy-based models and Langevin sampling"; `npvae.ops.energy` has the formulas,
`npvae.ops.langevin` the sampler, `npvae.models.energy_density` what is done with a trained model. Shapes: B batch, D data.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.numerics import accumulator
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, energy_density, saved
from npvae.models.protocol import Example
from npvae.ops import energy

ACTIVATIONS = tuple(name for name in energy.DERIVATIVES if name != "identity")  # smooth ones: E is differentiated twice
OBJECTIVES, STARTS, SAMPLERS = ("score", "contrastive"), ("buffer", "data", "noise"), ("adjusted", "unadjusted")


class Terms(NamedTuple):
    """The loss, and energies in nats, mean over the batch."""

    loss: float  # of the objective
    data: float  # energy of the data, for the objective "score" with the noise in them
    samples: float  # energy of the model's samples, for the objective "contrastive"


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the caches of its ops; those of the samples are None for the objective "score"."""

    loss: tuple
    data: tuple
    samples: tuple | None
    n_rows: int


class EnergyModel:
    """An energy-based model of real data with mean about 0 and standard deviation about 1.

    n_features           D, width of the data
    hidden, activation   of the network; "tanh", "sigmoid", "softplus" or "silu", which have two derivatives
    confinement          c of the term ½ c ‖x‖²: a new model is N(0, I/c); 0: the network alone, and Z may be infinite
    start                of the sampler in training: "buffer": n_chains samples of earlier steps, of which a share `fresh`
                         starts again from N(0, I) each time; "data": the batch itself; "noise": N(0, I) every time
    sampler              "adjusted" or "unadjusted" Langevin steps, n_langevin of them of size step_size
    backend, dtype, seed, initialization   as those of `npvae.Flow`; the last weights start at 0

    Parameters: energy.0.W, energy.0.b, ..., energy.W, energy.b. Raises ValueError for what cannot be.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "nats per datum"
    data_kind = "real"
    defaults = {"data": "toy:moons"}  # of `npvae train --model energy`
    terms_help = {"loss": "of the objective", "data": "E(data)", "samples": "E(samples)"}
    options = (
        Option("hidden", [128, 128], "widths of the hidden layers", options.integer(1), metavar="H", many=True),
        Option("activation", "tanh", "of the hidden layers: " + ", ".join(ACTIVATIONS), options.one_of(*ACTIVATIONS),
               metavar="A", choices=ACTIVATIONS),
        Option("confinement", 1.0, "c of the energy ½ c ‖x‖² beside the network", options.not_negative, metavar="C"),
        Option("start", "buffer", "of the sampler in training: buffer, data or noise", options.one_of(*STARTS), metavar="S",
               choices=STARTS),
        Option("sampler", "adjusted", "Langevin steps with Metropolis test, or without", options.one_of(*SAMPLERS),
               metavar="S", choices=SAMPLERS),
        Option("langevin_steps", 20, "of the sampler for each step of training", options.integer(1), "n_langevin", metavar="K"),
        Option("step_size", 0.15, "of the sampler, in units of the data", options.positive, metavar="E"),
        Option("chains", 1000, "samples that the buffer holds", options.integer(1), "n_chains", metavar="N"),
        Option("fresh", 0.05, "share of the samples that begins again from noise", options.not_negative, metavar="F"),
        common.INITIALIZATION,
        Option("objective", "contrastive", "contrastive: with the model's samples; score: denoising score matching",
               options.one_of(*OBJECTIVES), use="training", metavar="O", choices=OBJECTIVES),
        Option("alpha", 0.01, "weight of the squared energies, of the contrastive objective", options.not_negative,
               use="training", metavar="A"),
        Option("noise_scale", 0.05, "standard deviation of the noise of score matching", options.positive, use="training",
               metavar="N"),
    )  # fmt: skip

    def __init__(self, n_features, hidden=(128, 128), activation="tanh", confinement=1.0, start="buffer", sampler="adjusted",
                 n_langevin=20, step_size=0.15, n_chains=1000, fresh=0.05, backend="numba", dtype="float32", seed=0,
                 initialization="glorot"):  # fmt: skip
        for name, value, allowed in [("activation", activation, ACTIVATIONS), ("start", start, STARTS),
                                     ("sampler", sampler, SAMPLERS)]:  # fmt: skip
            checks.choice(name, value, allowed)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.hidden = common.widths_of("hidden", hidden)
        self.confinement, self.start, self.sampler = checks.number("confinement", confinement, 0), start, sampler
        self.n_langevin = checks.integer("n_langevin", n_langevin, 1)
        self.step_size = checks.number("step_size", step_size, 0, exclusive=True)
        self.n_chains, self.fresh = checks.integer("n_chains", n_chains, 1), checks.number("fresh", fresh, 0)
        common.prepare(self, self.shapes(self.n_features, self.hidden), activation, backend, dtype, seed, initialization)
        self.start_network(np.random.default_rng([self.seed, 1]))
        rng = np.random.default_rng([self.seed, 2])
        self.buffers["chains"] = rng.standard_normal((self.n_chains, self.n_features)).astype(self.theta.real.dtype)

    def start_network(self, rng):
        """Initial weights: the last layer is 0, and the first layer's units are spread over the data, as those of
        `npvae.models.Flow.start_conditioner`."""
        if self.hidden:
            D, H = self.n_features, self.hidden[0]
            W, c = 3 / np.sqrt(D) * rng.standard_normal((D, H)), 1.5 * rng.standard_normal((D, H))
            self.parameters["energy.0.W"], self.parameters["energy.0.b"] = W, -(c * W).sum(axis=0)
        self.parameters["energy.W"] = 0

    @staticmethod
    def shapes(n_features, hidden=(128, 128), **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        hidden = common.widths_of("hidden", hidden)
        names = [*(f"energy.{i}" for i in range(len(hidden))), "energy"]
        return dense_shapes(dict(zip(names, pairwise([n_features, *hidden, 1]))))

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, noise, objective="contrastive", alpha=0.01, noise_scale=0.05, check=True):
        """Loss of a batch x (B, D) -> Terms and the cache for `backward`.

        noise is what `draw` gives: samples of the model (B, D) for the objective "contrastive", standard normal eps (B, D) for
        "score". The contrastive loss is not −log p(x), only its gradient is, where the samples are those of the model: it stays
        near 0. The cache refers to x, noise and theta: call backward before they change.
        """
        if check:
            (x,), noise = self.check(x), self.checked_noise(noise, len(x))
            self.check_settings(objective=objective, alpha=alpha, noise_scale=noise_scale)
        forward = self.score_matching_forward if objective == "score" else self.contrastive_forward
        return forward(x, noise, noise_scale if objective == "score" else alpha)

    def contrastive_forward(self, x, samples, alpha):
        """The positive and the negative phase: x, samples (B, D) -> Terms, Cache."""
        of_data, data_cache = energy.energy_forward(x, self.layers, self.confinement, self.ops.mlp_forward)  # (B, D) -> (B,)
        of_samples, samples_cache = energy.energy_forward(samples, self.layers, self.confinement, self.ops.mlp_forward)
        loss, loss_cache = energy.contrastive_forward(of_data, of_samples, alpha)  # (B,), (B,) -> (B,)
        return Terms(*map(mean_of, (loss, of_data, of_samples))), Cache(loss_cache, data_cache, samples_cache, len(x))

    def score_matching_forward(self, x, eps, noise_scale):
        """Each datum with noise of both signs, so that what is odd in the noise cancels: x, eps (B, D) -> Terms, Cache."""
        x, eps = np.concatenate([x, x]), np.concatenate([eps, -eps])  # (B, D) -> (2B, D)
        (of_data, score), score_cache = self.ops.score_forward(x + noise_scale * eps, self.layers, self.confinement)
        loss, loss_cache = energy.score_matching_forward(score, eps, noise_scale)  # (2B, D) -> (2B,)
        return Terms(mean_of(loss), mean_of(of_data), 0.0), Cache(loss_cache, score_cache, None, len(x))

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        dmean = np.full(cache.n_rows, dloss / cache.n_rows)  # 1/B enters here
        if cache.samples is None:
            dscore = energy.score_matching_backward(dmean, cache.loss)  # (2B,) -> (2B, D)
            _, grads = self.ops.score_backward(np.zeros(cache.n_rows, dscore.dtype), dscore, cache.data)
            return common.laid_out(self, grads, out)
        dmean = dmean.astype(self.dtype, copy=False)
        of_data, of_samples = energy.contrastive_backward(dmean, cache.loss)
        _, positive = energy.energy_backward(of_data, cache.data, False, self.ops.mlp_backward)
        _, negative = energy.energy_backward(of_samples, cache.samples, False, self.ops.mlp_backward)
        grads = [(dW + dW_, db + db_) for (dW, db), (dW_, db_) in zip(positive, negative)]  # both phases: two gradients
        return common.laid_out(self, grads, out)

    @property
    def layers(self):
        """The network's layers, (W, b, activation) each, as `ops.mlp_forward` takes them."""
        return common.layers_called(self, "energy", self.hidden, "energy")

    # ------------------------------------------------------------------------------------------- training and using

    @property
    def chains(self):
        """The buffer of earlier samples (n_chains, D), which training hands to `draw`; None where none is used."""
        return self.buffers["chains"] if self.start == "buffer" else None

    def draw(self, rng, x, chains=None, objective="contrastive", **_):
        """The noise of a step: samples of the model, or, for the objective "score", standard normal eps; (B, D).

        chains: rows of the buffer, moved in place; without them the sampler starts at the data, or where `start` says.
        """
        if objective == "score":
            return rng.standard_normal(x.shape, self.theta.real.dtype)
        return energy_density.training_samples(self, rng, x, chains)

    @staticmethod
    def check_settings(objective="contrastive", alpha=0.01, noise_scale=0.05):
        """ValueError for settings that cannot be."""
        checks.choice("objective", objective, OBJECTIVES)
        checks.number("alpha", alpha, 0)
        checks.number("noise_scale", noise_scale, 0, exclusive=True)

    @staticmethod
    def validation_settings(noise_scale=0.05, **_):
        """Validation rows are measured by score matching, whatever the model is trained by: a contrastive loss says nothing of
        how good a model is, since both of its energies follow the weights."""
        return {"objective": "score", "noise_scale": noise_scale}

    energy, score = energy_density.energy, energy_density.score
    sample, log_partition, log_likelihood = energy_density.sample, energy_density.log_partition, energy_density.log_likelihood
    measure, pictures = energy_density.measure, energy_density.pictures

    @classmethod
    def examples(cls, backend):
        """Both objectives, every activation, with and without confinement and squared energies, depth 0 to 3, several rows and
        columns and one."""
        rng = np.random.default_rng(3)
        for D, hidden, activation, confinement, start, sampler, settings, B in [
            (2, (5, 4), "silu", 1.0, "buffer", "adjusted", {"objective": "contrastive", "alpha": 0.0}, 4),
            (3, (6,), "tanh", 0.0, "data", "unadjusted", {"objective": "contrastive", "alpha": 0.1}, 3),
            (2, (5,), "softplus", 0.5, "noise", "adjusted", {"objective": "contrastive", "alpha": 0.1}, 1),
            (2, (5, 4), "silu", 1.0, "buffer", "adjusted", {"objective": "score"}, 4),
            (3, (5, 4, 3), "tanh", 0.0, "buffer", "adjusted", {"objective": "score", "noise_scale": 0.3}, 3),
            (1, (6,), "sigmoid", 0.5, "buffer", "adjusted", {"objective": "score", "noise_scale": 1.0}, 1),
            (2, (6,), "softplus", 1.0, "buffer", "adjusted", {"objective": "score", "noise_scale": 0.3}, 3),
        ]:  # fmt: skip
            model = cls(D, hidden, activation, confinement, start, sampler, 3, 0.1, 7, 0.5, backend, "float64", seed=4)
            model.theta += 0.3 * rng.standard_normal(model.theta.size)
            widths, how = "-".join(map(str, hidden)), ", ".join(map(str, settings.values()))
            name = f"{backend} EnergyModel {D} columns, {widths} {activation}, confinement {confinement:g}, {how}, B {B}"
            yield Example(name, model, (rng.standard_normal((2 * B, D)),), settings)

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def checked_noise(self, noise, n_rows):
        """noise (B, D) as an array of the model's dtype, or ValueError."""
        noise = checks.converted("noise", checks.real_array("noise", noise, n_columns=self.n_features), self.dtype)
        if len(noise) != n_rows:
            raise ValueError(f"noise must have a row for each of x, {n_rows}; got shape {noise.shape}")
        return noise

    def __repr__(self):
        widths = "-".join(map(str, self.hidden)) or "linear"
        return (
            f"EnergyModel({self.n_features}, {widths}, {self.activation}, confinement {self.confinement:g}, {self.dtype.name}, "
            f"{self.backend}: {self.theta.size:,} parameters)"
        )


def mean_of(values):
    """The mean of values (n,) as one of Python's numbers."""
    return values.mean(dtype=accumulator(values)).item()
