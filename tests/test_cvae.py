"""The conditional VAE: the VAE with a condition beside x, beside z and in the prior, its gradients, and what it learns."""

import numpy as np
import pytest
from small_models import rows_for

import npvae
from npvae.models.cvae import PRIORS, ConditionalVAE
from npvae.models.likelihoods import LOGVAR
from npvae.models.vae import LIKELIHOODS
from npvae.ops import bounds
from npvae.training import checkpoint

BACKENDS = ("numpy", "numba")
every_prior = pytest.mark.parametrize("prior", PRIORS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS)


def problem(prior="standard", likelihood="bernoulli", hidden=(5,), backend="numpy", dtype="float64", labels=True, B=4, S=2):
    """A small model with generic biases, and a batch with noise: x, condition, eps."""
    rng = np.random.default_rng(1)
    n_features = 2 if likelihood == "categorical" else 6
    model = ConditionalVAE(n_features, 3, 2, hidden, "tanh", likelihood, backend, dtype, 3, sigma=0.5, prior=prior)
    for name, value in model.parameters.items():
        if name.endswith((".b", ".logvar")):
            value[:] = 0.3 * rng.standard_normal(value.shape)
    condition = rng.integers(0, 3, B) if labels else rng.standard_normal((B, 3))
    return model, (rows_for(model, B), condition, rng.standard_normal((S, B, 2)))


def flat(grads):
    return np.concatenate([value.ravel() for value in grads.values()])


# ---- gradients ----


@every_prior
@pytest.mark.parametrize("objective", bounds.OBJECTIVES)
@every_likelihood
def test_gradient_of_the_model_is_that_of_the_complex_step(likelihood, objective, prior):
    options = {"labels": likelihood != "bernoulli", "B": 2}
    model, batch = problem(prior, likelihood, (3,), **options)
    twin, expected = model.copy(dtype="complex128"), np.empty(model.theta.size)
    checked = *model.check(*batch[:2]), batch[2]
    for k in range(expected.size):
        twin.theta[k] += 1e-20j
        expected[k] = twin.forward(*checked, 0.7, objective, check=False)[0].loss.imag / 1e-20
        twin.theta[k] = model.theta[k]
    for backend in BACKENDS:
        model, batch = problem(prior, likelihood, (3,), backend, **options)
        grads = model.backward(model.forward(*batch, 0.7, objective)[1])
        assert np.abs(flat(grads) - expected).max() <= 1e-12 * np.abs(expected).max(), backend


SETTINGS = [
    {"beta": np.array([0.5, 2.0])},
    {"objective": "iwae", "beta": 0.7},
    {"free_bits_per_dimension": 0.2, "beta": 0.5},
    {"free_bits_total": 0.4},
]


NOT_FUSED = ("gaussian_global", "categorical")
COMPILED = [("standard", "bernoulli", "elbo"), ("standard", "beta_binomial", "iwae"),
            ("learned", "bernoulli", "iwae"), ("learned", "gaussian_learned", "elbo")]  # fmt: skip


@every_backend
@every_prior
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@every_likelihood
def test_gradient_in_one_call_is_forward_then_backward(likelihood, settings, prior, backend):
    is_new = (prior, likelihood, settings.get("objective", "elbo")) not in COMPILED
    if backend == "numba" and likelihood not in NOT_FUSED and is_new:
        pytest.skip("what is compiled of a likelihood, an objective and a prior is the same in all: some of them will do")
    model, (x, condition, eps) = problem(prior, likelihood, (5, 4), backend)
    x, condition = model.check(x, condition)
    workspace = model.workspace(6, n_samples=3)
    assert (workspace is not None) == (backend == "numba" and likelihood not in NOT_FUSED)
    for dloss in (1.0, -0.4, 0.0):
        for noise in (eps, eps[:1]):
            terms, cache = model.forward(x, condition, noise, **settings)
            expected, out = flat(model.backward(cache, dloss)), np.full_like(model.theta, np.nan)
            fused, bound = model.gradient(x, condition, noise, **settings, dloss=dloss, out=out, workspace=workspace)
            np.testing.assert_allclose(fused, terms, rtol=1e-13)
            assert np.abs(out - expected).max() <= 1e-13 * np.abs(expected).max()
            assert np.max(out * out) <= bound < np.inf
            assert model.gradient(x, condition, noise, **settings, dloss=dloss)[0] == fused


