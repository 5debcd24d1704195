"""The likelihoods by name: each is a distribution, whose mean, draws and starting values agree with its nll; its support."""

import math

import numpy as np
import pytest

import npvae
from npvae import ops
from npvae.core import levels
from npvae.data.rows import Rows
from npvae.models.likelihoods import LIKELIHOODS, LOGVAR, likelihood_called
from npvae.models.vae import VAE

every_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)
OF_LEVELS = ("categorical", "beta_binomial")
of_levels = pytest.mark.parametrize("name", OF_LEVELS)
OWN = {LOGVAR: np.array([-1.4])}  # the parameters that a likelihood has beside the decoder's output
GREY = np.arange(256)[:, None] / 255


def some_output(name, n_features=1, dtype="float64"):
    """A likelihood, and a decoder's output for one datum, (1, columns D)."""
    p_x_given_z = likelihood_called(name, sigma=0.3, min_sigma=0.1)
    output = np.random.default_rng(2).standard_normal((1, p_x_given_z.columns * n_features))
    return p_x_given_z, output.astype(dtype)


def probabilities(p_x_given_z, output):
    """All x that one pixel may be, or a fine grid of them, (n, 1), and the probability of each by the nll, (n,)."""
    grid = np.linspace(-12, 12, 20001)[:, None]
    x = {"binary": np.array([[0.0], [1.0]]), "levels": GREY, "real": grid}[p_x_given_z.data_kind]
    nll, _ = p_x_given_z.forward(ops, np.repeat(output, len(x), axis=0), x, OWN)
    return x, np.exp(-nll) * (grid[1, 0] - grid[0, 0] if p_x_given_z.data_kind == "real" else 1)


def some_rows(p_x_given_z, n=50, n_features=4):
    rng = np.random.default_rng(5)
    return {"binary": lambda: (rng.random((n, n_features)) < 0.3).astype(float),
            "real": lambda: rng.normal(3, 2, (n, n_features)),
            "levels": lambda: rng.integers(0, 200, (n, n_features)) / 255}[p_x_given_z.data_kind]()  # fmt: skip


# ---- a distribution, its mean and its draws ----


