"""The transition of the Ising model found without labels: finite-size scaling of what a VAE with one latent variable encodes.

A part of `ising_study.py`. For each size of lattice a VAE with one latent variable is trained on lattices from a window of
temperatures. It sees spins alone: neither T nor the magnetisation. Then other lattices are encoded, and T, the knob of the
experiment, says which of them belong together. Three numbers describe a lattice:

    z     the odd part of the posterior mean, ½ (mu(x) − mu(−x)), −x the lattice with all spins turned over
    psi   the mean spin that is decoded from the posterior mean, again its odd part: z in units of the spins
    m     the magnetisation, which the VAE is not told: the comparison

The odd part is taken because x and −x are equally likely, so that an even part of mu(x) is an accident of the training.

**What survives that z is not m.** Up to noise z is a rising function f of m, and f is the network's choice: the prior wants all
z together to be N(0, 1), and f bends m, whatever its distribution, to that end.

* The share of pairs in which |z| at a lower temperature exceeds |z| at a higher one is the same for every rising odd f. It is ½
  where two temperatures cannot be told apart. `told_apart` is its excess over ½ per unit of temperature. It peaks at the
  transition, at a height that grows as L^(1/ν), and there is no amplitude in it that f could change.
* Binder's cumulant U = 1 − ⟨z⁴⟩/(3 ⟨z²⟩²) and the susceptibility χ = L² (⟨z²⟩ − ⟨|z|⟩²) depend on f. Crossings and peaks still
  tend to T_c as L grows if f is the same function of m L^(β/ν) for all sizes. It is where m L^(β/ν) has the same distribution
  in the data of all sizes, which is why the window shrinks as 1/L (ν = 1). The height of U at the crossing is not that of m.
* β and γ, from how ⟨|z|⟩ and χ grow with L, are lost, since z has about the same variance for each L. psi has them.

Errors come from drawing chains again (bootstrap). They hold the noise of the simulation, and neither that of the training, one
per size, nor corrections to scaling, which lattices as small as these have. Compare the same estimate from m.

Sources: Binder, Z. Phys. B 43 (1981) 119 (the cumulant and its crossing); Fisher and Barber, Phys. Rev. Lett. 28 (1972) 1516
(peaks are shifted by order L^(−1/ν)); Efron, Ann. Stat. 7 (1979) 1 (bootstrap).
"""

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

import npvae
from npvae.core import files
from npvae.core.workers import Workers
from npvae.data import ising
from npvae.schedules import Cosine, Linear

VARIABLES = ("z", "psi", "m")
DEGREE = 6  # of the polynomials in T through the measured values
TINY = 1e-9
EXACT = {
    "T_c, Binder": ising.T_CRITICAL,
    "T_c, susceptibility": ising.T_CRITICAL,
    "T_c, told apart": ising.T_CRITICAL,
    "U at T_c": 0.61069,  # of m; Kamieniarz and Blöte, J. Phys. A 26 (1993) 201
    "nu, Binder": 1.0,
    "nu, told apart": 1.0,
    "beta/nu": 1 / 8,
    "gamma/nu": 7 / 4,
}
NOT_OF_Z = ("U at T_c", "beta/nu", "gamma/nu")


class Plan(NamedTuple):
    """How much is simulated and trained for the scaling."""

    sizes: tuple = (16, 24, 32, 40)
    window: float = 8.0  # temperatures centre ± window/size
    n_temperatures: int = 21
    n_chains: int = 16  # independent ones per temperature, to measure
    n_lattices: int = 1000  # per chain
    n_train: tuple = (16, 125)  # chains per temperature, and lattices per chain, to train on
    hidden: tuple = (256,)
    epochs: int = 8
    learning_rate: float = 2e-3  # at first; it falls to 0 along half a cosine
    weight_decay: float = 1.0  # else initial weights remain that add noise to z
    n_bootstrap: int = 300


class Measured(NamedTuple):
    """What lattices of one size gave: K temperatures, C independent chains each, n lattices per chain."""

    size: int
    T: np.ndarray  # (K,), J / k_B
    values: dict  # name of VARIABLES -> (K, C, n)


# ------------------------------------------------------------------------------------------------------------- measurement


def kept_in(folder, name, *made_with):
    """The path of a file that keeps a result; its name ends in a digest of what the result was made with."""
    return folder / f"{name}-{zlib.crc32(repr(made_with).encode()):08x}.npz"


