"""The model: contracts, gradients of the whole, probability of the whole."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

import npvae
from npvae.core.parameters import views_of, zeros
from npvae.models.backend import load_ops
from npvae.models.vae import LIKELIHOODS, POSTERIORS
from npvae.ops import bounds

ACTIVATIONS = ("relu", "tanh", "sigmoid", "softplus", "silu")
DEPTHS = ((), (5,), (5, 4), (6, 5, 4))
BACKENDS = ("numpy", "numba")


def problem(hidden=(5,), activation="tanh", likelihood="bernoulli", backend="numpy", dtype="float64", B=3, S=None, **options):
    """A small model with generic biases, a batch of data and noise."""
    rng = np.random.default_rng(1)
    n_features = 2 if likelihood == "categorical" else 7  # a categorical one has 256 outputs for each
    model = npvae.VAE(n_features, 2, hidden, activation, likelihood, backend, dtype, seed=3, **options)
    for name, value in model.parameters.items():
        if name.endswith((".b", ".logvar")):
            value[:] = 0.3 * rng.standard_normal(value.shape)
    draw = {"binary": rng.random, "real": rng.standard_normal, "levels": lambda shape: rng.integers(0, 256, shape) / 255}
    x = draw[model.data_kind]((B, n_features))
    x.flat[:2] = (0, 1)
    eps = rng.standard_normal((B, 2) if S is None else (S, B, 2))
    return model, x, eps


def complex_step_gradient(model, x, eps, beta, objective="elbo"):
    """d loss/d theta, one parameter after the other: Im loss(theta + ih e_k)/h with h = 1e-20."""
    twin = model.copy(dtype="complex128", backend="numpy")
    gradient = np.empty(model.theta.size)
    for k in range(gradient.size):
        twin.theta[k] += 1e-20j
        gradient[k] = twin.forward(x, eps, beta, objective, check=False)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    return gradient


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(("activation", "hidden"), [*itertools.product(["tanh"], DEPTHS), *((a, (5, 4)) for a in ACTIVATIONS)])
def test_gradient_of_the_model_is_that_of_the_complex_step(hidden, activation, likelihood):
    expected = complex_step_gradient(*problem(hidden, activation, likelihood), 1.0)
    for backend in BACKENDS:
        model, x, eps = problem(hidden, activation, likelihood, backend)
        grads = model.backward(model.forward(x, eps)[1])
        assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max(), backend


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("objective", bounds.OBJECTIVES)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_of_every_distribution_is_that_of_the_complex_step(likelihood, objective, posterior):
    options = {"B": 2, "S": 2, "posterior": posterior}
    expected = complex_step_gradient(*problem((3,), "tanh", likelihood, **options), 0.7, objective)
    for backend in BACKENDS:
        model, x, eps = problem((3,), "tanh", likelihood, backend, **options)
        grads = model.backward(model.forward(x, eps, 0.7, objective)[1])
        assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max(), backend


@pytest.mark.parametrize(("B", "S", "beta"), [(1, None, 1.0), (4, 3, 1.0), (3, 1, 0.25), (2, 5, 4.0)])
def test_gradient_with_several_samples_and_any_beta(B, S, beta):
    model, x, eps = problem(B=B, S=S)
    grads = model.backward(model.forward(x, eps, beta)[1])
    expected = complex_step_gradient(model, x, eps, beta)
    assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("hidden", DEPTHS)
def test_gradient_by_finite_differences(hidden):
    model, x, eps = problem(hidden, "silu")
    gradient = flat(model.backward(model.forward(x, eps)[1]))
    expected = np.empty_like(gradient)
    for k in range(gradient.size):
        losses = []
        for step in (1e-5, -1e-5):
            twin = model.copy()
            twin.theta[k] += step
            losses.append(twin.forward(x, eps)[0].loss)
        expected[k] = (losses[0] - losses[1]) / 2e-5
    assert np.linalg.norm(gradient - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_agrees_with_float64_and_stays_float32(likelihood, posterior, backend):
    model, x, eps = problem((6, 5), "relu", likelihood, backend, S=2, posterior=posterior)
    single = model.copy(dtype="float32")
    terms, cache = model.forward(x, eps)
    terms32, cache32 = single.forward(x, eps)
    np.testing.assert_allclose(terms32[:3], terms[:3], rtol=2e-6)
    grads, grads32 = model.backward(cache), single.backward(cache32)
    for name, value in grads.items():
        assert grads32[name].dtype == np.float32
        np.testing.assert_allclose(grads32[name], value, rtol=0, atol=1e-5 * np.abs(value).max(), err_msg=name)
    assert single.decode(eps[0]).dtype == single.encode(x)[0].dtype == single.sample(3, 0).dtype == np.float32


def test_parameters_are_named_views_of_theta_in_the_contract_s_order():
    model = npvae.VAE(7, 2, hidden=(5, 4), decoder_hidden=(3,), dtype="float64")
    shapes = {name: value.shape for name, value in model.parameters.items()}
    assert shapes == {
        "encoder.0.W": (7, 5), "encoder.0.b": (5,), "encoder.1.W": (5, 4), "encoder.1.b": (4,),
        "posterior.W": (4, 4), "posterior.b": (4,),
        "decoder.0.W": (2, 3), "decoder.0.b": (3,), "likelihood.W": (3, 7), "likelihood.b": (7,),
    }  # fmt: skip
    assert list(shapes) == list(views_of(model.theta, model.parameters.shapes)) == list(model.shapes(**model.config))
    assert all(np.shares_memory(value, model.theta) for value in model.parameters.values())
    np.testing.assert_array_equal(flat(model.parameters), model.theta)
    model.theta = np.arange(model.theta.size)  # assignment copies: the views stay
    assert model.parameters["likelihood.b"][-1] == model.theta.size - 1


def test_other_distributions_have_wider_outputs_and_the_shared_variance_at_the_end():
    columns_of = {"gaussian_learned": 14, "beta_binomial": 14, "categorical": 7 * 256, "gaussian_global": 7}
    for likelihood, columns in columns_of.items():
        model = npvae.VAE(7, 3, (5,), likelihood=likelihood, posterior="full")
        shapes = {name: value.shape for name, value in model.parameters.items()}
        assert (shapes["posterior.W"], shapes["posterior.b"]) == ((5, 9), (9,))  # L (L + 3)/2
        assert (shapes["likelihood.W"], shapes["likelihood.b"]) == ((5, columns), (columns,))
        assert list(shapes) == list(model.shapes(**model.config))
        last = "likelihood.logvar" if likelihood == "gaussian_global" else "likelihood.b"
        assert list(shapes)[-1] == last
    assert npvae.VAE(7, 3, (5,), likelihood="gaussian_global").parameters["likelihood.logvar"].shape == (1,)


def test_the_decoder_mirrors_the_encoder():
    assert npvae.VAE(7, 2, hidden=(5, 4)).decoder_hidden == (4, 5)


def test_first_latent_columns_of_the_posterior_give_mu():
    model, x, _ = problem()
    model.parameters["posterior.W"][:] = 0
    model.parameters["posterior.b"][:] = [1, 2, -40, 25]
    mu, logvar = model.encode(x)
    np.testing.assert_array_equal(mu, np.tile([1, 2], (3, 1)))
    np.testing.assert_array_equal(logvar, np.tile([-30, 20], (3, 1)))
    assert model.forward(x, np.zeros((3, 2)))[0].clipped == 1
    model.parameters["posterior.b"][:] = [1, 2, -30, 20]  # on the bounds nothing is clipped
    assert model.forward(x, np.zeros((3, 2)))[0].clipped == 0
    model.parameters["posterior.b"][:] = [1, 2, -31, 20]
    assert model.forward(x, np.zeros((3, 2)))[0].clipped == 0.5


def test_loss_is_nll_plus_beta_kl_and_averages_over_the_batch():
    model, x, eps = problem(B=4)
    terms, _ = model.forward(x, eps, beta=0.7)
    assert terms.loss == pytest.approx(terms.nll + 0.7 * terms.kl, rel=1e-15)
    rows = [model.forward(x[i : i + 1], eps[i : i + 1], 0.7)[0] for i in range(4)]
    np.testing.assert_allclose(terms[:3], np.mean([row[:3] for row in rows], axis=0), rtol=1e-14)
    mu, logvar = model.encode(x)
    assert terms.kl == pytest.approx(0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum() / 4, rel=1e-13)
    p = model.decode(mu + np.exp(logvar / 2) * eps)
    assert terms.nll == pytest.approx(-(x * np.log(p) + (1 - x) * np.log1p(-p)).sum() / 4, rel=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gaussian_nll_is_that_of_a_normal_distribution_with_standard_deviation_sigma(backend):
    model, x, eps = problem(likelihood="gaussian", backend=backend, sigma=0.3)
    mu, logvar = model.encode(x)
    log_p = scipy.stats.norm.logpdf(x, model.decode(mu + np.exp(logvar / 2) * eps), 0.3)
    assert model.forward(x, eps)[0].nll == pytest.approx(-log_p.sum() / 3, rel=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("likelihood", ["gaussian_global", "gaussian_learned", "beta_binomial", "categorical"])
def test_other_nlls_are_those_of_their_distributions_by_scipy(likelihood, backend):
    model, x, eps = problem(likelihood=likelihood, backend=backend)
    mu, logvar = model.encode(x)
    output = model.decoder_output(mu + np.exp(logvar / 2) * eps)
    first, second = np.array_split(output, 2, axis=1)
    if likelihood == "gaussian_global":
        log_p = scipy.stats.norm.logpdf(x, output, np.exp(model.parameters["likelihood.logvar"] / 2))
    elif likelihood == "gaussian_learned":
        log_p = scipy.stats.norm.logpdf(x, first, np.exp(second / 2))
    elif likelihood == "beta_binomial":
        log_p = scipy.stats.betabinom.logpmf(np.rint(255 * x), 255, np.exp(first), np.exp(second))
    else:
        logits = output.reshape(3, 2, 256)
        log_p = scipy.special.log_softmax(logits, axis=-1)[*np.indices((3, 2)), np.rint(255 * x).astype(int)]
    assert model.forward(x, eps)[0].nll == pytest.approx(-log_p.sum() / 3, rel=1e-11)


def test_z_of_a_full_posterior_is_mu_plus_the_factor_times_eps():
    """The columns of posterior.W: mu, then log F_ll², then F_10, F_20, F_21."""
    model = npvae.VAE(7, 3, (), likelihood="gaussian", dtype="float64", backend="numpy", posterior="full", sigma=1.0)
    model.parameters["posterior.W"][:] = 0
    model.parameters["posterior.b"] = [1, 2, 3, 0, 0.5, -1, 0.1, -0.2, 0.3]
    factor = np.array([[1, 0, 0], [0.1, np.exp(0.25), 0], [-0.2, 0.3, np.exp(-0.5)]])
    x, eps = np.zeros((2, 7)), np.array([[1.0, 0, 0], [-1.0, 2, 0.5]])
    (z, _), _ = model.ops.full_latent_forward(model.encoder_output(x), eps)
    np.testing.assert_allclose(z, [1, 2, 3] + eps @ factor.T, rtol=1e-15)
    nll = -scipy.stats.norm.logpdf(x, model.decode(z)).sum() / 2
    covariance = factor @ factor.T
    kl = 0.5 * (np.trace(covariance) + 14 - 3 - np.linalg.slogdet(covariance)[1])
    terms, _ = model.forward(x, eps)
    np.testing.assert_allclose([terms.nll, terms.kl], [nll, kl], rtol=1e-13)
    assert terms.clipped == 0
    model.parameters["posterior.b"] = [50, -50, 3, 21, 0.5, -31, 40, -40, 0.3]  # two of three log-variances
    assert model.forward(x, eps)[0].clipped == pytest.approx(2 / 3, rel=1e-15)


def test_gradient_of_a_batch_is_the_mean_of_its_rows_gradients():
    model, x, eps = problem(B=5, S=2)
    whole = flat(model.backward(model.forward(x, eps)[1]))
    rows = [flat(model.backward(model.forward(x[i : i + 1], eps[:, i : i + 1])[1])) for i in range(5)]
    np.testing.assert_allclose(whole, np.mean(rows, axis=0), rtol=0, atol=1e-14 * np.abs(whole).max())


def test_several_samples_average_the_single_ones():
    model, x, eps = problem(S=3)
    whole = model.forward(x, eps)[0]
    singles = [model.forward(x, e)[0] for e in eps]
    np.testing.assert_allclose(whole[:3], np.mean([s[:3] for s in singles], axis=0), rtol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_is_pure(backend):
    model, x, eps = problem((6, 5), "relu", backend=backend)
    theta, x0, eps0 = model.theta.copy(), x.copy(), eps.copy()
    _, cache = model.forward(x, eps)
    first = model.backward(cache)
    kept = flat(first).copy()
    model.encode(x[:1])
    model.decode(eps)
    model.sample(2, 0)
    model.forward(x[::-1].copy(), 2 * eps, beta=3)
    npvae.evaluate.log_likelihood(model, x, 3, 0)
    second = model.backward(cache)
    np.testing.assert_array_equal(flat(second), kept)
    np.testing.assert_array_equal(flat(first), kept)  # not overwritten by the second call
    for value, before in [(model.theta, theta), (x, x0), (eps, eps0)]:
        np.testing.assert_array_equal(value, before)


SETTINGS = [
    {"beta": 1.0},
    {"beta": 0.0},
    {"beta": np.array([0.5, 2.0])},
    {"objective": "iwae", "beta": 0.7},
    {"objective": "iwae", "beta": np.array([0.5, 2.0])},
    {"free_bits_per_dimension": 0.2, "beta": 0.5},
    {"free_bits_total": 0.4},
]
FUSED = ("bernoulli", "gaussian", "gaussian_learned", "beta_binomial")  # the others go through forward and backward


def assert_gradient_is_forward_then_backward(model, x, eps, dloss, **settings):
    terms, cache = model.forward(x, eps, **settings)
    expected = flat(model.backward(cache, dloss))
    out, eps = np.full_like(model.theta, np.nan), eps if eps.ndim == 3 else eps[None]  # as `draw` gives it
    fresh, _ = model.gradient(x, eps, **settings, dloss=dloss)
    fused, bound = model.gradient(x, eps, **settings, dloss=dloss, out=out, workspace=model.workspace(6, n_samples=3))
    np.testing.assert_allclose(fused, terms, rtol=1e-13)
    assert fresh == fused
    assert type(fused) is model.Terms
    assert np.abs(out - expected).max() <= 1e-13 * np.abs(expected).max()
    assert np.max(out * out) <= bound < np.inf


@pytest.mark.parametrize("dloss", [1.0, 0.0, -0.4])
@pytest.mark.parametrize("S", [None, 1, 3])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_is_forward_then_backward_for_all_settings_and_upstream_gradients(backend, likelihood, settings, S, dloss):
    model, x, eps = problem((6, 5), "tanh", likelihood, backend, B=4, S=S, sigma=0.5)
    assert_gradient_is_forward_then_backward(model, x, eps, dloss, **settings)


COMPILED = {
    "diagonal": {"elbo": ("bernoulli", "gaussian", "gaussian_learned"), "iwae": ("bernoulli", "gaussian", "beta_binomial")},
    "full": {"elbo": ("bernoulli",), "iwae": ("gaussian",)},
}


@pytest.mark.parametrize("settings", [SETTINGS[i] for i in (2, 4, 5)], ids=str)  # each objective once
@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_is_forward_then_backward_for_all_distributions(backend, likelihood, posterior, settings):
    if backend == "numba" and likelihood in FUSED and likelihood not in COMPILED[posterior][settings.get("objective", "elbo")]:
        pytest.skip("what is compiled of a likelihood, an objective and a posterior is the same in all: some of them will do")
    model, x, eps = problem((6, 5), "tanh", likelihood, backend, B=4, S=3, sigma=0.5, posterior=posterior)
    assert (model.workspace(4) is not None) == (backend == "numba" and likelihood in FUSED)
    for dloss in (1.0, 0.0, -0.4):
        assert_gradient_is_forward_then_backward(model, x, eps, dloss, **settings)


@pytest.mark.parametrize(("likelihood", "posterior"), [*((name, "diagonal") for name in FUSED), ("bernoulli", "full")])
def test_the_compiled_gradient_of_float32_is_forward_then_backward(likelihood, posterior):
    """Up to rounding, also where data that are levels within theirs are made whole again."""
    model, x, eps = problem((6, 5), "relu", likelihood, "numba", "float32", B=4, S=2, sigma=0.5, posterior=posterior)
    (x,), eps = model.check(x.round(6) if model.data_kind == "levels" else x), eps.astype(np.float32)
    terms, cache = model.forward(x, eps)
    expected = flat(model.backward(cache))
    out = np.empty_like(model.theta)
    np.testing.assert_allclose(model.gradient(x, eps, out=out)[0], terms, rtol=1e-6)
    assert np.abs(out - expected).max() <= 2e-6 * np.abs(expected).max()


def test_dloss_is_an_upstream_gradient():
    model, x, eps = problem(S=2)
    _, cache = model.forward(x, eps, 0.5)
    np.testing.assert_allclose(flat(model.backward(cache, -3.0)), -3 * flat(model.backward(cache)), rtol=1e-13)
    assert not flat(model.backward(cache, 0.0)).any()


def test_backward_returns_the_parameters_keys_and_writes_into_out():
    model, x, eps = problem((6, 5))
    out = np.full_like(model.theta, np.nan)
    grads = model.backward(model.forward(x, eps)[1], out=out)
    assert grads.keys() == model.parameters.keys()
    assert {name: g.shape for name, g in grads.items()} == {name: p.shape for name, p in model.parameters.items()}
    np.testing.assert_array_equal(out, flat(grads))


def test_seed_decides_the_weights_whatever_the_dtype():
    a, b, c = (npvae.VAE(7, 2, (5,), seed=s, dtype=d) for s, d in [(0, "float64"), (0, "float32"), (1, "float64")])
    np.testing.assert_array_equal(a.theta.astype(np.float32), b.theta)
    assert not np.array_equal(a.theta, c.theta)


def test_glorot_uniform_weights_and_zero_biases():
    model = npvae.VAE(300, 5, (200,), dtype="float64")
    W = model.parameters["encoder.0.W"]
    bound = np.sqrt(6 / 500)
    assert np.abs(W).max() <= bound
    assert W.var() == pytest.approx(bound**2 / 3, rel=0.02)
    assert not model.parameters["encoder.0.b"].any()


def test_he_normal_weights_and_zero_biases():
    model = npvae.VAE(300, 5, (200,), dtype="float64", initialization="he")
    for name, n_in in [("encoder.0", 300), ("posterior", 200), ("likelihood", 200)]:
        W = model.parameters[f"{name}.W"]
        assert W.var() == pytest.approx(2 / n_in, rel=0.06)
        assert abs(W.mean()) < 4 * np.sqrt(2 / n_in / W.size)
        assert not model.parameters[f"{name}.b"].any()
    assert not np.array_equal(model.theta, npvae.VAE(300, 5, (200,), dtype="float64").theta)


@pytest.mark.parametrize("place", range(4))
def test_vectors_start_on_a_cache_line_at_a_place_of_their_own_in_the_page(place):
    for dtype in ("float32", "float64", "complex128"):
        for shape in [(7,), (2, 5000)]:
            vector = zeros(shape, dtype, place)
            assert vector.ctypes.data % 4096 == 1024 * place
            assert (vector.shape, vector.dtype.name, vector.flags.c_contiguous) == (shape, dtype, True)
            assert not vector.any()


def test_decode_sample_and_reconstruct():
    model, x, eps = problem()
    p = model.decode(eps)
    assert p.shape == (3, 7)
    assert ((p > 0) & (p < 1)).all()
    np.testing.assert_array_equal(model.reconstruct(x), model.decode(model.encode(x)[0]))
    np.testing.assert_array_equal(model.sample(4, 9), model.sample(4, np.random.default_rng(9)))
    np.testing.assert_array_equal(model.sample(4, 9), model.decode(np.random.default_rng(9).standard_normal((4, 2))))
    assert not np.array_equal(model.sample(4), model.sample(4))  # without a seed each call draws anew
    for likelihood in ("gaussian", "gaussian_global", "gaussian_learned"):
        gaussian, _, _ = problem(likelihood=likelihood)
        np.testing.assert_array_equal(gaussian.decode(eps), gaussian.decoder_output(eps)[:, :7])


def test_input_is_converted_at_the_boundary():
    model, x, eps = problem(dtype="float32")
    expected = model.forward(x.round().astype(np.float32), eps.astype(np.float32))[0]
    for given in (x.round(), x.round().astype(bool), x.round().astype(np.uint8).tolist(), np.asfortranarray(x.round())):
        assert model.forward(given, eps)[0] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((3, 6))}, r"x must be .* \(n, 7\); got shape \(3, 6\)"),
        ({"x": np.zeros(7)}, r"x .* got shape \(7,\)"),
        ({"x": np.zeros((0, 7))}, r"x .* at least one row"),
        ({"x": np.full((3, 7), np.nan)}, r"x must be finite; got nan at \[0, 0\]"),
        ({"x": np.full((3, 7), 1.5)}, r"x must lie in \[0, 1\].* from 1.5 to 1.5"),
        ({"x": np.full((3, 7), 255)}, "divide by the largest value there can be, 255 or more"),
        ({"x": np.full((3, 7), -0.1)}, r"x must lie in \[0, 1\]"),
        ({"x": np.full((3, 7), "a")}, "x .* got dtype <U1"),
        ({"x": np.zeros((3, 7), complex)}, "x .* got dtype complex128"),
        ({"x": [[1, 2], [3]]}, "x must be a rectangular array"),
        ({"eps": np.zeros((2, 2))}, "eps must have one row for each of the 3 rows of x"),
        ({"eps": np.zeros((3, 3))}, r"eps .* \(n, 2\) or \(n, n, 2\); got shape \(3, 3\)"),
        ({"eps": np.full((3, 2), np.inf)}, "eps must be finite"),
    ],
)
def test_bad_input_is_named(arguments, message):
    model, x, eps = problem()
    with pytest.raises(ValueError, match=message) as error:
        model.forward(**{"x": x, "eps": eps, **arguments})
    assert "\n" not in str(error.value)


def test_a_value_beyond_float32_is_refused():
    model, x, eps = problem(likelihood="gaussian", dtype="float32")
    with pytest.raises(ValueError, match="x must be finite"):
        model.forward(x * 1e300, eps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "n_features must be an integer of at least 1; got 0"),
        ({"n_features": 2.5}, "n_features"),
        ({"n_latent": -1}, "n_latent"),
        ({"n_latent": True}, "n_latent"),
        ({"hidden": (5, 0)}, "hidden"),
        ({"decoder_hidden": (0,)}, "decoder_hidden"),
        ({"activation": "gelu"}, "activation must be one of relu, tanh, sigmoid, softplus, silu; got 'gelu'"),
        ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, gaussian"),
        ({"posterior": "low rank"}, "posterior must be one of diagonal, full; got 'low rank'"),
        ({"min_sigma": 0}, "min_sigma must be a finite number above 0; got 0"),
        ({"backend": "cuda"}, "backend must be one of numba, numpy"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, complex128; got 'float16'"),
        ({"dtype": "nonsense"}, "dtype .* got 'nonsense'"),
        ({"seed": -1}, "seed"),
        ({"initialization": "xavier"}, "initialization must be one of glorot, he"),
        ({"sigma": 0}, "sigma must be a finite number above 0"),
        ({"sigma": np.nan}, "sigma"),
        ({"n_features": 7.0}, "n_features must be an integer"),
        ({"activation": "identity"}, "activation must be one of"),
        ({"hidden": (10**9, 10**9)}, "parameters; at most"),
    ],
)
def test_bad_constructor_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        npvae.VAE(**{"n_features": 7, **arguments})
    assert "\n" not in str(error.value)


def test_save_and_load_keep_everything(tmp_path):
    options = {"sigma": np.float32(0.5), "decoder_hidden": (4,), "initialization": "he", "min_sigma": 0.25, "posterior": "full"}
    model, x, eps = problem((np.int64(6), 5), "silu", "gaussian", **options)
    model.save(tmp_path / "model.npz")
    loaded = npvae.VAE.load(tmp_path / "model.npz")
    assert loaded.config == {
        "n_features": 7, "n_latent": 2, "hidden": [6, 5], "activation": "silu", "likelihood": "gaussian", "backend": "numpy",
        "dtype": "float64", "seed": 3, "decoder_hidden": [4], "sigma": 0.5, "initialization": "he", "min_sigma": 0.25,
        "posterior": "full",
    }  # fmt: skip
    assert loaded.forward(x, eps)[0] == model.forward(x, eps)[0]
    assert repr(loaded) == repr(model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


def test_a_copy_has_the_same_theta_in_memory_of_its_own():
    model, _, _ = problem((6, 5), "silu", "gaussian", sigma=0.5, decoder_hidden=(4,))
    twin = model.copy()
    assert twin.config == model.config
    np.testing.assert_array_equal(twin.theta, model.theta)
    assert not np.shares_memory(twin.theta, model.theta)
    assert model.copy(sigma=1.0, backend="numba").config == {**model.config, "sigma": 1.0, "backend": "numba"}


def test_text_of_a_model_gives_its_widths():
    model = npvae.VAE(7, 2, (5, 4), "tanh", "gaussian", "numpy", "float64", decoder_hidden=(3,))
    assert repr(model) == f"VAE(7-5-4-2-3-7, tanh, gaussian, float64, numpy: {model.theta.size} parameters)"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_back_end_is_the_table_that_was_asked_for(backend):
    assert npvae.VAE(4, 1, (), backend=backend).ops is load_ops(backend)


def test_sums_of_a_float32_model_are_in_float64():
    model, x, eps = problem(likelihood="gaussian", dtype="float32", B=7)
    model.parameters["posterior.b"][:2] = 900  # large terms, so that rounding a sum of them shows
    terms, _ = model.forward(x, eps)
    x, eps = x.astype(np.float32), eps.astype(np.float32)
    (z, kl), _ = model.ops.latent_forward(model.ops.mlp_forward(x, model.encoder)[0], eps)
    nll, _ = model.nll_forward(model.decoder_output(z), x)
    assert kl.dtype == np.float32
    assert terms.kl == pytest.approx(math.fsum(kl.astype(float).flat) / 7, rel=1e-14)
    assert nll.dtype == np.float64
    assert terms.loss == pytest.approx(nll.mean() + terms.kl, rel=1e-14)


def test_encoded_means_are_an_array_of_their_own():
    model, x, _ = problem()
    mu, logvar = model.encode(x)
    assert mu.flags.c_contiguous
    assert logvar.flags.c_contiguous


def test_what_was_checked_before_need_not_be_checked_again():
    model, x, eps = problem()
    with pytest.raises(ValueError, match="x must lie in"):
        model.forward(x + 1, eps)
    model.forward(x + 1, eps, check=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.decode(np.zeros((3, 3))), r"z .* \(n, 2\); got shape \(3, 3\)"),
        (lambda model: model.decode([[0, np.nan]]), "z must be finite"),
        (lambda model: model.encode(np.zeros((3, 2))), r"x .* got shape \(3, 2\)"),
        (lambda model: model.sample(0), "n must be an integer of at least 1; got 0"),
    ],
)
def test_bad_arguments_of_a_trained_model_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(problem()[0])


def test_elbo_is_log_p_minus_the_divergence_from_the_true_posterior():
    """The lectures' central equation, log p(x) − KL(q ‖ p(z|x)) = ELBO, for an arbitrary q, by quadrature over one latent."""
    model = npvae.VAE(4, 1, (3,), "tanh", dtype="float64", seed=5, backend="numpy")
    model.theta = np.random.default_rng(2).standard_normal(model.theta.size)
    x = np.array([[0.0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
    z = np.linspace(-12, 12, 6001)
    p = model.decode(z[:, None])  # (n, D)
    mu, logvar = model.encode(x)
    for i in range(3):
        log_px_z = (x[i] * np.log(p) + (1 - x[i]) * np.log1p(-p)).sum(axis=1)
        log_joint = log_px_z - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
        log_px = np.log(np.trapezoid(np.exp(log_joint), z))
        log_q = -0.5 * (z - mu[i]) ** 2 / np.exp(logvar[i]) - 0.5 * (np.log(2 * np.pi) + logvar[i])
        q = np.exp(log_q)
        elbo = np.trapezoid(q * log_px_z, z) - 0.5 * (mu[i] ** 2 + np.exp(logvar[i]) - 1 - logvar[i]).item()
        assert elbo == pytest.approx(log_px - np.trapezoid(q * (log_q - log_joint + log_px), z), abs=1e-10)
        # the model's own loss, with the noise integrated over by Gauss-Hermite nodes as samples, is −ELBO
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        losses = np.array([model.forward(x[i : i + 1], [[e]])[0].loss for e in nodes])
        assert losses @ weights / weights.sum() == pytest.approx(-elbo, abs=1e-6)
        assert elbo <= log_px
