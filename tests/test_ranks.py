"""Several ranks train the model that one process trains, to the same bits. Here they are threads (`thread_ranks`); with real
processes: test_ranks_mpi.py."""

import threading

import numpy as np
import pytest
from thread_ranks import on_ranks

import npvae
from npvae import checks
from npvae.core.ranks import OtherRankFailedError, Ranks, SumOfShares
from npvae.core.workers import parts_of
from npvae.data.arrays import Mapped
from npvae.data.rows import Rows
from npvae.models import BoltzmannMachine, ConditionalVAE, HierarchicalVAE, PathPosterior
from npvae.training.fit import how_shared

X = np.random.default_rng(0).random((53, 16)) < 0.3
GREY = np.random.default_rng(0).integers(0, 256, (53, 16), np.uint8)
LABELS = np.arange(53) % 3


def vae(**options):
    return npvae.VAE(16, 2, **{"hidden": (8,), "seed": 1, "backend": "numpy", **options})


# name -> (model, rows, arguments of fit); batches of 10, of which 4 shards have 3, 3, 2, 2 rows; the last has 3 rows
CASES = {
    "compiled": lambda: (vae(backend="numba"), X, {}),
    "float64": lambda: (vae(dtype="float64"), X, {}),
    "grey levels": lambda: (vae(), GREY, {"objective": "iwae", "n_samples": 2}),
    "clipped and decayed": lambda: (vae(), X, {"max_gradient_norm": 0.5, "weight_decay": 0.1}),
    "free bits": lambda: (vae(), X, {"free_bits_per_dimension": 0.2}),
    "condition": lambda: (ConditionalVAE(16, 3, 2, (8,), backend="numpy"), (X, LABELS), {}),
    "chain of latents": lambda: (HierarchicalVAE(16, (3, 2), (8,), backend="numpy"), X, {}),
    "persistent chains": lambda: (BoltzmannMachine(16, 5, n_chains=11, backend="numpy"), X, {}),
}


def trained(case, comm=None, **others):
    """What a training leaves: its arrays, the rows of its history but for the clock, and the settings of its state."""
    model, data, options = CASES[case]()
    states, data = [None], data if isinstance(data, tuple) else (data,)
    options = {"epochs": 2, "batch_size": 10, "optimizer": npvae.Adam(1e-2), "seed": 3, "workers": 1, **options, **others}
    npvae.fit(model, data, tuple(array[:25] for array in data), early_stopping=5, comm=comm, progress=False,
              on_epoch=states.append, **options)  # fmt: skip
    state = states[-1]
    arrays = {"theta": model.theta, **model.buffers, **state.optimizer, "best": state.best.theta}
    rows = [{**row, "seconds": 0} for row in state.history.rows]
    return {name: np.asarray(value).tobytes() for name, value in arrays.items()}, rows, state.settings


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_ranks_of_one_worker_have_the_bits_of_one_process_with_as_many(case, n):
    expected = trained(case, workers=n, reduction="shards")
    assert expected[2]["workers"] == n
    assert on_ranks(n, lambda comm: trained(case, comm)) == [expected] * n


@pytest.mark.parametrize("case", ["float64", "persistent chains"])
def test_shards_are_added_in_one_order_however_they_are_dealt_to_ranks_and_workers(case):
    expected = trained(case, workers=6, reduction="shards")
    for n, workers in [(2, 3), (3, 2)]:
        results = on_ranks(n, lambda comm, w=workers: trained(case, comm, workers=w, reduction="shards"))
        assert results == [expected] * n


def test_in_the_fastest_order_ranks_agree_with_each_other_and_with_one_process_up_to_rounding():
    def theta(comm=None, workers=2):
        arrays, *_ = trained("float64", comm, workers=workers)
        return np.frombuffer(arrays["theta"])

    results = on_ranks(2, theta)
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], theta(workers=4), rtol=1e-9)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_workers_that_add_shards_give_the_gradient_of_workers_that_compute_it_together(backend):
    case = {"numpy": "float64", "numba": "compiled"}[backend]
    dtype, tolerance = {"numpy": (np.float64, 1e-9), "numba": (np.float32, 1e-3)}[backend]
    thetas = [np.frombuffer(trained(case, workers=3, reduction=kind)[0]["theta"], dtype) for kind in ("fastest", "shards")]
    np.testing.assert_allclose(*thetas, rtol=0, atol=tolerance)


