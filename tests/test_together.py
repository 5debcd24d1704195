"""Workers that compute one gradient together, and update theta in it."""

from itertools import pairwise

import numpy as np
import pytest

import npvae
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.kernels.compile import jit
from npvae.kernels.transitions import of_shard
from npvae.kernels.updates import PARTS
from npvae.training.optim import OPTIMIZERS, initial_state, numbers_of
from npvae.training.step import Step, share

X = (np.random.default_rng(0).random((23, 40)) < 0.15).astype(float)
CONDITION = np.eye(3)[np.arange(23) % 3]
KINDS = {kind.__name__: kind for kind in OPTIMIZERS}


def vae(**options):
    return npvae.VAE(40, 3, (110, 7), **{"activation": "tanh", "dtype": "float64", "seed": 1, **options})


def conditional(prior):
    model = npvae.models.ConditionalVAE(40, 3, 3, (8,), prior=prior, dtype="float64", seed=1)
    return model, (X, CONDITION)


def chain(**settings):
    model = npvae.models.HierarchicalVAE(40, (5, 3), (7, 6), activation="tanh", dtype="float64", seed=1)
    return model, (X,), settings


def diffusion(likelihood):
    model = npvae.models.Diffusion(3, 10, n_frequencies=2, hidden=(12, 9), likelihood=likelihood, dtype="float64", seed=1)
    model.theta = 0.3 * np.random.default_rng(2).standard_normal(model.theta.size)  # not 0 in its last layer
    x = np.random.default_rng(3).integers(0, 256, (23, 3)) / 255
    return model, (x if likelihood == "levels" else 4 * x - 2,), {}


CASES = {
    "one sample": lambda: (vae(), (X,), {}),
    "three samples": lambda: (vae(), (X,), {"n_samples": 3, "beta": 0.5}),
    "iwae": lambda: (vae(), (X,), {"objective": "iwae", "n_samples": 4}),
    "full posterior": lambda: (npvae.VAE(40, 3, (5,), dtype="float64", posterior="full"), (X,), {}),
    "condition": lambda: (*conditional("standard"), {}),
    "learned prior": lambda: (*conditional("learned"), {}),
    "chain": lambda: chain(),
    "chain, iwae": lambda: chain(objective="iwae", n_samples=4),
    "chain, three samples, sampled at the top": lambda: chain(top_kl="sampled", n_samples=3, beta=0.5),
    "diffusion": lambda: diffusion("gaussian"),
    "diffusion of grey levels": lambda: diffusion("levels"),
}


def step_without_update(model, data, workers, settings=None):
    """A Step whose kernel leaves the update to Python, for the sake of clipping: the kernel that other tests have compiled."""
    return Step(model, Rows.of(model, data, "x"), 20, npvae.Adam(), workers, settings, max_gradient_norm=1e9)