@every_backend
@every_prior
@every_likelihood
def test_float32_agrees_with_float64(likelihood, prior, backend):
    model, batch = problem(prior, likelihood, backend=backend)
    single = model.copy(dtype="float32")
    terms, cache = model.forward(*batch)
    terms32, cache32 = single.forward(*batch)
    np.testing.assert_allclose(terms32[:3], terms[:3], rtol=1e-5)
    grads = model.backward(cache)
    for name, value in single.backward(cache32).items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, grads[name], rtol=0, atol=1e-4 * np.abs(grads[name]).max(), err_msg=name)


@pytest.mark.parametrize("free_bits", [{}, {"free_bits_total": 0.3}])
@every_prior
def test_rows_are_independent_and_shards_are_joined(prior, free_bits):
    model, (x, condition, eps) = problem(prior, B=5)
    whole, cache = model.forward(x, condition, eps, 0.5, **free_bits)
    expected = flat(model.backward(cache))
    parts = [slice(0, 2), slice(2, 5)]
    terms, caches = zip(*(model.forward(x[p], condition[p], eps[:, p], 0.5, **free_bits) for p in parts))
    if free_bits:
        joined, caches = model.join(terms, caches, (0.4, 0.6))
        np.testing.assert_allclose(joined, whole, rtol=1e-13)
    total = sum(flat(model.backward(cache, weight)) for cache, weight in zip(caches, (0.4, 0.6)))
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


# ---- beside the VAE ----


def without_condition(model):
    """The VAE that a model with a standard prior is for the condition 0."""
    twin = npvae.VAE(model.n_features, model.n_latent, model.hidden, model.activation, model.likelihood, model.backend,
                     "float64", sigma=model.sigma)  # fmt: skip
    twin.parameters.update({name: value[: twin.parameters[name].shape[0]] for name, value in model.parameters.items()
                            if name in twin.parameters})  # fmt: skip
    return twin


