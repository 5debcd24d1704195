"""Paths that led to measured outcomes: a VAE whose latent variable is the path of a stochastic differential equation.

    x, z, t ─ bridge + network ─▶ control v ─(+eps) steps ─▶ path z(t) ─ at the times of x ─ likelihood ─▶ nll ──┐
                                      └────────── Girsanov: KL of the path measures ─▶ kl ───────────────────────┴─▶ loss

The simulation is given: a particle starts at `start` and moves by dz = f(z) dt + σ dW. After each of K intervals its place is
measured with a Gaussian error; a row x is what was measured. The paths that led to x follow such an equation too, with a
further drift σ v(z, t; x). A network learns this control for all x at once (Lamacraft, "Markov chain autoencoders", the first
application). The loss is −ELBO, with the KL of path measures of `npvae.ops.sde`.

Shapes: B batch, S paths per datum, T steps, K outcomes, D dimensions of the particle.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.numerics import log_sum_exp
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes
from npvae.models import common, objectives, saved
from npvae.models.protocol import Example, Measure
from npvae.ops import bounds, sde
from npvae.ops.sde import Field

DOUBLE_WELL = (0.0, 4.0, 0.0, -4.0)  # f = 4 z − 4 z³ = −dU/dz of U = (z² − 1)²: wells at −1 and 1, a barrier at 0
PATHS_PER_PASS = 4000  # where nothing is trained: keeps memory flat
ELBO_PATHS = 10  # per datum behind the ELBO in `measure`


class Terms(NamedTuple):
    """Mean over the batch, in nats."""

    loss: float  # what is minimised: −ELBO = nll + kl for the objective elbo and beta 1
    nll: float  # −log p(x|path)
    kl: float  # ½ ∫ |v|² dt, whose mean is the KL of the path measures with and without the control


class Cache(NamedTuple):
    """What `backward` needs of `forward`."""

    stretches: list  # the cache of each integration, from one outcome to the next
    nll: tuple
    bound: tuple
    objective: str
    shape: tuple  # (S, B)


class PathPosterior:
    """The posterior of paths given outcomes, learned for all outcomes at once.

    n_features         columns of x: K outcomes of D dimensions each, those of the first time first
    n_dimensions       D; each dimension moves by the same equation
    interval           time from the start to the first outcome, and from each outcome to the next
    n_steps            steps of an interval: T = K n_steps
    start              where the particle starts, in every dimension
    drift              coefficients c of f(z) = Σ_k c_k z^k; by default a double well
    sigma, observation_sigma   strength of the noise; standard deviation of the error of an outcome
    hidden, activation the network's hidden layers: their widths; "relu", "tanh", "sigmoid", "softplus" or "silu"
    scheme             "euler": a chain of Gaussian steps, whose ELBO is a bound at every dt; or "heun", of second order in dt
    segment            steps between checkpoints of the backward pass; 0: nothing is computed twice (`sde.integrate_forward`)
    backend, dtype, seed, initialization   as those of `npvae.VAE`; the network's last layer starts at 0

    `theta` is the flat vector of every parameter, `parameters` maps names to its views: control.0.W, control.0.b, ...,
    control.W, control.b. Raises ValueError for what cannot be. A copy with other n_steps has the same control.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units, data_kind = "nats per datum", "real"
    defaults = {"data": "toy:moons", "max_gradient_norm": 10.0}  # of `npvae train --model pathposterior`
    terms_help = {"loss": "what is minimised", "nll": "outcomes", "kl": "paths against the simulation"}
    options = (
        Option("dimensions", 1, "of the particle, columns of data at a time", options.integer(1), "n_dimensions", metavar="D"),
        Option("interval", 2.0, "time to the first outcome, and from each to the next", options.positive, metavar="TIME"),
        Option("steps", 100, "steps of an interval", options.integer(1), "n_steps", metavar="N"),
        Option("start", -1.0, "where the particle starts", options.number(-math.inf), metavar="Z"),
        Option("drift", list(DOUBLE_WELL), "coefficients of 1, z, z², ... in its drift", options.number(-math.inf),
               metavar="C", many=True),
        Option("sigma", 1.0, "strength of the noise", options.positive, metavar="S"),
        Option("observation_sigma", 0.2, "standard deviation of the error of an outcome", options.positive, metavar="S"),
        Option("hidden", [64, 64], "widths of the hidden layers of the network", options.integer(1), metavar="H", many=True),
        common.ACTIVATION._replace(default="tanh"),
        Option("scheme", "euler", "euler, a chain of Gaussian steps, or heun, of second order in the length of a step",
               options.one_of(*sde.SCHEMES), metavar="K", choices=tuple(sde.SCHEMES)),
        common.INITIALIZATION,
        *objectives.OPTIONS[:3],  # without free bits
    )  # fmt: skip

    def __init__(self, n_features, n_dimensions=1, interval=2.0, n_steps=100, start=-1.0, drift=DOUBLE_WELL, sigma=1.0,
                 observation_sigma=0.2, hidden=(64, 64), activation="tanh", scheme="euler", segment=None, backend="numba",
                 dtype="float32", seed=0, initialization="glorot"):  # fmt: skip
        checks.choice("scheme", scheme, sde.SCHEMES)
        self.n_features = checks.integer("n_features", n_features, 1)
        self.n_dimensions = checks.integer("n_dimensions", n_dimensions, 1)
        self.n_steps = checks.integer("n_steps", n_steps, 1)
        self.interval = checks.number("interval", interval, 0, exclusive=True)
        self.sigma = checks.number("sigma", sigma, 0, exclusive=True)
        self.observation_sigma = checks.number("observation_sigma", observation_sigma, 0, exclusive=True)
        self.start = checks.number("start", start, -math.inf)
        self.drift = tuple(checks.number("drift", c, -math.inf) for c in drift)
        self.hidden, self.scheme = common.widths_of("hidden", hidden), scheme
        self.segment = None if segment is None else checks.integer("segment", segment, 0)
        if self.n_features % self.n_dimensions:
            raise ValueError(f"n_features must be a multiple of n_dimensions = {self.n_dimensions}; got {self.n_features}")
        self.n_outcomes = self.n_features // self.n_dimensions
        self.times = np.linspace(0, self.n_outcomes * self.interval, self.n_outcomes * self.n_steps + 1)  # (T + 1,)
        self.free = Field(sde.polynomial_forward, sde.polynomial_backward, self.drift)  # of the simulation
        shapes = self.shapes(self.n_features, self.n_dimensions, hidden=self.hidden)
        common.prepare(self, shapes, activation, backend, dtype, seed, initialization)
        self.parameters["control.W"] = 0

    @staticmethod
    def shapes(n_features, n_dimensions=1, hidden=(64, 64), **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        widths = [n_dimensions + 1 + n_features, *common.widths_of("hidden", hidden), n_dimensions]  # of z, t and x
        names = [*(f"control.{i}" for i in range(len(widths) - 2)), "control"]
        return dense_shapes(dict(zip(names, pairwise(widths))))

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, x, eps, objective="elbo", beta=1.0, n_samples=None):
        """Loss of a batch: x (B, K D), eps (T, S, B, D) -> Terms and the cache for `backward`.

        objective "elbo": nll + beta kl, mean over S and B; "iwae": the importance-weighted bound of the S paths. n_samples is
        what `draw` takes. The cache refers to x, eps and theta: call backward before they change.
        """
        (x,), eps = self.check(x), self.checked_noise(eps, len(x))
        (states, energy, martingale), stretches = self.paths_forward(x, eps, (self.n_steps,))
        nll, nll_cache = self.ops.gaussian_nll_forward(states[-1], x, self.observation_sigma**2)  # (S, B, K D) -> (S, B)
        if objective == "iwae":
            loss, bound_cache = bounds.iwae_forward(nll, (energy + martingale)[..., None], beta)  # log dQ/dP (S, B, 1)
        else:
            loss, bound_cache = bounds.elbo_forward(nll.reshape(-1), energy.reshape(-1, 1), beta)  # (S B,), (S B, 1)
        cache = Cache(stretches, nll_cache, bound_cache, objective, nll.shape)
        return Terms(loss.item(), nll.mean().item(), energy.mean().item()), cache

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter, as that of `npvae.VAE.backward`."""
        bound_backward = bounds.iwae_backward if cache.objective == "iwae" else bounds.elbo_backward
        dnll, dkl = bound_backward(dloss, cache.bound)
        denergy = dkl.reshape(cache.shape)  # (S, B, 1) or (S B, 1) -> (S, B)
        dmartingale = denergy if cache.objective == "iwae" else np.zeros_like(denergy)
        dmean = self.ops.gaussian_nll_backward(dnll.reshape(cache.shape), cache.nll)  # (S, B) -> (S, B, K D)
        return common.laid_out(self, [self.paths_backward(dmean[None], denergy, dmartingale, cache.stretches)], out)

    def paths_forward(self, x, eps, keep):
        """Paths given x (B, K D), from one outcome to the next: eps (T, S, B, D) -> states (len(keep), S, B, K D) after the
        steps `keep` of each stretch, energy, martingale (S, B), and the caches."""
        _, S, B, D = eps.shape
        n, kept, caches = self.n_steps, [], []
        rows = np.broadcast_to(x, (S, *x.shape)).reshape(S * B, -1)  # (B, K D) -> (S B, K D)
        z = np.full((S * B, D), self.start, self.dtype)
        energy = martingale = 0
        for k in range(self.n_outcomes):
            noise, times = eps[k * n : (k + 1) * n].reshape(n, S * B, D), self.times[k * n : (k + 1) * n + 1]
            control = self.control(rows, k, times[-1])
            arguments = z, noise, times, self.sigma, self.free, control, self.scheme, keep, self.segment
            (states, *more), cache = sde.integrate_forward(*arguments)
            z, energy, martingale = states[-1], energy + more[0], martingale + more[1]
            kept.append(states.reshape(len(keep), S, B, D))
            caches.append(cache)
        return (np.concatenate(kept, axis=-1), energy.reshape(S, B), martingale.reshape(S, B)), caches

    def paths_backward(self, dstates, denergy, dmartingale, caches):
        """Backward of `paths_forward`: dstates (len(keep), S, B, K D), denergy, dmartingale (S, B) -> the list of the gradients
        of the network's parameters."""
        D, dz, totals = self.n_dimensions, 0, []
        for k in reversed(range(self.n_outcomes)):
            of_stretch = dstates[..., k * D : (k + 1) * D].reshape(len(dstates), -1, D).copy()
            of_stretch[-1] += dz  # the last state is measured, and the next stretch begins with it: two gradients
            dz, _, _, grads = sde.integrate_backward(of_stretch, denergy.reshape(-1), dmartingale.reshape(-1), caches[k])
            sde.accumulate(totals, grads)
        return totals

    def control(self, rows, k, end):
        """The control v of stretch k, which ends at time `end`, given x as rows (S B, K D): a Field, bridge + network.

        The bridge is v without a drift and without later outcomes: σ ∂/∂z log N(y; z, r) = σ (y − z)/r, for the outcome y at
        the end and the variance r = s² + σ² (end − t) of what lies between. A new model has this control alone.
        """
        y = rows[:, k * self.n_dimensions : (k + 1) * self.n_dimensions]

        def forward(z, t, parameters):
            gain = self.sigma / (self.observation_sigma**2 + self.sigma**2 * float(end - t))
            learned, cache = sde.network_forward(z, 2 * t / self.times[-1] - 1, parameters, self.ops.mlp_forward)
            return learned + gain * (y - z), (cache, gain)

        def backward(dv, cache):
            network_cache, gain = cache
            dz, grads = sde.network_backward(dv, network_cache, self.ops.mlp_backward)
            return dz - gain * dv, grads

        return Field(forward, backward, (common.layers_called(self, "control", self.hidden, "control"), rows))

    # --------------------------------------------------------------------------------------------- training and using

    def draw(self, rng, x, n_samples=1, **_):
        """The noise of a step, standard normal eps (T, S, B, D)."""
        return rng.standard_normal((len(self.times) - 1, n_samples, len(x), self.n_dimensions), self.theta.real.dtype)

    check_settings = staticmethod(objectives.check_settings)
    validation_settings = staticmethod(objectives.validation_settings)

    def posterior_paths(self, x, n_samples=1, rng=None):
        """Paths given x (B, K D), with their weights: z (T + 1, S, B, D) at `times`, log_w (S, B) in nats.

        log w = log p(x|path) − log dQ/dP: its mean is the ELBO, that of w is p(x), and means with the weights w/Σ_s w_s are
        those of the exact posterior. Exact for the scheme "euler", for "heun" as dt → 0.
        """
        (x,) = self.check(x)
        eps = self.draw(np.random.default_rng(rng), x, checks.integer("n_samples", n_samples, 1))
        with np.errstate(over="ignore", invalid="ignore"):
            (states, energy, martingale), _ = self.paths_forward(x, eps, range(1, self.n_steps + 1))  # (T/K, S, B, K D)
            nll, _ = self.ops.gaussian_nll_forward(states[-1], x, self.observation_sigma**2)
        stretches = np.split(states, self.n_outcomes, axis=-1)  # K of (T/K, S, B, D)
        return self.from_start(np.concatenate(stretches)), -nll - energy - martingale

    def prior_paths(self, n, rng=None):
        """n paths of the simulation at `times`, whatever their outcomes: (T + 1, n, D)."""
        shape = len(self.times) - 1, checks.integer("n", n, 1), self.n_dimensions  # (T, n, D)
        eps = np.random.default_rng(rng).standard_normal(shape, self.theta.real.dtype)
        z, keep = np.full(shape[1:], self.start, self.dtype), range(1, len(self.times))
        with np.errstate(over="ignore", invalid="ignore"):
            (states, _, _), _ = sde.integrate_forward(z, eps, self.times, self.sigma, self.free, scheme=self.scheme, keep=keep)
        return self.from_start(states)

    def from_start(self, states):
        """The start and the states after it: (T, ...) -> (T + 1, ...); ValueError where states have run away."""
        if not np.isfinite(states).all():
            raise ValueError("some paths have run away to infinity: the steps are too long for this drift, give more n_steps")
        return np.concatenate([np.full_like(states[:1], self.start), states])

    def sample(self, n, rng=None):
        """n draws of x, (n, K D): paths of the simulation, measured with an error."""
        rng = np.random.default_rng(rng)
        states = self.prior_paths(n, rng)[self.n_steps :: self.n_steps]  # (T + 1, n, D) -> (K, n, D)
        x = states.transpose(1, 0, 2).reshape(n, -1)  # -> (n, K D)
        return x + self.observation_sigma * rng.standard_normal(x.shape, self.theta.real.dtype)

    def log_likelihood(self, x, n_samples=100, rng=None):
        """Importance-weighted estimate of log p(x) of each datum, x (B, K D) -> (B,) in nats: log 1/S Σ_s w_s of the weights of
        `posterior_paths`, at most log p(x) in expectation. Burda, Grosse & Salakhutdinov 2016, equation 8."""
        (x,), rng, rows = self.check(x), np.random.default_rng(rng), max(1, PATHS_PER_PASS // n_samples)
        parts = [self.posterior_paths(x[i : i + rows], n_samples, rng)[1] for i in range(0, len(x), rows)]
        return np.concatenate([log_sum_exp(log_w) for log_w in parts]) - math.log(n_samples)

    def measure(self, x, n_samples=100, seed=0, progress=False):
        """ELBO, its parts and the importance-weighted log-likelihood of rows x (n, K D), as Measures."""
        terms, _ = self.forward(x, self.draw(np.random.default_rng(seed), x, ELBO_PATHS))
        log_p = float(self.log_likelihood(x, n_samples, seed).mean())
        return [
            Measure("elbo", -terms.loss, "nats", f"{ELBO_PATHS} paths per datum"),
            Measure("nll", terms.nll, "nats", "−ELBO = nll + kl"),
            Measure("kl", terms.kl, "nats", self.terms_help["kl"]),
            Measure("log_likelihood", log_p, "nats", f"log p(x) is at least this; {n_samples} paths per datum"),
        ]

    @classmethod
    def examples(cls, backend):
        """Both schemes and objectives, one and two outcomes and dimensions, checkpoints and none, one and several rows."""
        rng, drift = np.random.default_rng(3), (0.2, 1.0, -0.3, -1.0)
        for n_features, D, n_steps, scheme, objective, segment, hidden, S, B in [
            (1, 1, 3, "euler", "elbo", None, (4, 3), 1, 1), (2, 1, 2, "heun", "iwae", 1, (4,), 3, 2),
            (2, 2, 2, "heun", "elbo", 0, (), 1, 3),
        ]:  # fmt: skip
            model = cls(n_features, D, 0.4, n_steps, -0.7, drift, 0.8, 0.6, hidden, "tanh", scheme, segment, backend, "float64")
            model.theta += 0.3 * rng.standard_normal(model.theta.size)
            name = f"{backend} PathPosterior {n_features} columns, D {D}, {n_steps} steps, {scheme}, {objective}, S {S}, B {B}"
            yield Example(name, model, (rng.standard_normal((2 * B, n_features)),), {"objective": objective, "n_samples": S})

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self, x, name="x"):
        """x (B, K D) as a tuple with one C-contiguous array of the model's (real) dtype, or ValueError."""
        return (common.checked(self, x, name),)

    def checked_noise(self, eps, n_rows):
        """eps (T, S, B, D) as a C-contiguous array of the model's (real) dtype, or ValueError."""
        eps = checks.real_array("eps", eps, ndims=(4,), n_columns=self.n_dimensions)
        T = len(self.times) - 1
        if (len(eps), eps.shape[2]) != (T, n_rows):
            raise ValueError(f"eps must have shape ({T}, S, {n_rows}, {self.n_dimensions}); got {eps.shape}")
        return checks.converted("eps", eps, self.dtype)

    def __repr__(self):
        widths = "-".join(map(str, self.hidden)) or "linear"
        how = f"{self.n_steps} steps, {self.scheme}, {widths}, {self.activation}, {self.dtype.name}, {self.backend}"
        return f"PathPosterior({self.n_outcomes} × {self.n_dimensions} outcomes, {how}: {self.theta.size:,} parameters)"