def expected_gradient(step, index, number, settings):
    """The gradient by `share`, from the same noise."""
    model, n = step.model, step.workers.n
    parts = step.workers.parts(len(index)) if len(index) >= n else [slice(0, len(index))]
    outs = np.zeros((len(parts), model.theta.size))
    twin = model.copy(backend="numpy")
    for i, part in enumerate(parts):
        batch, rng = step.draw(i, index, part, number)
        share(twin, batch, rng, settings, (part.stop - part.start) / len(index), outs[i])
    return outs.sum(axis=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_gradient_is_that_of_share(case, n):
    """Of a whole batch, of a smaller one, and of one with fewer rows than workers."""
    model, data, settings = CASES[case]()
    theta = model.theta.copy()
    with Workers(n) as workers:
        step = step_without_update(model, data, workers, settings)
        assert step.together is not None
        for number, n_rows in enumerate((20, 11, 2, 20)):
            index = np.arange(n_rows) + number
            terms, grad, culprits = step.gradient(index, number)
            grad, expected = grad.copy(), expected_gradient(step, index, number, settings)
            assert culprits == []
            assert grad.shape == (1, theta.size)
            np.testing.assert_allclose(grad[0], expected, rtol=0, atol=1e-12 * np.abs(expected).max())
            again, same, _ = step.gradient(index, number)
            assert terms == again
            np.testing.assert_array_equal(same, grad)
    np.testing.assert_array_equal(model.theta, theta)


def test_shards_may_be_sparse_dense_or_both():
    """The first shard's rows have few ones, the second's many: what one lists as non-zeros, the other does not."""
    rng, model = np.random.default_rng(1), vae()
    x = np.concatenate([rng.random((10, 40)) < 0.1, rng.random((10, 40)) < 0.8]).astype(float)
    with Workers(2) as workers:
        step = step_without_update(model, x, workers)
        for index in (np.arange(20), np.arange(20)[::-1].copy(), np.tile(np.arange(10), 2), np.tile(np.arange(10, 20), 2)):
            _, grad, _ = step.gradient(index, 3)
            grad, expected = grad[0].copy(), expected_gradient(step, index, 3, {})
            np.testing.assert_allclose(grad, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_s_update_is_the_optimizer_s(kind, dtype):
    optimizer, rng = KINDS[kind](1e-2, backend="numba"), np.random.default_rng(0)
    update = jit(lambda_of(PARTS[f"{kind.lower()}_step"]))
    theta = rng.standard_normal(100).astype(dtype)
    expected, ours, theirs = theta.copy(), initial_state(optimizer, theta), initial_state(optimizer, theta)
    for _ in range(3):
        grad = rng.standard_normal(100).astype(dtype)
        optimizer.step(expected, grad, theirs)
        numbers = np.array(numbers_of(optimizer, ours), float)
        slots = [ours[slot] for slot in optimizer.slots] + [theta, theta]
        update(theta, grad, *slots[:2], numbers)
        np.testing.assert_array_equal(theta, expected)
    for slot in optimizer.slots:
        np.testing.assert_array_equal(ours[slot], theirs[slot])


def lambda_of(part):
    """A function that a kernel can be made of: it calls the part, which becomes a piece of it."""

    def update(theta, grad, first, second, numbers):
        part(theta, grad, first, second, numbers)

    return update


@pytest.mark.parametrize("n", [1, 3])
def test_a_step_updates_theta_as_the_optimizer_does(n):
    optimizer, model = npvae.Adam(1e-2), vae(dtype="float32")
    expected, state = model.theta.copy(), initial_state(optimizer, model.theta)
    with Workers(n) as workers:
        step = Step(model, Rows.of(model, X, "x"), 20, optimizer, workers)
        slots = dict(step.state)
        for number in range(4):
            _, grad, _ = step.gradient(np.arange(20), number)
            optimizer.step(expected, grad[0].copy(), state)
            _, culprits = step(np.arange(20), number)
            assert culprits == []
            assert step.state["t"] == state["t"] == number + 1
            tolerance = 2e-6
            np.testing.assert_allclose(model.theta, expected, rtol=0, atol=tolerance * np.abs(expected).max())
            model.theta = expected
    for slot in optimizer.slots:
        assert step.state[slot] is slots[slot]
        np.testing.assert_allclose(step.state[slot], state[slot], rtol=0, atol=10 * tolerance * np.abs(state[slot]).max())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_where_one_shard_is_not_finite_nothing_changes(n):
    model = npvae.VAE(40, 3, (5,), likelihood="gaussian", sigma=1e-11)
    x = np.zeros((20, 40))
    x[0] = 1e4  # its gradient's square overflows float32
    model.parameters["likelihood.b"] = np.zeros(40)
    with Workers(n) as workers:
        step = Step(model, Rows.of(model, x, "x"), 20, npvae.Adam(), workers)
        before = model.theta.copy(), {name: np.copy(value) for name, value in step.state.items()}
        terms, culprits = step(np.arange(20), 0)
    assert np.isfinite(terms.loss)
    assert "gradient of likelihood.W" in culprits
    np.testing.assert_array_equal(model.theta, before[0])
    for name, value in step.state.items():
        np.testing.assert_array_equal(value, before[1][name])


@pytest.mark.parametrize("options", [{"max_gradient_norm": 0.1}, {"weight_decay": 0.1}])
def test_clipping_and_decay_come_between_gradient_and_update(options):
    ours, theirs = vae(), vae(backend="numpy")
    for model in (ours, theirs):
        with Workers(2) as workers:
            step = Step(model, Rows.of(model, X, "x"), 20, npvae.Adam(1e-2), workers, **options)
            for number in range(3):
                step(np.arange(20), number)
    np.testing.assert_allclose(ours.theta, theirs.theta, rtol=0, atol=1e-10)


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_in_one_worker_s_draw_ends_the_step(culprit):
    model = vae()
    with Workers(2) as workers:
        step = Step(model, Rows.of(model, X, "x"), 20, npvae.Adam(), workers)
        theta, draw = model.theta.copy(), step.draw

        def failing(i, *arguments):
            if i == culprit:
                raise OSError("the file is gone")
            return draw(i, *arguments)

        step.draw = failing
        with pytest.raises(OSError, match="the file is gone"):
            step(np.arange(20), 0)
        np.testing.assert_array_equal(model.theta, theta)
        step.draw = draw
        _, culprits = step(np.arange(20), 0)
    assert culprits == []
    assert not np.array_equal(model.theta, theta)


@pytest.mark.parametrize("n", [1, 2])
def test_workers_that_have_been_left_can_be_entered_again(n):
    """As a benchmark does that times run after run: the steps are those of one block."""
    ours, theirs = vae(dtype="float32"), vae(dtype="float32")
    for model, is_left in ((ours, True), (theirs, False)):
        workers = Workers(n)
        step = Step(model, Rows.of(model, X, "x"), 20, npvae.Adam(1e-2), workers)
        with workers:
            step(np.arange(20), 0)
            if not is_left:
                step(np.arange(20), 1)
        if is_left:
            with workers:
                step(np.arange(20), 1)
    np.testing.assert_array_equal(ours.theta, theirs.theta)
    assert ours.theta.any()


@pytest.mark.parametrize("n", [1, 2])
def test_a_schedule_may_change_the_objective(n):
    """From one that the workspace is for to one that it is not for, and back."""
    model, data, _ = diffusion("gaussian")
    objectives = ["matching", "continuous", "matching"]
    with Workers(n) as workers:
        step = step_without_update(model, data, workers, {"objective": lambda number: objectives[number]})
        for number, objective in enumerate(objectives):
            _, grad, _ = step.gradient(np.arange(20), number)
            expected = expected_gradient(step, np.arange(20), number, {"objective": objective})
            np.testing.assert_allclose(grad.sum(axis=0), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_the_shards_of_a_chain_have_places_of_their_own():
    """No array of one worker overlaps another of its own, or any of another worker."""
    model, n_samples, firsts = chain()[0], 2, (0, 7, 14, 20)
    latents, taken = model.workspace(20, n_samples, n_shards=3).latents, []
    for first, end in pairwise(firsts):
        for t, latent in enumerate(of_shard(latents, n_samples, first)):
            of_q, of_n, width = (end - first) * (n_samples if t else 1), (end - first) * n_samples, latent["width"]
            sizes = {"z": of_n, "dz": of_n, "logvar": of_q, "half_sigma": of_q, "inverse_sigma": of_n, "posterior": 2 * of_q,
                     "dposterior": 2 * of_q, "prior": 2 * of_n, "dprior": 2 * of_n}  # fmt: skip
            taken += [(latent[name], latent[name] + size * width) for name, size in sizes.items()]
    assert len(taken) == 3 * 2 * 9
    assert all(end <= start for (_, end), (start, _) in pairwise(sorted(taken)))
