"""What is done with an energy: samples by Langevin steps, the partition function by quadrature, log p(x).

These functions are methods of `npvae.models.EnergyModel`. With log Z at hand the lecture's identity for the divergence of a
density f from the model,

    KL(f ‖ p) = ⟨log f⟩ + ⟨E⟩ + log Z,        means over f,

gives a number. In one or two dimensions Z is a sum over a grid. Shapes: n data or samples, D data, B batch.
"""

import math
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.models import evaluate
from npvae.models.protocol import Measure

ROWS_PER_PASS = 8192  # where nothing is trained: keeps memory flat
STEPS_PER_PASS = 20  # of the sampler, for the same reason
SAMPLE_STEPS = 500
GRID, SCANNED, SCAN_POINTS = 513, 64.0, 257  # points of each axis; half width of the square that is searched for the density
NEGLIGIBLE = 35.0  # a point whose density is e^−35 of the largest is outside
MOST_COLUMNS = 2


class LogPartition(NamedTuple):
    """log Z in nats."""

    value: float
    error: float  # what the grid with every second point differs by; that of the whole grid is far below it


def energy_and_score(model, x):
    """E (n,) and −∂E/∂x (n, D) of x (n, D), unchecked."""
    return model.ops.score_forward(x, model.layers, model.confinement)[0]


def energy(model, x):
    """E(x) of each datum in nats, up to a constant: x (n, D) -> (n,)."""
    (x,) = model.check(x)
    return np.concatenate([energy_and_score(model, part)[0] for part in in_passes(x)])


def score(model, x):
    """∂ log p/∂x = −∂E/∂x of each datum: x (n, D) -> (n, D)."""
    (x,) = model.check(x)
    return np.concatenate([energy_and_score(model, part)[1] for part in in_passes(x)])


# ---- samples ----


def moved(model, x, rng, n_steps, step_size=None, sampler=None):
    """x (B, D) after n_steps of the model's sampler, and the share of them that was taken."""
    step_size, adjusted = step_size or model.step_size, (sampler or model.sampler) == "adjusted"
    taken = 0.0
    for done in range(0, n_steps, STEPS_PER_PASS):
        n = min(STEPS_PER_PASS, n_steps - done)
        eps, u = rng.standard_normal((n, *x.shape), x.dtype), rng.random((n, len(x)), x.dtype) if adjusted else None
        x, share = model.ops.energy_chain(x, model.layers, model.confinement, eps, u, step_size)
        taken += n / n_steps * share.mean()
    return x, float(taken)


def training_samples(model, rng, x, chains=None):
    """Samples beside a batch x (B, D), (B, D): n_langevin steps from rows of the buffer `chains` (C, D), which are moved in
    place, a share of them fresh; from noise; or from the data."""
    noise = rng.standard_normal(x.shape, x.dtype)
    if chains is None:
        return moved(model, noise if model.start == "noise" else x, rng, model.n_langevin)[0]
    rows = np.resize(rng.permutation(len(chains)), len(x))  # each at most once, if there are enough
    begins_again = rng.random(len(x)) < model.fresh
    samples, _ = moved(model, np.where(begins_again[:, None], noise, chains[rows]), rng, model.n_langevin)
    chains[rows] = samples
    return samples


def sample(model, n, rng=None, n_steps=SAMPLE_STEPS, step_size=None, sampler="adjusted"):
    """n draws, (n, D): n_steps Langevin steps from N(0, I), of the size of those in training where step_size is None, with
    Metropolis test ("adjusted") or without ("unadjusted"). rng is a Generator or a seed."""
    rng, n = np.random.default_rng(rng), checks.integer("n", n, 1)
    start = rng.standard_normal((n, model.n_features), model.theta.real.dtype)
    return np.concatenate([moved(model, part, rng, n_steps, step_size, sampler)[0] for part in in_passes(start)])


# ---- the partition function ----


