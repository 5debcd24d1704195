"""The plain autoencoder: the VAE without noise and prior, and principal component analysis where it is linear."""

import numpy as np
import pytest

import npvae
from npvae import ppca
from npvae.models import Autoencoder
from npvae.training.checkpoint import load_progress, save_progress

BACKENDS = ("numpy", "numba")


def data(likelihood, n=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n, 7)) < 0.4).astype(float) if likelihood == "bernoulli" else rng.standard_normal((n, 7))


def model_of(likelihood="gaussian", hidden=(5, 4), **options):
    model = Autoencoder(7, 2, hidden, "tanh", likelihood, dtype="float64", sigma=0.6, **{"backend": "numpy", **options})
    model.theta += 0.2 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_it_is_the_vae_at_zero_noise_without_the_divergence(likelihood, backend):
    vae = npvae.VAE(7, 2, (5, 4), "tanh", likelihood, backend, "float64", sigma=0.6)
    model = model_of(likelihood, backend=backend)
    for name, value in vae.parameters.items():
        if name.startswith("posterior"):  # mu is the code; the log-variance does not matter where eps is 0
            value[..., :2] = model.parameters[name.replace("posterior", "code")]
        else:
            value[:] = model.parameters[name.replace("likelihood", "output")]
    x = data(likelihood)
    terms, cache = vae.forward(x, np.zeros((6, 2)), beta=0.0)
    ours, our_cache = model.forward(x)
    assert ours.loss == pytest.approx(terms.loss, rel=1e-14)
    theirs, grads = vae.backward(cache), model.backward(our_cache)
    np.testing.assert_allclose(grads["code.W"], theirs["posterior.W"][:, :2], rtol=0, atol=1e-13)
    for name in ("encoder.0.W", "encoder.1.b", "decoder.0.W"):
        np.testing.assert_allclose(grads[name], theirs[name], rtol=0, atol=1e-13)
    np.testing.assert_allclose(grads["output.b"], theirs["likelihood.b"], rtol=0, atol=1e-13)
    np.testing.assert_allclose(model.reconstruct(x), vae.reconstruct(x), rtol=1e-13)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4, 3)])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_gradient_is_that_of_the_complex_step(likelihood, hidden):
    model, x = model_of(likelihood, hidden), data(likelihood)
    twin = model.copy(dtype="complex128")

    def loss(theta):
        twin.theta = theta
        return twin.forward(x)[0].loss

    expected = npvae.gradcheck.complex_step_grad(loss, model.theta.copy())
    gradient = np.concatenate([g.ravel() for g in model.backward(model.forward(x)[1], dloss=-0.7).values()])
    assert np.abs(gradient + 0.7 * expected).max() <= 1e-12 * np.abs(expected).max()


def test_its_terms_are_what_they_say():
    model, x = model_of(), data("gaussian")
    terms, _ = model.forward(x)
    error = ((x - model.reconstruct(x)) ** 2).sum(axis=1).mean()
    assert terms.squared_error == pytest.approx(error, rel=1e-13)
    assert terms.loss == pytest.approx(error / (2 * 0.36) + 3.5 * np.log(2 * np.pi * 0.36), rel=1e-13)
    binary = model_of("bernoulli")
    x = data("bernoulli")
    p = binary.reconstruct(x)
    assert binary.forward(x)[0].loss == pytest.approx(-(x * np.log(p) + (1 - x) * np.log1p(-p)).sum() / 6, rel=1e-13)


def test_a_linear_one_is_principal_component_analysis():
    """Baldi & Hornik 1989: the error of the discarded variances, on the subspace of the largest."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 8)) + 0.3 * rng.standard_normal((300, 8)) + 2.0
    model = Autoencoder(8, 2, (), dtype="float64", backend="numpy")
    npvae.fit_lbfgs(model, x, iterations=800, progress=False)
    mean, axes, variances = ppca.principal_components(x, 2)
    assert model.forward(x)[0].squared_error == pytest.approx(variances[2:].sum(), rel=1e-5)
    assert ppca.subspace_angle(model.parameters["output.W"], axes) < 0.1  # degrees
    np.testing.assert_allclose(model.reconstruct(x), mean + (x - mean) @ axes.T @ axes, atol=5e-3)
    measured = {measure.name: measure.value for measure in model.measure(x)}
    assert measured["squared_error"] >= measured["pca_squared_error"] * (1 - 1e-12)
    assert measured["pca_squared_error"] == pytest.approx(variances[2:].sum(), rel=1e-12)


def test_principal_components_lose_what_they_leave_out():
    x = np.random.default_rng(0).standard_normal((50, 5)) * [5, 4, 3, 2, 1]
    mean, axes, variances = ppca.principal_components(x, 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-14)
    projected = mean + (x - mean) @ axes.T @ axes
    assert ((x - projected) ** 2).sum(axis=1).mean() == pytest.approx(variances[3:].sum(), rel=1e-12)
    assert (np.diff(variances) <= 0).all()
    assert variances.sum() == pytest.approx(x.var(axis=0).sum(), rel=1e-12)


def test_it_trains_and_continues_bit_for_bit(tmp_path):
    x = data("gaussian", 60)
    options = {"batch_size": 16, "seed": 3, "progress": False}
    whole = Autoencoder(7, 2, (5,))
    history = npvae.fit(whole, x, x[:20], epochs=4, **options)
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert {"train_squared_error", "val_squared_error"} <= set(history.rows[0])
    states, model = [], Autoencoder(7, 2, (5,))
    npvae.fit(model, x, x[:20], epochs=2, on_epoch=states.append, **options)
    save_progress(tmp_path, model, states[-1])
    model, state = load_progress(tmp_path)
    npvae.fit(model, x, x[:20], epochs=4, resume=state, **options)
    np.testing.assert_array_equal(model.theta, whole.theta)


def test_it_survives_a_file(tmp_path):
    model = model_of()
    model.save(tmp_path / "model.npz")
    twin = Autoencoder.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(twin.theta, model.theta)
    assert twin.config == model.config
    with pytest.raises(ValueError, match="class Autoencoder, not VAE"):
        npvae.VAE.load(tmp_path / "model.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "poisson"}, "likelihood must be one of gaussian, bernoulli"),
        ({"n_latent": 0}, "n_latent must be an integer of at least 1"),
        ({"sigma": 0}, "sigma must be a finite number above 0"),
        ({"hidden": (0,)}, "hidden must be an integer of at least 1"),
        ({"activation": "identity"}, "activation must be one of relu"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Autoencoder(**{"n_features": 7, **arguments})


def test_bad_data_are_named():
    model = model_of("bernoulli")
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]"):
        model.forward(np.full((2, 7), 2.0))
    with pytest.raises(ValueError, match="got shape"):
        model.encode(np.zeros((2, 6)))
