"""What a VAE minimises: which settings can be, how validation is measured, and shards that are joined."""

import inspect
from itertools import pairwise

import naive
import numpy as np
import pytest

import npvae
from npvae.core.options import Option
from npvae.models import objectives
from npvae.ops import bounds


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "elbo", "beta": 0, "n_samples": 3},
        {"objective": "iwae", "beta": 0.5, "n_samples": 5},
        {"objective": "iwae", "free_bits_per_dimension": 0, "free_bits_total": 0.0},
        {"free_bits_per_dimension": 0.1},
        {"free_bits_total": 2, "beta": 4},
    ],
)
def test_settings_that_can_be(settings):
    objectives.check_settings(**settings)
    npvae.VAE(3, 1, ()).check_settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "ELBO"}, "objective must be one of elbo, iwae; got 'ELBO'"),
        ({"beta": -0.1}, "beta must be a finite number of at least 0; got -0.1"),
        ({"beta": np.nan}, "beta must be a finite number of at least 0; got nan"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1; got 0"),
        ({"n_samples": 1.5}, "n_samples must be an integer of at least 1; got 1.5"),
        ({"free_bits_per_dimension": -1}, "free_bits_per_dimension must be a finite number of at least 0; got -1"),
        ({"free_bits_total": "2"}, "free_bits_total must be a finite number of at least 0; got '2'"),
        ({"free_bits_per_dimension": 0.1, "free_bits_total": 1}, "two different remedies: give one of them"),
        ({"objective": "iwae", "free_bits_per_dimension": 0.1}, "free bits need the objective elbo"),
        ({"objective": "iwae", "free_bits_total": 0.1}, "free bits need the objective elbo"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        objectives.check_settings(**settings)
    assert "\n" not in str(error.value)


def test_a_setting_that_does_not_exist_is_no_setting():
    with pytest.raises(TypeError, match="gamma"):
        objectives.check_settings(gamma=1)


def test_validation_is_measured_without_free_bits_and_the_elbo_with_one_sample():
    free = {"free_bits_per_dimension": 0.1, "free_bits_total": 0.0}
    assert objectives.validation_settings(beta=0.5, n_samples=4, **free) == {"objective": "elbo", "beta": 0.5, "n_samples": 1}
    iwae = {"objective": "iwae", "beta": 2.0, "n_samples": 4}
    assert objectives.validation_settings(**iwae) == iwae
    assert objectives.validation_settings() == {"objective": "elbo", "beta": 1.0, "n_samples": 1}


def test_only_free_bits_couple_the_rows():
    assert objectives.couples_rows() is objectives.couples_rows(objective="iwae", beta=0.5, n_samples=3) is False
    assert objectives.couples_rows(free_bits_per_dimension=0.1)
    assert objectives.couples_rows(free_bits_total=0.1, beta=2)


@pytest.mark.parametrize("settings", [{"free_bits_per_dimension": 0.1}, {"free_bits_total": 0.3}])
@pytest.mark.parametrize("rows", [[2, 4], [1, 2, 3]])
def test_shards_of_a_model_are_joined_to_the_whole_batch(settings, rows):
    """Terms and gradient of unequal shards, against the batch in one piece."""
    rng = np.random.default_rng(2)
    model = npvae.VAE(5, 3, (4,), "tanh", dtype="float64", backend="numpy", seed=3)
    model.theta += 0.3 * rng.standard_normal(model.theta.size)
    x, eps = (rng.random((6, 5)) < 0.5).astype(float), rng.standard_normal((2, 6, 3))
    whole, cache = model.forward(x, eps, 0.7, **settings)
    expected = model.backward(cache)

    edges, weights = np.cumsum([0, *rows]), [n / 6 for n in rows]
    shards = [model.forward(x[a:b], eps[:, a:b], 0.7, **settings) for a, b in pairwise(edges)]
    terms, caches = model.join(*zip(*shards), weights)
    np.testing.assert_allclose(terms, whole, rtol=1e-13)
    assert type(terms) is npvae.VAE.Terms
    grads = [model.backward(cache, dloss=weight) for cache, weight in zip(caches, weights)]
    for name, value in expected.items():
        naive.assert_close(sum(grad[name] for grad in grads), value, tolerance=1e-13)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_objective_is_made_of_the_ops_of_the_table(backend):
    ops = npvae.models.backend.load_ops(backend)
    elbo, iwae = objectives.objective_ops(ops, "elbo"), objectives.objective_ops(ops, "iwae")
    assert elbo == (ops.latent_forward, ops.latent_backward, bounds.elbo_forward, bounds.elbo_backward)
    assert iwae == (ops.latent_sampled_forward, ops.latent_sampled_backward, bounds.iwae_forward, bounds.iwae_backward)
    free = objectives.objective_ops(ops, "elbo", 0.0, 0.3)
    assert free.bound_backward is bounds.free_bits_elbo_backward
    nll, kl = np.array([[1.0]]), np.array([[0.1, 0.1]])
    assert free.bound_forward(nll, kl, 2.0)[0] == 1 + 2 * 0.3
    assert objectives.objective_ops(ops, "elbo", 0.25).bound_forward(nll, kl, 2.0)[0] == 1 + 2 * 0.5


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_each_posterior_has_its_pair_for_each_objective(backend):
    ops = npvae.models.backend.load_ops(backend)
    pairs = {
        ("elbo", "diagonal"): (ops.latent_forward, ops.latent_backward),
        ("iwae", "diagonal"): (ops.latent_sampled_forward, ops.latent_sampled_backward),
        ("elbo", "full"): (ops.full_latent_forward, ops.full_latent_backward),
        ("iwae", "full"): (ops.full_latent_sampled_forward, ops.full_latent_sampled_backward),
        ("elbo", "prior"): (ops.prior_latent_forward, ops.prior_latent_backward),
        ("iwae", "prior"): (ops.prior_latent_sampled_forward, ops.prior_latent_sampled_backward),
    }
    for (objective, posterior), pair in pairs.items():
        assert objectives.latent_ops(ops, objective, posterior) == pair
        assert objectives.objective_ops(ops, objective, posterior=posterior)[:2] == pair
    assert len(set(pairs.values())) == 6
    assert objectives.objective_ops(ops, "elbo", 0.1, posterior="full")[:2] == pairs["elbo", "full"]


@pytest.mark.parametrize("settings", [{"free_bits_per_dimension": 0.22}, {"free_bits_total": 1.0}])
def test_free_bits_of_a_full_posterior_look_at_its_parts(settings):
    rng = np.random.default_rng(2)
    model = npvae.VAE(5, 3, (4,), "tanh", dtype="float64", backend="numpy", seed=3, posterior="full")
    x, eps = (rng.random((6, 5)) < 0.5).astype(float), rng.standard_normal((6, 3))
    terms, _ = model.forward(x, eps, 0.7, **settings)
    parts = npvae.evaluate.kl_per_dimension(model, x)
    assert parts.min() < 0.22 < parts.max() < parts.sum() < 1  # both have something to give away
    kl = np.maximum(parts, 0.22).sum() if "free_bits_per_dimension" in settings else 1.0
    assert terms.loss == pytest.approx(terms.nll + 0.7 * kl, rel=1e-13)
    assert terms.kl == pytest.approx(parts.sum(), rel=1e-13)


def test_every_option_has_a_default_that_passes_its_own_check_and_is_a_setting_of_forward():
    settings = {}
    for option in objectives.OPTIONS:
        assert isinstance(option, Option)
        settings[option.argument] = option.checked(option.default)
    objectives.check_settings(**settings)
    model = npvae.VAE(3, 1, (), dtype="float64", backend="numpy")
    x, eps = np.ones((2, 3)), np.ones((2, 1))
    assert model.forward(x, eps, **settings)[0] == model.forward(x, eps)[0]


def test_the_options_are_the_settings_with_their_defaults():
    parameters = inspect.signature(objectives.check_settings).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert {option.argument: option.default for option in objectives.OPTIONS} == defaults
    free = {"free_bits_per_dimension": 0.0, "free_bits_total": 0.0}
    assert defaults == {"objective": "elbo", "beta": 1.0, "n_samples": 1, **free}
    assert [option.name for option in objectives.OPTIONS if option.annealed] == ["beta"]
    samples = next(option for option in objectives.OPTIONS if option.argument == "n_samples")
    with pytest.raises(ValueError, match="train_samples must be an integer of at least 1; got '0'"):
        samples.checked("0")


def test_validation_takes_one_sample_unless_told_otherwise():
    for objective in ("elbo", "iwae"):
        assert objectives.validation_settings(objective) == {"objective": objective, "beta": 1.0, "n_samples": 1}