def test_the_sum_has_the_order_of_ranks():
    """In float32 (1e8 + −1e8) + 1 is 1 and any other order gives 0; 5 numbers on 7 ranks leave two ranks without a block."""
    values = [1e8, -1e8, 1, 0, 0, 0, 99]

    def summed(comm):
        share = np.full((1, 5), values[comm.rank], np.float32)
        return SumOfShares(Ranks(comm), 1, 5, np.float32)(share, 6).tolist()

    assert on_ranks(7, summed) == [[[1.0] * 5]] * 7


def test_ranks_begin_with_the_parameters_of_the_first():
    """Libraries of another machine may draw others of the same seed."""

    def theta(comm):
        model = vae(seed=5 + comm.rank)
        npvae.fit(model, X, epochs=1, comm=comm, progress=False)
        return model.theta

    alike = on_ranks(2, theta)
    np.testing.assert_array_equal(*alike)
    one = vae(seed=5)
    npvae.fit(one, X, epochs=1, workers=2, reduction="shards", progress=False)
    np.testing.assert_array_equal(alike[0], one.theta)


# ---------------------------------------------------------------------------------------------- decided by all alike


def test_a_step_that_is_not_finite_on_one_rank_is_left_out_by_all():
    def run(comm=None, workers=1):
        model = npvae.VAE(4, 1, (), likelihood="gaussian", backend="numpy")
        x = np.ones((24, 4), np.float32)
        x[5] = 1e30
        history = npvae.fit(model, x, epochs=2, batch_size=6, workers=workers, reduction="shards", comm=comm, progress=False)
        return model.theta.tolist(), [{**row, "seconds": 0} for row in history.rows]

    message = r"2 of 8 steps were skipped, because .*: see row 5 \(counted from 0\) of the training data"
    with pytest.warns(checks.NpvaeWarning, match=message):
        expected = run(workers=3)
    with pytest.warns(checks.NpvaeWarning, match=message):
        assert on_ranks(3, lambda comm: run(comm, 1)) == [expected] * 3


def test_all_stop_where_one_asks_for_it():
    def steps(comm):
        seen = []
        npvae.fit(vae(), X, epochs=2, batch_size=10, comm=comm, progress=False,
                  on_step=lambda state: seen.append(state.step) or (comm.rank == 1 and state.step == 3))  # fmt: skip
        return seen

    assert on_ranks(3, steps) == [[1, 2, 3]] * 3


@pytest.mark.parametrize(("begun", "goes_on"), [(2, 2), (2, 3), (3, 1)])
def test_a_run_goes_on_with_other_ranks_and_says_that_its_noise_differs(begun, goes_on):
    def part(comm, **options):
        model, states = vae(), []
        theta = options.pop("theta", None)
        model.theta = model.theta if theta is None else theta
        npvae.fit(model, X, epochs=2, batch_size=10, comm=comm, progress=False, workers=1, on_step=lambda state: (
            states.append(state) or state.step == options.get("stop")), resume=options.get("resume"))  # fmt: skip
        return model.theta.copy(), states[-1]

    whole, _ = on_ranks(begun, part)[0]
    theta, state = on_ranks(begun, lambda comm: part(comm, stop=4))[0]
    resume = {"theta": theta, "resume": state}
    if begun == goes_on:
        for ended, _ in on_ranks(goes_on, lambda comm: part(comm, **(resume if comm.rank == 0 else {"resume": None}))):
            np.testing.assert_array_equal(ended, whole)  # the first rank's state is that of all
        return
    with pytest.warns(checks.NpvaeWarning, match=f"begun with {begun} workers, continued with {goes_on}"):
        ended, after = on_ranks(goes_on, lambda comm: part(comm, **resume))[0]
    assert np.isfinite(ended).all()
    assert not np.array_equal(ended, whole)
    assert (after.step, after.settings["workers"]) == (12, goes_on)


def test_an_error_of_one_rank_is_one_of_all():
    def fails(comm):
        class Fails(npvae.VAE):
            def draw(self, rng, *batch, **settings):
                if comm.rank == 1:
                    raise MemoryError("no memory left")
                return super().draw(rng, *batch, **settings)

        try:
            npvae.fit(Fails(16, 2, (), backend="numpy"), X, comm=comm, progress=False)
        except (OtherRankFailedError, MemoryError) as error:
            return type(error).__name__, str(error)

    told = ("OtherRankFailedError", "rank 1: no memory left")
    assert on_ranks(3, fails) == [told, ("MemoryError", "no memory left"), told]


