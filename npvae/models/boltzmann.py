"""The restricted Boltzmann machine: `BoltzmannMachine.forward` and, in mirrored order, `BoltzmannMachine.backward`.

    x ──────────────────────────▶ free energy ─▶ positive ──┐
    chains ─ Gibbs sampling ─▶ x' ─▶ free energy ─▶ negative ─┴─▶ loss = mean F(x) − mean F(x')

The gradient of −log p(x) is that of F(x), the positive phase, minus its mean over p, the negative phase (`npvae.ops.boltzmann`
derives it). For draws x' of p, held constant, the loss has the same gradient on average. Its value says little: log p(x) takes
log Z (`npvae.models.partition_function`). Where x' comes from:

    n_chains = 0   contrastive divergence: n_steps of Gibbs sampling from the batch itself, CD-k (Hinton 2002)
    n_chains > 0   persistent contrastive divergence: of the chains that training moves on by n_steps in each step, PCD-k
                   (Tieleman 2008)

Shapes: B batch, C chains, V visible units (n_features), H hidden units.
"""

from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.core.parameters import Theta
from npvae.core.workers import Workers, workers_for
from npvae.models import common, fused, partition_function, saved
from npvae.models.protocol import Example
from npvae.ops import boltzmann, latent
from npvae.ops.uniforms import generators

VISIBLE = ("binary", "gaussian")  # kinds of visible units
CHAIN_STEPS = (0, 1, 2, 5, 20, 100, 500, 2000)  # of the picture of chains


class Terms(NamedTuple):
    """The loss and its two phases in nats, means over the rows; compared between training and validation rows, the positive one
    shows when a machine has learned its training rows by heart (Hinton 2012, section 6)."""

    loss: float  # positive − negative
    positive: float  # F(x) of the data
    negative: float  # F(x') of the chains
    clipped: float  # share of the visible units' log-variances that are clipped, 0 to 1


class Cache(NamedTuple):
    """What `backward` needs of `forward`: the caches of the ops, None of those that this machine does without."""

    loss: tuple
    positive: tuple
    negative: tuple
    centre: tuple | None
    clip: np.ndarray | None


