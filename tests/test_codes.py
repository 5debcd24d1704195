"""Symbols coded with whole numbers of slots: the slots as probabilities, the cost, that all comes back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from npvae.kernels import codes as twins
from npvae.kernels.compile import strict_jit
from npvae.ops import codes, discrete, rans
from npvae.ops.codes import N_SLOTS
from npvae.ops.rans import COUNT, DRAWN, FAULTS, HEAD

LOGITS = np.array([-800.0, -40, -17, -3, -1e-3, 0, 0.5, 5, 16.7, 40, 800])
LOG_PARAMETERS = [-25.0, -23.0, -12.0, -5.0, -1.0, 0.0, 1e-9, 1.0, 3.0, 6.0, 12.0, 23.0, 25.0]  # two of them beyond the bounds
EDGES, CENTRES = codes.buckets_of_equal_mass(10)


def bits_of(message):
    """log2 of the whole number that the message is."""
    return 32 * (int(message.registers[COUNT]) - int(message.registers[DRAWN])) + math.log2(message.registers[HEAD])


def grid():
    """All pairs of LOG_PARAMETERS: log α, log β."""
    return (part.ravel() for part in np.meshgrid(LOG_PARAMETERS, LOG_PARAMETERS))


def entropy(p):
    """In bits, of the columns of p (K, ...)."""
    return -np.where(p > 0, p * np.log2(np.where(p > 0, p, 1)), 0).sum(axis=0)


def draw(p, rng):
    """A symbol of each column of p (K, D), with these probabilities: (D,)."""
    return (p.cumsum(axis=0)[:-1] <= rng.random(p.shape[1])).sum(axis=0)


# ---- slots are probabilities ----


def test_bernoulli_slots():
    ones = codes.bernoulli_table(LOGITS)
    assert ones.dtype == np.int64
    assert ones.min() == 1
    assert ones.max() == N_SLOTS - 1
    assert np.all(np.diff(ones) >= 0)
    np.testing.assert_allclose(ones / N_SLOTS, special.expit(LOGITS), rtol=0, atol=2 / N_SLOTS)
    for d in range(len(LOGITS)):
        assert codes.bernoulli_slots(ones, d, 0) == (0, N_SLOTS - ones[d])
        assert codes.bernoulli_slots(ones, d, 1) == (N_SLOTS - ones[d], ones[d])


def check_levels(starts, p):
    """Slots of at least one for each level, 2^24 in all, in proportion to p but for the roundings."""
    frequencies = np.diff(starts, axis=0)
    np.testing.assert_array_equal(starts[0], 0)
    np.testing.assert_array_equal(starts[-1], N_SLOTS)
    assert frequencies.min() >= 1
    np.testing.assert_allclose(frequencies, 1 + (N_SLOTS - len(p)) * p, rtol=0, atol=1.001)


def test_beta_binomial_slots_over_the_whole_range():
    """With the probabilities of `npvae.ops.discrete`; among the masses no infinity, no NaN, and none that is subnormal."""
    log_alpha, log_beta = grid()
    masses = codes.beta_binomial_masses(log_alpha, log_beta, 255)
    assert np.all(np.isfinite(masses))
    assert np.all((masses == 0) | (masses >= codes.SMALLEST_MASS))
    alpha, beta, _ = discrete.beta_parameters(np.concatenate([log_alpha, log_beta]))
    p = np.exp(-discrete.nll_per_pixel(alpha, beta, np.arange(256.0)[:, None], 255))
    np.testing.assert_allclose(masses / masses.sum(axis=0), p, rtol=1e-10, atol=1e-250)
    check_levels(codes.levels_table(masses), p)


def test_beta_binomial_masses_are_those_of_scipy():
    alpha, beta = np.array([0.4, 1.0, 2.5, 30.0]), np.array([0.7, 1.0, 0.2, 9.0])
    masses = codes.beta_binomial_masses(np.log(alpha), np.log(beta), 7)
    p = stats.betabinom.pmf(np.arange(8)[:, None], 7, alpha, beta)
    np.testing.assert_allclose(masses / masses.sum(axis=0), p, rtol=1e-12)


def test_categorical_slots():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((6, 256)) * np.array([[0], [1], [5], [40], [1e3], [1e8]])
    masses = codes.categorical_masses(logits)
    p = discrete.categorical_probabilities(logits.ravel(), 256).T
    np.testing.assert_allclose(masses / masses.sum(axis=0), p, rtol=1e-12, atol=1e-300)
    check_levels(codes.levels_table(masses), p)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e300) | st.sampled_from([0.0, 1e-280, 1.0]), max_size=300))
def test_any_masses_give_slots_to_all_levels(masses):
    starts = codes.levels_table(np.array([*masses, 1.0])[:, None])
    assert starts[0, 0] == 0
    assert starts[-1, 0] == N_SLOTS
    assert np.diff(starts, axis=0).min() >= 1


def tables(log_alpha, log_beta, logits):
    """All that is made in loops of its own where it is compiled."""
    beta_binomial, categorical = codes.beta_binomial_masses(log_alpha, log_beta, 255), codes.categorical_masses(logits)
    slots = codes.levels_table(beta_binomial), codes.levels_table(categorical), codes.bernoulli_table(logits[0])
    return beta_binomial, categorical, slots


def test_both_back_ends_have_the_same_slots():
    logits = np.random.default_rng(1).standard_normal((5, 256)) * np.array([[0], [1], [5], [40], [1e8]])
    found = strict_jit(tables)(*grid(), logits)
    for twin, own in zip([*found[:2], *found[2]], [*(expected := tables(*grid(), logits))[:2], *expected[2]]):
        assert twin.tobytes() == own.tobytes()


def test_buckets_are_equally_probable_and_centres_their_medians():
    for bits in (1, 6, 12):
        edges, centres = codes.buckets_of_equal_mass(bits)
        n = 2**bits
        np.testing.assert_allclose(stats.norm.cdf(edges), np.arange(n + 1) / n, rtol=0, atol=1e-14)
        np.testing.assert_allclose(stats.norm.cdf(centres), (np.arange(n) + 0.5) / n, rtol=0, atol=1e-14)
        assert edges[0] == -np.inf
        assert edges[-1] == np.inf


@pytest.mark.parametrize(
    ("mu", "sigma"), [(0.0, 1.0), (0.3, 0.05), (-2.0, 1e-3), (9.0, 0.1), (-50.0, 3e-7), (1.0, 2e4), (1e9, 3e-7)]
)
def test_normal_slots_are_probabilities_and_only_of_buckets_that_have_them(mu, sigma):
    starts = np.array([codes.normal_start(i, mu, sigma, EDGES) for i in range(1025)])
    assert starts[0] == 0
    assert starts[-1] == N_SLOTS
    assert np.all(np.diff(starts) >= 0)
    p = np.diff(stats.norm.cdf(EDGES, mu, sigma))
    np.testing.assert_allclose(np.diff(starts) / N_SLOTS, p, rtol=0, atol=1.001 / N_SLOTS)
    (own,) = np.nonzero(np.diff(starts))
    assert np.all((EDGES[own] <= mu + 5.5 * sigma) & (EDGES[own + 1] >= mu - 5.5 * sigma))
    edges = starts[(starts > 0) & (starts < N_SLOTS)]
    for own in [0, N_SLOTS - 1, *edges[:: len(edges) // 20 + 1], *(edges[:: len(edges) // 20 + 1] - 1)]:
        i = codes.bucket_of(np.int64(own), mu, sigma, EDGES, CENTRES)
        assert starts[i] <= own < starts[i + 1]


@pytest.mark.parametrize(
    ("mu", "sigma"), [(0.0, 1.0), (0.3, 0.05), (-2.0, 1e-3), (9.0, 0.1), (-50.0, 3e-7), (1.0, 2e4), (0.1, 1e13), (1e9, 3e-7)]
)
def test_with_least_slots_every_bucket_is_possible(mu, sigma):
    starts = np.array([codes.normal_start(i, mu, sigma, EDGES, 2) for i in range(1025)])
    assert (starts[0], starts[-1]) == (0, N_SLOTS)
    assert np.diff(starts).min() >= 1
    p = np.diff(stats.norm.cdf(EDGES, mu, sigma))
    np.testing.assert_allclose(np.diff(starts), 2 + (N_SLOTS - 2048) * p, rtol=0, atol=1.001)
    for own in [0, N_SLOTS - 1, *starts[1:-1:50], *(starts[1:-1:50] - 1)]:
        i = codes.bucket_of(np.int64(own), mu, sigma, EDGES, CENTRES, 2)
        assert starts[i] <= own < starts[i + 1]
    message = rans.with_room(rans.new_message(), 3)
    for bucket in (0, 700, 1023):
        codes.push_normal(message, bucket, mu, sigma, EDGES, 2)
    found = [codes.pop_normal(message, mu, sigma, EDGES, CENTRES, 2) for _ in range(3)]
    assert found == [1023, 700, 0]
    assert rans.is_start(message)
    assert message.registers[FAULTS] == 0
    assert codes.normal_mass(700, mu, sigma, EDGES, 2)[1] == starts[701] - starts[700]


def test_masses_have_their_digits_in_both_tails():
    for z in (3.0, 6.0, 8.0):
        edges = np.array([-z - 0.01, -z, 0.0, z, z + 0.01])
        low, high = (codes.normal_mass(i, 0.0, 1.0, edges)[0] for i in (0, 3))
        assert low == high == pytest.approx(stats.norm.cdf(-z) - stats.norm.cdf(-z - 0.01), rel=1e-9)


# ---- what was pushed is popped, and costs its entropy ----


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_was_pushed_is_popped(data):
    """One code after another on one message, whose beginning is there again in the end."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = data.draw(st.integers(1, 12))
    whole = np.array(data.draw(st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n)))
    binary = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), np.uint8)
    levels = np.array(data.draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)), np.uint8)
    ones = codes.bernoulli_table(rng.choice(LOGITS, n))
    masses = codes.beta_binomial_masses(rng.choice(LOG_PARAMETERS, n), rng.choice(LOG_PARAMETERS, n), 255)
    starts = codes.levels_table(masses)
    mu, sigma = rng.normal(0, 3), math.exp(rng.uniform(-15, 10))

    message = rans.with_room(rans.new_message(seed), 4 * n)
    bucket = codes.pop_normal(message, mu, sigma, EDGES, CENTRES)
    codes.push_bernoulli(message, binary, ones)
    codes.push_levels(message, levels, starts)
    codes.push_uniform(message, whole, 31)
    found = [np.zeros(n, np.int64), np.zeros(n, np.uint8), np.zeros(n, np.uint8)]
    codes.pop_uniform(message, found[0], 31)
    codes.pop_levels(message, found[1], starts)
    codes.pop_bernoulli(message, found[2], ones)
    codes.push_normal(message, bucket, mu, sigma, EDGES)
    for array, expected in zip(found, (whole, levels, binary)):
        np.testing.assert_array_equal(array, expected)
    assert rans.is_start(message)
    assert message.registers[FAULTS] == 0


