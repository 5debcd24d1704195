"""Input checks: what is refused in one line, and what is taken away of rounding and of masks."""

import warnings

import numpy as np
import pytest
from small_models import Regression, lattice_rows, regression_rows, small_model

import npvae
from npvae.core import checks
from npvae.data import ising, toy
from npvae.models import evaluate, ppca
from npvae.models.autoencoder import Autoencoder
from npvae.models.flow import Flow

X = lattice_rows(20)
MASKED, UNMASKED = np.ma.array(X, mask=np.zeros(X.shape, bool)), np.ma.array(X, mask=np.zeros(X.shape, bool))
MASKED[3, 5] = np.ma.masked
X_REGRESSION, Y = regression_rows(20)
MASKED_Y = np.ma.masked_greater(Y, np.sort(Y)[-2])
GAUSSIAN = {"likelihood": "gaussian", "backend": "numpy"}


# ---- masked arrays ----


def entrances():
    """Name -> function of an array (20, 16): every entrance that takes one."""
    vae, flow = small_model(), Flow(16, 2, (4,), backend="numpy")
    autoencoder, pca = Autoencoder(16, 2, (4,), backend="numpy"), ppca.maximum_likelihood(X + np.eye(20, 16), 2)
    return {
        "check": vae.check,
        "forward": lambda x: vae.forward(x, np.zeros((20, 2))),
        "eps": lambda x: vae.forward(X, x[:, 4:6]),
        "encode": vae.encode,
        "reconstruct": vae.reconstruct,
        "decode": lambda x: small_model(n_latent=16).decode(x),
        "autoencoder's decode": lambda x: Autoencoder(4, 16, (), backend="numpy").decode(x),
        "output bias": vae.set_output_bias,
        "elbo": lambda x: evaluate.elbo(vae, x),
        "log_likelihood": lambda x: evaluate.log_likelihood(vae, x, 2),
        "active_units": lambda x: evaluate.active_units(vae, x),
        "kl_parts": lambda x: evaluate.kl_parts(vae, x),
        "measure": lambda x: vae.measure(x, n_samples=2),
        "model_input": lambda x: npvae.model_input(vae, x),
        "fit": lambda x: npvae.fit(vae, x, epochs=1, progress=False),
        "x_val": lambda x: npvae.fit(vae, X, x, epochs=1, progress=False),
        "fit_lbfgs": lambda x: npvae.fit_lbfgs(vae, x, iterations=1, progress=False),
        "autoencoder": autoencoder.measure,
        "flow": flow.log_likelihood,
        "flow's inverse": flow.inverse,
        "theta": lambda x: setattr(Regression(319), "theta", x.ravel()),
        "parameters": lambda x: vae.parameters.update({"encoder.0.W": x[:16, :8]}),
        "principal_components": lambda x: ppca.principal_components(x, 2),
        "maximum_likelihood": lambda x: ppca.maximum_likelihood(x + np.eye(20, 16), 2),
        "ppca": lambda x: ppca.log_likelihood(pca, x),
        "spins": lambda x: ising.energy_per_spin(x, 4),
        "magnetisation": ising.magnetization_per_spin,
        "series": lambda x: ising.autocorrelation_time(x[:, 5]),
        "temperatures": lambda x: ising.onsager_energy(x + 1),
        "toy": lambda x: toy.log_density("ring", x[:, 4:6]),
        "list of rows": lambda x: vae.encode(list(x)),
    }


@pytest.mark.parametrize("name", entrances())
def test_masked_values_are_refused_and_an_empty_mask_is_none(name):
    with pytest.raises(ValueError, match=r"^[^\n]* must hold no masked values; got 1: fill them or leave out their rows$"):
        entrances()[name](MASKED)
    entrances()[name](UNMASKED)


def test_masked_arrays_beside_the_data_are_refused():
    with pytest.raises(ValueError, match=r"^array 1 of x_train must hold no masked values; got 1"):
        npvae.fit(Regression(4), (X_REGRESSION, MASKED_Y), epochs=1)
    npvae.fit(Regression(4), (X_REGRESSION, np.ma.array(Y)), epochs=1, progress=False)


def test_plain_arrays_are_not_copied():
    assert np.shares_memory(checks.plain_array("x", X), X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = np.asmatrix(X)
    for value in (np.ma.array(X), matrix):
        assert type(checks.plain_array("x", value)) is np.ndarray
        np.testing.assert_array_equal(checks.plain_array("x", value), X)


def test_numbers_as_objects_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"^x must be [^\n]* got dtype object: if these are numbers, give x\.astype\(float\)$"):
        checks.real_array("x", X.astype(object))


# ---- values in [0, 1] ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("x", [1 + 2.0**-52, -(2.0**-53), np.float32(1 + 2**-23), 1 + 1e-9])
def test_a_rounding_error_beyond_the_unit_interval_is_taken_away(dtype, x):
    """What scalers leave: 1.0000000000000002 in a column scaled to [0, 1]."""
    data = np.array(X, type(x))
    data[2, 3] = x
    for model in (small_model(dtype=dtype), Autoencoder(16, 2, (), likelihood="bernoulli", dtype=dtype, backend="numpy")):
        if dtype == "float64" and x == 1 + 1e-9:
            with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
                model.check(data)
            continue
        (checked,) = model.check(data)
        assert checked[2, 3] == round(x)
        assert npvae.model_input(model, data)[2, 3] == round(x)
        npvae.fit(model, data, data, epochs=1, progress=False)
    assert data[2, 3] == x  # in a copy


def test_what_lies_beyond_names_the_largest_value():
    for x, words in [(16 * X, r"value there can be, 16 or more \(npvae train --scale\)"), (-X, r"from -1\.0 to -0\.0")]:
        for call in (small_model().check, lambda x: npvae.fit(small_model(), x, epochs=1)):
            with pytest.raises(ValueError, match=rf"must lie in \[0, 1\] for the Bernoulli likelihood; got [^\n]*{words}$"):
                call(x)
    with pytest.raises(ValueError, match=r"to 3$"):
        checks.unit_interval("x", np.array([[-1, 3]]))
