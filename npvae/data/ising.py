"""The Ising model on a periodic square lattice (J = k_B = 1, no field): Monte Carlo samples.

Energies are per spin in units of J, E = -(1/N) Σ_<ij> s_i s_j with N = size² spins and 2N bonds, and temperatures in
units of J / k_B. A lattice of size 2 follows the same rule: two neighbours are joined by two bonds. The exact results are in
`npvae.data.ising_exact`.
"""

import math
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, Lock
from typing import NamedTuple

import numpy as np

from npvae.core import checks
from npvae.core.cores import cores_available
from npvae.core.progress import progress_bar
from npvae.data.autocorrelation import autocorrelation_time, autocorrelation_time_and_error  # noqa: F401 - reached from here, too
from npvae.data.ising_exact import (  # noqa: F401 - reached as ising.kaufman_energy, ..., too
    T_CRITICAL,
    checked_temperatures,
    kaufman_energy,
    kaufman_entropy,
    kaufman_log_partition,
    onsager_energy,
    onsager_magnetization,
)

MAX_SIZE = 1024  # the pilot run then takes some ten seconds per temperature
MAX_SPINS = 2**32  # stored by one call of `simulate`, a byte each: 4 GiB
BURN_IN_SWEEPS = 50  # flips per spin; the autocorrelation time is at most 1 to 4 in this unit, at T_CRITICAL
PILOT_SWEEPS = 1000  # in which the autocorrelation time is measured, to a tenth or two of itself
PILOT_INTERVAL = 0.25  # sweeps from one measurement of the pilot run to the next
SPINS_PER_CALL = 2**22  # stored by one call of the kernel: about 0.2 s in which Ctrl-C has to wait


class Thinning(NamedTuple):
    """How many clusters are flipped from one stored lattice to the next, and why: arrays with an entry per temperature, all in
    clusters."""

    clusters_per_sample: np.ndarray
    tau_energy: np.ndarray  # integrated autocorrelation time of the energy, 1/2 where values are independent
    tau_energy_error: np.ndarray  # its standard error
    tau_magnetization: np.ndarray  # the same of |magnetization|
    tau_magnetization_error: np.ndarray


class IsingSample(NamedTuple):
    """Lattices in the order of the temperatures, then of their chains: n = number of temperatures × n_chains × n_samples."""

    spins: np.ndarray  # uint8 (n, size²), row by row, 1 = up, 0 = down
    temperature: np.ndarray  # (n,), J / k_B
    magnetization: np.ndarray  # (n,), mean spin in [-1, 1], signed
    energy: np.ndarray  # (n,), per spin, in [-2, 2] J
    chain: np.ndarray  # int (n,), from 0 to n_chains - 1 at each temperature
    thinning: Thinning