def test_an_error_of_the_first_rank_alone_is_one_of_all():
    def first(comm):
        try:
            return Ranks(comm).first(lambda: [][0] if comm.rank == 0 else None)
        except (IndexError, OtherRankFailedError) as error:
            return str(error)

    assert on_ranks(2, first) == ["list index out of range", "rank 0: list index out of range"]


def test_what_has_no_rows_or_too_few_chains_for_all_ranks_is_refused():
    with pytest.raises(ValueError, match="comm has 2 ranks, and a step of a model without data is one shard"):
        on_ranks(2, lambda comm: npvae.fit(next(PathPosterior.examples("numpy")).model, comm=comm, progress=False))
    machine = BoltzmannMachine(16, 5, n_chains=2, backend="numpy")
    with pytest.raises(ValueError, match="3 workers need at least as many chains"):
        on_ranks(3, lambda comm: npvae.fit(machine.copy(), X, workers=1, comm=comm, progress=False))
    with pytest.raises(ValueError, match="reduction must be one of fastest, shards; got 'slowest'"):
        npvae.fit(vae(), X, reduction="slowest")


# --------------------------------------------------------------------------------------------- who reads and who prints


def test_of_a_mapped_file_each_rank_but_the_first_reads_its_own_rows_only(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", X)
    read, take = [], Mapped.__getitem__

    def noted(self, index):
        read.append((threading.get_ident(), np.arange(len(self))[index].tolist()))
        return take(self, index)

    monkeypatch.setattr(Mapped, "__getitem__", noted)

    def rows_read(comm):
        x, model = np.load(tmp_path / "x.npy", mmap_mode="r"), vae()
        npvae.fit(model, x, x[:25], epochs=2, batch_size=10, workers=1, comm=comm, progress=False)
        return model.theta, [rows for who, rows in read if who == threading.get_ident()]

    results = on_ranks(2, rows_read)
    in_memory = vae()
    npvae.fit(in_memory, X, X[:25], epochs=2, batch_size=10, workers=2, reduction="shards", progress=False)
    for theta, _ in results:
        np.testing.assert_array_equal(theta, in_memory.theta)
    own = [5] * 5 + [1]  # of batches of 10 rows the second five, of the last, of three, one
    assert [len(rows) for rows in results[1][1]] == 2 * [*own, 5]  # and the last 5 rows to validate on
    assert results[1][1][6] == [20, 21, 22, 23, 24]


def test_the_first_rank_prints(capsys):
    on_ranks(2, lambda comm: npvae.fit(vae(), X, epochs=3, comm=comm))
    assert capsys.readouterr().out.count("epoch 3/3") == 1


def test_cores_that_several_ranks_may_use_are_shared(monkeypatch):
    """Three of four ranks may use the same 8 cores, one has others."""
    monkeypatch.setattr("npvae.core.ranks.cores_available", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: cores[threading.get_ident()], raising=False)
    cores = {}

    def cores_of(comm):
        cores[threading.get_ident()] = set(range(8, 16)) if comm.rank == 3 else set(range(8))
        comm.allgather(None)
        model, rows = vae(hidden=(4000,)), Rows.of(vae(), X, "x")
        workers = [how_shared(model, rows, n_rows, None, 1, "shards", Ranks(comm))[0] for n_rows in (4000, 10)]
        return Ranks(comm).cores(), *workers

    assert on_ranks(4, cores_of) == [(2, 2, 1)] * 3 + [(8, 2, 1)]


@pytest.mark.parametrize(("size", "n"), [(0, 3), (2, 3), (9, 4), (12, 4), (5, 1), (3, 5)])
def test_parts_are_those_of_all_numbers_by_piece(size, n):
    parts = parts_of(size, n, 0, n)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(size))
    assert len(parts) == min(n, size)
    assert [part for k in range(n) for part in parts_of(size, n, k, 1)] == parts
    assert [len(parts_of(size, n, k, 1)) for k in range(n)] == [k < size for k in range(n)]  # the last ones have none
