"""The Ising simulation, judged by enumeration, by the exact results and by a naive twin."""

import math
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest
from scipy.stats import chisquare

from npvae.data import ising
from npvae.data.autocorrelation import autocorrelation_time, autocorrelation_time_and_error
from npvae.data.ising import Thinning, energy_per_spin, magnetization_per_spin, simulate
from npvae.data.ising_exact import T_CRITICAL, kaufman_energy, onsager_energy, onsager_magnetization
from npvae.kernels.ising import count, wolff, xoshiro128

needs_compiler = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="slow as plain Python, which equals the compiled kernel")


@pytest.fixture(autouse=True)
def short_pilot_runs(monkeypatch):
    """Where kernels are plain Python."""
    if numba.config.DISABLE_JIT:
        monkeypatch.setattr(ising, "PILOT_SWEEPS", 100)


def generator(seed):
    """A state of the kernel's generator."""
    return np.random.default_rng(seed).integers(1, 2**32, 4)


def all_states(n_sites):
    return (np.arange(2**n_sites)[:, None] >> np.arange(n_sites) & 1).astype(bool)


def naive_energy(spins, size):
    """Sum over sites of the bonds to the right and below, one at a time."""
    s = [[1 if spins[size * i + j] else -1 for j in range(size)] for i in range(size)]
    bonds = [s[i][j] * (s[i][(j + 1) % size] + s[(i + 1) % size][j]) for i in range(size) for j in range(size)]
    return -sum(bonds) / size**2


class NaiveGenerator:
    """xoshiro128++ as its authors write it in C: words of 32 bits in an array."""

    def __init__(self, words):
        self.s = np.array(words).astype(np.uint32)

    def number(self):
        s = self.s
        result = self.rotated(s[0:1] + s[3:4], 7) + s[0:1]
        t = s[1:2] << np.uint32(9)
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2:3] ^= t
        s[3:4] = self.rotated(s[3:4], 11)
        return int(result[0])

    @staticmethod
    def rotated(x, k):
        return x << np.uint32(k) | x >> np.uint32(32 - k)


def naive_wolff(spins, size, p_add, n_clusters, n_samples, rng):
    """One chain on a lattice of rows and columns, with the random numbers drawn in the kernel's order; spins is changed."""
    samples, n_flipped = [], 0
    for _ in range(n_samples):
        for _ in range(n_clusters):
            site = int(rng.number() / 2**32 * size), int(rng.number() / 2**32 * size)
            old = spins[site]
            waiting = [site]
            spins[site] = 1 - old
            n_flipped += 1
            while waiting:
                i, j = waiting.pop()
                bits = rng.number()
                for neighbour in [(i, j - 1), (i, j + 1), (i - 1, j), (i + 1, j)]:
                    site = neighbour[0] % size, neighbour[1] % size
                    fraction, bits = bits % 256 / 256, bits // 256  # the first 8 bits of a number in [0, 1)
                    if fraction <= p_add < fraction + 1 / 256:
                        fraction += rng.number() / 2**40  # the other 32
                    if spins[site] == old and fraction < math.floor(p_add * 2**40) / 2**40:
                        waiting.append(site)
                        spins[site] = 1 - old
                        n_flipped += 1
        samples.append(spins.ravel().tolist())
    return n_flipped, samples


def standard_errors(series, exact):
    """Distance of the mean from `exact`, in standard errors that count the correlation of the samples."""
    error = series.std() * math.sqrt(2 * autocorrelation_time(series) / len(series))
    return (series.mean() - exact) / error


# Observables


@pytest.mark.parametrize("size", [2, 3, 5])
def test_energy_and_magnetization_match_a_loop_over_the_bonds(size):
    up = np.random.default_rng(0).random((20, size**2)) < 0.6
    np.testing.assert_allclose(energy_per_spin(up, size), [naive_energy(s, size) for s in up], atol=1e-15)
    np.testing.assert_allclose(magnetization_per_spin(up), [(2.0 * s - 1).mean() for s in up], atol=1e-15)
    signed = np.where(up, 1, -1)  # ±1 and True/False are the same lattice
    np.testing.assert_array_equal(energy_per_spin(signed, size), energy_per_spin(up, size))
    np.testing.assert_array_equal(magnetization_per_spin(signed), magnetization_per_spin(up))


