"""The Ising simulation and the exact results: each is judged by enumeration, by the other, or by published values."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chisquare

from npvae.data import ising
from npvae.data.ising import (
    T_CRITICAL,
    autocorrelation_time,
    energy_per_spin,
    kaufman_energy,
    magnetization_per_spin,
    onsager_energy,
    onsager_magnetization,
    simulate,
)
from npvae.kernels.ising import wolff


def all_states(n_sites):
    return (np.arange(2**n_sites)[:, None] >> np.arange(n_sites) & 1).astype(bool)


def naive_energy(spins, size):
    """Sum over sites of the bonds to the right and below, one at a time."""
    s = [[1 if spins[size * i + j] else -1 for j in range(size)] for i in range(size)]
    bonds = [s[i][j] * (s[i][(j + 1) % size] + s[(i + 1) % size][j]) for i in range(size) for j in range(size)]
    return -sum(bonds) / size**2


def naive_wolff(spins, size, p_add, n_clusters, n_samples, rng):
    """One chain on a lattice of rows and columns, with the random numbers drawn in the kernel's order; spins is changed."""
    samples, n_flipped = [], 0
    for _ in range(n_samples):
        for _ in range(n_clusters):
            site = divmod(int(rng.random() * size**2), size)
            old = spins[site]
            waiting = [site]
            spins[site] = -old
            n_flipped += 1
            while waiting:
                i, j = waiting.pop()
                for row, column in [(i, j - 1), (i, j + 1), (i - 1, j), (i + 1, j)]:
                    site = row % size, column % size
                    if spins[site] == old and rng.random() < p_add:
                        waiting.append(site)
                        spins[site] = -old
                        n_flipped += 1
        samples.append(spins.ravel().tolist())
    return n_flipped, samples


def standard_errors(series, exact):
    """Distance of the mean from `exact`, in standard errors that count the correlation of the samples."""
    error = series.std() * math.sqrt(2 * autocorrelation_time(series) / len(series))
    return (series.mean() - exact) / error


# Exact results


@pytest.mark.parametrize("size", [2, 3, 4])
def test_kaufman_energy_is_the_mean_over_all_states(size):
    temperatures = np.array([0.1, 0.5, 1.0, 2.0, 2.269, T_CRITICAL, 2.27, 3.0, 5.0, 20.0])
    energy = energy_per_spin(all_states(size**2), size)
    weight = np.exp(-(energy + 2) * size**2 / temperatures[:, None])
    exact = (weight * energy).sum(1) / weight.sum(1)
    np.testing.assert_allclose(kaufman_energy(temperatures, size), exact, rtol=0, atol=1e-13)


def test_kaufman_energy_tends_to_onsager_away_from_the_transition():
    temperatures = np.array([1e-3, 0.01, 0.5, 1.5, 2.0, 2.6, 3.0, 10.0, 100.0])
    np.testing.assert_allclose(kaufman_energy(temperatures, 500), onsager_energy(temperatures), rtol=0, atol=1e-12)


def test_kaufman_energy_at_the_transition_approaches_onsager_as_one_over_size():
    """The gap at T_CRITICAL is A/size: doubling the size halves it."""
    gaps = [onsager_energy(T_CRITICAL) - kaufman_energy(T_CRITICAL, size) for size in (64, 128)]
    assert gaps[0] > 1e-3
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=1e-3)


def test_onsager_energy_has_the_published_values():
    temperatures = [1.5, 2.0, 2.25, T_CRITICAL, 2.5, 3.0, 4.0]
    published = [-1.951117, -1.745565, -1.463103, -math.sqrt(2), -1.106079, -0.817310, -0.557272]
    np.testing.assert_allclose(onsager_energy(temperatures), published, rtol=0, atol=6e-7)


def test_onsager_magnetization_has_the_published_values():
    temperatures = [1e-3, 2.0, 2.25, T_CRITICAL, 4.0]
    np.testing.assert_allclose(onsager_magnetization(temperatures), [1, 0.911319, 0.671854, 0, 0], rtol=0, atol=6e-7)


