"""One step: shares that add up to the batch, free bits over all shards, settings, the update; and validation."""

import numpy as np
import pytest
from small_models import Regression, Well, lattice_rows, recorder, regression_rows

import npvae
from npvae import bounds
from npvae.core.parameters import views_of
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.ops.latent import gaussian_kl_forward
from npvae.training import checkpoint
from npvae.training.optim import SGD, Adam
from npvae.training.schedules import Cyclical, Linear
from npvae.training.step import Step, share
from npvae.training.validation import validate, validation_settings

RNG = np.random.default_rng(0)
X = (RNG.random((60, 12)) < np.where(RNG.random((60, 1)) < 0.5, 0.85, 0.15)).astype(np.float32)


def small_model(**options):
    return npvae.VAE(**{"n_features": 12, "n_latent": 3, "hidden": (8,), "activation": "tanh", "seed": 1, **options})


def step_and_model(settings, workers, dtype="float64", backend="numba", batch_size=20):
    model = small_model(dtype=dtype, backend=backend)
    model.parameters["posterior.W"] *= 1.5
    return Step(model, Rows.of(model, X, "x"), batch_size, SGD(), workers, settings), model


# ---- shares ----


VAE_SETTINGS = [{}, {"beta": 0.3, "n_samples": 3}, {"objective": "iwae", "n_samples": 4}]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("settings", VAE_SETTINGS)
@pytest.mark.parametrize("weights", [(0.15, 0.85), (0.5, 2.0, -3.0), (0.0, 1.0), (1e-3, 7.0, 0.25, 4.0)])
def test_shares_of_any_weights_add_up_to_the_weighted_sum(weights, settings, backend):
    """Terms and gradient of each shard times its weight, whether the weights add up to 1 or not."""
    model = small_model(dtype="float64", backend=backend)
    shards = np.array_split(np.arange(20), len(weights))
    shares, outs, expected_terms, expected = [], [], [], []
    for i, (index, weight) in enumerate(zip(shards, weights)):
        batch, out = (X[index].astype(np.float64),), np.full_like(model.theta, np.nan)
        shares.append(share(model, batch, np.random.default_rng(i), settings, weight, out))
        outs.append(out)
        eps = np.random.default_rng(i).standard_normal((settings.get("n_samples", 1), len(index), 3))
        terms, cache = model.forward(*batch, eps, **settings)
        expected_terms.append(weight * np.array(terms))
        expected.append(weight * np.concatenate([grad.ravel() for grad in model.backward(cache).values()]))
    np.testing.assert_allclose(np.sum(shares, axis=0), np.sum(expected_terms, axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.sum(outs, axis=0), np.sum(expected, axis=0), rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("cuts", [(3,), (1, 4), (2, 3, 6)])
@pytest.mark.parametrize("model", ["vae", "regression"])
def test_shares_weighted_by_rows_are_the_batch(model, cuts):
    """Through the model's own passes, with the noise of the whole batch cut at the same rows."""
    rng, y = np.random.default_rng(0), np.random.default_rng(1).standard_normal(7)
    if model == "vae":
        model = npvae.VAE(9, 3, (6, 5), "tanh", dtype="float64")
        batch, noise = (rng.random((7, 9)),), rng.standard_normal((2, 7, 3))
    else:
        model, batch, noise = Regression(9), (rng.random((7, 9)), y), rng.standard_normal(7)

    class Fixed(type(model)):
        def draw(self, rows, *batch, **settings):
            return noise[..., rows, :] if noise.ndim == 3 else noise[rows]

    model.__class__ = Fixed
    whole = np.empty_like(model.theta)
    terms = share(model, batch, np.arange(7), {}, 1.0, whole)
    outs = np.zeros((len(cuts) + 1, model.theta.size))
    parts = [share(model, tuple(array[rows] for array in batch), rows, {}, len(rows) / 7, out)
             for out, rows in zip(outs, np.split(np.arange(7), cuts))]  # fmt: skip
    np.testing.assert_allclose(np.sum(parts, axis=0), terms, rtol=1e-13)
    np.testing.assert_allclose(outs.sum(axis=0), whole, rtol=0, atol=1e-14 * np.abs(whole).max())


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("settings", VAE_SETTINGS)
def test_a_step_s_gradient_is_that_of_share_though_the_model_has_a_faster_one(settings, backend):
    with Workers(3) as workers:
        step, model = step_and_model(settings, workers, backend=backend)
        terms, shares, culprits = step.gradient(np.arange(20), 4)
        expected, parts = np.empty((3, model.theta.size)), []
        for i, part in enumerate(workers.parts(20)):
            batch, rng = step.draw(i, np.arange(20), part, 4)
            parts.append(share(model, batch, rng, settings, (part.stop - part.start) / 20, expected[i]))
    assert not culprits
    assert (len(shares) == 1) == (step.together is not None) == (backend == "numba")
    np.testing.assert_allclose(terms, np.sum(parts, axis=0), rtol=1e-12)
    expected = expected.sum(axis=0)
    np.testing.assert_allclose(shares.sum(axis=0), expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_a_step_trains_outside_of_fit_too():
    """As the module's first lines show it: the same bits as `fit`, which takes the same steps."""
    model, other = small_model(), small_model()
    with Workers(1) as workers:
        step = Step(model, Rows.of(model, X, "x"), 60, Adam(1e-2), workers, {"beta": 0.5})
        before = model.theta.copy()
        terms, grad, culprits = step.gradient(np.arange(60), 0)
        np.testing.assert_array_equal(model.theta, before)
        again, _ = step(np.arange(60), 0)
        assert (terms, culprits) == (again, [])
        assert not np.array_equal(model.theta, before)
        assert step.state["t"] == 1
        assert np.linalg.norm(grad) > 0
    orders = npvae.core.randomness.generator(0, npvae.core.randomness.PERMUTATION, 0).permutation(60)
    model = small_model()
    with Workers(1) as workers:
        step = Step(model, Rows.of(model, X, "x"), 25, Adam(1e-2), workers, {"beta": 0.5})
        for number in range(3):
            step(orders[25 * number : 25 * (number + 1)], number)
    npvae.fit(other, X, epochs=1, batch_size=25, optimizer=Adam(1e-2), beta=0.5, workers=1, progress=False)
    np.testing.assert_array_equal(model.theta, other.theta)


# ---- free bits and the importance-weighted bound over several shards ----


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("free", [{"free_bits_per_dimension": 0.17}, {"free_bits_total": 0.5}, {"free_bits_total": 50.0}])
@pytest.mark.parametrize("n", [1, 3])
def test_free_bits_are_those_of_the_whole_batch_and_their_gradient_is_exact(free, n, backend):
    """max(λ, KL) of the mean over all rows of the batch, whoever computes them; by the complex step."""
    rows, beta = np.arange(20), 0.8
    with Workers(n) as workers:
        step, model = step_and_model({"beta": beta, "n_samples": 2, **free}, workers, backend=backend)
        terms, shares, _ = step.gradient(rows, 5)
        eps = []
        for i, part in enumerate(workers.parts(20)):
            _, rng = step.draw(i, rows, part, 5)
            eps.append(rng.standard_normal((2, part.stop - part.start, 3), model.dtype))
    eps = np.concatenate(eps, axis=1)  # (S, B, L)
    x = X[rows].astype(np.float64)

    def loss(theta):
        twin = model.copy(dtype=theta.dtype.name, backend="numpy")
        twin.theta = theta
        mean_nll = twin.forward(x.astype(theta.dtype), eps, 0.0, check=False)[0].nll
        posterior, _ = twin.ops.mlp_forward(x.astype(theta.dtype), twin.encoder)
        kl = gaussian_kl_forward(posterior[:, :3], posterior[:, 3:])[0].mean(axis=0)
        options = {name.removeprefix("free_bits_"): value for name, value in free.items()}
        return mean_nll + beta * bounds.free_bits_forward(kl, **options)[0]

    kl = gaussian_kl_forward(*model.encode(x))[0].mean(axis=0)
    assert kl.min() < 0.17 < kl.max()  # so that one dimension is free and another is not
    assert terms.loss == pytest.approx(loss(model.theta), rel=1e-12)
    assert terms.kl == pytest.approx(kl.sum(), rel=1e-12)
    expected = npvae.gradcheck.complex_step_grad(loss, model.theta.copy())
    np.testing.assert_allclose(shares.sum(axis=0), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("n", [1, 3])
def test_the_importance_weighted_bound_adds_up_over_the_shards(n):
    with Workers(n) as workers:
        step, model = step_and_model({"objective": "iwae", "n_samples": 4}, workers)
        terms, shares, culprits = step.gradient(np.arange(20), 0)
        eps = []
        for i, part in enumerate(workers.parts(20)):
            _, rng = step.draw(i, np.arange(20), part, 0)
            eps.append(rng.standard_normal((4, part.stop - part.start, 3), model.dtype))
    whole, cache = model.forward(X[:20], np.concatenate(eps, axis=1), objective="iwae")
    assert not culprits
    np.testing.assert_allclose(terms, whole, rtol=1e-12)
    expected = np.concatenate([grad.ravel() for grad in model.backward(cache).values()])
    np.testing.assert_allclose(shares.sum(axis=0), expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_the_history_holds_the_importance_weighted_bound_of_both_parts():
    model = small_model()
    history = npvae.fit(model, X, X, epochs=3, batch_size=20, objective="iwae", n_samples=8, progress=False)
    assert (history["train_loss"] < history["train_nll"] + history["train_kl"]).all()
    assert (history["val_loss"] < history["val_nll"] + history["val_kl"]).all()
    expected = validate(model, Rows.of(model, X, "x"), {"objective": "iwae", "n_samples": 8}, batch_size=20)
    np.testing.assert_array_equal([history[f"val_{name}"][-1] for name in npvae.Terms._fields], expected)


def test_training_on_the_importance_weighted_bound_lowers_it():
    model = small_model()
    options = {"batch_size": 20, "objective": "iwae", "n_samples": 5, "optimizer": npvae.Adam(1e-2), "progress": False}
    history = npvae.fit(model, X, epochs=40, **options)
    assert history["train_loss"][-1] < history["train_loss"][0] - 1


def test_free_bits_keep_dimensions_that_the_elbo_gives_up():
    """Noise around one mean: z is of no use, and the ELBO lets every dimension go."""
    x = np.random.default_rng(1).standard_normal((200, 12))
    kl = {}
    for free in (0.0, 0.3):
        model = small_model(likelihood="gaussian", sigma=3.0, backend="numpy")
        npvae.fit(model, x, epochs=60, batch_size=50, optimizer=npvae.Adam(1e-2), free_bits_per_dimension=free, progress=False)
        kl[free] = npvae.evaluate.kl_per_dimension(model, x)
    assert kl[0.0].max() < 0.05
    assert kl[0.3].min() > 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": "vae"}, "objective must be one of elbo, iwae"),
        ({"beta": -1}, "beta must be a finite number of at least 0"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1"),
        ({"free_bits_per_dimension": -0.1}, "free_bits_per_dimension must be"),
        ({"free_bits_total": float("nan")}, "free_bits_total must be"),
        ({"free_bits_per_dimension": 0.1, "free_bits_total": 1}, "give one of them"),
        ({"objective": "iwae", "free_bits_total": 1}, "free bits need the objective elbo"),
    ],
)
def test_objectives_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        npvae.fit(small_model(), X, epochs=1, progress=False, **arguments)


# ---- the update ----


def one_step(**options):
    """theta before and after one step of gradient descent on all rows, and the model."""
    model = small_model(dtype="float64", backend="numpy")
    before = model.theta.copy()
    npvae.fit(model, X, epochs=1, batch_size=60, optimizer=npvae.SGD(0.1), progress=False, **options)
    return before, model.theta - before, model


@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_gradient_is_shortened_and_keeps_its_direction(workers):
    _, free, _ = one_step(workers=workers)
    norm = np.linalg.norm(free) / 0.1
    _, clipped, _ = one_step(workers=workers, max_gradient_norm=norm / 3)
    np.testing.assert_allclose(clipped, free / 3, rtol=1e-10)
    _, untouched, _ = one_step(workers=workers, max_gradient_norm=norm * 1.01)
    np.testing.assert_array_equal(untouched, free)


def test_weight_decay_is_decoupled_and_spares_the_biases():
    before, free, model = one_step()
    _, decayed, _ = one_step(weight_decay=0.3)
    is_weight = views_of(np.zeros_like(before), model.parameters.shapes)
    for value in is_weight.values():
        value[:] = value.ndim == 2
    mask = np.concatenate([value.ravel() for value in is_weight.values()])
    np.testing.assert_allclose(decayed - free, -0.1 * 0.3 * before * mask, atol=1e-15)


def test_weight_decay_follows_the_schedule_of_the_learning_rate():
    model = small_model(dtype="float64", backend="numpy")
    before = model.theta.copy()
    npvae.fit(model, X, epochs=1, batch_size=20, optimizer=npvae.SGD(Linear(1, 0.0, 0.0)), weight_decay=9.0, progress=False)
    np.testing.assert_array_equal(model.theta, before)


def test_annealing_reaches_the_gradient():
    seen = []

    class Recorder(npvae.VAE):
        def gradient(self, x, eps, **options):
            seen.append(options["beta"])
            return super().gradient(x, eps, **options)

    npvae.fit(Recorder(12, 3, ()), X, epochs=2, batch_size=10, beta=Cyclical(12, 3, end=2.0), progress=False)
    assert seen == pytest.approx([0, 1, 2, 2] * 3)


# ---- settings ----


def test_settings_that_are_callables_are_called_with_the_step_and_others_pass_as_they_are():
    seen = []

    class Recorder(Regression):
        def draw(self, rng, x, y, jitter, **settings):
            seen.append((jitter, settings))
            return super().draw(rng, x, y, jitter)

        def forward(self, x, y, noise, jitter, **settings):
            seen.append((jitter, settings))
            return super().forward(x, y, noise)

    others = {"name": "a name", "pair": (1, 2), "count": 3, "nothing": None}
    npvae.fit(Recorder(4), regression_rows(40), epochs=2, batch_size=20, progress=False,
              jitter=lambda step: step / 4, **others)  # fmt: skip
    assert [jitter for jitter, _ in seen] == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert all(settings == others for _, settings in seen)
    assert all(type(settings["count"]) is int and type(settings["pair"]) is tuple for _, settings in seen)


@pytest.mark.parametrize("beta", [np.float64(0.5), np.float32(0.5), lambda step: np.float64(0.5)])
def test_a_number_of_numpy_s_is_as_good_as_one_of_python_s(beta, tmp_path):
    """A float64 in the loss of a float32 model would make its arrays float64; and JSON has no place for a float32."""
    thetas, dtypes = [], []

    class Recorder(npvae.VAE):
        def backward(self, cache, dloss=1.0, out=None):
            dtypes.append({np.asarray(value).dtype for value in cache.bound if isinstance(value, np.generic | np.ndarray)})
            return super().backward(cache, dloss, out)

    for value in (beta, 0.5):
        model = Recorder(12, 3, (), backend="numpy")
        npvae.fit(model, X, X, epochs=1, batch_size=20, beta=value, progress=False,
                  on_epoch=lambda state, model=model: checkpoint.save_progress(tmp_path, model, state))  # fmt: skip
        thetas.append(model.theta)
    np.testing.assert_array_equal(*thetas)
    assert dtypes[:3] == dtypes[3:]


def test_validation_takes_the_model_s_choice_of_settings_or_those_of_training():
    settings = {"beta": 0.5, "n_samples": 7, "free_bits_total": 3.0}
    assert validation_settings(small_model(), settings) == {"beta": 0.5, "n_samples": 1, "objective": "elbo"}
    iwae = {"objective": "iwae", "n_samples": 7}
    assert validation_settings(small_model(), iwae) == {**iwae, "beta": 1.0}
    assert validation_settings(Regression(4), {"jitter": 2.0}) == {"jitter": 2.0}


def test_a_step_without_data_is_one_shard_of_weight_one():
    model = Well()
    with Workers(1) as workers:
        step = Step(model, Rows.of(model, (), "x"), 1, SGD(0.1), workers, {"n_draws": 6}, seed=3)
        terms, grad, culprits = step.gradient(np.arange(1), 2)
        batch, rng = step.draw(0, np.arange(1), slice(0, 1), 2)
        eps = rng.standard_normal(6)
    assert batch == ()
    assert culprits == []
    whole, cache = model.forward(eps)
    assert terms == whole
    gradient = model.backward(cache)
    np.testing.assert_array_equal(grad, [np.concatenate([gradient["mu"], gradient["s"]])])


# ---- persistent chains ----


class Walkers(Regression):
    """Regression with noise from persistent chains: seven walkers, each a row with its position and the last worker's draw."""

    chains = property(lambda self: self.buffers["chains"])

    def __init__(self, n_features, n_chains=7):
        super().__init__(n_features)
        self.config["n_chains"] = n_chains
        self.buffers = {"chains": np.zeros((n_chains, 2))}

    def draw(self, rng, x, y, chains=None):
        if chains is None:
            return np.zeros(len(x))
        chains += [1, rng.random()]  # one step, and what only this shard's generator knows
        return np.full(len(x), chains.mean())


class CoupledWalkers(Walkers):
    """The same, whose shards are joined before their backward passes."""

    couples_rows = staticmethod(lambda **_: True)
    join = staticmethod(lambda terms, caches, weights: (terms[0], caches))


class WalkersInOneCall(Walkers):
    """The same, whose forward and backward are one call."""

    def gradient(self, x, y, noise, dloss=1.0, out=None, workspace=None):
        terms, cache = self.forward(x, y, noise)
        self.backward(cache, dloss, out)
        return terms, 1.0


@pytest.mark.parametrize("kind", [Walkers, CoupledWalkers, WalkersInOneCall])
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_each_step_moves_each_persistent_chain_once_and_each_worker_its_own(workers, kind):
    x, y = regression_rows(40)
    model = kind(4)
    with Workers(workers) as pool:
        step = Step(model, Rows.of(model, (x, y), "x"), 20, SGD(1e-9), pool)
        rngs = [step.draw(i, np.arange(20), part, 0)[1].random() for i, part in enumerate(pool.parts(20))]
        step(np.arange(20), 0)
        expected = np.concatenate([np.full(part.stop - part.start, rng) for part, rng in zip(pool.parts(7), rngs)])
        np.testing.assert_array_equal(model.chains, np.column_stack([np.ones(7), expected]))
        step(np.arange(20), 1)
    np.testing.assert_array_equal(model.chains[:, 0], 2)
    assert len(set(model.chains[:, 1])) == workers


@pytest.mark.parametrize("workers", [1, 3])
def test_validation_leaves_persistent_chains_alone_and_a_resumed_run_moves_them_on(workers, tmp_path):
    x, y = regression_rows(50)
    options = {"epochs": 3, "batch_size": 20, "optimizer": SGD(0.01), "workers": workers, "progress": False}
    whole, model = Walkers(4), Walkers(4)
    npvae.fit(whole, (x, y), (x[:30], y[:30]), **options)
    np.testing.assert_array_equal(whole.chains[:, 0], 9)

    def on_step(state):
        checkpoint.save_progress(tmp_path, model, state)
        return state.step == 4

    npvae.fit(model, (x, y), (x[:30], y[:30]), on_step=on_step, **options)
    model, state = checkpoint.load_progress(tmp_path, Walkers)
    np.testing.assert_array_equal(model.chains[:, 0], 4)
    npvae.fit(model, (x, y), (x[:30], y[:30]), resume=state, **options)
    np.testing.assert_array_equal(model.chains, whole.chains)
    np.testing.assert_array_equal(model.theta, whole.theta)


def test_more_workers_than_chains_are_refused():
    with pytest.raises(ValueError, match="8 workers need at least as many chains"):
        npvae.fit(Walkers(4), regression_rows(40), epochs=1, workers=8, progress=False)


# ---- accidents and validation ----


def lattice_model(**options):
    return npvae.VAE(**{"n_features": 16, "n_latent": 2, "hidden": (8,), "backend": "numpy", **options})


def test_a_gradient_whose_square_overflows_is_an_accident():
    """Adam would keep its infinite v, and the parameter would never move again."""
    model = lattice_model(sigma=1e-11, likelihood="gaussian")
    with Workers(1) as workers:
        step = Step(model, Rows.of(model, lattice_rows(4), "x"), 4, SGD(), workers)
        terms, grad, culprits = step.gradient(np.arange(4), 0)
    assert grad.shape == (1, model.theta.size)
    assert np.isfinite(terms.loss)
    assert np.isfinite(grad).all()
    assert "gradient of likelihood.W" in culprits
    theta = model.theta.copy()
    with pytest.raises(FloatingPointError, match=r"gradient of likelihood\.W"):  # an epoch has one step: counted across epochs
        npvae.fit(model, lattice_rows(4), epochs=5, progress=False)
    np.testing.assert_array_equal(model.theta, theta)


def test_validation_is_exact_and_has_the_same_noise_in_every_epoch():
    x = lattice_rows(50)
    history = npvae.fit(lattice_model(), x, x[:23], epochs=3, batch_size=10, optimizer=SGD(1e-30), progress=False)
    assert len(set(history["val_loss"])) == 1
    model = lattice_model(dtype="float64")
    rows = Rows.of(model, x[:23], "x")
    assert validate(model, rows, batch_size=10).kl == pytest.approx(model.forward(x[:23], np.zeros((23, 2)))[0].kl)


def test_validation_measures_the_validation_rows_with_the_model_after_the_epoch():
    x, x_val = lattice_rows(40), np.random.default_rng(1).random((30, 16)).astype(np.float32)
    for binarize in (True, False):
        model = lattice_model()
        history = npvae.fit(model, x, x_val, epochs=2, batch_size=8, beta=0.5, seed=7, binarize=binarize, progress=False)
        rows = Rows.of(model, x_val, "x_val", binarize)
        assert rows.binarize == binarize
        expected = validate(model, rows, {"beta": 0.5}, batch_size=8, seed=7)
        np.testing.assert_array_equal([history[f"val_{name}"][-1] for name in npvae.Terms._fields], expected)
        assert history["val_loss"][0] != history["val_loss"][1]


def test_no_two_validation_batches_or_seeds_draw_the_same():
    model = recorder()
    for seed in (0, 1):
        validate(model, Rows.of(model, lattice_rows(40), "x"), batch_size=10, seed=seed)
    assert len({eps.tobytes() for _, eps, _ in model.seen}) == 8


def test_validation_adds_up_whatever_its_batches_give():
    """Infinities of both signs, and more than a float32 holds: no warning on the way."""

    class Extreme(Regression):
        def forward(self, x, y, noise, **settings):
            terms, cache = super().forward(x, y, noise)
            return terms._replace(loss=np.float64(x[0, 0]), error=np.float32(3e38)), cache

    x = np.zeros((40, 4))
    x[[0, 10, 20], 0] = np.inf, -np.inf, 1e308
    model = Extreme(4)
    for workers in (None, 2):
        with Workers(workers or 1) as pool:
            terms = validate(model, Extremes(x), batch_size=10, workers=None if workers is None else pool)
        assert np.isnan(terms.loss)
        assert terms.error == pytest.approx(3e38)


class Extremes:
    """Rows that nobody has checked."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def batch(self, index, rng):
        return self.x[index], np.zeros(len(index))
