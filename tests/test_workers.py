"""Data-parallel work: shards add up to the batch, whoever computes them and in whatever order."""

import gc
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import npvae
import npvae.training.fit as training
from npvae.core import workers
from npvae.core.workers import Workers, cores_available, workers_for
from npvae.data.rows import Rows
from npvae.models import Drift
from npvae.training import optim
from npvae.training.step import Step
from npvae.training.validation import validate

OPTIMIZERS = (optim.SGD(), optim.Momentum(), optim.AdaGrad(), optim.RMSProp(), optim.Adam())


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("cuts", [(3,), (1, 4), (2, 3, 6)])
def test_the_shards_shares_add_up_to_the_batch(backend, cuts):
    rng = np.random.default_rng(0)
    model = npvae.VAE(9, 3, (6, 5), "tanh", backend=backend, dtype="float64")
    x, eps = rng.random((7, 9)), rng.standard_normal((2, 7, 3))
    terms, cache = model.forward(x, eps, 0.5)
    whole = np.empty_like(model.theta)
    model.backward(cache, out=whole)
    shares = np.zeros((len(cuts) + 1, model.theta.size))
    parts = []
    for out, rows in zip(shares, np.split(np.arange(7), cuts)):
        part, cache = model.forward(x[rows], eps[:, rows], 0.5)
        model.backward(cache, dloss=len(rows) / 7, out=out)
        parts.append(len(rows) / 7 * np.array(part))
    np.testing.assert_allclose(np.sum(parts, axis=0), terms, rtol=1e-13)
    np.testing.assert_allclose(shares.sum(axis=0), whole, rtol=0, atol=1e-14 * np.abs(whole).max())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_same_seed_and_workers_same_bits(n):
    x = (np.random.default_rng(0).random((90, 16)) < 0.3).astype(np.float32)
    runs = []
    for _ in range(3):
        model = npvae.VAE(16, 2, (8,))
        history = npvae.fit(model, x, x[:20], epochs=2, batch_size=32, workers=n, progress=False)
        runs.append((model.theta, history["train_loss"]))
    for theta, losses in runs[1:]:
        np.testing.assert_array_equal(theta, runs[0][0])
        np.testing.assert_array_equal(losses, runs[0][1])


def test_each_shard_draws_noise_of_its_own_and_every_row_is_used_once():
    seen = []

    class Recorder(npvae.VAE):
        def gradient(self, x, eps, dloss, **options):
            seen.append((x.copy(), eps.copy(), dloss))
            return super().gradient(x, eps, dloss=dloss, **options)

    x = np.arange(50 * 16, dtype=np.float32).reshape(50, 16)
    npvae.fit(Recorder(16, 2, (), likelihood="gaussian", backend="numpy"), x, epochs=1, batch_size=20, workers=3,
              optimizer=npvae.SGD(1e-12), progress=False)  # fmt: skip
    assert sorted(len(rows) for rows, _, _ in seen) == [3, 3, 4, 6, 6, 7, 7, 7, 7]
    assert sorted(np.concatenate([rows[:, 0] / 16 for rows, _, _ in seen])) == list(range(50))
    assert sorted(weight for _, _, weight in seen) == sorted([7 / 20, 7 / 20, 6 / 20] * 2 + [4 / 10, 3 / 10, 3 / 10])
    assert all(weight in (len(rows) / 20, len(rows) / 10) for rows, _, weight in seen)
    assert len({eps[0, 0].tobytes() for _, eps, _ in seen}) == len(seen)


