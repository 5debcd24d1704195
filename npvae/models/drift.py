"""Ground states by a stochastic drift: `Drift.forward` and, in mirrored order, `Drift.backward`.

    walkers r ─ base b + network u ─(+eps) steps ─▶ path r(t) ─▶ ℓ_T = ∫ u·dW + ∫ (½ |u|² + E_b) dt ─▶ loss = mean ℓ_T/T
                        ▲                    │
                        └────────────────────┘ and the walkers go on from there in the next step

The ground state φ0 of H = −½ ∇² + V makes walkers move as dr = v dt + dW with v = ∇ log φ0 (Barr, Gispen & Lamacraft 2020,
equations 7 to 12; Lamacraft, "Learning the path integral"). For any other drift the mean of ℓ_T/T = (∫ v·dW + ∫ (½ |v|² + V)
dt)/T over stationary paths lies above E_0: so v is learned by minimising an energy, and no data are needed.

Three things are done to that loss, none of which changes its mean gradient.

    reference    A known wave function ψ_b with the drift b = ∇ log ψ_b is split off, v = b + u. By Itô's formula
                 ℓ_T − log ψ_b(r_T)/ψ_b(r_0) = ∫ u·dW + ∫ (½ |u|² + E_b) dt: its local energy E_b = (H ψ_b)/ψ_b stands in place
                 of V. Where ψ_b has the cusps of φ0 it is bounded, and V is not. This is Girsanov's theorem with respect to the
                 paths of b instead of Brownian motion. "brownian": the paper's loss, with v and V.
    boundary     A path of the best drift costs E_0 T + log φ0(r_T)/φ0(r_0) (φ0/ψ_b in the place of φ0 above). That the path's
                 end is moved by the drift must be no gain: −u_T·r_T is added to ℓ_T, with u_T ≈ ∇ log φ0/ψ_b at r_T held
                 constant. (Here −u_T·(r_T − r̄_T) with r̄_T held constant as well, so that the loss has the value of ℓ_T/T.)
    martingale   ∫ u·dW has the mean 0 for every u. "none": left out, as in the paper; "whole": differentiated; "held": the
                 path in it is, the parameters are not. Then the gradient of each single path vanishes at the best drift
                 (`npvae.ops.sde`).

Shapes: B walkers, N particles, d dimensions, T steps. Where charges meet, energies are in hartree and lengths in bohr.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from npvae.core import checks, options
from npvae.core.options import Option
from npvae.core.parameters import Theta, dense_shapes, views_of
from npvae.models import common, drift_energy, fused, quantum_systems, saved
from npvae.models.protocol import Example
from npvae.ops import pair_features, potentials, sde
from npvae.ops.sde import Field

REFERENCES, MARTINGALES = ("base", "brownian"), ("held", "none", "whole")
FROM_SYSTEM = ("dt", "n_steps", "n_walkers", "hidden", "activation")  # arguments that default to the system's


class Terms(NamedTuple):
    """Means over the walkers."""

    loss: float  # what is minimised
    energy: float  # of the drift, ℓ_T/T with the martingale: at least E_0 in the mean
    variance: float  # of ℓ_T/T from path to path


class Cache(NamedTuple):
    """What `backward` needs of `forward`."""

    path: tuple
    pull: np.ndarray
    martingale: str


class Drift:
    """A drift that turns Brownian motion into the ground state of a quantum system.

    system       a name of `npvae.models.quantum_systems.SYSTEMS`
    numbers      of the system, where they are not its own defaults: a dict, or texts as in "distance=2.8"
    dt, n_steps  the length of a step, and how many steps walkers take from one update of the parameters to the next
    n_walkers    how many walkers there are, at least as many as workers
    hidden       widths of the hidden layers: of the network of a particle, f, and of that of a pair, g
    activation   tanh, silu, ...; None of these five stands for the system's own value
    reference    what costs are measured against: "base", the known drift, or "brownian"
    scheme       "heun", of weak order 2, or "euler"
    segment      steps between checkpoints of the backward pass (`sde.integrate_forward`)
    backend, dtype, seed, initialization   as those of `npvae.VAE`; the seed is also that of the walkers' first places

    Parameters: drift.0.W, drift.0.b, ..., drift.W, drift.b of f, and of several particles pair.0.W, ... of g and pair.W, pair.b
    of w (`npvae.ops.pair_features`). Both last layers are 0 at first: a new model is the base. Buffers: walkers (n_walkers,
    N d), which training moves on, and held (P,), the parameters that they moved by last. Raises ValueError for what cannot be.
    """

    theta, ops = Theta(), common.ops
    Terms = Terms
    units, decimals = property(lambda self: self.physics.unit), 4
    terms_help = {"loss": "mean of ℓ_T/T as it is minimised", "energy": "of the drift, a bound of the ground state's",
                  "variance": "of ℓ_T/T between paths: 0 at the ground state"}  # fmt: skip
    takes_data = False
    defaults = {"data": "none", "batch_size": 1, "epochs": 20, "learning_rate": 3e-3, "learning_rate_schedule": "cosine"}
    options = (
        Option("system", "hydrogen", ", ".join(quantum_systems.SYSTEMS), options.one_of(*quantum_systems.SYSTEMS),
               metavar="NAME", choices=tuple(quantum_systems.SYSTEMS)),
        Option("numbers", [], "of the system, as in: --numbers distance=2.8, or g=15 n_particles=3", options.text, metavar="X",
               many=True),
        Option("dt", None, "length of a step of the walkers (default: the system's)", options.positive, metavar="TIME"),
        Option("steps", None, "steps of a walker between two updates of the drift (default: the system's)", options.integer(1),
               "n_steps", metavar="N"),
        Option("walkers", None, "walkers at a time (default: the system's)", options.integer(1), "n_walkers", metavar="N"),
        Option("hidden", None, "widths of the hidden layers (default: the system's)", options.integer(1), metavar="H",
               many=True),
        common.ACTIVATION._replace(default=None, help=f"{common.ACTIVATION.help} (default: the system's)"),
        Option("reference", "base", "what costs are measured against: the base, a drift that is known, or brownian motion",
               options.one_of(*REFERENCES), metavar="K", choices=REFERENCES),
        Option("scheme", "heun", "heun, of second order in the length of a step, or euler", options.one_of(*sde.SCHEMES),
               metavar="K", choices=tuple(sde.SCHEMES)),
        common.INITIALIZATION,
        Option("martingale", "held", "in the loss: held, with constant parameters, which quiets the gradient; none; or whole",
               options.one_of(*MARTINGALES), use="training", metavar="K", choices=MARTINGALES),
        Option("equilibrate", True, "let the walkers move by the base alone before the first step", options.flag, use="start"),
    )  # fmt: skip

    def __init__(self, system="hydrogen", numbers=(), dt=None, n_steps=None, n_walkers=None, hidden=None, activation=None,
                 reference="base", scheme="heun", segment=None, backend="numba", dtype="float32", seed=0,
                 initialization="glorot"):  # fmt: skip
        checks.choice("reference", reference, REFERENCES)
        checks.choice("scheme", scheme, sde.SCHEMES)
        self.system, self.numbers = system, drift_energy.as_dict(numbers)
        self.physics = quantum_systems.system(system, **self.numbers)
        given = dict(zip(FROM_SYSTEM, (dt, n_steps, n_walkers, hidden, activation)))
        chosen = {name: self.physics.defaults[name] if value is None else value for name, value in given.items()}
        self.dt = checks.number("dt", chosen["dt"], 0, exclusive=True)
        self.n_steps = checks.integer("n_steps", chosen["n_steps"], 1)
        self.n_walkers = checks.integer("n_walkers", chosen["n_walkers"], 1)
        self.hidden, self.reference, self.scheme = common.widths_of("hidden", chosen["hidden"]), reference, scheme
        self.segment = None if segment is None else checks.integer("segment", segment, 0)
        shapes = self.shapes(system, self.numbers, hidden=self.hidden)
        common.prepare(self, shapes, chosen["activation"], backend, dtype, seed, initialization)
        self.parameters.update({name: 0 for name in ("drift.W", "pair.W") if name in self.parameters})
        self.buffers = {"walkers": self.new_walkers(self.n_walkers, [self.seed, 1]), "held": self.theta.copy()}

    @staticmethod
    def shapes(system="hydrogen", numbers=(), hidden=None, **_):
        """Names and shapes of the parameters, in the order of theta, of a model of this config."""
        physics = quantum_systems.system(system, **drift_energy.as_dict(numbers))
        hidden = common.widths_of("hidden", physics.defaults["hidden"] if hidden is None else hidden)
        A, parts = len(physics.centres), {"drift": [len(physics.centres), *hidden, len(physics.centres)]}
        if physics.n_particles > 1:
            of_pairs = [2 * A + 1, *hidden]
            parts = {"drift": [A + of_pairs[-1], *hidden, A], "pair": [*of_pairs, 1]}
        return dense_shapes({name: widths for part, all_widths in parts.items()
                             for name, widths in zip(layer_names(part, hidden), pairwise(all_widths))})  # fmt: skip

    # ---------------------------------------------------------------------------------------------- forward, backward

    def forward(self, noise, martingale="held", check=True):
        """Loss of the paths that `draw` has drawn -> Terms and the cache for `backward`.

        noise: where paths start (B, N d); eps (T, B, N d); and, held constant, their ends r̄_T (B, N d), the pull u_T (B, N d)
        and the mean of ℓ_T/T (B, 1). The cache refers to noise and theta: call backward before they change.
        """
        start, eps, end, pull, level = self.checked_noise(noise) if check else noise
        held = self.network(views_of(self.buffers["held"], self.parameters.shapes)) if martingale == "held" else None
        (states, energy, of_noise), path = self.paths_forward(start, eps, self.network(self.parameters), held)
        boundary = (pull * (states[-1] - end)).sum(axis=1)  # (B, N d) -> (B,)
        return self.terms_of(energy, of_noise, boundary, level, martingale), Cache(path, pull, martingale)

    def terms_of(self, energy, of_noise, boundary, level, martingale):
        """The Terms of paths (B,) with these integrals and boundary terms."""
        time = self.n_steps * self.dt
        cost, of_paths = energy if martingale == "none" else energy + of_noise, (energy + of_noise) / time
        values = (cost - boundary) / time, of_paths, (of_paths - level[:, 0]) ** 2
        return Terms(*(value.mean().item() for value in values))

    def backward(self, cache, dloss=1.0, out=None):
        """Gradient of dloss · loss with respect to every parameter: a dict of the parameters' names and shapes.

        The arrays are views of one flat vector laid out like theta: `out` if given, else a fresh one.
        """
        dcost = np.full(len(cache.pull), dloss / (len(cache.pull) * self.n_steps * self.dt))  # 1/(B T) enters here
        dend = -dcost[:, None].astype(self.dtype) * cache.pull  # (B, N d)
        dmartingale = np.zeros_like(dcost) if cache.martingale == "none" else dcost
        _, _, _, grads = sde.integrate_backward(dend[None], dcost, dmartingale, cache.path)
        return common.laid_out(self, [grads], out)

    gradient, workspace = fused.drift_gradient, fused.drift_workspace

    def paths_forward(self, start, eps, network, held=None, keep=None, dt=None):
        """Paths from start (B, N d), eps (T, B, N d) -> states (K, B, N d), energy, martingale (B,), and the cache."""
        physics, is_base = self.physics, self.reference == "base"
        drift, cost = (physics.base, physics.local_energy) if is_base else (sde.ZERO, physics.potential)
        control, held = (u if u is None or is_base else potentials.sum_of(physics.base, u) for u in (network, held))
        times = (self.dt if dt is None else dt) * np.arange(len(eps) + 1)
        return sde.integrate_forward(start, eps, times, 1.0, drift, control, self.scheme, keep, self.segment, cost, held)

    def network(self, parameters):
        """The network u with these parameters, a dict like the model's, as a Field: r (B, N d) -> (B, N d)."""
        parts = ("drift", "pair") if self.physics.n_particles > 1 else ("drift",)
        f, *pairs = (common.dense_layers(parameters, layer_names(part, self.hidden), self.activation) for part in parts)
        g, w = (pairs[0][:-1], pairs[0][-1:]) if pairs else ([], [])
        centres = np.array(self.physics.centres, self.theta.real.dtype)

        def forward(r, t, parameters):
            return pair_features.exchangeable_forward(r, parameters, self.ops.mlp_forward)

        def backward(du, cache):
            dr, *grads = pair_features.exchangeable_backward(du, cache, self.ops.mlp_backward)
            return dr, [grad for of_network in grads for layer in of_network for grad in layer]

        is_bounded = bool(self.physics.positions)  # where there are nuclei
        return Field(forward, backward, (f, g, w, centres, self.physics.n_particles, is_bounded))

    # ------------------------------------------------------------------------------------------------------- training

    @property
    def multiplications(self):
        """Of a walker in a step of training."""
        return self.theta.size * self.n_steps * (2 if self.scheme == "heun" else 1)

    @property
    def chains(self):
        """The walkers (n_walkers, N d), which training hands to `draw`."""
        return self.buffers["walkers"]

    def draw(self, rng, chains=None, **_):
        """The noise of a step, for walkers that go from where they are; see `forward`.

        chains: rows of the walkers, which are moved to the ends of their paths (but for a path that has run away, whose walker
        stays), and the parameters that they moved by become `held`; without them all walkers have a path, and none moves.
        """
        start = (self.buffers["walkers"] if chains is None else chains).copy()
        eps = rng.standard_normal((self.n_steps, *start.shape), start.dtype)  # (T, B, N d)
        end, pull, integrals = drift_energy.walk(self, start, eps)
        if chains is not None:
            chains[...] = np.where(np.isfinite(end).all(axis=1, keepdims=True), end, start)
            self.buffers["held"][:] = self.theta
        return start, eps, end, pull, np.full((len(start), 1), integrals.bound.mean(), start.dtype)

    def control(self, r, network=None):
        """What pulls r (B, N d) beside the reference's drift, (B, N d): u, or with the reference "brownian" v = b + u."""
        network = self.network(self.parameters) if network is None else network
        u = network.forward(r, 0.0, network.parameters)[0]
        return u if self.reference == "base" else u + self.physics.base.forward(r, 0.0, self.physics.base.parameters)[0]

    def drift(self, r):
        """The drift v = b + u of walkers r (B, N d), (B, N d): for the ground state ∇ log φ0."""
        r = checks.converted("r", checks.real_array("r", r, n_columns=self.physics.n_columns), self.theta.real.dtype)
        base, network = self.physics.base, self.network(self.parameters)
        return base.forward(r, 0.0, base.parameters)[0] + network.forward(r, 0.0, network.parameters)[0]

    def new_walkers(self, n, rng):
        """n walkers where those of this system begin, (n, N d)."""
        normals = np.random.default_rng(rng).standard_normal((n, self.physics.n_columns))
        return self.physics.start(normals).astype(self.theta.real.dtype)

    @staticmethod
    def check_settings(martingale="held"):
        """ValueError for settings that cannot be."""
        checks.choice("martingale", martingale, MARTINGALES)

    equilibrate, sample, energies = drift_energy.equilibrate, drift_energy.sample, drift_energy.energies
    measure = drift_energy.measure

    def pictures(self, plots, dataset):
        """The pictures of a run: (file name, what it shows, function that makes the Figure) each."""
        yield "drift.png", "where walkers are, the drift, and their paths", lambda: plots.drift(self)

    @classmethod
    def examples(cls, backend):
        """One and several particles, with and without nuclei; every martingale, both references and schemes, checkpoints and
        none; several walkers and two."""
        rng = np.random.default_rng(3)
        for system, numbers, hidden, activation, reference, scheme, segment, martingale, T, B in [
            ("oscillator", {"n_dimensions": 2}, (3,), "tanh", "base", "heun", None, "held", 2, 4),
            ("quartic", {}, (3,), "silu", "brownian", "euler", 0, "whole", 3, 4),
            ("hydrogen", {}, (3,), "tanh", "brownian", "heun", None, "none", 2, 8),
            ("bosons", {"n_particles": 3, "g": 3.0}, (2,), "tanh", "base", "heun", 1, "held", 2, 2),
            ("helium", {}, (2, 2), "tanh", "base", "heun", 0, "none", 2, 8),
            ("coupled", {}, (), "tanh", "base", "euler", None, "whole", 2, 4),
        ]:  # fmt: skip
            model = cls(system, numbers, 0.05, T, B, hidden, activation, reference, scheme, segment, backend, "float64", seed=4)
            model.theta += 0.3 * rng.standard_normal(model.theta.size)
            model.buffers["held"][:] = model.theta
            widths = "-".join(map(str, hidden)) or "linear"
            name = f"{backend} Drift {system}, {widths} {activation}, {reference}, {scheme}, {martingale}, {T} steps, B {B}"
            yield Example(name, model, (), {"martingale": martingale})

    # ----------------------------------------------------------------------------------- copies, files, checks, text

    config = property(common.config_of)
    copy, save, load = saved.copied, saved.save, classmethod(saved.load_as)

    def check(self):
        """No data: an empty batch."""
        return ()

    def checked_noise(self, noise):
        """The noise as C-contiguous arrays of the model's (real) dtype; ValueError for other shapes than those of `forward`."""
        arrays = [np.ascontiguousarray(array, self.theta.real.dtype) for array in noise]
        D, T, shapes = self.physics.n_columns, self.n_steps, [array.shape for array in arrays]
        B = shapes[0][0]
        if shapes != [(B, D), (T, B, D), (B, D), (B, D), (B, 1)]:
            raise ValueError(f"noise must have shapes (B, {D}), ({T}, B, {D}), (B, {D}), (B, {D}), (B, 1); got {shapes}")
        return arrays

    def __repr__(self):
        numbers = "".join(f", {name} {value:g}" for name, value in self.numbers.items())
        widths = "-".join(map(str, self.hidden)) or "linear"
        how = f"{self.n_walkers} walkers, {self.n_steps} steps of {self.dt:g}, {widths}, {self.activation}"
        return f"Drift({self.system}{numbers}, {how}, {self.dtype.name}, {self.backend}: {self.theta.size:,} parameters)"


def layer_names(part, hidden):
    """part.0, part.1, ... of the hidden layers, and part of the last."""
    return [*(f"{part}.{i}" for i in range(len(hidden))), part]