class BoltzmannMachine:
    """A restricted Boltzmann machine with hidden units of zeros and ones. Smolensky 1986; Hinton 2012.

    n_features   V, visible units: the width of the data
    n_hidden     H, hidden units
    visible      units: "binary" for zeros and ones, "gaussian" for real data, each with a variance that is learned
    n_chains     C, persistent chains, at least as many as workers; 0 for contrastive divergence
    backend, dtype, seed   as those of `npvae.Flow`; the seed is also that of the chains' first states

    Parameters: visible_bias (V,), hidden_bias (H,), W (V, H) and, of Gaussian units, logvar (V,), of which the machine has the
    value clipped to [−30, 20]: a unit that hidden units predict exactly gains by each step of logvar downwards. Buffers, which
    no gradient reaches: chains (C, V), if any, and visible_offset (V,), hidden_offset (H,), at first 0. With offsets the biases
    are those of a centred machine (`npvae.ops.boltzmann.centre_forward`); `machine` gives those of the energy E(x, h) as the
    lectures write it. Raises ValueError for what cannot be.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units = "nats per datum"
    terms_help = {"loss": "free energy of data − of chains", "positive": "F(x) of the data", "negative": "F of the chains",
                  "clipped": "share of log-variances clipped"}  # fmt: skip
    options = (
        Option("hidden", 64, "hidden units", options.integer(1), "n_hidden", metavar="H"),
        Option("visible", "binary", "visible units: binary for zeros and ones, or gaussian", options.one_of(*VISIBLE),
               metavar="K", choices=VISIBLE),
        Option("chains", 100, "persistent chains; 0: those of each step start at the batch", options.integer(0), "n_chains",
               metavar="C"),
        Option("gibbs_steps", 1, "of each chain in each step of training", options.integer(1), "n_steps", "training",
               metavar="N"),
        Option("centred", True, "start with offsets and visible biases at the data's mean", options.flag, "centre", "start"),
    )  # fmt: skip

    def __init__(self, n_features, n_hidden=64, visible="binary", n_chains=0, backend="numba", dtype="float32", seed=0):
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_hidden = checks.integer("n_hidden", n_hidden, 1)
        self.n_chains = checks.integer("n_chains", n_chains, 0)
        checks.choice("visible", visible, VISIBLE)
        self.visible = visible
        shapes = self.shapes(self.n_features, self.n_hidden, visible)
        common.prepare(self, shapes, "sigmoid", backend, dtype, seed, "glorot")  # a hidden unit's mean is a sigmoid
        real = self.theta.real.dtype
        self.buffers = {"visible_offset": np.zeros(self.n_features, real), "hidden_offset": np.zeros(self.n_hidden, real)}
        if self.n_chains:
            self.buffers["chains"] = self.independent_units(self.n_chains, [self.seed, 1]).astype(real)

    @staticmethod
    def shapes(n_features, n_hidden=64, visible="binary", **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        shapes = {"visible_bias": (n_features,), "hidden_bias": (n_hidden,), "W": (n_features, n_hidden)}
        return shapes | ({"logvar": (n_features,)} if visible == "gaussian" else {})

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, noise, n_steps=1, check=True):
        """Loss of a batch: x (B, V), and as noise the draws x' (C, V) of the chains -> Terms and the cache for `backward`.

        n_steps is a setting of `draw`. The cache refers to x, noise and theta: call backward before they change.
        """
        if check:
            (x,), (noise,) = self.check(x), self.check(noise, "noise")
            self.check_settings(n_steps)
        machine, *caches = self.machine_and_caches()
        free_energy_forward = self.free_energy_pair[0]
        positive, positive_cache = free_energy_forward(x, *machine)  # (B, V) -> (B,)
        negative, negative_cache = free_energy_forward(noise, *machine)  # (C, V) -> (C,)
        loss, loss_cache = boltzmann.phases_forward(positive, negative)
        phases = [values.mean(dtype=np.result_type(values, np.float64)).item() for values in (positive, negative)]
        clipped = 0.0 if caches[1] is None else 1 - caches[1].mean().item()
        return Terms(loss.item(), *phases, clipped), Cache(loss_cache, positive_cache, negative_cache, *caches)

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        free_energy_backward = self.free_energy_pair[1]
        dpositive, dnegative = boltzmann.phases_backward(dloss, cache.loss)  # (B,), (C,)
        at_chains = free_energy_backward(dnegative, cache.negative)
        at_data = free_energy_backward(dpositive, cache.positive)
        grads = [positive + negative for positive, negative in zip(at_data, at_chains)]  # each parameter receives two
        return common.laid_out(self, [self.through_machine(grads, cache)], out)

    gradient, workspace = fused.boltzmann_gradient, fused.boltzmann_workspace

    def machine_and_caches(self):
        """The machine of the energy E(x, h), (visible_bias, hidden_bias, W) and, of Gaussian units, logvar; and both caches."""
        visible_bias, hidden_bias, W, *logvar = self.parameters.values()
        biases, centre_cache, clip_cache = (visible_bias, hidden_bias), None, None
        if logvar:
            logvar[0], clip_cache = latent.clip_logvar_forward(logvar[0])
        if self.is_centred:
            offsets = self.buffers["visible_offset"], self.buffers["hidden_offset"]
            biases, centre_cache = boltzmann.centre_forward(*biases, W, logvar[0] if logvar else None, *offsets)
        return (*biases, W, *logvar), centre_cache, clip_cache

    def through_machine(self, grads, cache):
        """From the gradients of the machine's parameters those of the model's: W and logvar reach the biases as well."""
        if cache.centre is not None:
            dvisible_bias, dhidden_bias, *others = boltzmann.centre_backward(*grads[:2], cache.centre)
            grads = [dvisible_bias, dhidden_bias, *(own + by_biases for own, by_biases in zip(grads[2:], others, strict=True))]
        if cache.clip is not None:
            grads = [*grads[:-1], latent.clip_logvar_backward(grads[-1], cache.clip)]
        return grads

    machine = property(lambda self: self.machine_and_caches()[0])
    is_centred = property(lambda self: bool(self.buffers["visible_offset"].any() or self.buffers["hidden_offset"].any()))
    chains = property(lambda self: self.buffers.get("chains"))

    @property
    def free_energy_pair(self):
        """The forward and the backward of the free energy of these visible units."""
        return tuple(getattr(self.ops, f"{self.visible}_free_energy_{way}") for way in ("forward", "backward"))

    # ------------------------------------------------------------------------------------------------------- training

    def draw(self, rng, x, n_steps=1, chains=None):
        """x' (B, V), or (C, V) of persistent chains, which are moved: n_steps of Gibbs sampling from x, or from the chains."""
        start = x if chains is None else chains
        machine = [value.real for value in self.machine]
        moved = self.ops.gibbs(start.astype(machine[0].dtype), generators(rng, len(start)), n_steps, *machine)
        if chains is not None:
            chains[...] = moved
        return moved

    @staticmethod
    def check_settings(n_steps=1):
        """ValueError for settings that cannot be."""
        checks.integer("n_steps", n_steps, 1)

    def centre(self, x):
        """Start at rows x (n, V): a machine whose visible units are independent and have the data's mean (and variance), with
        offsets at the mean of both layers there, and chains that are draws of it. Before training, W is as it is."""
        (x,) = self.check(x)
        mean = x.mean(axis=0, dtype=np.float64)  # (V,)
        self.buffers["visible_offset"][:], self.buffers["hidden_offset"][:] = mean, 0.5
        self.parameters["visible_bias"] = partition_function.base_bias(self, x)
        if self.visible == "gaussian":
            variance = x.var(axis=0, dtype=np.float64)
            if not variance.all():
                raise ValueError(f"x must vary in every column; column {int(np.argmin(variance))} does not")
            self.parameters["logvar"] = np.log(variance)
        if self.n_chains:
            self.buffers["chains"][:] = self.independent_units(self.n_chains, [self.seed, 1])

    def independent_units(self, n, rng):
        """n draws (n, V) of the machine without weights whose visible biases are the parameters'."""
        logvar = (value.real for value in self.machine[3:])
        return partition_function.independent(self.parameters["visible_bias"].real, n, np.random.default_rng(rng), *logvar)

    data_kind = property(lambda self: "binary" if self.visible == "binary" else "real")

    # ----------------------------------------------------------------------------------------- using a trained model

    def free_energy(self, x):
        """F(x) = −log p(x) − log Z of rows x (n, V), (n,) in nats."""
        return self.free_energy_pair[0](self.check(x)[0], *self.machine)[0]

    def encode(self, x):
        """E[h|x]: x (n, V) -> (n, H), the probabilities of ones."""
        _, hidden_bias, W, *logvar = self.machine
        return boltzmann.sigmoid_and_complement(boltzmann.hidden_input(self.check(x)[0], hidden_bias, W, *logvar))[0]

    def decode(self, h):
        """E[x|h]: h (n, H), zeros and ones or probabilities -> (n, V)."""
        visible_bias, _, W, *logvar = self.machine
        h = checks.converted("h", checks.real_array("h", h, n_columns=self.n_hidden), self.dtype)
        return boltzmann.visible_mean(h, visible_bias, W, *logvar)

    def reconstruct(self, x):
        """E[x|h] at the mean h = E[h|x]: (n, V) -> (n, V)."""
        return self.decode(self.encode(x))

    def move(self, x, n_steps, rng=None):
        """Rows x (n, V) after n_steps of Gibbs sampling, each a chain of its own: (n, V); rng is a Generator or a seed. What a
        chain does depends on rng and its row's number alone, not on how many cores share the rows."""
        (x,), n_steps = self.check(x), checks.integer("n_steps", n_steps, 0)
        machine, states = self.machine, generators(np.random.default_rng(rng), len(x))
        with Workers(min(workers_for(2 * n_steps * x.size * self.n_hidden), len(x))) as workers:
            return np.concatenate(workers.map(lambda p: self.ops.gibbs(x[p], states[p], n_steps, *machine),
                                              workers.parts(len(x))))  # fmt: skip

    def sample(self, n, rng=None, n_steps=1000):
        """n draws of x, (n, V), after n_steps of Gibbs sampling: from the persistent chains, from one several times where n is
        larger; without them from independent units. rng is a Generator or a seed."""
        rng, n = np.random.default_rng(rng), checks.integer("n", n, 1)
        start = self.independent_units(n, rng) if self.chains is None else self.chains[np.arange(n) % len(self.chains)]
        return self.move(start, n_steps, rng)

    log_partition, log_likelihood = partition_function.log_partition, partition_function.log_likelihood
    measure = partition_function.measure

    def pictures(self, plots, x, dataset):
        """The pictures of a run: (file name, what it shows, function that makes the Figure) each."""

        def draws():
            drawn = dataset.in_own_units(self.reconstruct(self.sample(plots.N_SAMPLES, 0)))
            return plots.samples(drawn, dataset.image_shape, "E[x|h] of draws of the machine")

        def filters():
            return plots.samples(self.parameters["W"].T[: plots.N_SAMPLES], dataset.image_shape, "weights of hidden units")

        def chains():
            x_t, states, rng = x[:: max(1, len(x) // 8)][:8], [], np.random.default_rng(0)
            for before, step in zip((0, *CHAIN_STEPS), CHAIN_STEPS):
                x_t = self.move(x_t, step - before, rng)
                states.append(self.reconstruct(x_t) if step else x_t)
            title = f"chains from left to right, after {', '.join(map(str, CHAIN_STEPS))} steps"
            return plots.samples(dataset.in_own_units(np.stack(states, axis=1).reshape(-1, self.n_features)),
                                 dataset.image_shape, title)  # fmt: skip

        yield "samples.png", "draws of the machine after 1000 steps of Gibbs sampling", draws
        if dataset.image_shape is not None:
            yield "filters.png", "the weights of hidden units as images", filters
            yield "chains.png", "chains that start at validation rows", chains

    @classmethod
    def examples(cls, backend):
        """Binary and Gaussian units, one and several steps, hidden layers larger and smaller than the visible one, centred."""
        rng = np.random.default_rng(3)
        for V, H, visible, n_steps, B, how in [
            (6, 4, "binary", 1, 4, ""), (5, 7, "binary", 3, 3, ", centred"), (7, 1, "binary", 2, 3, ""),
            (4, 5, "gaussian", 1, 4, ""), (3, 4, "gaussian", 3, 3, ", centred"), (12, 110, "binary", 1, 6, ", centred"),
            (3, 4, "gaussian", 1, 4, ", centred, clipped"),
        ]:  # fmt: skip
            model = cls(V, H, visible, backend=backend, dtype="float64", seed=4)
            x = (rng.random((2 * B, V)) < 0.3).astype(float) if visible == "binary" else rng.standard_normal((2 * B, V))
            if "centred" in how:
                model.centre(np.concatenate([x, 1 - x]))
            model.theta += 0.5 * rng.standard_normal(model.theta.size)
            if "clipped" in how:
                model.parameters["logvar"][1] = 21
            name = f"{backend} BoltzmannMachine {V}-{H}, {visible}{how}, CD-{n_steps}, B {B}"
            yield Example(name, model, (x,), {"n_steps": n_steps})

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, V) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError; see `common.checked`."""
        return (common.checked(self, x, name),)

    def __repr__(self):
        chains = f"{self.n_chains} chains" if self.n_chains else "no chains"
        units = f"{self.n_features}-{self.n_hidden}, {self.visible}"
        return f"BoltzmannMachine({units}, {chains}, {self.dtype.name}, {self.backend}: {self.theta.size:,} parameters)"