def test_fewer_rows_than_workers_make_fewer_shards():
    with Workers(4) as workers:
        assert [list(np.arange(2)[part]) for part in workers.parts(2)] == [[0], [1]]
        assert [len(np.arange(9)[part]) for part in workers.parts(9)] == [3, 2, 2, 2]
    model = npvae.VAE(16, 2, ())
    npvae.fit(model, np.eye(16, dtype=bool)[:3], epochs=1, workers=4, progress=False)
    assert np.isfinite(model.theta).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_updates_sum_the_shards_and_work_slice_by_slice(optimizer, dtype, backend):
    rng = np.random.default_rng(0)
    model = npvae.VAE(70, 5, (45, 10), backend=backend, dtype=np.dtype(dtype).name)
    size = model.theta.size
    assert size > 5001
    model.theta = rng.standard_normal(size)
    shares = rng.standard_normal((4, 3, size)).astype(dtype)
    expected, state = model.theta.copy(), optim.initial_state(optimizer, model.theta)
    for grad in shares:
        optimizer.step(expected, grad.sum(axis=0), state)
    with Workers(3) as workers:
        step = Step(model, Rows.of(model, np.eye(70)[:9], "x"), 9, optimizer, workers)
        slots = dict(step.state)
        for grad in shares:
            step.update(grad)
    tolerance = 1e-13 if dtype == np.float64 else 2e-6
    np.testing.assert_allclose(model.theta, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    assert step.state["t"] == 4
    for slot in optimizer.slots:
        assert step.state[slot] is slots[slot]  # changed in place, a slice by each worker
        atol = tolerance * np.abs(state[slot]).max()
        np.testing.assert_allclose(step.state[slot], state[slot], rtol=0, atol=atol)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_each_worker_updates_a_slice_of_its_own(optimizer, monkeypatch):
    calls, kind = [], type(optimizer)
    step_of_kind = kind.step

    def recorded(self, theta, grad, state):
        calls.append((theta.size, grad.shape, {value.size for value in state.values() if isinstance(value, np.ndarray)}))
        step_of_kind(self, theta, grad, state)

    monkeypatch.setattr(kind, "step", recorded)
    model = npvae.VAE(16, 2, (), backend="numpy")
    npvae.fit(model, np.eye(16, dtype=bool), epochs=1, workers=3, optimizer=optimizer, progress=False)
    sizes = [size for size, _, _ in calls]
    assert sum(sizes) == model.theta.size
    assert max(sizes) - min(sizes) <= 1
    assert len(calls) == 3
    assert all(shape == (3, size) and slots <= {size} for size, shape, slots in calls)


def test_map_keeps_the_order_and_passes_errors_on():
    with Workers(3) as workers:
        assert workers.map(lambda i: (i, threading.get_ident()), range(3))[0] == (0, threading.get_ident())
        assert [i for i, _ in workers.map(lambda i: (i, None), range(3))] == [0, 1, 2]
        assert len({ident for ident in workers.map(lambda i: threading.get_ident(), range(3))}) >= 2

        def fail(i):
            if i == 2:
                raise ValueError("of the third")

        with pytest.raises(ValueError, match="of the third"):
            workers.map(fail, range(3))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("n_items", [0, 1, 2, 7, 9])
def test_deal_keeps_the_order(n, n_items):
    with Workers(n) as workers:
        assert workers.deal(lambda i: 10 * i, range(n_items)) == [10 * i for i in range(n_items)]


def test_validation_has_the_same_bits_for_any_number_of_workers():
    model = npvae.VAE(16, 2, (8,))
    rows = Rows.of(model, np.random.default_rng(0).integers(0, 256, (70, 16), np.uint8), "x")
    alone = validate(model, rows, batch_size=16)
    for n in (1, 2, 3):
        with Workers(n) as workers:
            np.testing.assert_array_equal(validate(model, rows, batch_size=16, workers=workers), alone)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")
@pytest.mark.parametrize("n", [1, 2])
def test_a_step_allocates_nothing_large_and_2000_steps_leave_nothing_behind(n):
    """Large is an array of the batch's size: 64 × 500 floats are 128 kB; the 16-bit noise of the shards is half of that."""
    x = np.random.default_rng(0).integers(0, 256, (100, 500), np.uint8)
    model = npvae.VAE(500, 2, (20,))
    index = np.arange(64)
    with Workers(n) as workers:
        step = Step(model, Rows.of(model, x, "x"), 64, optim.Adam(), workers)

        def steps(n_steps):
            for number in range(n_steps):
                step(index, number)

        peaks = []
        tracemalloc.start()
        try:
            steps(3000)  # Python keeps up to 2000 freed tuples of a size for later
            for _ in range(51):
                tracemalloc.reset_peak()
                settled, _ = tracemalloc.get_traced_memory()
                steps(1)
                peaks.append(tracemalloc.get_traced_memory()[1] - settled)
            gc.collect()  # which lets go of them
            before, _ = tracemalloc.get_traced_memory()
            steps(2000)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert min(peaks) < 100_000
    assert after - before < 10_000  # 5 bytes a step: the least that Python allocates is 16


def test_small_models_use_one_worker_and_large_ones_all_cores():
    assert workers_for(npvae.VAE(64, 2, (64,)).theta.size * 32) == 1
    assert workers_for(npvae.VAE(784, 20, (400,)).theta.size * 128) == cores_available()
    small = npvae.VAE(784, 2, (64,)).theta.size * 32  # for workers who compute one gradient together
    assert workers_for(small) == 1
    assert workers_for(small, together=True) == min(2, cores_available())


def test_samples_of_z_count_as_rows_where_fit_chooses_its_workers(monkeypatch):
    chosen = []

    def workers_for(n_multiplications, together):
        chosen.append((n_multiplications, together))
        return 1

    monkeypatch.setattr(training, "workers_for", workers_for)
    for backend in ("numba", "numpy"):
        model = npvae.VAE(16, 2, (), backend=backend)
        npvae.fit(model, np.eye(16, dtype=bool), epochs=1, batch_size=8, n_samples=5, progress=False)
    assert chosen == [(40 * model.theta.size, True), (40 * model.theta.size, False)]


def test_all_steps_of_a_walker_count_where_fit_chooses_its_workers(monkeypatch):
    chosen = []
    monkeypatch.setattr(training, "workers_for", lambda n_multiplications, together: chosen.append(n_multiplications) or 1)
    for scheme, passes in [("heun", 2), ("euler", 1)]:
        model = Drift("oscillator", n_steps=3, n_walkers=5, hidden=(2,), scheme=scheme, backend="numpy")
        npvae.fit(model, epochs=1, steps_per_epoch=1, progress=False)
        assert chosen.pop() == 5 * 3 * passes * model.theta.size


# ------------------------------------------------------------------------------------------- threads of BLAS


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def blas_as_before():
    with threadpool_limits(None):
        yield


def test_trainings_at_once_have_the_bits_that_each_has_alone():
    """On the NumPy back end, whose products have other last bits with two threads of BLAS than with one. L-BFGS held BLAS to
    threads of its own number, and whoever trained at the same time had them, too."""
    x = np.random.default_rng(0).random((256, 784)) < 0.2

    def trained(train, **options):
        model = npvae.VAE(784, 20, (400,), backend="numpy")
        train(model, x, progress=False, **options)
        return model.theta

    jobs = [(npvae.fit, {"epochs": 3, "workers": 1}), (npvae.fit_lbfgs, {"iterations": 4}),
            (npvae.fit, {"epochs": 3, "workers": 2})]  # fmt: skip
    with threadpool_limits(2, user_api="blas"):  # by this thread, and those of the pool have to set it, too
        alone = [trained(train, **options) for train, options in jobs]
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(lambda job: trained(job[0], **job[1]), 2 * jobs))
        assert blas_threads() == {2}
    for theta, expected in zip(together, 2 * alone):
        np.testing.assert_array_equal(theta, expected)