# Simulation


@pytest.mark.parametrize("temperature", [1.0, 2.0, 2.2, T_CRITICAL, 2.35, 3.0, 5.0])
def test_simulated_energy_is_the_exact_one(temperature):
    sample = simulate(temperature, 1500, size=12, seed=1)
    assert abs(standard_errors(sample.energy, kaufman_energy(temperature, 12))) < 4.5


@needs_compiler
def test_simulated_magnetization_is_the_exact_one():
    """At T = 2 the correlation length is 2 or 3 spins: |M| of 24 × 24 spins is that of the infinite lattice."""
    sample = simulate(2.0, 1500, size=24, seed=2)
    assert abs(standard_errors(abs(sample.magnetization), onsager_magnetization(2.0))) < 4.5


@needs_compiler
def test_energies_at_ten_temperatures_are_those_of_finite_and_infinite_lattices():
    """Of 64 × 64 spins. Away from T_CRITICAL, where Kaufman's and Onsager's energies agree, the sample agrees with both."""
    temperatures = np.array([1.0, 1.5, 1.8, 2.0, 2.2, T_CRITICAL, 2.4, 2.7, 3.0, 4.0])
    sample = simulate(temperatures, 200, size=64, seed=8, n_chains=2)
    for temperature, chains in zip(temperatures, sample.energy.reshape(10, 2, 200)):
        for energy in chains:
            assert abs(standard_errors(energy, kaufman_energy(temperature, 64))) < 4.9
            if abs(temperature - T_CRITICAL) > 0.1:
                assert abs(standard_errors(energy, onsager_energy(temperature))) < 4.9


@needs_compiler
def test_magnetizations_at_ten_temperatures_are_the_exact_ones():
    """Of 64 × 64 spins, down to correlation lengths of a tenth of that below T_CRITICAL."""
    temperatures = np.array([1.0, 1.2, 1.4, 1.6, 1.7, 1.8, 1.9, 2.0, 2.05, 2.1])
    sample = simulate(temperatures, 400, size=64, seed=9)
    for temperature, magnetization in zip(temperatures, abs(sample.magnetization).reshape(10, 400)):
        assert abs(standard_errors(magnetization, onsager_magnetization(temperature))) < 4.9


@needs_compiler
@pytest.mark.parametrize("temperature", [1.7, T_CRITICAL, 4.0])
def test_the_energies_of_a_4x4_lattice_follow_boltzmann(temperature):
    """All 65,536 states. Of the samples each third, six autocorrelation times apart; rare energies count as one."""
    levels, multiplicity = np.unique(energy_per_spin(all_states(16), 4), return_counts=True)
    p = multiplicity * np.exp(-16 * (levels + 2) / temperature)
    energy = simulate(temperature, 30_000, size=4, seed=10).energy[::3]
    assert set(energy) <= set(levels)
    counts, expected = np.array([np.sum(energy == level) for level in levels]), len(energy) * p / p.sum()
    rare = expected < 20
    counts, expected = (np.append(array[~rare], array[rare].sum()) for array in (counts, expected))
    assert len(counts) >= 6
    assert chisquare(counts, expected).pvalue > 1e-4


def test_the_states_of_a_2x2_lattice_follow_boltzmann():
    """16 states at T = 4, where both energies and signs mix; 12 clusters between samples leave no correlation."""
    spins, samples = np.ones(4, np.uint8), np.empty((20_000, 4), np.uint8)
    wolff(spins, 2, -math.expm1(-2 / 4.0), 12, samples, generator(3))
    energy = energy_per_spin(samples, 2)
    assert autocorrelation_time(energy) < 0.55
    counts = np.bincount(samples @ [1, 2, 4, 8], minlength=16)
    weight = np.exp(-energy_per_spin(all_states(4), 2) * 4 / 4.0)
    assert chisquare(counts, len(samples) * weight / weight.sum()).pvalue > 1e-4


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0, 4.0])
def test_the_sign_of_each_sample_is_a_fair_coin(temperature):
    up = simulate(temperature, 30_000, size=2, seed=4).spins[:, 0]
    for coin in (up, up[1:] == up[:-1]):
        assert abs(coin.mean() - 0.5) < 4.5 * 0.5 / math.sqrt(len(coin))