def measure(size, centre, plan, seed, folder, say):
    """Train a VAE on lattices of one size and encode others: Measured. They are kept in the folder."""
    T = centre + plan.window / size * np.linspace(-1, 1, plan.n_temperatures)
    path = kept_in(folder, f"scaling_{size}", plan, float(centre), seed)
    if path.exists():
        arrays, _ = files.read(path)
        return Measured(size, T, {name: arrays[name] for name in VARIABLES})
    train_seed, *seeds = np.random.SeedSequence([seed, size]).generate_state(1 + len(T)).tolist()
    model = train(size, T, plan, train_seed, say)

    def encoded(T_and_seed):
        temperature, own_seed = T_and_seed
        lattices = ising.simulate(temperature, plan.n_lattices, size, own_seed, plan.n_chains, workers=1)
        return one_number_per_lattice(model, lattices.spins)

    with Workers(1), ThreadPoolExecutor(2) as pool:  # Workers: BLAS keeps to one thread in each of the two
        rows = list(pool.map(encoded, zip(T, seeds)))
    shape = len(T), plan.n_chains, plan.n_lattices
    values = {name: np.array([row[name] for row in rows], np.float32).reshape(shape) for name in VARIABLES}
    files.write(path, values, {})
    say(f"{size} × {size}: {np.prod(shape):,} lattices encoded")
    return Measured(size, T, values)


