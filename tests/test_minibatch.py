"""The gradient of minibatches: objectives, free bits over all shards of a batch, and the craft of fit that rests on it."""

import numpy as np
import pytest

import npvae
from npvae import bounds, saving
from npvae.batches import Rows
from npvae.latent import gaussian_kl_forward
from npvae.minibatch import MinibatchGradient, Objective, validate
from npvae.parallel import Workers
from npvae.schedules import Cyclical, Linear

RNG = np.random.default_rng(0)
X = (RNG.random((60, 12)) < np.where(RNG.random((60, 1)) < 0.5, 0.85, 0.15)).astype(np.float32)


def small_model(**options):
    return npvae.VAE(**{"n_features": 12, "n_latent": 3, "hidden": (8,), "activation": "tanh", "seed": 1, **options})


def gradient_and_model(objective, workers, dtype="float64", backend="numba", batch_size=20):
    model = small_model(dtype=dtype, backend=backend)
    model.parameters["posterior.W"][:] *= 1.5
    return MinibatchGradient(model, Rows.of(model, X, "x"), batch_size, objective, 0, workers), model


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("free", [{"free_bits_per_dimension": 0.17}, {"free_bits_total": 0.5}, {"free_bits_total": 50.0}])
@pytest.mark.parametrize("n", [1, 3])
def test_free_bits_are_those_of_the_whole_batch_and_their_gradient_is_exact(free, n, backend):
    """max(λ, KL) of the mean over all rows of the batch, whoever computes them; by the complex step."""
    rows, beta = np.arange(20), 0.8
    with Workers(n) as workers:
        gradient, model = gradient_and_model(Objective("elbo", beta, 2, **free), workers, backend=backend)
        terms, shares, _ = gradient(rows, 5)
        shards = workers.shards(rows)
        eps = []
        for i, shard in enumerate(shards):
            _, rng = gradient.draw(i, shard, 5)
            eps.append(rng.standard_normal((2, len(shard), 3), model.dtype))
    eps = np.concatenate(eps, axis=1)  # (S, B, L)
    x = X[rows].astype(np.float64)

    def loss(theta):
        twin = model.copy(dtype=theta.dtype.name, backend="numpy")
        twin.theta = theta
        mean_nll = twin.forward(x.astype(theta.dtype), eps, 0.0, check=False)[0].nll
        posterior, _ = twin._layers_forward(x.astype(theta.dtype), twin.encoder_layers)
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
        gradient, model = gradient_and_model(Objective("iwae", 1.0, 4), workers)
        terms, shares, culprits = gradient(np.arange(20), 0)
        eps = []
        for i, shard in enumerate(workers.shards(np.arange(20))):
            eps.append(gradient.draw(i, shard, 0)[1].standard_normal((4, len(shard), 3), model.dtype))
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
    expected = validate(model, Rows.of(model, X, "x"), batch_size=20, objective="iwae", n_samples=8)
    np.testing.assert_array_equal([history[f"val_{name}"][-1] for name in ("loss", "nll", "kl")], expected)


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
        model = small_model(likelihood="gaussian", sigma=3.0)
        npvae.fit(model, x, epochs=60, batch_size=50, optimizer=npvae.Adam(1e-2), free_bits_per_dimension=free, progress=False)
        kl[free] = npvae.evaluate.kl_per_dimension(model, x)
    assert kl[0.0].max() < 0.05
    assert kl[0.3].min() > 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vae"}, "objective must be one of elbo, iwae"),
        ({"beta": -1}, "beta must be a finite number of at least 0"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1"),
        ({"free_bits_per_dimension": -0.1}, "free_bits_per_dimension must be"),
        ({"free_bits_total": float("nan")}, "free_bits_total must be"),
        ({"free_bits_per_dimension": 0.1, "free_bits_total": 1}, "give one of them"),
        ({"name": "iwae", "free_bits_total": 1}, "free bits need the objective elbo"),
    ],
)
def test_objectives_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Objective(**arguments)


# ------------------------------------------------------------------------------------------------------ craft of fit


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
    is_weight = npvae.parameters.views_of(np.zeros_like(before), model.shapes)
    for value in is_weight.values():
        value[:] = value.ndim == 2
    mask = np.concatenate([value.ravel() for value in is_weight.values()])
    np.testing.assert_allclose(decayed - free, -0.1 * 0.3 * before * mask, atol=1e-15)


def test_weight_decay_follows_the_schedule_of_the_learning_rate():
    model = small_model(dtype="float64", backend="numpy")
    before = model.theta.copy()
    npvae.fit(model, X, epochs=1, batch_size=20, optimizer=npvae.SGD(Linear(1, 0.0, 0.0)), weight_decay=9.0, progress=False)
    np.testing.assert_array_equal(model.theta, before)