@pytest.mark.parametrize("temperature", [0.5, 2.0, T_CRITICAL, 4.0])
def test_about_a_lattice_of_spins_flips_between_samples(temperature, monkeypatch):
    from npvae.kernels import ising as kernels

    calls = []

    def recorded(spins, size, p_add, n_clusters, samples, state):
        n_flipped = wolff(spins, size, p_add, n_clusters, samples, state)
        calls.append((n_flipped / (len(samples) * size**2), n_clusters, len(samples)))
        return n_flipped

    monkeypatch.setattr(kernels, "wolff", recorded)
    monkeypatch.setattr(ising, "SPINS_PER_CALL", 50 * 16**2)
    thinning = simulate(temperature, 400, size=16, seed=5, workers=1).thinning
    beginnings = [i for i, (_, n_clusters, n_stored) in enumerate(calls) if (n_clusters, n_stored) == (2, 1)]
    assert len(beginnings) == 2  # of the pilot run and of the chain
    for i in beginnings:
        n_rounds = 1 + next(k for k, (sweeps, _, _) in enumerate(calls[i:]) if sweeps >= ising.BURN_IN_SWEEPS)
        assert [n_clusters for _, n_clusters, _ in calls[i : i + n_rounds]] == [2 << k for k in range(n_rounds)]
        assert calls[i + n_rounds][2] == 50  # and then lattices are stored
    assert i + n_rounds + 8 == len(calls)
    assert np.mean([sweeps for sweeps, _, _ in calls[-8:]]) > 0.85
    assert {n_clusters for _, n_clusters, _ in calls[-8:]} == {thinning.clusters_per_sample[0]}


def test_the_sample_is_consistent():
    sample = simulate([3.0, 1.0, 3], n_samples=5, size=6, seed=0)
    assert sample.spins.shape == (15, 36)
    np.testing.assert_array_equal(sample.chain, np.zeros(15))
    assert sample.spins.dtype == np.uint8
    assert set(np.unique(sample.spins)) == {0, 1}
    np.testing.assert_array_equal(sample.temperature, np.repeat([3.0, 1.0, 3.0], 5))
    np.testing.assert_array_equal(sample.energy, energy_per_spin(sample.spins, 6))
    np.testing.assert_array_equal(sample.magnetization, magnetization_per_spin(sample.spins))
    assert (sample.energy[:5] != sample.energy[10:]).any()  # the same temperature again is another chain


def test_the_seed_decides_every_bit():
    first, again, other = (simulate([1.5, 2.5], 10, size=8, seed=seed) for seed in (7, 7, 8))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert (first.spins[10:] != other.spins[10:]).any()


def test_the_number_of_workers_changes_no_bit(monkeypatch):
    monkeypatch.setattr(ising, "SPINS_PER_CALL", 3 * 64)
    one, two, three, all_cores = (simulate([1.5, 2.3, 3.0], 10, size=8, seed=7, n_chains=2, workers=workers)
                                  for workers in (1, 2, 3, None))  # fmt: skip
    for other in (two, three, all_cores):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


def test_chains_at_a_temperature_are_independent_and_do_not_depend_on_their_number():
    sample = simulate([2.0, 2.3], 300, size=8, seed=7, n_chains=3)
    np.testing.assert_array_equal(sample.chain, np.tile(np.repeat([0, 1, 2], 300), 2))
    np.testing.assert_array_equal(sample.temperature, np.repeat([2.0, 2.3], 900))
    energy = sample.energy.reshape(6, 300)
    correlation = np.corrcoef(energy) - np.eye(6)
    assert abs(correlation).max() < 4 / math.sqrt(300)
    assert len({chain.tobytes() for chain in energy}) == 6
    np.testing.assert_array_equal(simulate([2.0], 300, size=8, seed=7).spins, sample.spins[:300])
    cold = simulate([0.5, 0.6], 300, size=4, seed=7, n_chains=2)  # where the sign comes from the coins alone
    correlation = np.corrcoef(np.sign(cold.magnetization).reshape(4, 300)) - np.eye(4)
    assert abs(correlation).max() < 4 / math.sqrt(300)