@every_prior
@every_likelihood
def test_where_nothing_depends_on_the_condition_it_is_the_vae(likelihood, prior):
    """With zeros for the condition's weights, and a learned prior that is N(0, I)."""
    model, (x, condition, eps) = problem(prior, likelihood)
    for first, n in [("encoder.0.W", model.n_features), ("decoder.0.W", 2)]:
        model.parameters[first][n:] = 0
    if prior == "learned":
        model.parameters["prior.W"][:] = model.parameters["prior.b"][:] = 0
    twin = without_condition(model)
    for objective in bounds.OBJECTIVES:
        terms, cache = model.forward(x, condition, eps, 0.7, objective)
        expected, twin_cache = twin.forward(x, eps, 0.7, objective)
        np.testing.assert_allclose(terms, expected, rtol=1e-14)
        grads = model.backward(cache)
        for name, value in twin.backward(twin_cache).items():
            np.testing.assert_allclose(grads[name][: len(value)], value, rtol=0, atol=1e-14 * np.abs(value).max())
    for ours, theirs in zip(model.encode(x, condition), twin.encode(x)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    np.testing.assert_allclose(model.decode(eps[0], condition), twin.decode(eps[0]), rtol=1e-14)
    np.testing.assert_array_equal(model.draw_data(eps[0], condition, 3), twin.draw_data(eps[0], 3))
    np.testing.assert_allclose(model.sample(np.zeros(4, int), 3), twin.sample(4, 3), rtol=1e-14)


@every_prior
def test_the_condition_reaches_encoder_decoder_and_a_learned_prior(prior):
    model, (x, condition, eps) = problem(prior)
    other = (condition + 1) % 3
    for ours, others in zip(model.encode(x, condition), model.encode(x, other)):
        assert np.abs(ours - others).min() > 1e-4
    assert np.abs(model.decode(eps[0], condition) - model.decode(eps[0], other)).min() > 1e-5
    assert not np.array_equal(model.draw_data(eps[0], condition, 0), model.draw_data(eps[0], condition, 1))
    before = model.forward(x, condition, eps)[0].kl
    model.parameters["encoder.0.W"][6:] = 0  # then the KL depends on the condition by the prior alone
    assert (model.forward(x, condition, eps)[0].kl == model.forward(x, other, eps)[0].kl) == (prior == "standard")
    assert before != model.forward(x, condition, eps)[0].kl


def test_samples_of_a_learned_prior_are_drawn_from_it():
    model, _ = problem("learned", "gaussian", hidden=())
    model.parameters["likelihood.W"][2:] = 0  # E[x|z, c] = z W + b
    rows = np.repeat([[0.5, -1.0, 2.0]], 20000, axis=0)
    mu, logvar = np.split(model.prior_output(rows[:1])[0], 2)
    W, b = model.parameters["likelihood.W"][:2], model.parameters["likelihood.b"]
    samples = model.sample(rows, 0)
    variance = np.exp(logvar) @ W**2
    assert (np.abs(samples.mean(axis=0) - mu @ W - b) < 5 * np.sqrt(variance / len(rows))).all()
    np.testing.assert_allclose(samples.var(axis=0), variance, rtol=5 * np.sqrt(2 / len(rows)))
    np.testing.assert_array_equal(samples, model.sample(rows, np.random.default_rng(0)))
    z = mu + np.exp(logvar / 2) * np.random.default_rng(0).standard_normal((20000, 2))
    np.testing.assert_allclose(samples, model.decode(z, rows), rtol=1e-12)


# ---- what it is given ----


@every_backend
def test_labels_and_their_rows_of_zeros_and_a_one_are_the_same(backend):
    model, (x, labels, eps) = problem(backend=backend)
    rows = np.eye(3)[labels]
    assert model.forward(x, labels, eps)[0] == model.forward(x, rows, eps)[0]
    for call in (model.encode, model.reconstruct, lambda *batch: model.log_likelihood(*batch, 3, 0)):
        np.testing.assert_array_equal(call(x, labels), call(x, rows))
    for call in (lambda c: model.decode(eps[0], c), lambda c: model.draw_data(eps[0], c, 1), lambda c: model.sample(c, 1)):
        np.testing.assert_array_equal(call(labels), call(rows))
        np.testing.assert_array_equal(call(labels), call(labels.tolist()))
    np.testing.assert_array_equal(model.reconstruct(x, labels), model.decode(model.encode(x, labels)[0], labels))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_likelihood
def test_what_was_checked_is_taken_as_it_is(likelihood, dtype):
    model, (x, labels, _) = problem(likelihood=likelihood, dtype=dtype)
    checked = model.check(x, labels)
    assert type(checked) is tuple
    for array, again in zip(checked, model.check(*checked), strict=True):
        assert (array.dtype, array.flags.c_contiguous) == (dtype, True)
        np.testing.assert_array_equal(array, again)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, c, eps: m.forward(x, c[:3], eps), "condition must have one row for each of the 4 rows of x; got 3"),
        (lambda m, x, c, eps: m.forward(x, c + 1, eps), "condition must be class labels from 0 to 2.*; got labels from"),
        (lambda m, x, c, eps: m.forward(x + 1, c, eps), r"x must lie in \[0, 1\]"),
        (lambda m, x, c, eps: m.forward(x, c, eps[:, :3]), "eps must have one row for each of the 4 rows of x"),
        (lambda m, x, c, eps: m.forward(x, c, eps, objective="best"), "objective must be one of elbo, iwae"),
        (lambda m, x, c, eps: m.forward(x[:, :5], c, eps), r"x must be a real array of shape \(n, 6\)"),
        (lambda m, x, c, eps: m.decode(eps[0], c[:2]), "condition must have one row for each of the 4 rows of z; got 2"),
        (lambda m, x, c, eps: m.draw_data(eps[0, :, :1], c), r"z must be .* \(n, 2\)"),
        (lambda m, x, c, eps: m.sample(np.zeros((3, 2))), r"condition must be .* \(n, 3\); got shape \(3, 2\)"),
        (lambda m, x, c, eps: m.encode(x, np.zeros(4)), "condition must be class labels .* of dtype float64"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    model, batch = problem()
    labels = np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match=f"^{message}") as error:
        call(model, batch[0], labels, batch[2])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_condition": 0}, "n_condition must be an integer of at least 1; got 0"),
        ({"n_condition": 2.0}, "n_condition must be an integer"),
        ({"n_features": 0}, "n_features must be an integer of at least 1; got 0"),
        ({"n_latent": 0}, "n_latent must be"),
        ({"prior": "mixture"}, "prior must be one of standard, learned; got 'mixture'"),
        ({"likelihood": "poisson"}, "likelihood must be one of bernoulli"),
        ({"hidden": (0,)}, "hidden must be"),
        ({"decoder_hidden": (0,)}, "decoder_hidden must be"),
        ({"sigma": 0}, "sigma must be a finite number above 0"),
        ({"min_sigma": -1}, "min_sigma must be a finite number above 0"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"n_condition": 10**9}, "parameters; at most"),
    ],
)
def test_bad_constructor_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ConditionalVAE(**{"n_features": 6, "n_condition": 3, **arguments})
    assert "\n" not in str(error.value)