class Judge(npvae.VAE):
    """A model whose validation loss is what `losses` says, epoch by epoch."""

    def forward(self, x, eps, beta=1.0, *args, **options):
        terms, cache = super().forward(x, eps, beta, *args, **options)
        if not hasattr(self, "judged"):
            return terms, cache
        return terms._replace(loss=self.losses[self.judged]), cache


def stopped_at(losses, patience, beta=1.0, epochs=10, **options):
    """Train with these validation losses; the history, and the parameters after each epoch and at the end."""
    model, thetas = Judge(12, 3, (), backend="numba", seed=1), []
    model.losses, model.judged = losses, 0

    def on_epoch(state):
        thetas.append(model.theta.copy())
        model.judged += 1

    history = npvae.fit(model, X, X[:5], epochs=epochs, early_stopping=patience, beta=beta, progress=False,
                        on_epoch=on_epoch, batch_size=20, **options)  # fmt: skip
    return history, thetas, model.theta


def test_training_stops_early_and_keeps_the_weights_of_the_best_epoch():
    history, thetas, theta = stopped_at([5, 4, 3, 3.5, 3, 3.2, 1, 1, 1, 1], patience=3)
    assert len(history) == 6  # three epochs after the third, whose loss none of them undercut
    np.testing.assert_array_equal(theta, thetas[2])
    assert not np.array_equal(theta, thetas[5])


def test_without_patience_running_out_the_best_weights_are_kept_all_the_same():
    history, thetas, theta = stopped_at([5, 4, 3, 3.5, 3.4], patience=5, epochs=5)
    assert len(history) == 5
    np.testing.assert_array_equal(theta, thetas[2])


def test_losses_of_different_weights_of_the_kl_are_not_compared():
    """Annealing raises the loss from epoch to epoch: what counts begins when beta stays."""
    history, thetas, theta = stopped_at([1, 2, 3, 4, 3.5, 3.6, 3.7], patience=2, beta=Linear(3 * 3), epochs=9)
    assert len(history) == 7
    np.testing.assert_array_equal(theta, thetas[4])


def test_early_stopping_says_so(capsys):
    model = Judge(12, 3, (), seed=1)
    model.losses, model.judged = [1.0], 0
    npvae.fit(model, X, X[:5], epochs=9, early_stopping=2)
    out = capsys.readouterr().out
    assert "stopped early: no lower validation loss in 2 epochs; kept the weights of epoch 1" in out


def test_the_best_epoch_survives_saving(tmp_path):
    model = npvae.VAE(12, 3, (), backend="numpy", seed=1)
    states = []
    npvae.fit(model, X, X[:5], epochs=2, early_stopping=1, progress=False, on_epoch=states.append)
    state = states[-1]
    last = model.theta + 1
    model.theta = last
    saving.save_progress(tmp_path, model, state)
    read_model, read = saving.load_progress(tmp_path)
    np.testing.assert_array_equal(read_model.theta, last)
    assert (read.best.epoch, read.best.loss, read.best.beta) == (state.best.epoch, state.best.loss, 1.0)
    np.testing.assert_array_equal(read.best.theta, state.best.theta)
    np.testing.assert_array_equal(saving.load_model(tmp_path, best=True).theta, state.best.theta)
    assert set(read.optimizer) == {"t", "m", "v"}


def test_resuming_a_run_that_stopped_early_trains_no_further():
    states = []
    model = Judge(12, 3, (), seed=1)
    model.losses, model.judged = [1.0], 0
    options = {"early_stopping": 2, "progress": False}
    npvae.fit(model, X, X[:5], epochs=9, on_epoch=states.append, **options)
    history = npvae.fit(model, X, X[:5], epochs=9, resume=states[-1], **options)
    assert len(history) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_gradient_norm": 0}, "max_gradient_norm must be a finite number above 0"),
        ({"weight_decay": -1}, "weight_decay must be a finite number of at least 0"),
        ({"early_stopping": 0}, "early_stopping must be an integer of at least 1"),
        ({"early_stopping": 3}, "early_stopping needs validation data, x_val"),
    ],
)
def test_bad_craft_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        npvae.fit(small_model(), X, epochs=1, progress=False, **arguments)


def test_annealing_reaches_the_gradient():
    seen = []

    class Recorder(npvae.VAE):
        def gradient(self, x, eps, beta, *args):
            seen.append(beta)
            return super().gradient(x, eps, beta, *args)

    npvae.fit(Recorder(12, 3, ()), X, epochs=2, batch_size=10, beta=Cyclical(12, 3, end=2.0), progress=False)
    assert seen == pytest.approx([0, 1, 2, 2] * 3)