@pytest.mark.parametrize("exact", [onsager_energy, onsager_magnetization, lambda T: kaufman_energy(T, 8)])
def test_exact_results_keep_the_shape_of_the_temperatures(exact):
    temperatures = np.array([[1.0, 2.0, 3.0], [2.2, T_CRITICAL, 9.0]])
    table = exact(temperatures)
    assert table.shape == (2, 3)
    assert isinstance(exact(2.0), float)
    assert [exact(T) for T in temperatures.flat] == pytest.approx(list(table.flat), rel=1e-14)


# Observables


@pytest.mark.parametrize("size", [2, 3, 5])
def test_energy_and_magnetization_match_a_loop_over_the_bonds(size):
    up = np.random.default_rng(0).random((20, size**2)) < 0.6
    np.testing.assert_allclose(energy_per_spin(up, size), [naive_energy(s, size) for s in up], atol=1e-15)
    np.testing.assert_allclose(magnetization_per_spin(up), [(2.0 * s - 1).mean() for s in up], atol=1e-15)
    signed = np.where(up, 1, -1)  # ±1 and True/False are the same lattice
    np.testing.assert_array_equal(energy_per_spin(signed, size), energy_per_spin(up, size))
    np.testing.assert_array_equal(magnetization_per_spin(signed), magnetization_per_spin(up))


@pytest.mark.parametrize("a", [-0.4, 0.0, 0.8])
def test_autocorrelation_time_of_an_ar1_process(a):
    """x_t = a x_(t-1) + noise has ρ(t) = a^t, so τ = (1 + a) / (2 (1 - a))."""
    noise = np.random.default_rng(0).standard_normal(100_000).tolist()
    series = [noise[0] / math.sqrt(1 - a**2)]
    for eps in noise[1:]:
        series.append(a * series[-1] + eps)
    assert autocorrelation_time(series) == pytest.approx((1 + a) / (2 * (1 - a)), rel=0.06)


def test_autocorrelation_time_of_a_series_that_does_not_show_it():
    assert autocorrelation_time([0.1] * 70) == 0.5
    assert autocorrelation_time([1, 2, 3, 4, 5, 6]) == 0.5


@pytest.mark.parametrize("n", [7, 10, 20, 100, 200, 999])
def test_autocorrelation_time_of_a_short_series_is_at_least_that_of_independent_values(n):
    rng = np.random.default_rng(n)
    alternating = (-1.0) ** np.arange(n)
    for series in (alternating, np.arange(n), *rng.standard_normal((200, n))):
        assert autocorrelation_time(series) >= 0.5
    assert autocorrelation_time((-1.0) ** np.arange(1000)) < 0.5  # long enough to show it


# Simulation


@pytest.mark.parametrize("temperature", [1.0, 2.0, 2.2, T_CRITICAL, 2.35, 3.0, 5.0])
def test_simulated_energy_is_the_exact_one(temperature):
    sample = simulate(temperature, 1500, size=12, seed=1)
    assert abs(standard_errors(sample.energy, kaufman_energy(temperature, 12))) < 4.5


def test_simulated_magnetization_is_the_exact_one():
    """At T = 2 the correlation length is 2 or 3 spins: |M| of 24 × 24 spins is that of the infinite lattice."""
    sample = simulate(2.0, 1500, size=24, seed=2)
    assert abs(standard_errors(abs(sample.magnetization), onsager_magnetization(2.0))) < 4.5