def test_parameters_stand_in_the_order_of_their_docstring():
    model = ConditionalVAE(6, 3, 2, (5, 4), likelihood="gaussian_global", prior="learned", decoder_hidden=(7,), dtype="float64")
    shapes = {name: value.shape for name, value in model.parameters.items()}
    assert shapes == {
        "encoder.0.W": (9, 5), "encoder.0.b": (5,), "encoder.1.W": (5, 4), "encoder.1.b": (4,), "posterior.W": (4, 4),
        "posterior.b": (4,), "prior.0.W": (3, 5), "prior.0.b": (5,), "prior.1.W": (5, 4), "prior.1.b": (4,), "prior.W": (4, 4),
        "prior.b": (4,), "decoder.0.W": (5, 7), "decoder.0.b": (7,), "likelihood.W": (7, 6), "likelihood.b": (6,), LOGVAR: (1,),
    }  # fmt: skip
    assert list(shapes) == list(model.shapes(**model.config))
    np.testing.assert_array_equal(flat(model.parameters), model.theta)
    standard = ConditionalVAE(6, 3, 2, (5, 4), prior="standard")
    assert not any(name.startswith("prior") for name in standard.parameters)
    assert standard.decoder_hidden == (4, 5)


def test_text_copies_and_files_keep_everything(tmp_path):
    model, batch = problem("learned", "beta_binomial", (5, 4))
    assert repr(model) == (
        f"ConditionalVAE(6+3-5-4-2-4-5-6, tanh, beta_binomial, learned prior, float64, numpy: {model.theta.size:,} parameters)"
    )
    model.save(tmp_path / "model.npz")
    expected = model.forward(*batch)[0]
    for twin in (model.copy(), ConditionalVAE.load(tmp_path / "model.npz")):
        assert twin.config == model.config
        assert (twin.config["prior"], twin.config["n_condition"], twin.config["sigma"]) == ("learned", 3, 0.5)
        assert twin.forward(*batch)[0] == expected
        assert not np.shares_memory(twin.theta, model.theta)
    with pytest.raises(ValueError, match=r"not a saved npvae model .*it holds a model of class ConditionalVAE, not VAE"):
        npvae.VAE.load(tmp_path / "model.npz")


# ---- training ----