def test_who_comes_first_and_who_leaves_last_may_be_different_threads():
    with ThreadPoolExecutor(1) as other, threadpool_limits(2, user_api="blas"):
        here, there = Workers(1), Workers(1)
        here.__enter__()
        assert blas_threads() == {1}
        other.submit(there.__enter__).result()
        here.__exit__()
        assert blas_threads() == {1}
        other.submit(there.__exit__).result()
        assert blas_threads() == {2}


def test_a_limit_that_another_thread_sets_is_back_after_its_training():
    """While others train it has to wait; with the last of them gone, what was there at first is back."""
    begun, may_end, before = threading.Event(), threading.Event(), blas_threads()

    def long_training():
        npvae.fit(npvae.VAE(16, 2, (), backend="numpy"), np.eye(16), epochs=1, progress=False,
                  on_epoch=lambda state: (begun.set(), may_end.wait(20)))  # fmt: skip

    def limited_training():
        during = []
        with threadpool_limits(3, user_api="blas"):
            npvae.fit(npvae.VAE(16, 2, (), backend="numpy"), np.eye(16), epochs=1, progress=False,
                      on_epoch=lambda state: during.append(blas_threads()))  # fmt: skip
            return during, blas_threads()

    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(limited_training).result() == ([{1}], {3})
        assert blas_threads() == before
        other = pool.submit(long_training)
        begun.wait(20)
        assert pool.submit(limited_training).result() == ([{1}], {1})
        may_end.set()
        other.result()
    assert blas_threads() == before


def test_a_limit_that_somebody_sets_during_a_training_stays():
    with threadpool_limits(2, user_api="blas"):
        with workers.Workers(1):
            threadpool_limits(3, user_api="blas")
            with workers.Workers(2):
                assert blas_threads() == {1}
            threadpool_limits(3, user_api="blas")
        assert blas_threads() == {3}


def test_workers_that_cannot_be_started_leave_blas_as_it_was(monkeypatch):
    started, start = [], threading.Thread.start

    def second_fails(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(RuntimeError, match="can't start new thread"), Workers(3):
            pass
        assert blas_threads() == {2}
    started[0].join(20)
    assert not started[0].is_alive()