def train(size, T, plan, seed, say):
    """A VAE with one latent variable, trained on lattices at the temperatures T without being told them."""
    n_chains, n_lattices = plan.n_train
    x = ising.simulate(T, n_lattices, size, seed, n_chains, workers=2).spins
    model = npvae.VAE(size * size, 1, plan.hidden, seed=seed)
    n_steps = plan.epochs * -(-len(x) // 128)
    npvae.fit(model, x, epochs=plan.epochs, batch_size=128, optimizer=npvae.Adam(Cosine(plan.learning_rate, n_steps)),
              weight_decay=plan.weight_decay, beta=Linear(max(1, n_steps // 20)), seed=seed, workers=2,
              progress=False)  # fmt: skip
    terms = npvae.evaluate.elbo(model, x[::10], seed)
    say(f"{size} × {size}: trained on {len(x):,} lattices, −ELBO {-terms.elbo:.1f} nats, of which KL {terms.kl:.2f}")
    return model


def one_number_per_lattice(model, x):
    """name of VARIABLES -> (n,) for lattices x (n, size²) of zeros and ones."""
    x = x.astype(np.float32)
    mu, mu_turned = (model.encode(lattices)[0][:, 0] for lattices in (x, 1 - x))  # (n,) each
    grid = np.linspace(min(mu.min(), mu_turned.min()), max(mu.max(), mu_turned.max()), 1000)
    p_of_grid = model.decode(grid[:, None]).mean(axis=1)  # a smooth function of one number: no need to decode each lattice
    p, p_turned = (np.interp(z, grid, p_of_grid) for z in (mu, mu_turned))
    return {"z": (mu - mu_turned) / 2, "psi": p - p_turned, "m": 2 * x.mean(axis=1) - 1}


# -------------------------------------------------------------------------------------------------------------- statistics


def moments(v):
    """Means of |v|, v² and v⁴ over the last axis: (..., n) -> (..., 3)."""
    v = np.asarray(v, float)
    return np.stack([np.abs(v).mean(axis=-1), (v**2).mean(axis=-1), (v**4).mean(axis=-1)], axis=-1)


def binder(moments):
    """Binder's cumulant from moments (..., 3): 0 for a Gaussian around 0, 2/3 for ± a constant."""
    return 1 - moments[..., 2] / (3 * moments[..., 1] ** 2)


def susceptibility(moments, size):
    """L² (⟨v²⟩ − ⟨|v|⟩²) from moments (..., 3): per spin, in units of v², without the factor 1/T."""
    return size**2 * (moments[..., 1] - moments[..., 0] ** 2)


def exceed(a, b):
    """Share of pairs with a_i > b_j, ties counted half: a (C, n), b (C', n') -> (C, C')."""
    found = np.empty((len(a), len(b)))
    for j, other in enumerate(np.sort(b, axis=1)):
        below, up_to = (np.searchsorted(other, a, side) for side in ("left", "right"))  # (C, n) each
        found[:, j] = (below + up_to).mean(axis=1) / (2 * len(other))
    return found


def pairs_told_apart(v):
    """`exceed` of |v| at temperature k over |v| at k + 2: (K, C, n) -> (K − 2, C, C)."""
    v = np.abs(v)
    return np.array([exceed(low, high) for low, high in zip(v[:-2], v[2:])])


def fitted(T, y, degree=DEGREE):
    """The polynomial of least squares through y (K,) over T (K,)."""
    return Polynomial.fit(T, y, min(degree, len(T) - 1))


def meeting_point(curves, low, high):
    """Where the curves of all sizes meet: the T in [low, high] of least variance over the sizes, in steps of 1e-4.

    The variance is that in T, of y over the squared mean slope: where all curves are flat they are close without meeting.
    """
    T = np.arange(low, high, 1e-4)
    slope = np.mean([curve.deriv()(T) for curve in curves], axis=0)
    return T[np.argmin(np.var([curve(T) for curve in curves], axis=0) / np.maximum(slope**2, TINY))]


def peak(curve, low, high):
    """Place and height of the largest value of a curve in [low, high], to 1e-4 in T."""
    T = np.arange(low, high, 1e-4)
    y = curve(T)
    return T[np.argmax(y)], y.max()


def extrapolated(sizes, T):
    """T_c, from T(L) = T_c + a/L by least squares (ν = 1)."""
    return np.polyfit(1 / np.asarray(sizes), T, 1)[1]


def power(sizes, y):
    """The exponent k of y = a L^k by least squares of the logarithms; noise below zero counts as almost zero."""
    return np.polyfit(np.log(sizes), np.log(np.maximum(y, TINY)), 1)[0]


# --------------------------------------------------------------------------------------------------- estimates and their errors


class Summary(NamedTuple):
    """What the estimates need of one variable at one size: means per chain, to be drawn again by the bootstrap."""

    size: int
    T: np.ndarray  # (K,)
    moments: np.ndarray  # (K, C, 3)
    apart: np.ndarray  # (K − 2, C, C)

    def drawn(self, chains):
        """Means over the chains with these numbers, (K, C) -> (K, 3), (K − 2,)."""
        rows = np.arange(len(self.T))[:, None]
        pairs = self.apart[rows[:-2, :, None], chains[:-2, :, None], chains[2:, None, :]]
        return self.moments[rows, chains].mean(axis=1), pairs.mean(axis=(1, 2))


def summarized(measured, name):
    """The Summary of one of VARIABLES, from Measured."""
    v = measured.values[name]
    return Summary(measured.size, measured.T, moments(v), pairs_told_apart(v))


class Curves(NamedTuple):
    """Polynomials in T for each size."""

    binder: list
    log_susceptibility: list
    order: list  # ⟨|v|⟩
    told_apart: list  # excess over ½ of the share of `pairs_told_apart`, per unit of temperature


def curves_of(summaries, chains):
    """Curves of the sizes from Summaries and the chains to be used, (K, C) for each size."""
    found = Curves([], [], [], [])
    for summary, numbers in zip(summaries, chains):
        means, apart = summary.drawn(numbers)
        T, span = summary.T, summary.T[2] - summary.T[0]
        found.binder.append(fitted(T, binder(means)))
        found.log_susceptibility.append(fitted(T, np.log(susceptibility(means, summary.size))))
        found.order.append(fitted(T, means[:, 0]))
        found.told_apart.append(fitted(T[1:-1], (apart - 0.5) / span))
    return found


def estimates(summaries, chains):
    """Name of the quantity -> its estimate, from Summaries of all sizes and the chains to be used, (K, C) for each size."""
    sizes = [summary.size for summary in summaries]
    low, high = summaries[-1].T[0], summaries[-1].T[-1]  # of the largest size, whose window is the narrowest
    curves = curves_of(summaries, chains)
    T_c = meeting_point(curves.binder, low, high)
    peaks = [peak(curve, s.T[1], s.T[-2]) for curve, s in zip(curves.log_susceptibility, summaries)]
    apart = [peak(curve, s.T[2], s.T[-3]) for curve, s in zip(curves.told_apart, summaries)]
    slopes = [-curve.deriv()(T_c) for curve in curves.binder]
    return {
        "T_c, Binder": T_c,
        "T_c, susceptibility": extrapolated(sizes, [T for T, _ in peaks]),
        "T_c, told apart": extrapolated(sizes, [T for T, _ in apart]),
        "U at T_c": np.mean([curve(T_c) for curve in curves.binder]),
        "nu, Binder": 1 / power(sizes, slopes),
        "nu, told apart": 1 / power(sizes, [height for _, height in apart]),
        "beta/nu": -power(sizes, [curve(T_c) for curve in curves.order]),
        "gamma/nu": power(sizes, np.exp([height for _, height in peaks])),
    }


def mean_and_error(chains):
    """Mean over independent chains and its standard error: (..., C) -> (...), (...)."""
    return chains.mean(axis=-1), chains.std(axis=-1, ddof=1) / np.sqrt(chains.shape[-1])


def with_errors(summaries, n_bootstrap, seed):
    """Name of the quantity -> (estimate, standard error), the error from chains drawn with replacement at each temperature."""
    shapes = [summary.moments.shape[:2] for summary in summaries]  # (K, C)
    every = [np.broadcast_to(np.arange(C), (K, C)) for K, C in shapes]
    best, rng = estimates(summaries, every), np.random.default_rng(seed)
    drawn = [estimates(summaries, [rng.integers(0, C, (K, C)) for K, C in shapes]) for _ in range(n_bootstrap)]
    return {name: (float(value), float(np.std([draw[name] for draw in drawn], ddof=1))) for name, value in best.items()}