def distributions(n):
    """name -> symbols (n,), what its code takes, and −log2 of their probabilities."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 4, n)
    p_one = 1 / (1 + np.exp(-logits))
    binary = (rng.random(n) < p_one).astype(np.uint8)
    few, which = 50, np.arange(n) % 50  # tables of levels are large
    masses = {
        "categorical": codes.categorical_masses(rng.normal(0, 3, (few, 256))),
        "beta_binomial": codes.beta_binomial_masses(rng.normal(0, 2, few), rng.normal(0, 2, few), 255),
    }
    found = {
        "uniform": ("uniform", rng.integers(0, 2**14, n), (14,), np.full(n, 14.0)),
        "bernoulli": ("bernoulli", binary, (codes.bernoulli_table(logits),), -np.log2(np.where(binary, p_one, 1 - p_one))),
    }
    for name, of_levels in masses.items():
        p = of_levels / of_levels.sum(axis=0)
        x = draw(p[:, which], rng).astype(np.uint8)
        found[name] = "levels", x, (np.ascontiguousarray(codes.levels_table(of_levels)[:, which]),), -np.log2(p[x, which])
    return found


N = 2000


@pytest.mark.parametrize("name", ["uniform", "bernoulli", "categorical", "beta_binomial"])
def test_the_rate_is_the_entropy(name):
    """Within 1e-3 bits a symbol of −log2 of the probabilities of the very symbols, which come back."""
    code, symbols, distribution, ideal = distributions(N)[name]
    message = rans.with_room(rans.new_message(), N)
    before = bits_of(message)
    getattr(codes, f"push_{code}")(message, symbols, *distribution)
    assert abs(bits_of(message) - before - ideal.sum()) < 1e-3 * N
    found = np.zeros_like(symbols)
    getattr(codes, f"pop_{code}")(message, found, *distribution)
    np.testing.assert_array_equal(found, symbols)
    assert rans.is_start(message)
    assert ideal.sum() > 0.2 * N


@pytest.mark.parametrize("bits", [10, 14])
def test_the_rate_of_gaussians_is_the_entropy_of_the_buckets(bits):
    """Popped from random words and pushed again: what they cost, and that they are distributed as they should."""
    edges, centres = codes.buckets_of_equal_mass(bits)
    rng = np.random.default_rng(3)
    n = 300
    mu, sigma = rng.normal(0, 1, n), np.exp(rng.uniform(-3, 0.5, n))
    words = rng.integers(0, 2**32, 400, np.uint32)
    message = rans.with_room(rans.new_message(words=words), n)
    before = bits_of(message)
    b = np.array([codes.pop_normal(message, mu[i], sigma[i], edges, centres) for i in range(n)])
    p = stats.norm.cdf(edges[b + 1], mu, sigma) - stats.norm.cdf(edges[b], mu, sigma)
    assert abs(before - bits_of(message) + np.log2(p).sum()) < 1e-3 * n
    u = stats.norm.cdf(centres[b], mu, sigma)
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    for i in range(n - 1, -1, -1):
        codes.push_normal(message, b[i], mu[i], sigma[i], edges)
    np.testing.assert_array_equal(message.words[: message.registers[COUNT]], words)
    assert message.registers[FAULTS] == 0


def test_a_bucket_without_a_slot_is_a_fault_and_no_crash():
    message = rans.with_room(rans.new_message(), 1)
    codes.push_normal(message, 1000, -3.0, 1e-3, EDGES)
    assert message.registers[FAULTS] == 1
    assert message.registers[HEAD] == rans.start_head(0)
    assert message.registers[COUNT] == 0


def test_the_mass_of_a_bucket():
    for i in (0, 1, 500, 1023):
        mass, slots = codes.normal_mass(i, 0.2, 0.8, EDGES)
        assert mass == pytest.approx(np.diff(stats.norm.cdf(EDGES[i : i + 2], 0.2, 0.8)).item(), abs=1e-15)
        assert slots == codes.normal_start(i + 1, 0.2, 0.8, EDGES) - codes.normal_start(i, 0.2, 0.8, EDGES)


@pytest.mark.parametrize("name", ["bernoulli_table", "levels_table", "categorical_masses", "beta_binomial_masses"])
def test_twins_uncompiled(name):
    """So that their mutants can be run."""
    rng = np.random.default_rng(4)
    arguments = {
        "bernoulli_table": (LOGITS,), "levels_table": (rng.random((5, 3)),), "categorical_masses": (rng.normal(0, 3, (3, 5)),),
        "beta_binomial_masses": (np.array([-25.0, 0.1, 3.0, 9.0]), np.array([-1.0, 0.2, 1.0, -9.0]), 5),
    }[name]  # fmt: skip
    twin = getattr(twins, f"_{name}")
    np.testing.assert_array_equal(twin(*arguments), getattr(codes, name)(*arguments))