def simulate(temperatures, n_samples, size=32, seed=0, n_chains=1, workers=None, progress=False):
    """Draw `n_samples` lattices of size × size spins from each of `n_chains` chains at each temperature with Wolff's
    algorithm, as an IsingSample.

    Chains are independent: each has its own burn-in and generator, and so has a pilot run at each temperature, which
    measures the autocorrelation times τ of energy and |magnetization|. So many clusters separate stored samples that they are
    about independent: twice the larger τ, and at least so many that about size² spins are flipped. (To stop once size² spins
    have been flipped would favour the states that follow large clusters.)

    Chain c at temperatures[i] depends only on seed, size, i, c and temperatures[i], to the last bit: not on `workers`, the
    number of threads (None: one per core), nor on the other temperatures or n_chains, and a larger n_samples extends it.
    Data to train, to validate and to test on are independent if they come from different chains.

    Each stored lattice is turned over with probability 1/2, an exact symmetry without a field. Wolff's flips alone do
    not mix the sign far below T_CRITICAL: a cluster is nearly the whole lattice, so with one cluster between samples
    the sign alternates, and with two it stays the same for thousands of samples.

    The spins are zeros and ones in bytes, which models read as such: they are no grey levels (`npvae.core.levels`).

    `temperatures` is a positive number or a sequence of them, in J / k_B. `progress` shows a bar on a terminal.
    Raises ValueError for temperatures that are empty, not numbers or not positive and finite, n_samples, n_chains or
    workers < 1, size < 2 or > MAX_SIZE, a negative seed, and more than MAX_SPINS spins in total (4 GiB).

    Source: Wolff, Phys. Rev. Lett. 62 (1989) 361.
    """
    temperatures = np.atleast_1d(checked_temperatures("temperatures", temperatures))
    if temperatures.ndim != 1 or temperatures.size == 0:
        raise ValueError(f"temperatures must be a number or a non-empty sequence; got shape {temperatures.shape}")
    n_samples, n_chains = checks.integer("n_samples", n_samples, 1), checks.integer("n_chains", n_chains, 1)
    size = checks.integer("size", size, 2, MAX_SIZE)
    seed = checks.integer("seed", seed, 0)
    workers = cores_available() if workers is None else checks.integer("workers", workers, 1)
    n = len(temperatures) * n_chains * n_samples
    if n * size**2 > MAX_SPINS:
        raise ValueError(
            f"n_samples must make at most {MAX_SPINS} spins in total, a byte each; got {n * size**2}, from {n_samples} samples "
            f"of {n_chains} chains at {len(temperatures)} temperatures and size {size}"
        )
    thinning = _measured_thinning(temperatures, size, seed, workers, progress)
    sample = IsingSample(np.empty((n, size * size), np.uint8), np.repeat(temperatures, n_chains * n_samples), np.empty(n),
                         np.empty(n), np.tile(np.repeat(np.arange(n_chains), n_samples), len(temperatures)),
                         thinning)  # fmt: skip
    tasks = []
    for i, temperature in enumerate(temperatures.tolist()):
        for c in range(n_chains):
            start = (i * n_chains + c) * n_samples
            arrays = [array[start : start + n_samples] for array in (sample.spins, sample.magnetization, sample.energy)]
            chain = _Chain(temperature, size, seed, (i, 1 + c))
            tasks.append(_fill(chain, int(thinning.clusters_per_sample[i]), *arrays))
    with progress_bar(progress, total=n, desc="Ising", unit=" lattices", unit_scale=False) as bar:
        _in_parallel(tasks, workers, bar)
    return sample


class _Chain:
    """One Markov chain: its state, at first all spins up, and its random numbers."""

    def __init__(self, temperature, size, seed, key):
        self.size, self.p_add = size, -math.expm1(-2 / temperature)
        self.spins = np.ones(size * size, np.uint8)
        self.state = np.random.SeedSequence(seed, spawn_key=key).generate_state(4).astype(np.int64)
        # Whether samples are turned over is drawn apart: the number of lattices per call of the kernel must not matter.
        self.coins = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, 0)))

    def burn_in(self):
        """Flip clusters until the chain has forgotten its beginning; returns the mean number of clusters per size² flips.

        In rounds of 2, 4, 8, ... clusters; the last is at least BURN_IN_SWEEPS long and gives the mean cluster size. Begun in
        order, clusters shrink towards equilibrium. Begun at random they would grow, and the last round could take hours.
        """
        from npvae.kernels.ising import wolff

        discarded = np.empty((1, self.size**2), np.uint8)
        n_clusters, n_flipped = 1, 0
        while n_flipped < BURN_IN_SWEEPS * self.size**2:
            n_clusters *= 2
            n_flipped = wolff(self.spins, self.size, self.p_add, n_clusters, discarded, self.state)
        return n_clusters * self.size**2 / n_flipped

    def draw(self, n_clusters, samples):
        """Fill `samples`, uint8 (n, size²), with states n_clusters apart; returns magnetization and energy, (n,) each."""
        from npvae.kernels.ising import count, wolff

        wolff(self.spins, self.size, self.p_add, n_clusters, samples, self.state)
        turned = self.coins.random(len(samples)) < 0.5
        samples ^= turned[:, None]
        n_aligned, n_up = np.empty(len(samples), np.int64), np.empty(len(samples), np.int64)
        count(samples, self.size, n_aligned, n_up)
        return _magnetization(n_up, self.size), _energy(n_aligned, self.size)