def two_classes(n=200, D=16, seed=0):
    """Rows of zeros and ones: of class 0 the left half is mostly ones, of class 1 the right one; and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    p = np.where((np.arange(D) < D // 2) == (labels[:, None] == 0), 0.9, 0.1)
    return (rng.random((n, D)) < p).astype(np.float32), labels


def trainable(prior="standard", backend="numpy", **options):
    return ConditionalVAE(16, 2, 2, (8,), backend=backend, seed=4, prior=prior, **options)


@pytest.mark.parametrize("backend", BACKENDS)
@every_prior
def test_what_it_learns_depends_on_the_class(prior, backend):
    x, labels = two_classes()
    model = trainable(prior, backend)
    history = npvae.fit(model, (x, labels), two_classes(seed=1), epochs=40, batch_size=50, optimizer=npvae.Adam(0.02),
                        progress=False)  # fmt: skip
    for label, left in [(0, 0.9), (1, 0.1)]:
        mean = model.sample(np.full(400, label), 0).mean(axis=0)
        np.testing.assert_allclose(mean[:8], left, atol=0.08)
        np.testing.assert_allclose(mean[8:], 1 - left, atol=0.08)
    entropy = -16 * (0.9 * np.log(0.9) + 0.1 * np.log(0.1))  # −log p(x|label) of what made the rows
    assert history["val_loss"][-1] == pytest.approx(entropy, rel=0.1)
    assert -model.log_likelihood(x, labels, 50, 0).mean() < -model.log_likelihood(x, 1 - labels, 50, 0).mean() - 10


@every_prior
def test_two_workers_train_to_nearly_the_same_as_one(prior):
    """Each has noise of its own, so not to the same bits; their rows keep their labels."""
    data, losses = two_classes(), []
    for workers in (1, 2):
        model = trainable(prior, "numba")
        history = npvae.fit(model, data, two_classes(seed=1), epochs=40, batch_size=50, optimizer=npvae.Adam(0.02),
                            workers=workers, progress=False)  # fmt: skip
        losses.append(history["val_loss"])
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.02)
    assert losses[1][-1] != losses[0][-1]
    assert losses[1][-1] < 0.6 * losses[1][0]


@pytest.mark.parametrize("numbers", [False, True])
@every_prior
def test_resuming_goes_on_to_the_same_bits(prior, numbers, tmp_path):
    x, labels = two_classes(100)
    data = (x, np.random.default_rng(0).standard_normal((100, 2)) if numbers else labels)
    options = {"batch_size": 32, "progress": False, "seed": 3}
    whole, parts = trainable(prior), trainable(prior)
    history = npvae.fit(whole, data, data, epochs=4, **options)
    npvae.fit(parts, data, data, epochs=2, on_epoch=lambda state: checkpoint.save_progress(tmp_path, parts, state), **options)
    loaded, state = checkpoint.load_progress(tmp_path)
    assert type(loaded) is ConditionalVAE
    resumed = npvae.fit(loaded, data, data, epochs=4, resume=state, **options)
    np.testing.assert_array_equal(whole.theta, loaded.theta)
    for name in ("epoch", "step", "train_loss", "val_kl"):
        np.testing.assert_array_equal(history[name], resumed[name])


def test_grey_bytes_with_their_labels_are_read_as_levels():
    grey = np.random.default_rng(0).integers(0, 256, (40, 16), np.uint8)
    labels = np.arange(40) % 2
    for likelihood in ("gaussian", "beta_binomial"):
        model = trainable(likelihood=likelihood)
        npvae.fit(model, (grey, labels), (grey, labels), epochs=1, progress=False)
        dark = np.eye(16, dtype=np.uint8)
        np.testing.assert_allclose(model.check(dark, np.zeros(16, int))[0], dark / 255, rtol=1e-6)


def test_starting_values_are_those_of_all_rows_whatever_their_condition():
    x, labels = two_classes()
    model, twin = trainable(), npvae.VAE(16, 2, (8,), backend="numpy")
    model.set_output_bias(x, labels)
    twin.set_output_bias(x)
    np.testing.assert_array_equal(model.parameters["likelihood.b"], twin.parameters["likelihood.b"])
