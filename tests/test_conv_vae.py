"""The VAE of images: it is the VAE with other layers, which know the same things in every place; its options, files, runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_models import rows_for

import npvae
from npvae.app import cli
from npvae.models.conv_vae import LIKELIHOODS, ConvolutionalVAE, padding_of
from npvae.ops import bounds, convolution

BACKENDS = ("numpy", "numba")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def small(backend="numpy", **options):
    """A model of images of 4 × 4 with generic parameters."""
    given = {"n_latent": 2, "channels": (3,), "hidden": (5,), "activation": "tanh", "dtype": "float64", "sigma": 0.5}
    model = ConvolutionalVAE(16, backend=backend, **{**given, **options})
    model.theta += 0.2 * np.random.default_rng(1).standard_normal(model.theta.size)
    return model


def batch_of(model, B=4, S=2):
    return rows_for(model, B), np.random.default_rng(2).standard_normal((S, B, model.n_latent))


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


# ---- it is the VAE ----


@every_backend
@pytest.mark.parametrize("objective", bounds.OBJECTIVES)
def test_with_kernels_as_large_as_the_image_it_is_the_vae(objective, backend):
    """One place of the kernel: a convolution is a dense layer then, with the weights in the same order."""
    model = small(backend, channels=(6,), kernel=4, stride=4, hidden=(5,), edges="periodic")
    twin = npvae.VAE(16, 2, (6, 5), "tanh", backend=backend, dtype="float64", seed=3)
    twin.theta = model.theta
    x, eps = batch_of(model)
    (ours, cache), (theirs, twin_cache) = (m.forward(x, eps, 0.7, objective) for m in (model, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    grads, expected = (flat(m.backward(c)) for m, c in ((model, cache), (twin, twin_cache)))
    assert np.abs(grads - expected).max() <= 1e-13 * np.abs(expected).max()
    for name in ("encode", "reconstruct", "log_likelihood"):
        arguments = (x, 3, 0) if name == "log_likelihood" else (x,)
        np.testing.assert_allclose(getattr(model, name)(*arguments), getattr(twin, name)(*arguments), rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.sample(3, 0), twin.sample(3, 0), rtol=0, atol=1e-13)


@every_backend
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradient_of_the_model_is_that_of_the_complex_step(likelihood, backend):
    model = small(backend, likelihood=likelihood, activation="silu", channels=(2, 2), kernel=3)
    x, eps = batch_of(model, 2, 2)
    twin, expected = model.copy(dtype="complex128"), np.empty(model.theta.size)
    for k in range(expected.size):
        twin.theta[k] += 1e-20j
        expected[k] = twin.forward(x, eps, 0.7, check=False)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    out = np.empty_like(model.theta)
    model.gradient(x, eps, 0.7, out=out)
    assert np.abs(out - expected).max() <= 1e-12 * np.abs(expected).max()


def test_both_back_ends_agree_in_float32():
    model = small("numpy", dtype="float32", channels=(17, 33), hidden=(20,))
    x, eps = batch_of(model, 30, 1)
    twin = model.copy(backend="numba")
    (ours, cache), (theirs, twin_cache) = (m.forward(x, eps) for m in (model, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(model.backward(cache).values(), twin.backward(twin_cache).values()):
        assert np.abs(a - b).max() <= 2e-5 * np.abs(a).max()


# ---- probabilities ----


def test_probabilities_of_all_images_add_up_to_one_and_bound_the_elbo():
    """p(x) = ∫ p(x|z) N(z; 0, 1) dz by quadrature, for every image of 2 × 2."""
    model = ConvolutionalVAE(4, 1, (2,), 2, 1, (), "tanh", dtype="float64", edges="periodic")
    model.theta += 0.7 * np.random.default_rng(0).standard_normal(model.theta.size)
    model.parameters |= {"posterior.W": 0, "posterior.b": 0}  # q(z|x) is the prior: weights are p(x|z), at most 1
    x = np.array(list(np.ndindex(2, 2, 2, 2)), float)  # (16, 4)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    p = weights / np.sqrt(2 * np.pi) @ np.exp(-model.nll(np.tile(nodes[:, None, None], (1, 16, 1)), x))  # (80, 16) -> (16,)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    estimate = npvae.evaluate.log_likelihood(model, x, 20000, 0)
    np.testing.assert_allclose(estimate, np.log(p), atol=0.02)
    assert npvae.evaluate.elbo(model, x, 0, 1000).elbo < np.log(p).mean()
    assert np.abs(model.decode(np.zeros((1, 1))) - 0.5).max() > 0.05  # a model that has something to say


@every_backend
def test_a_periodic_model_without_biases_of_pixels_knows_no_place(backend):
    """Where a lattice is shifted by a multiple of the strides, so is what the convolutions make of it, and of the decoder."""
    model = small(backend, edges="periodic", channels=(3,), kernel=4)
    lattices = rows_for(model, 3).reshape(3, 4, 4)
    (W, b, _, window), *_ = model.encoder
    h, moved = (model.ops.filter_forward(images.reshape(3, -1), W, b, "tanh", window)[0].reshape(3, 2, 2, 3)
                for images in (lattices, np.roll(lattices, (2, 2), (1, 2))))  # fmt: skip
    np.testing.assert_allclose(moved, np.roll(h, (1, 1), (1, 2)), rtol=0, atol=1e-13)
    W, _, _, window = model.decoder[-1]
    made, moved = (model.ops.filter_forward(images.reshape(3, -1), W, np.zeros(1), "identity", window)[0].reshape(3, 4, 4)
                   for images in (h, np.roll(h, (1, 1), (1, 2))))  # fmt: skip
    np.testing.assert_allclose(moved, np.roll(made, (2, 2), (1, 2)), rtol=0, atol=1e-13)


# ---- shapes, starting values, refusals ----


def test_parameters_stand_in_the_order_of_their_docstring():
    model = ConvolutionalVAE(784, 7, (3, 5), 4, 2, (11,))
    assert {name: value.shape for name, value in model.parameters.items()} == {
        "encoder.0.W": (4, 4, 1, 3), "encoder.0.b": (3,), "encoder.1.W": (4, 4, 3, 5), "encoder.1.b": (5,),
        "encoder.2.W": (245, 11), "encoder.2.b": (11,), "posterior.W": (11, 14), "posterior.b": (14,),
        "decoder.0.W": (7, 11), "decoder.0.b": (11,), "decoder.1.W": (11, 245), "decoder.1.b": (245,),
        "decoder.2.W": (5, 4, 4, 3), "decoder.2.b": (3,), "likelihood.W": (3, 4, 4, 1), "likelihood.b": (784,),
    }  # fmt: skip
    assert model.widths == "28×28-14×14×3-7×7×5-11-7"
    assert repr(model).startswith("ConvolutionalVAE(28×28-14×14×3-7×7×5-11-7, silu, bernoulli, float32, numba: ")


@pytest.mark.parametrize(("size", "kernel", "stride", "made"), [
    (28, 4, 2, 14), (7, 5, 2, 4), (28, 3, 1, 28), (7, 3, 3, 3), (1, 4, 2, 1)])  # fmt: skip
def test_padding_makes_a_size_the_next_whole_fraction(size, kernel, stride, made):
    padding = padding_of((size, size), kernel, stride)
    assert min(padding) >= 0
    assert 0 <= padding[1] - padding[0] <= 1
    assert convolution.n_places(size, kernel, stride, padding) == made
    assert convolution.transposed_size(made, kernel, stride, padding) == size


@pytest.mark.parametrize("initialization", ["glorot", "he"])
def test_starting_weights_keep_the_size_of_what_passes_through(initialization):
    """The variance of a sum is twice that of its terms (He), which relu halves; or that and the variance on the way back are 2
    together (Glorot). Periodic edges: nothing is lost in the padding."""
    options = {"edges": "periodic", "backend": "numpy", "initialization": initialization}
    model = ConvolutionalVAE(256, 20, (16, 32), 4, 2, (64,), "tanh", **options)
    rng = np.random.default_rng(0)
    for layer in (*model.encoder, *model.decoder):
        if len(layer) == 4:
            W, b, _, window = layer
            n_in = W.shape[0 if window.is_transposed else 2]
            h = rng.standard_normal((4, window.rows * window.columns * n_in)).astype(np.float32)
            made, cache = model.ops.filter_forward(h, W, b, "identity", window)
            back, _, _ = model.ops.filter_backward(rng.standard_normal(made.shape).astype(np.float32), cache)
            variance = made.var() + (back.var() if initialization == "glorot" else 0)
            assert variance == pytest.approx(2, rel=0.25)


def test_the_bias_of_pixels_starts_at_their_mean():
    model = ConvolutionalVAE(16, 2, (3,))
    x = rows_for(model, 50)
    model.set_output_bias(x)
    model.parameters["likelihood.W"] = 0
    np.testing.assert_allclose(model.decode(np.zeros((1, 2)))[0], (50 * x.mean(axis=0) + 1) / 52, rtol=1e-5)


@pytest.mark.parametrize(("options", "message"), [
    ({"n_features": 15}, "image_rows must divide the 15 pixels of an image, and is needed where images are not square; got s"),
    ({"image_rows": 3}, "image_rows must divide the 16 pixels"),
    ({"channels": ()}, "channels must be at least one number"),
    ({"kernel": 1}, "kernel must be at least the stride, or pixels are left out; got 1 and 2"),
    ({"edges": "open"}, "edges must be one of zeros, periodic"),
    ({"likelihood": "categorical"}, "likelihood must be one of bernoulli, gaussian, gaussian_global"),
    ({"n_features": 6, "image_rows": 3}, r"does not fit 2 pixels with 1 \+ 2 of padding: \(2 \+ 1 \+ 2 − 4\)/2 \+ 1 = 1.5"),
])  # fmt: skip
def test_bad_constructor_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ConvolutionalVAE(**{"n_features": 16, **options})


def test_weights_of_kernels_decay_too():
    model = small()
    before = {name: value.copy() for name, value in model.parameters.items()}
    npvae.optim.decay_weights(model.parameters, 0.5)
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(value, before[name] * (0.5 if name.endswith(".W") else 1))


# ---- training, files, commands ----


def test_two_workers_train_to_nearly_the_same_as_one_and_it_learns():
    rows = (rows_for(small(), 400)[:, :1] * np.ones(16)).astype(np.float32)  # all black or all white
    histories = []
    for workers in (1, 2):
        model = ConvolutionalVAE(16, 2, (4,), hidden=(8,), seed=1)
        how = {"epochs": 30, "batch_size": 20, "optimizer": npvae.Adam(5e-3), "progress": False}
        histories.append(npvae.fit(model, rows, workers=workers, **how))
    for history in histories:
        assert history.rows[0]["train_loss"] > 9
        assert history.rows[-1]["train_loss"] < 2.5


def test_copies_and_files_keep_everything(tmp_path):
    model = small(edges="periodic", likelihood="gaussian_global", posterior="full")
    model.save(tmp_path / "model.npz")
    for twin in (model.copy(), ConvolutionalVAE.load(tmp_path / "model.npz"), npvae.models.saved.load(tmp_path / "model.npz")):
        assert (type(twin), twin.config) == (ConvolutionalVAE, model.config)
        np.testing.assert_array_equal(twin.theta, model.theta)
        np.testing.assert_array_equal(*(one.decode(np.ones((1, model.n_latent))) for one in (twin, model)))


@pytest.mark.usefixtures("small_world")
def test_the_commands_train_resume_evaluate_and_sample(capsys):
    argv = ["train", "--model", "conv", "--channels", "4", "--hidden", "--latent", "2", "--edges", "periodic"]
    assert cli.main([*argv, "--epochs", "2", "--out", "run"]) == 0
    assert "ConvolutionalVAE(" in capsys.readouterr().out
    folder = Path("run")
    assert {"filters.png", "strokes.png", "samples.png", "reconstructions.png"} <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "config.json").read_text())["arguments"]["edges"] == "periodic"
    assert cli.main([*argv, "--epochs", "1", "--out", "stopped"]) == 0
    assert cli.main(["train", "--resume", "--out", "stopped", "--epochs", "2"]) == 0
    first, again = (npvae.models.saved.load(f"{name}/checkpoint.npz").theta for name in ("run", "stopped"))
    np.testing.assert_array_equal(first, again)
    assert cli.main(["evaluate", "run", "--samples", "2"]) == 0
    assert cli.main(["sample", "run"]) == 0
    capsys.readouterr()
    assert cli.main(["explore", "run"]) != 0
    assert "needs `decoder`, dense layers" in capsys.readouterr().err