@needs_compiler
@pytest.mark.parametrize(("temperature", "size"), [(1.0, 16), (2.0, 24), (T_CRITICAL, 16), (T_CRITICAL, 48), (3.0, 24)])
def test_stored_samples_are_about_two_autocorrelation_times_apart(temperature, size):
    """Measured anew, cluster by cluster in a long chain: as the pilot run says, within 4.5 errors, and so are the samples."""
    thinning = Thinning(*(array[0] for array in simulate(temperature, 1, size=size, seed=11).thinning))
    n_clusters, n = max(1, int(thinning.clusters_per_sample // 8)), 20_000
    spins, samples, state = np.ones(size**2, np.uint8), np.empty((n, size**2), np.uint8), generator(12)
    p_add = -math.expm1(-2 / temperature)
    wolff(spins, size, p_add, 100 * n_clusters, samples[:1], state)
    wolff(spins, size, p_add, n_clusters, samples, state)
    taus = []
    for series, tau, error in [(energy_per_spin(samples, size), thinning.tau_energy, thinning.tau_energy_error),
                               (abs(magnetization_per_spin(samples)), thinning.tau_magnetization,
                                thinning.tau_magnetization_error)]:  # fmt: skip
        long_tau, long_error = n_clusters * np.array(autocorrelation_time_and_error(series))
        assert abs(tau - long_tau) < 4.5 * math.hypot(error, long_error)
        assert 0 < error < 0.3 * tau
        taus.append(long_tau)
    assert 0.6 < thinning.clusters_per_sample / max(1, 2 * max(taus)) < 1.8


def test_where_a_chain_fails_the_others_stop(monkeypatch):
    """And so they do on Ctrl-C, which is raised where the calling thread waits."""
    from npvae.kernels import ising as kernels

    failed, calls = threading.Event(), []

    def failing(spins, size, p_add, n_clusters, samples, state):
        if p_add < 0.5:  # T = 4
            failed.set()
            raise FloatingPointError("the second chain")
        calls.append(failed.wait())
        time.sleep(0.01)
        return wolff(spins, size, p_add, n_clusters, samples, state)

    monkeypatch.setattr(kernels, "wolff", failing)
    monkeypatch.setattr(ising, "SPINS_PER_CALL", 16)
    with pytest.raises(FloatingPointError, match="the second chain"):
        simulate([2.0, 4.0], 1, size=4, seed=1, workers=2)
    assert len(calls) < 500  # of at least the thousand of a pilot run


def test_a_chain_does_not_depend_on_the_others_nor_on_the_number_of_samples(monkeypatch):
    alone = simulate([2.0, 2.5], 10, size=8, seed=7).spins
    with_more = simulate([2.0, 2.5, 1.0], 10, size=8, seed=7).spins
    np.testing.assert_array_equal(with_more[:20], alone)
    changed_before = simulate([3.0, 2.5], 10, size=8, seed=7).spins
    np.testing.assert_array_equal(changed_before[10:], alone[10:])
    monkeypatch.setattr(ising, "SPINS_PER_CALL", 3 * 64)  # nor on how the chain is cut into calls of the kernel
    longer = simulate([2.0, 2.5], 30, size=8, seed=7).spins
    np.testing.assert_array_equal(longer[[*range(10), *range(30, 40)]], alone)


def test_the_kernel_equals_its_uncompiled_self():
    plain = getattr(wolff, "py_func", wolff)  # with NUMBA_DISABLE_JIT=1 the kernel is the plain function
    for size, T in [(2, 3.0), (7, 2.3), (10, 1.5)]:
        runs = []
        for kernel in (wolff, plain):
            spins, samples, state = np.ones(size**2, np.uint8), np.empty((20, size**2), np.uint8), generator(9)
            n_flipped = kernel(spins, size, -math.expm1(-2 / T), 3, samples, state)
            runs.append((n_flipped, spins.tolist(), samples.tolist(), state.tolist()))
        assert runs[0] == runs[1]


@pytest.mark.parametrize("size", [2, 3, 7, 8])
@pytest.mark.parametrize("p_add", [0.0, 0.4, 0.9, 1.0])
def test_the_kernel_equals_its_naive_twin(size, p_add):
    """Bit by bit, down to the number of random numbers drawn; 0 flips single spins, 1 the whole cluster of equal ones."""
    start = np.random.default_rng(1).integers(0, 2, (size, size), np.uint8)
    spins, samples, state = start.ravel().copy(), np.empty((15, size**2), np.uint8), generator(2)
    naive = NaiveGenerator(state)
    n_flipped = wolff(spins, size, p_add, 4, samples, state)
    expected = naive_wolff(start, size, p_add, 4, 15, naive)
    assert (n_flipped, samples.tolist()) == expected
    assert spins.tolist() == start.ravel().tolist()
    assert state.tolist() == naive.s.tolist()


def test_the_generator_has_the_published_values():
    """Of the state 1, 2, 3, 4, as other implementations of xoshiro128++ test them."""
    state, numbers = (1, 2, 3, 4), []
    for _ in range(10):
        number, *state = xoshiro128(*state)
        numbers.append(number)
    assert numbers == [641, 1573767, 3222811527, 3517856514, 836907274, 4247214768, 3867114732, 1355841295, 495546011,
                       621204420]  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 40])