def test_the_states_of_a_2x2_lattice_follow_boltzmann():
    """16 states at T = 4, where both energies and signs mix; 12 clusters between samples leave no correlation."""
    spins, samples = np.ones(4, np.int8), np.empty((20_000, 4), np.int8)
    wolff(spins, 2, -math.expm1(-2 / 4.0), 12, samples, np.random.default_rng(3))
    energy = energy_per_spin(samples, 2)
    assert autocorrelation_time(energy) < 0.55
    counts = np.bincount((samples > 0) @ [1, 2, 4, 8], minlength=16)
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

    def recorded(spins, size, p_add, n_clusters, samples, rng):
        n_flipped = wolff(spins, size, p_add, n_clusters, samples, rng)
        calls.append((n_flipped / (len(samples) * size**2), n_clusters))
        return n_flipped

    monkeypatch.setattr(kernels, "wolff", recorded)
    monkeypatch.setattr(ising, "SPINS_PER_CALL", 50 * 16**2)
    simulate(temperature, 400, size=16, seed=5)
    *burn_in, last_round = calls[:-8]
    assert last_round[0] >= ising.BURN_IN_SWEEPS > max(n for n, _ in burn_in)
    assert np.mean([n for n, _ in calls[-8:]]) > 0.85
    assert len({n_clusters for _, n_clusters in calls[-8:]}) == 1


def test_the_sample_is_consistent():
    sample = simulate([3.0, 1.0, 3], n_samples=5, size=6, seed=0)
    assert sample.spins.shape == (15, 36)
    assert sample.spins.dtype == bool
    np.testing.assert_array_equal(sample.temperature, np.repeat([3.0, 1.0, 3.0], 5))
    np.testing.assert_array_equal(sample.energy, energy_per_spin(sample.spins, 6))
    np.testing.assert_array_equal(sample.magnetization, magnetization_per_spin(sample.spins))
    assert (sample.energy[:5] != sample.energy[10:]).any()  # the same temperature again is another chain


def test_the_seed_decides_every_bit():
    first, again, other = (simulate([1.5, 2.5], 10, size=8, seed=seed) for seed in (7, 7, 8))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert (first.spins[10:] != other.spins[10:]).any()


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
            spins, samples = np.ones(size**2, np.int8), np.empty((20, size**2), np.int8)
            rng = np.random.default_rng(9)
            n_flipped = kernel(spins, size, -math.expm1(-2 / T), 3, samples, rng)
            runs.append((n_flipped, spins.tolist(), samples.tolist(), rng.random()))
        assert runs[0] == runs[1]


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("p_add", [0.0, 0.4, 0.9, 1.0])
def test_the_kernel_equals_its_naive_twin(size, p_add):
    """Bit by bit, down to the number of random numbers drawn; 0 flips single spins, 1 the whole cluster of equal ones."""
    start = np.random.default_rng(1).choice(np.array([-1, 1], np.int8), (size, size))
    spins, samples = start.ravel().copy(), np.empty((15, size**2), np.int8)
    rng, naive_rng = np.random.default_rng(2), np.random.default_rng(2)
    n_flipped = wolff(spins, size, p_add, 4, samples, rng)
    expected = naive_wolff(start, size, p_add, 4, 15, naive_rng)
    assert (n_flipped, samples.tolist()) == expected
    assert spins.tolist() == start.ravel().tolist()
    assert rng.random() == naive_rng.random()


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
        ("T", lambda: onsager_energy(0.0)),
        ("T", lambda: onsager_magnetization([1.0, -2.0])),
        ("T", lambda: kaufman_energy(math.nan, 4)),
        ("size", lambda: kaufman_energy(2.0, 1)),
        ("size", lambda: energy_per_spin(np.ones(9), 1.5)),
        ("spins", lambda: energy_per_spin(np.ones((3, 3)), 3)),
        ("series", lambda: autocorrelation_time([1.0])),
        ("series", lambda: autocorrelation_time([1.0, math.nan])),
        ("series", lambda: autocorrelation_time(["a", "b"])),
        ("series", lambda: autocorrelation_time(np.ones((3, 3)))),
    ],
)
def test_bad_arguments_of_the_rest(name, call):
    with pytest.raises(ValueError, match=rf"^{name} must [^\n]*; got [^\n]*$"):
        call()
