"""The scikit-learn estimator: scikit-learn's own checks, and what these do not know: densities, units, bytes, processes.

Runs where scikit-learn is installed (pip install '.[sklearn]', a part of '.[test]').
"""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import npvae
from npvae.schedules import Linear

pytest.importorskip("sklearn", reason="needs scikit-learn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

SMALL = {"hidden": (4,), "epochs": 2, "n_samples": 5, "backend": "numpy", "random_state": 0}
W, B, SIGMA = np.array([[0.8, -1.5, 0.3]]), np.array([0.2, 0.0, -0.4]), 0.5  # of `linear`


def small(**parameters):
    return npvae.VAEEstimator(**{**SMALL, **parameters})


def rows(n=40):
    """Correlated columns of very different units."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 3)) @ rng.standard_normal((3, 3)) * [100, 0.1, 1] + [500, 1, -3]


def linear(standardize, n_samples, spread=1.0):
    """A fitted estimator whose decoder and posterior are replaced by linear ones, so that p(x) is Gaussian: with spread 1 its
    q(z|x) is the true posterior. Also mean and covariance of p(x) in the units of X."""
    fitted = small(n_latent=1, hidden=(), likelihood="gaussian", sigma=SIGMA, standardize=standardize, n_samples=n_samples)
    fitted.fit(rows())
    variance = 1 / (1 + (W @ W.T / SIGMA**2).item())
    encoder = variance * W.T / SIGMA**2
    fitted.model_.parameters.update({
        "likelihood.W": W, "likelihood.b": B, "posterior.W": np.hstack([encoder, 0 * encoder]),
        "posterior.b": [-(B @ encoder).item(), np.log(spread**2 * variance)],
    })  # fmt: skip
    mean, scale = (rows().mean(axis=0), rows().std(axis=0)) if standardize else (0, np.ones(3))
    covariance = np.diag(scale) @ (W.T @ W + SIGMA**2 * np.eye(3)) @ np.diag(scale)
    return fitted, mean + scale * B, covariance


# ------------------------------------------------------------------------------------------------------- scikit-learn's rules


@parametrize_with_checks([small(), small(likelihood="gaussian_learned", posterior="full")])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


def test_a_pipeline_finds_the_same_in_two_processes_and_in_one():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((60, 4)), np.arange(60) % 2
    X[:, 1] += 3 * y
    pipeline = make_pipeline(StandardScaler(), small(epochs=5), LogisticRegression())
    grid = {"vaeestimator__n_latent": [1, 3]}
    one, two = (GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(X, y) for n_jobs in (None, 2))
    np.testing.assert_array_equal(one.cv_results_["split1_test_score"], two.cv_results_["split1_test_score"])
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    assert two.best_estimator_[1].model_.n_latent == two.best_params_["vaeestimator__n_latent"]


def test_a_grid_search_without_labels_chooses_by_the_density():
    """Columns that are one number in three copies: without a latent variable that learns there is no such density."""
    X = np.random.default_rng(0).standard_normal((200, 1)) + 0.01 * np.random.default_rng(1).standard_normal((200, 3))
    search = GridSearchCV(small(hidden=(), learning_rate=3e-2, epochs=30), {"beta": [1.0, 100.0]}, cv=2).fit(X)
    assert search.best_params_ == {"beta": 1.0}
    assert search.score(X) == search.best_estimator_.score_samples(X).mean()


def test_clones_and_pickles():
    X, fitted = rows(), small(backend="numba", learning_rate=Linear(5, 1e-3, 1e-2)).fit(rows())
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(again.score_samples(X), fitted.score_samples(X))
    np.testing.assert_array_equal(again.sample(3), fitted.sample(3))
    assert len(again.history_) == 2
    again.model_.theta = 0
    assert not again.model_.parameters["posterior.W"].any()  # one memory, as before
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not hasattr(twin, "model_")


def test_parameters_that_change_after_fit_wait_for_the_next():
    X = np.random.default_rng(0).random((20, 3))
    fitted = small().fit(X)
    before = fitted.transform(X)
    fitted.set_params(likelihood="bernoulli", n_latent=5, standardize=False)
    np.testing.assert_array_equal(fitted.transform(X), before)
    assert fitted.get_feature_names_out().tolist() == ["vaeestimator0", "vaeestimator1"]
    assert fitted.fit_transform(X).shape == (20, 5)


@pytest.mark.parametrize("use", ["transform", "inverse_transform", "score_samples", "score", "sample"])
def test_nothing_is_there_before_fit(use):
    with pytest.raises(NotFittedError):
        getattr(small(), use)(*(() if use == "sample" else (np.ones((2, 2)),)))


# ------------------------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize(("of_model", "of_training", "standardize"), [
    ({"hidden": (5, 4), "activation": "silu", "likelihood": "gaussian", "sigma": 30.0, "posterior": "full"},
     {"beta": 0.3}, False),
    ({"hidden": (3,), "n_latent": 1, "likelihood": "gaussian_learned", "min_sigma": 0.9},
     {"batch_size": 7, "workers": 2}, True),
])  # fmt: skip
def test_it_trains_as_npvae_does(of_model, of_training, standardize):
    of_training = {"epochs": 3, "workers": 1, **of_training}
    fitted = small(standardize=standardize, learning_rate=0.02, **of_model, **of_training).fit(rows())
    x = StandardScaler().fit_transform(rows()) if standardize else rows()
    model = npvae.VAE(3, backend="numpy", dtype="float64", seed=fitted.seed_, **of_model)
    model.set_output_bias(x)
    history = npvae.fit(model, x, optimizer=npvae.Adam(0.02), seed=fitted.seed_, progress=False, **of_training)
    np.testing.assert_allclose(fitted.model_.theta, model.theta, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fitted.history_["train_loss"], history["train_loss"], rtol=1e-8)
    np.testing.assert_allclose(fitted.transform(rows()), model.encode(x)[0], rtol=1e-8, atol=1e-10)
    scaler = StandardScaler(with_mean=standardize, with_std=standardize).fit(rows())
    z = np.ones((2, model.n_latent))
    np.testing.assert_allclose(fitted.inverse_transform(z), scaler.inverse_transform(model.decode(z)), rtol=1e-8)


def test_the_random_state_decides_everything():
    X = rows()
    first, again, other = (small(random_state=seed).fit(X) for seed in (3, 3, 4))
    for use in ("transform", "score_samples"):
        np.testing.assert_array_equal(getattr(first, use)(X), getattr(again, use)(X))
        assert not np.isclose(getattr(first, use)(X), getattr(other, use)(X)).any()
    generator = np.random.RandomState(3)
    moved = small(random_state=generator)
    assert moved.fit(X).seed_ == first.seed_ != moved.fit(X).seed_


def test_the_precision_is_that_of_the_data():
    for given, precision in [("float32", "float32"), ("uint8", "float32"), ("float64", "float64"), ("int64", "float64")]:
        X = np.arange(30).reshape(10, 3).astype(given)
        fitted = small().fit(X)
        assert fitted.model_.dtype == fitted.transform(X).dtype == precision
        assert fitted.inverse_transform(fitted.transform(X)).dtype == fitted.sample(2).dtype == precision


@pytest.mark.parametrize(("column", "scale"), [
    ([1.7e308, 1.7e308, -1.7e308], 1.7e308 * np.sqrt(8 / 9)), ([1e300, 0, 0], 1e300 * np.sqrt(2 / 9)), ([1.7e308] * 3, 1),
    ([1e9, 1e9 + 1, 1e9 - 1], np.sqrt(2 / 3)), ([0.1, 0.1, 0.1], 1), ([0, 0, 0], 1), ([-1, -2, -3], np.sqrt(2 / 3)),
    ([0, 1e-200, 2e-200], 1e-200 * np.sqrt(2 / 3)), ([5e-324, 0, 0], np.finfo(float).tiny),
], ids=str)  # fmt: skip
def test_any_finite_column_is_standardized(column, scale):
    X = np.column_stack([column, [1.0, 2.0, 4.0]])
    fitted = small().fit(X)
    np.testing.assert_allclose(fitted.mean_, (X / 4).sum(axis=0) / 3 * 4, rtol=1e-15)
    np.testing.assert_allclose(fitted.scale_, [scale, np.sqrt(14 / 9)], rtol=1e-6)
    assert np.isfinite(fitted.transform(X)).all()
    assert np.isfinite(fitted.score_samples(X)).all()


def test_progress_is_shown_on_request(capsys):
    small().fit(rows())
    assert capsys.readouterr() == ("", "")
    small(verbose=1).fit(rows())
    assert "epoch 2/2" in "".join(capsys.readouterr())


# ----------------------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("standardize", [True, False])
def test_the_score_is_the_density_in_the_units_of_the_data(standardize):
    """With the true posterior every importance weight is p(x), so that one sample is exact."""
    fitted, mean, covariance = linear(standardize, n_samples=1)
    X = mean + np.sqrt(np.diag(covariance)) * np.random.default_rng(1).standard_normal((9, 3))
    exact = multivariate_normal(mean, covariance).logpdf(X)
    np.testing.assert_allclose(fitted.score_samples(X), exact, rtol=1e-8)
    assert fitted.score(X) == pytest.approx(exact.mean(), rel=1e-8)


def test_more_samples_bring_the_score_nearer_to_the_density():
    """From a posterior that is 1.5 times as wide as the true one."""
    short = []
    for n_samples in (1, 4000):
        fitted, mean, covariance = linear(True, n_samples, spread=1.5)
        X = np.random.default_rng(1).multivariate_normal(mean, covariance, 20)
        short.append(multivariate_normal(mean, covariance).logpdf(X) - fitted.score_samples(X))
    np.testing.assert_allclose(short[1], 0, atol=5 / np.sqrt(4000))  # the weights deviate by less than their mean
    assert np.abs(short[0]).max() > 5 / np.sqrt(4000)


def test_the_errors_of_rows_average_out():
    """With one sample log p(x) is short of KL(q(z|x) ‖ p(z|x)) = ½ (s² − 1) − log s on average, s the spread; the draws
    deviate from it by (s² − 1)/√2."""
    fitted, mean, covariance = linear(True, 1, spread=1.5)
    X = np.random.default_rng(1).multivariate_normal(mean, covariance, 2000)
    short = multivariate_normal(mean, covariance).logpdf(X) - fitted.score_samples(X)
    assert short.mean() == pytest.approx(1.25 / 2 - np.log(1.5), abs=5 * 1.25 / np.sqrt(2 * 2000))
    assert short.std() == pytest.approx(1.25 / np.sqrt(2), rel=0.2)


def test_the_score_of_a_row_does_not_depend_on_others():
    fitted, X = small(hidden=(20,), epochs=5).fit(rows()), rows()
    score = fitted.score_samples(X)
    np.testing.assert_array_equal(fitted.score_samples(X[::-1]), score[::-1])
    np.testing.assert_array_equal(fitted.score_samples(X[7:8]), score[7:8])


def test_samples_are_draws_of_the_density():
    fitted, mean, covariance = linear(True, n_samples=1)
    n = 20_000
    drawn, deviation = fitted.sample(n), np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((drawn.mean(axis=0) - mean) / deviation, 0, atol=5 / np.sqrt(n))
    correlation = np.cov(((drawn - mean) / deviation).T)
    np.testing.assert_allclose(correlation, covariance / np.outer(deviation, deviation), atol=5 * np.sqrt(2 / n))
    np.testing.assert_array_equal(fitted.sample(3), fitted.sample(3))  # the constructor's random_state is a number
    assert not np.isclose(fitted.sample(3), fitted.sample(3, random_state=1)).any()
    with pytest.raises(ValueError, match="n must be an integer of at least 1; got 0"):
        fitted.sample(0)


# ------------------------------------------------------------------------------------- zeros and ones, grey levels, wrong data


@pytest.mark.parametrize("likelihood", ["bernoulli", "beta_binomial", "categorical"])
def test_bytes_are_grey_levels(likelihood):
    levels = np.random.default_rng(0).integers(0, 256, (30, 4), np.uint8)
    of_bytes, of_levels = (small(likelihood=likelihood).fit(X) for X in (levels, (levels / 255).astype(np.float32)))
    np.testing.assert_allclose(of_bytes.transform(levels), of_levels.transform(levels / 255), rtol=1e-4, atol=1e-5)
    (seen,) = of_bytes.model_.check(levels)
    np.testing.assert_allclose(seen, levels / 255, rtol=1e-6)
    np.testing.assert_array_equal(of_bytes.score_samples(levels), of_bytes.score_samples(seen))
    decoded = of_bytes.inverse_transform(of_bytes.transform(levels))
    np.testing.assert_array_equal(decoded, of_bytes.model_.reconstruct(levels))  # nothing is scaled
    assert 0 <= decoded.min() < decoded.max() <= 1


def test_bytes_are_numbers_where_the_data_are_real():
    X = np.random.default_rng(0).integers(0, 256, (30, 4), np.uint8)
    for standardize in (True, False):
        of_bytes, of_floats = (small(standardize=standardize).fit(given) for given in (X, X.astype(np.float32)))
        np.testing.assert_array_equal(of_bytes.transform(X), of_floats.transform(X.astype(np.float32)))
        np.testing.assert_array_equal(of_bytes.score_samples(X), of_floats.score_samples(X.astype(np.float32)))


def test_grey_levels_are_binarised_before_their_probability_is_taken():
    """Of 200 pixels that are ones with probability 0.9, whatever z is, the score says how many were ones: a whole number."""
    fitted = small(likelihood="bernoulli", hidden=()).fit(np.eye(200)[:3])
    fitted.model_.theta = 0
    fitted.model_.parameters["likelihood.b"] = np.full(200, np.log(9))
    (score,) = fitted.score_samples(np.full((1, 200), 0.3012))
    ones = (score - 200 * np.log(0.1)) / np.log(9)
    assert ones == pytest.approx(round(ones), abs=1e-6)
    assert abs(ones - 60) < 5 * np.sqrt(200 * 0.3 * 0.7)


@pytest.mark.parametrize(("likelihood", "X", "needs"), [
    ("bernoulli", [[0.0, 1.5], [1, 0]], r"X must lie in \[0, 1\]"),
    ("beta_binomial", [[0.0, 0.3001], [1, 0]], "X .*must hold grey levels"),
])  # fmt: skip
def test_data_outside_the_support_are_one_clear_line(likelihood, X, needs):
    fitted = small(likelihood=likelihood).fit(np.eye(2))
    for use in (small(likelihood=likelihood).fit, fitted.transform, fitted.score_samples):
        with pytest.raises(ValueError, match=needs) as raised:
            use(X)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("parameters", "needs"), [
    ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, .*; got 'poisson'"),
    ({"n_latent": 0}, "n_latent must be an integer of at least 1; got 0"),
    ({"epochs": 1.5}, "epochs must be an integer of at least 0; got 1.5"),
    ({"learning_rate": -1}, "Adam: learning_rate must be a positive number, got -1"),
])  # fmt: skip
def test_parameters_that_cannot_be_are_named_by_fit(parameters, needs):
    made = small(**parameters)
    with pytest.raises(ValueError, match=f"^{needs}$"):
        made.fit(rows())


def test_latents_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"^z must be a real array of shape \(n, 2\); got shape \(4, 3\)$"):
        small().fit(rows()).inverse_transform(np.ones((4, 3)))


# -------------------------------------------------------------------------------------------------------- optional dependency


def printed(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_scikit_learn_is_loaded_on_first_use():
    code = "import sys, npvae; first = 'sklearn' in sys.modules; npvae.VAEEstimator; print(first, 'sklearn' in sys.modules)"
    assert printed(code) == "False True"


def test_without_scikit_learn_one_line_says_what_to_install():
    code = """if True:
        import sys
        sys.modules["sklearn"] = None
        import npvae
        try:
            npvae.VAEEstimator
        except ImportError as error:
            print(error)
    """
    assert printed(code) == "npvae.VAEEstimator needs scikit-learn 1.6 or later: pip install 'npvae[sklearn]'"