def test_bonds_and_ones_are_counted(size):
    spins = np.random.default_rng(6).integers(0, 2, (30, size**2), np.uint8)
    n_aligned, n_up = np.empty((2, 30), np.int64)
    count(spins, size, n_aligned, n_up)
    np.testing.assert_array_equal(2 - 2 * n_aligned / size**2, energy_per_spin(spins, size))
    np.testing.assert_array_equal(n_up, spins.sum(1))


def test_progress_shows_a_bar_on_a_terminal_only(monkeypatch, capsys):
    simulate(2.0, 3, size=4, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    simulate(2.0, 3, size=4, progress=False)
    assert capsys.readouterr().err == ""
    simulate(2.0, 3, size=4, progress=True)
    assert "Ising" in capsys.readouterr().err


def test_the_import_loads_neither_numba_nor_scipy():
    """The module alone; what the package loads on its own account is not its business."""
    code = (
        "import sys; import importlib.util as u; spec = u.spec_from_file_location('ising', sys.argv[1]);"
        "spec.loader.exec_module(u.module_from_spec(spec));"
        "sys.exit(', '.join({'numba', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, ising.__file__], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


# Errors


@pytest.mark.parametrize(
    "temperatures", [[], [[1.0, 2.0]], [1.0, 0.0], -1.0, [math.nan], math.inf, "hot", ["2.0"], None, [[1], [1, 2]], [1j]]
)
def test_bad_temperatures(temperatures):
    with pytest.raises(ValueError, match=r"^temperatures must be [^\n]*number[^\n]*; got [^\n]*$"):
        simulate(temperatures, 1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("n_samples", {"n_samples": 0}),
        ("n_samples", {"n_samples": 2.5}),
        ("n_samples", {"n_samples": 10**13, "size": 2}),
        ("size", {"size": 1}),
        ("size", {"size": "large"}),
        ("size", {"size": 10**6}),
        ("n_samples", {"n_samples": 10**6, "n_chains": 10**6}),
        ("n_chains", {"n_chains": 0}),
        ("workers", {"workers": 0}),
        ("workers", {"workers": "all"}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": None}),
    ],
)
def test_bad_arguments_of_simulate(name, arguments):
    with pytest.raises(ValueError, match=rf"^{name} must [^\n]*; got [^\n]*$"):
        simulate(2.0, **{"n_samples": 1, **arguments})


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("size", lambda: energy_per_spin(np.ones(9), 1.5)),
        ("spins", lambda: energy_per_spin(np.ones((3, 3)), 3)),
    ],
)
def test_bad_arguments_of_the_rest(name, call):
    with pytest.raises(ValueError, match=rf"^{name} must [^\n]*; got [^\n]*$"):
        call()