def log_partition(model):
    """log Z = log ∫ e^−E dx by the trapezoidal rule on a square of 513 × 513 points around the density: a LogPartition.

    ValueError for more than two columns, and where the density has no end within ±64.
    """
    D = model.n_features
    if D > MOST_COLUMNS:
        raise ValueError(f"Z by quadrature needs at most {MOST_COLUMNS} columns; the model has {D}")
    low, high = extent(model)
    lines = [np.linspace(start, end, GRID) for start, end in zip(low, high)]
    spacing = math.prod((high - low) / (GRID - 1))
    energies = energy(model, points_of(lines)).astype(np.float64).reshape([GRID] * D)
    lowest = energies.min()
    weights = np.exp(lowest - energies)
    value, coarse = (float(np.log(w.sum() * area) - lowest) for w, area in
                     [(weights, spacing), (weights[(slice(None, None, 2),) * D], spacing * 2**D)])  # fmt: skip
    return LogPartition(value, abs(value - coarse))


def extent(model):
    """The corners, (D,) each, of a box outside of which the density is negligible."""
    line = np.linspace(-SCANNED, SCANNED, SCAN_POINTS)
    points = points_of([line] * model.n_features)
    energies = energy(model, points)
    inside = points[energies < energies.min() + NEGLIGIBLE]
    step = line[1] - line[0]
    if np.abs(inside).max() >= SCANNED:
        raise ValueError(f"e^−E has no end within ±{SCANNED:g}, so that Z cannot be computed; confinement makes it finite")
    return inside.min(axis=0) - step, inside.max(axis=0) + step


def points_of(lines):
    """All points of a grid, (n, D)."""
    return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))


def log_likelihood(model, x):
    """log p(x) = −E(x) − log Z of each datum, exact up to the error of `log_partition`: x (n, D) -> (n,) in nats."""
    return -energy(model, x).astype(np.float64) - log_partition(model).value


def measure(model, x, n_samples=None, seed=0, progress=False):
    """log p(x) of rows x (n, D), the mean energy and log Z; score matching and the sampler's acceptance; as Measures."""
    found = []
    if model.n_features <= MOST_COLUMNS:
        energies, Z = energy(model, x).astype(np.float64), log_partition(model)
        mean, error = float(-energies.mean() - Z.value), float(energies.std() / math.sqrt(len(energies)))
        found = [
            Measure("log_likelihood", mean, "nats", f"log p(x) = −E(x) − log Z; ± {error:.3f}, the choice of the rows"),
            Measure("log_likelihood_standard_error", error),
            Measure("energy", float(energies.mean()), "nats", "⟨E⟩; KL(f ‖ p) = ⟨log f⟩ + ⟨E⟩ + log Z for data of density f"),
            Measure("log_partition", Z.value, "nats", f"log Z by quadrature; the grid's error is below {Z.error:.1e}"),
            *evaluate.bits_measures(model, mean),
        ]
    rng = np.random.default_rng(seed)
    (x,) = model.check(x)
    terms, _ = model.forward(x, model.draw(rng, x, objective="score"), "score")
    _, share = moved(model, x, rng, model.n_langevin, sampler="adjusted")
    return [
        *found,
        Measure("score_matching", terms.loss, "", "½ ‖σ score + ε‖² at σ = 0.05"),
        Measure("acceptance", share, "", f"of Langevin steps of size {model.step_size:g} from these rows"),
    ]


def pictures(model, plots, x, dataset):
    """The pictures of a run: (file name, what it shows, function that makes the Figure) each."""

    def draws():
        drawn = dataset.in_own_units(sample(model, plots.N_SAMPLES, 0))
        return plots.samples(drawn, dataset.image_shape, plots.samples_title(model))

    yield "samples.png", "draws of the model", draws
    if model.n_features == 2:
        yield "density.png", "validation rows, the model's density, and draws", lambda: plots.density(model, x)


def in_passes(x):
    """Views of at most ROWS_PER_PASS rows each."""
    return [x[start : start + ROWS_PER_PASS] for start in range(0, len(x), ROWS_PER_PASS)]