def _fill(chain, n_clusters, spins, magnetization, energy):
    """Fill the arrays, (n, size²), (n,) and (n,), from a new chain; yields how many rows were added, call by call."""
    chain.burn_in()
    block = max(1, SPINS_PER_CALL // spins.shape[1])
    for start in range(0, len(spins), block):
        rows = slice(start, start + block)
        magnetization[rows], energy[rows] = chain.draw(n_clusters, spins[rows])
        yield len(spins[rows])


def _measured_thinning(temperatures, size, seed, workers, progress):
    """The Thinning of the temperatures (T,), from a pilot run at each."""
    thinning = Thinning(np.empty(len(temperatures), int), *np.empty((4, len(temperatures))))
    chains = [_Chain(temperature, size, seed, (i, 0)) for i, temperature in enumerate(temperatures.tolist())]
    tasks = [_pilot(chain, thinning, i) for i, chain in enumerate(chains)]
    with progress_bar(progress, total=len(tasks), desc="Ising, autocorrelation", unit=" temperatures", unit_scale=False) as bar:
        _in_parallel(tasks, workers, bar)
    return thinning


def _pilot(chain, thinning, i):
    """Measure entry i of `thinning` with a new chain; yields 0 after each call of the kernel, and at last 1."""
    n_sites = chain.size**2
    per_sweep = chain.burn_in()
    interval = max(1, round(PILOT_INTERVAL * per_sweep))
    spins = np.empty((max(1, SPINS_PER_CALL // n_sites), n_sites), np.uint8)
    magnetization, energy = np.empty((2, math.ceil(PILOT_SWEEPS * per_sweep / interval)))
    for start in range(0, len(energy), len(spins)):
        rows = slice(start, start + len(spins))
        magnetization[rows], energy[rows] = chain.draw(interval, spins[: len(energy[rows])])
        yield 0
    n_clusters = [per_sweep - 0.1]  # size² flips, about: 1.05 clusters are one, not two
    for series, tau, error in ((energy, thinning.tau_energy, thinning.tau_energy_error),
                               (abs(magnetization), thinning.tau_magnetization, thinning.tau_magnetization_error)):  # fmt: skip
        tau[i], error[i] = interval * np.array(autocorrelation_time_and_error(series))
        n_clusters.append(1 if tau[i] - 2 * error[i] <= 0.5 else 2 * tau[i])  # 1/2: each cluster makes an independent value
    thinning.clusters_per_sample[i] = math.ceil(max(n_clusters))
    yield 1


def _in_parallel(tasks, workers, bar):
    """Run generators to their end on `workers` threads; what they yield moves the bar. Where one fails, or Ctrl-C is pressed,
    all stop when they next yield."""
    stop, lock = Event(), Lock()

    def run(task):
        while not stop.is_set():
            try:
                amount = next(task)
            except StopIteration:
                return
            with lock:
                bar.update(amount)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(run, task) for task in tasks]):
                future.result()
        finally:
            stop.set()


def energy_per_spin(spins, size):
    """Energy per spin (...,) of lattices `spins` (..., size²), row by row; True or positive is up, all else is down.

    Raises ValueError where the last axis does not have size² spins.
    """
    size = checks.integer("size", size, 2)
    up = checks.plain_array("spins", spins) > 0
    if up.ndim == 0 or up.shape[-1] != size * size:
        raise ValueError(f"spins must have shape (..., size²) = (..., {size * size}); got {up.shape}")
    up = up.reshape(*up.shape[:-1], size, size)
    aligned_rows = np.count_nonzero(up == np.roll(up, 1, axis=-1), axis=(-2, -1))
    aligned_columns = np.count_nonzero(up == np.roll(up, 1, axis=-2), axis=(-2, -1))
    return _energy(aligned_rows + aligned_columns, size)


def magnetization_per_spin(spins):
    """Mean spin (...,) in [-1, 1] of lattices `spins` (..., N); True or positive is up, all else is down."""
    return 2 * np.mean(checks.plain_array("spins", spins) > 0, axis=-1) - 1


def _energy(n_aligned, size):
    return 2 - 2 * n_aligned / size**2  # of 2N bonds, an aligned one has energy -1, any other +1


def _magnetization(n_up, size):
    return 2 * (n_up / size**2) - 1  # as a mean is computed: to the last bit that of `magnetization_per_spin`