@every_likelihood
def test_probabilities_add_up_to_1_and_the_mean_is_theirs(name):
    p_x_given_z, output = some_output(name)
    x, p = probabilities(p_x_given_z, output)
    assert p.sum() == pytest.approx(1, abs=1e-11)
    np.testing.assert_allclose(p_x_given_z.mean(output), [p @ x], rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_likelihood
def test_draws_have_the_mean_and_the_variance_and_lie_in_the_support(name, dtype):
    p_x_given_z, output = some_output(name, dtype=dtype)
    x, p = probabilities(p_x_given_z, output.astype(float))
    mean = (p @ x).item()
    squares = (x[:, 0] - mean) ** 2
    variance = squares @ p
    spread = math.sqrt((squares - variance) ** 2 @ p)  # of (x − mean)²
    n = 20000
    parameters = {LOGVAR: OWN[LOGVAR].astype(dtype)}
    draws = p_x_given_z.draw(np.repeat(output, n, axis=0), np.random.default_rng(7), parameters)
    assert (draws.shape, draws.dtype) == ((n, 1), dtype)
    draws = draws.astype(float)
    assert abs(draws.mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(((draws - mean) ** 2).mean() - variance) < 5 * spread / math.sqrt(n)
    if p_x_given_z.data_kind == "binary":
        assert set(np.unique(draws)) == {0, 1}
    if p_x_given_z.data_kind == "levels":
        levels.check_levels("draws", draws)
        assert len(np.unique(draws)) > 30


@every_likelihood
def test_draws_of_a_model_are_those_of_its_likelihood_around_what_it_decodes(name):
    model = VAE(3, 2, (4,), "tanh", name, "numpy", "float64", seed=1, sigma=0.3)
    z = np.repeat([[0.5, -1.0]], 4000, axis=0)
    draws = model.draw_data(z, 0)
    error = draws.std(axis=0) / math.sqrt(len(z))
    assert (np.abs(draws.mean(axis=0) - model.decode(z[:1])[0]) < 5 * error).all()
    np.testing.assert_array_equal(draws[:5], model.draw_data(z, np.random.default_rng(0))[:5])
    assert not np.array_equal(draws, model.draw_data(z, 1))
    np.testing.assert_array_equal(model.check(draws)[0], draws)  # what is drawn is data


def test_draws_with_learned_variances_respect_their_floor():
    rng, of_learned = np.random.default_rng(0), np.repeat([[0.0, -50.0]], 4000, axis=0)
    for name, output in [("gaussian_global", of_learned[:, :1]), ("gaussian_learned", of_learned)]:
        draws = likelihood_called(name, min_sigma=0.1).draw(output, rng, {LOGVAR: np.array([-50.0])})
        assert draws.std() == pytest.approx(0.1, rel=5 / math.sqrt(2 * 4000))


# ---- where training may start ----


@every_likelihood
def test_starting_values_are_best_where_z_says_nothing(name):
    """There the gradient of the mean nll over the rows vanishes; Laplace's rule is the same with one row more of each value."""
    p_x_given_z = likelihood_called(name, min_sigma=0.1)
    x = some_rows(p_x_given_z)
    found = p_x_given_z.bias(x)
    assert set(found) == {"likelihood.b", *p_x_given_z.shapes}
    parameters = {key: np.reshape(value, (1,)) for key, value in found.items() if key == LOGVAR}
    extra = {"bernoulli": [0.0, 1.0], "categorical": GREY[:, 0]}.get(name, [])
    x = np.concatenate([x, *(np.full((1, 4), value) for value in extra)])
    output = np.tile(found["likelihood.b"], (len(x), 1))
    _, cache = p_x_given_z.forward(ops, output, x, parameters)
    doutput, own = p_x_given_z.backward(ops, np.full(len(x), 1 / len(x)), cache)
    if name == "beta_binomial":  # by moments instead
        for pixel in range(4):
            values, p = probabilities(p_x_given_z, found["likelihood.b"][[pixel, pixel + 4]][None])
            mean = (p @ values).item()
            assert mean == pytest.approx(x[:, pixel].mean(), rel=1e-10)
            assert p @ (values[:, 0] - mean) ** 2 == pytest.approx(x[:, pixel].var(), rel=1e-10)
    else:
        np.testing.assert_allclose(doutput.sum(axis=0), 0, atol=1e-12)
    assert len(own) == len(p_x_given_z.shapes)
    for gradient in own:
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


@every_likelihood
def test_a_model_starts_from_them(name):
    model = VAE(4, 2, (3,), likelihood=name, backend="numpy", dtype="float64")
    x = some_rows(model.p_x_given_z)
    before = model.parameters["likelihood.W"].copy()
    model.set_output_bias(x)
    for key, value in model.p_x_given_z.bias(x).items():
        np.testing.assert_array_equal(model.parameters[key], np.reshape(value, model.parameters[key].shape))
    np.testing.assert_array_equal(model.parameters["likelihood.W"], before)
    if name in ("bernoulli", "categorical", "beta_binomial"):
        np.testing.assert_allclose(model.p_x_given_z.mean(model.parameters["likelihood.b"]), x.mean(axis=0), atol=0.5)


@every_likelihood
def test_starting_values_of_data_that_never_vary_are_finite(name):
    p_x_given_z = likelihood_called(name, min_sigma=0.1)
    for value in (0.0, 1.0):
        found = p_x_given_z.bias(np.full((9, 3), value))
        for array in found.values():
            assert np.isfinite(array).all()
        np.testing.assert_allclose(p_x_given_z.mean(found["likelihood.b"]), value, atol=0.5)  # far from it where Laplace's rule
    floor = 2 * math.log(0.1)
    if name == "gaussian_global":
        assert found[LOGVAR] == pytest.approx(floor, rel=1e-15)
    if name == "gaussian_learned":
        np.testing.assert_allclose(found["likelihood.b"][3:], floor, rtol=1e-15)


# ---- the floor of a learned variance ----


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_pixel_that_never_varies_reaches_the_floor_and_is_told(backend):
    """Without a floor its loss has no lower bound: each step of log σ downwards gains as much as the last one."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 0.5, (64, 4))
    x[:, 1] = 0.5
    model = VAE(4, 1, (6,), likelihood="gaussian_learned", backend=backend, min_sigma=0.05)
    history = npvae.fit(model, x, x, epochs=200, batch_size=32, optimizer=npvae.Adam(0.02), progress=False)
    assert np.isfinite(history["train_loss"]).all()
    assert np.isfinite(history["val_loss"]).all()
    output = model.decoder_output(model.encode(x)[0])
    assert (output[:, 5] < 2 * math.log(0.05)).mean() > 0.9  # of pixel 1: what the network says is beyond the floor
    measures = {measure.name: measure for measure in model.measure(x, n_samples=2)}
    assert 0.2 < measures["sigma_at_floor"].value <= 0.25
    assert "lie on the floor min_sigma = 0.05" in measures["sigma"].note
    mean, logvar = output[:, :4], np.maximum(output[:, 4:], 2 * math.log(0.05))
    assert measures["sigma"].value == pytest.approx(np.exp(0.5 * logvar.mean()), rel=1e-5)
    nll, _ = model.nll_forward(output, x.astype(np.float32))
    z_scores = (x - mean) / np.exp(0.5 * logvar)
    np.testing.assert_allclose(nll, 0.5 * (z_scores**2 + logvar + math.log(2 * math.pi)).sum(axis=1), rtol=1e-4)


def test_one_variance_of_data_that_never_vary_lies_on_its_floor():
    x = np.full((20, 3), 0.25)
    model = VAE(3, 1, (), likelihood="gaussian_global", backend="numpy", min_sigma=0.1)
    model.set_output_bias(x)
    model.parameters[LOGVAR][:] -= 1
    history = npvae.fit(model, x, epochs=3, progress=False)
    assert np.isfinite(history["train_loss"]).all()
    measures = {measure.name: measure.value for measure in model.measure(x, n_samples=2)}
    assert measures["sigma"] == pytest.approx(0.1, rel=1e-6)
    assert measures["sigma_at_floor"] == 1


# ---- the support ----


OUTSIDE = [
    ("bernoulli", 1.5, r"must lie in \[0, 1\] for the Bernoulli likelihood; got values from 0.0 to 1.5"),
    ("bernoulli", -0.5, r"must lie in \[0, 1\]"),
    *((name, 0.5, "must hold grey levels k/255, k = 0 to 255, for a likelihood of levels; got 0.5$") for name in OF_LEVELS),
    *((name, -1 / 255, "must hold grey levels k/255.*; got -0.00392157$") for name in OF_LEVELS),
    *((name, 256 / 255, r"must hold grey levels k/255.*; got 1.00392 \(if these are levels") for name in OF_LEVELS),
    *((name, 128, r"; got 128 \(if these are levels from 0 to 255, give them as uint8, or divided by 255\)$")
      for name in OF_LEVELS),
    *((name, np.nan, "must be finite; got nan") for name in LIKELIHOODS),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), OUTSIDE)
def test_data_outside_of_the_support_are_named(name, value, message):
    model = VAE(4, 1, (), likelihood=name, backend="numpy")
    x = np.zeros((3, 4))
    assert model.check(x)[0].shape == (3, 4)
    x[1, 2] = value
    for call, called in [(model.check, "x"), (lambda x: Rows.of(model, x, "faces"), "faces"),
                         (lambda x: npvae.fit(model, x, epochs=1), "x_train"), (model.measure, "x")]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^{called} .*{message}") as error:
            call(x)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_global", "gaussian_learned"])
def test_a_gaussian_takes_all_numbers(name):
    x = np.array([[-1e6, 1e6]])
    np.testing.assert_array_equal(VAE(2, 1, (), likelihood=name, backend="numpy").check(x)[0], x)


@of_levels
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_level_is_taken_as_bytes_as_float_and_as_rounded(name, dtype):
    model = VAE(256, 1, (), likelihood=name, backend="numpy", dtype=dtype)
    grey = np.arange(256, dtype=np.uint8)[None]
    for x in (grey, grey / 255, (grey / 255).astype(np.float32), (grey / 255).round(6)):
        (checked,) = model.check(x)
        assert checked.dtype == dtype
        np.testing.assert_array_equal(levels.levels_of(checked), grey)


@of_levels
def test_bytes_and_bool_are_levels_always(name):
    """Dark bytes are no zeros and ones there, and need no hint; True is white."""
    model = VAE(4, 1, (), likelihood=name, backend="numpy", dtype="float64")
    dark = np.eye(4, dtype=np.uint8)
    np.testing.assert_array_equal(model.check(dark)[0], dark / 255)
    np.testing.assert_array_equal(npvae.model_input(model, dark), dark / 255)
    np.testing.assert_array_equal(model.check(dark.astype(bool))[0], dark)
    rows = Rows.of(model, dark, "x_train")
    assert (rows.scale, rows.binarize) == (1 / 255, False)
    npvae.fit(model, dark, dark * 255, epochs=1, progress=False)
    assert levels.kept_by(model) == 1 / 255


def test_zeros_and_ones_may_be_bool():
    x = np.eye(4, dtype=bool)
    for name in LIKELIHOODS:
        np.testing.assert_array_equal(VAE(4, 1, (), likelihood=name, backend="numpy").check(x)[0], x)
