"""Bits-back coding of data with a VAE, as functions and as commands: whatever goes in comes out, at the size that the account
says; and what is wrong is refused."""

import math
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import fuzz_packed
import numpy as np
import pytest
import small_models
from conftest import recorded

import npvae
import npvae.kernels.bits_back as compiled
from npvae import data, ops
from npvae.app import cli, compress, standard_compressors
from npvae.core import progress
from npvae.data import packed
from npvae.models import bits_back

D = 12


def vae(likelihood="bernoulli", posterior="diagonal", activation="tanh", backend="numba", **options):
    options = {"n_features": D, "n_latent": 3, "hidden": (5,), "seed": 1, **options}
    model = npvae.VAE(activation=activation, likelihood=likelihood, posterior=posterior, backend=backend, **options)
    rng = np.random.default_rng(0)
    model.theta = model.theta + 0.3 * rng.standard_normal(model.theta.size)  # biases are 0 in a new model
    return model


def rows_of(model, n, seed=0):
    """Symbols (n, D) uint8 that the model may be given."""
    return np.random.default_rng(seed).integers(0, bits_back.N_SYMBOLS[model.likelihood], (n, D), dtype=np.uint8)


def assert_same(found, x):
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert found.tobytes() == x.tobytes()


def refused(model, content, match):
    with pytest.raises(ValueError, match=match) as error:
        bits_back.decompress(model, content, name="x.npvae")
    assert str(error.value).startswith("x.npvae")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------ round trips

MODELS = [
    *(("bernoulli", posterior, activation) for posterior in ("diagonal", "full")
      for activation in ("relu", "tanh", "sigmoid", "softplus", "silu")),
    ("beta_binomial", "diagonal", "relu"), ("beta_binomial", "full", "silu"), ("categorical", "diagonal", "tanh"),
    ("categorical", "full", "softplus"),
]  # fmt: skip


@pytest.mark.parametrize(("likelihood", "posterior", "activation"), MODELS)
def test_every_model_restores_what_it_was_given(likelihood, posterior, activation):
    for options in ({}, {"hidden": (), "dtype": "float64"}, {"hidden": (6, 4), "n_latent": 1}):
        model = vae(likelihood, posterior, activation, **options)
        x = rows_of(model, 40)
        content, account = bits_back.compress(model, x, n_chains=2)
        assert_same(bits_back.decompress(model, content), x)
        assert abs(account.total - 8 * len(content)) < 1e-6


BITS = rows_of(vae(), 30)
LEVELS = rows_of(vae("categorical"), 30)


@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        *(("bernoulli", BITS.astype(dtype)) for dtype in ("?", "u1", "i8", "<f2", "<f4", ">f4", "<f8")),
        ("bernoulli", 255 * BITS),
        ("bernoulli", BITS.reshape(30, 3, 4)),
        ("bernoulli", BITS.astype(bool).reshape(30, 1, 3, 4, 1)),
        ("bernoulli", np.asfortranarray(BITS)),
        ("bernoulli", BITS[:1]),
        *(("beta_binomial", (LEVELS / 255).astype(dtype)) for dtype in ("<f4", "<f8")),
        ("beta_binomial", LEVELS.reshape(30, 4, 3)),
        ("categorical", LEVELS.astype(">i2")),
        ("categorical", LEVELS.astype(np.float32) * np.float32(1 / 255)),
    ],
    ids=lambda value: f"{value.dtype.str} {value.shape}" if isinstance(value, np.ndarray) else value,
)
def test_dtype_shape_and_every_bit_come_back(likelihood, x):
    model = vae(likelihood)
    content, _ = bits_back.compress(model, x)
    assert_same(bits_back.decompress(model, content), x)


def test_lists_are_arrays():
    content, _ = bits_back.compress(vae(), BITS.tolist())
    assert_same(bits_back.decompress(vae(), content), BITS.astype(np.int64))


# -------------------------------------------------------------------------------- the same file, whoever writes and reads


def test_the_back_end_is_that_of_the_model():
    assert bits_back.coding_ops(vae(backend="numba")) is compiled
    assert bits_back.coding_ops(vae(backend="numpy")) is ops.bits_back
    assert compiled.encode is not ops.bits_back.encode


@pytest.mark.parametrize(("likelihood", "posterior"), [("bernoulli", "full"), ("beta_binomial", "diagonal"),
                                                       ("categorical", "diagonal")])  # fmt: skip
def test_the_file_depends_on_neither_back_end_nor_threads_nor_blocks(likelihood, posterior, monkeypatch):
    compiled, plain = vae(likelihood, posterior), vae(likelihood, posterior, backend="numpy")
    x = rows_of(compiled, 9)
    content, account = bits_back.compress(compiled, x, n_chains=3, workers=1)
    assert_same(bits_back.decompress(plain, content, workers=2), x)
    for workers in (2, 5):
        assert bits_back.compress(compiled, x, 3, workers)[0] == content
    monkeypatch.setattr(bits_back, "SYMBOLS_PER_BLOCK", 2 * D)
    again, by_blocks = bits_back.compress(plain, x, n_chains=3, workers=2)
    assert again == content
    np.testing.assert_allclose(by_blocks, account, rtol=1e-12, atol=1e-9)
    assert_same(bits_back.decompress(compiled, content), x)


PROGRAM = """if True:
    import sys, pathlib, numpy as np, npvae
    from npvae.models import bits_back
    model = npvae.VAE.load("model.npz").copy(backend=sys.argv[2])
    if sys.argv[1] == "compress":
        pathlib.Path("x.npvae").write_bytes(bits_back.compress(model, np.load("x.npy"), workers=2)[0])
    else:
        assert (bits_back.decompress(model, pathlib.Path("x.npvae").read_bytes()) == np.load("x.npy")).all()
"""


def test_a_file_of_one_processor_is_read_on_another(tmp_path):
    """As far as the libraries let themselves be told what the processor is."""
    model = vae(hidden=(40,))
    model.save(tmp_path / "model.npz")
    np.save(tmp_path / "x.npy", rows_of(model, 10))
    old = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX"}
    new = {"OPENBLAS_CORETYPE": "SkylakeX", "OPENBLAS_NUM_THREADS": "2"}
    for command, backend, settings in [("compress", "numpy", old), ("decompress", "numba", new)]:
        subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, command, backend], check=True, cwd=tmp_path,
                       env={**os.environ, **settings})  # fmt: skip
    assert bits_back.compress(model, np.load(tmp_path / "x.npy"))[0] == (tmp_path / "x.npvae").read_bytes()


# -------------------------------------------------------------------------------------------------------------- the size


def trained():
    model = small_models.small_model()  # whose training needs no compiling
    x = small_models.lattice_rows(600)
    npvae.fit(model, x, epochs=5, batch_size=20, seed=0)
    return model.copy(backend="numba"), x


def test_the_parts_of_the_account_are_what_they_are_called():
    model, x = trained()
    content, account = bits_back.compress(model, x, n_chains=2)
    bound = npvae.evaluate.elbo(model, x, 0, 50)
    bits = len(x) / math.log(2)  # per nat of the mean
    one_draw = math.sqrt(50) * bound.standard_error * bits
    assert account.kl == pytest.approx(bound.kl * bits, rel=1e-5)
    assert abs(account.nll - bound.nll * bits) < 5 * one_draw
    assert abs(account.sampling + account.nll - bound.nll * bits) < 5 * one_draw
    assert account.bound == account.nll + account.kl
    assert abs(account.discretisation) < 1
    assert abs(account.rounding) < 1
    assert abs(account.coder) < 0.5
    words = [len(words) for words in packed.from_bytes(content).chains]
    assert account.header == 8 * len(content) - 32 * sum(words)
    assert 0 < account.heads <= 2 * 33
    assert 2 * 31 <= account.start < 2 * (32 + 32 * model.n_latent)
    assert account.total == pytest.approx(8 * len(content), abs=1e-6)


def test_the_size_is_that_of_the_bound_where_the_start_is_little():
    model, x = trained()
    content, account = bits_back.compress(model, x)
    bound = -npvae.evaluate.elbo(model, x, 0, 50).elbo * len(x) / math.log(2)
    assert 8 * len(content) - account.start - account.heads - account.header == pytest.approx(bound, rel=0.01)


def test_twice_the_data_take_twice_the_bits():
    """Beyond the start, which a file has once."""
    model, x = trained()
    once, twice = (bits_back.compress(model, rows, n_chains=1)[1] for rows in (x, np.concatenate([x, x])))
    assert twice.bound == pytest.approx(2 * once.bound, rel=0.02)
    assert twice.start == once.start


def test_chains_follow_from_the_size_of_the_data_alone():
    def chains_of(n, n_features, likelihood):
        return bits_back.default_chains(SimpleNamespace(n_features=n_features, likelihood=likelihood), n)

    assert [chains_of(n, 784, "bernoulli") for n in (1, 5000, 10_000, 60_000)] == [1, 1, 2, 11]
    assert [chains_of(n, 784, "categorical") for n in (1, 5000, 10_000, 60_000)] == [1, 4, 7, 45]
    assert chains_of(2, 2**24, "bernoulli") == 2  # never more than rows
    assert [bits_back.edges_of_chains(7, n) for n in (1, 3)] == [[(0, 7)], [(0, 2), (2, 4), (4, 7)]]


@pytest.mark.parametrize("n_chains", [0, 10, 1.5])
def test_a_chain_has_at_least_a_row(n_chains):
    with pytest.raises(ValueError, match="n_chains must be an integer from 1 to 9"):
        bits_back.compress(vae(), BITS[:9], n_chains)
    with pytest.raises(ValueError, match="workers must be an integer of at least 1; got 0"):
        bits_back.compress(vae(), BITS, workers=0)


# ------------------------------------------------------------------------------------------------------- what is refused


def test_a_file_that_is_cut_off_or_changed_anywhere_is_refused():
    model = vae()
    content, _ = bits_back.compress(model, BITS)
    for n in range(len(content)):
        refused(model, content[:n], "is damaged|is not a file that npvae compress has written")
    for bit in range(0, 8 * len(content), 5):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        refused(model, bytes(changed), "is damaged|is not a file|reads version")


def with_other(content, **changes):
    """The file with other content, sealed as if it were right."""
    return packed.to_bytes(packed.from_bytes(content)._replace(**changes))


def test_a_forged_file_never_gives_other_data():
    """Words that are changed by somebody who knows how the checksum is made: the decoder finds nonsense, and notices."""
    model, rng = vae(), np.random.default_rng(0)
    content, _ = bits_back.compress(model, BITS, n_chains=2)
    file = packed.from_bytes(content)
    for _ in range(50):
        chains = [words.copy() for words in file.chains]
        chain = chains[rng.integers(2)]
        chain[rng.integers(len(chain))] ^= np.uint32(1 << int(rng.integers(32)))
        refused(model, with_other(content, chains=chains), "cannot be restored|is damaged")


def test_every_check_refuses_on_its_own(monkeypatch):
    model = vae()
    content, _ = bits_back.compress(model, BITS, n_chains=2)
    file = packed.from_bytes(content)
    refused(model, with_other(content, probabilities=bytes(8)), "cannot be restored: the probabilities")
    refused(model, with_other(content, array=bytes(8)), "cannot be restored")
    refused(model, with_other(content, dtype=np.dtype(bool)), "cannot be restored")
    refused(model, with_other(content, chains=file.chains[::-1]), "cannot be restored")
    refused(model, with_other(content, chains=[file.chains[0][2:], file.chains[1]]), "cannot be restored")
    refused(model, with_other(content, chains=[file.chains[0][:1], file.chains[1]]), "is damaged: these words are no message")
    refused(model, with_other(content, shape=(30, D + 1)), "is damaged: it claims an array of shape")
    refused(model, with_other(content, shape=(10**12, D)), "is damaged: it claims an array of shape")
    refused(model, with_other(content, shape=(31, D)), "cannot be restored")
    longer = bits_back.compress(model, np.concatenate([BITS, BITS]), n_chains=2)[0]
    refused(model, with_other(longer, shape=(30, D)), "cannot be restored")


def test_a_file_that_claims_many_rows_ends_with_its_bits(monkeypatch):
    """Before memory is used for them: the first block finds nothing. (With q(z|x) = p(z), no z is impossible.)"""
    model, calls, decode = vae(), [], compiled.decode
    model.theta = np.zeros_like(model.theta)

    def noted(coder, n_rows, message):
        calls.append(n_rows)
        return decode(coder, n_rows, message)

    monkeypatch.setattr(compiled, "decode", noted)
    content, _ = bits_back.compress(model, BITS)
    refused(model, with_other(content, shape=(30_000, D)), "cannot be restored")
    assert len(calls) == 1
    assert calls[0] * D <= bits_back.SYMBOLS_PER_BLOCK


def test_hostile_files_are_refused_with_one_line_or_give_back_the_very_array():
    fuzz_packed.fuzz(10)  # compiles what is needed
    before = fuzz_packed.peak_memory()
    answers = fuzz_packed.fuzz(300)
    assert fuzz_packed.peak_memory() - before < 50e6
    assert answers.total() == 300
    assert answers["restored"] < 30  # inputs on which the damage left no trace
    for beginning in ("cannot be restored", "is damaged: its header", "is damaged: it is not whole", "is not a file that"):
        assert any(f"x.npvae {beginning}" in answer for answer in answers), beginning


def test_probabilities_of_another_model_are_noticed():
    """Should the digests of two models ever agree, or a processor compute something else."""
    model, other = vae(), vae()
    content, _ = bits_back.compress(model, BITS)
    other.parameters["likelihood.b"][0] += np.float32(1e-4)
    refused(other, content, "was compressed with another model than VAE")
    refused(other, with_other(content, model=bits_back.digest_of(other)), "cannot be restored")


def test_models_are_told_apart_by_what_matters():
    model = vae()
    others = [vae(activation="relu"), vae(posterior="full"), vae(dtype="float64"), vae(hidden=(6,)), vae(seed=2)]
    assert len({bits_back.digest_of(each) for each in (model, *others)}) == 6
    assert bits_back.digest_of(model.copy(backend="numpy", sigma=3.0)) == bits_back.digest_of(model)


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_models_that_cannot_code_are_refused(command):
    argument = BITS if command == "compress" else b""
    for model, message in [
        (vae("gaussian"), "the likelihood gaussian is a density"),
        (npvae.models.Autoencoder(D, 2, (5,)), "bits-back coding needs a VAE or a HierarchicalVAE, not Autoencoder"),
        (npvae.models.ConditionalVAE(D, 3, 2), "bits-back coding needs a VAE or a HierarchicalVAE, not ConditionalVAE"),
        (vae().copy(dtype="complex128"), "dtype of the model must be float32 or float64; got complex128"),
    ]:
        with pytest.raises(ValueError, match=message):
            getattr(bits_back, command)(model, argument)
    model = vae()
    model.theta[3] = np.nan
    with pytest.raises(ValueError, match="theta must be finite"):
        getattr(bits_back, command)(model, argument)


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        ("bernoulli", BITS * 0.5, r"rows must hold zeros and ones \(or 0 and 255\); got 0.5. Of grey levels, draw zeros"),
        ("bernoulli", LEVELS, r"rows must hold zeros and ones .*npvae compress --binarize.*--likelihood beta_binomial\)$"),
        ("categorical", LEVELS / 254, r"rows must hold whole numbers from 0 to 255, or those divided by 255; got 0\.[0-9]*$"),
        ("bernoulli", BITS[:, 1:], "rows must have 12 values in each row, the model's n_features; got shape"),
        ("bernoulli", np.zeros((0, D)), "rows must have at least one row"),
        ("bernoulli", np.float32(1), "rows must have 12 values in each row"),
        ("bernoulli", BITS.astype(complex), "rows must be an array of bool, integers or floats"),
        ("bernoulli", [[1], [1, 0]], "rows must be a rectangular array"),
    ],
)
def test_data_that_cannot_be_coded_without_loss_are_refused(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        bits_back.compress(vae(likelihood), x, name="rows")


# ----------------------------------------------------------------------------------------------------------------- threads


def test_a_posterior_that_is_not_finite_is_refused():
    model = npvae.VAE(5, 40, (), posterior="full", dtype="float64")
    model.theta = 0
    bias = model.parameters["posterior.b"]
    bias[:] = 9e8  # each mean is a multiple of the noise before it
    bias[40:80] = -30
    with pytest.raises(ValueError, match=r"^the posterior of rows is not finite: this model cannot code it$"):
        bits_back.compress(model, np.eye(5, dtype=bool), name="rows")


def test_an_error_in_one_chain_ends_the_others():
    ended, all_begin = [], threading.Barrier(3)

    def work(number, rows_done):
        all_begin.wait()
        if number == 1:
            raise MemoryError
        try:
            for _ in range(10**7):  # some ten seconds: for ever, but for a test that fails
                rows_done(1)
        except CancelledError:
            ended.append(number)
            raise

    with pytest.raises(MemoryError):
        bits_back.side_by_side(work, 3, 3, vae(), 3, False)
    assert sorted(ended) == [0, 2]


def test_the_bar_counts_rows(monkeypatch):
    bars = []

    class Bar(progress.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "disable": True})
            bars.append((self, options["total"]))
            self.counted = 0

        def update(self, n=1):
            self.counted += n

    monkeypatch.setattr(progress, "tqdm", Bar)
    model = vae()
    content, _ = bits_back.compress(model, BITS, n_chains=3)
    bits_back.decompress(model, content)
    assert [(bar.counted, total) for bar, total in bars] == [(30, 30), (30, 30)]


# --------------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def rows():
    """Lattices like those that the run has learned, zeros and ones in x.npy."""
    x = np.random.default_rng(0).integers(0, 2, (20, 16, 16), dtype=np.uint8)
    np.save("x.npy", x)
    return x


def test_commands_restore_the_array_and_say_where_the_bits_went(run, rows, capsys):
    assert cli.main(["compress", "run", "x.npy", "--out", "x.npvae", "--compare", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    n_bytes = Path("x.npvae").stat().st_size
    assert f"data      x.npy: uint8 of shape (20, 16, 16), 5,120 bytes\nfile      x.npvae: {n_bytes:,} bytes" in out
    table = [line.split() for line in out.splitlines() if line.startswith(("file           ", "npvae  "))]
    assert table[0][1:] == [f"{8 * n_bytes:,}", f"{8 * n_bytes / rows.size:.6f}"]
    assert table[1][1:] == [f"{n_bytes:,}", f"{8 * n_bytes / rows.size:.6f}"]
    assert "values packed eight to a byte; pictures: images of 16 x 16 side by side" in out
    assert cli.main(["decompress", "run", "x.npvae", "--out", "y.npy"]) == 0
    assert "y.npy: uint8 of shape (20, 16, 16), the array that was compressed" in capsys.readouterr().out
    assert_same(np.load("y.npy"), rows)


def test_lines_of_the_account_add_up_to_the_bit():
    account = bits_back.Account(1000.4, 200.4, 0.4, 0.4, -0.4, 0.4, 31.4, 7.4, 408.6)
    lines = compress.account_lines(account, 100)
    bits = [int(line[24:40].replace(",", "")) for line in lines[1:]]
    assert sum(bits[:-1]) == bits[-1] == 1649
    assert bits[:-1] == pytest.approx([account.bound, *account[2:]], abs=1)
    assert [line[40:56].strip() for line in lines[1:3]] == ["12.008000", "0.004000"]


def test_pictures_of_the_comparison_have_the_shape_of_the_array_or_of_the_run():
    model = vae()
    for x, of_run, text in [
        (BITS.reshape(30, 1, 3, 4), [2, 6], "images of 3 x 4 side by side"),
        (BITS, [2, 6], "images of 2 x 6 side by side"),
        (BITS, None, "one row after the other"),
    ]:
        lines = compress.comparison_lines(model, x, 1, of_run)
        assert lines[-1] == f"values packed eight to a byte; pictures: {text}"
        assert lines[1].split() == ["npvae", "1", "0.022222"]
    assert compress.comparison_lines(vae("categorical"), LEVELS, 1, None)[-1].startswith("values packed a byte each")


def test_without_names_the_validation_rows_go_beside_the_run(run, rows, capsys):
    assert cli.main(["compress", "run"]) == 0
    assert cli.main(["compress", "run", "ising"]) == 0
    assert cli.main(["compress", "run", "x.npy"]) == 0
    assert Path("run/x.npvae").exists()
    assert Path("run/ising.npvae").read_bytes() == Path("run/ising-2.npvae").read_bytes()
    assert "data      the validation rows of run: " in capsys.readouterr().out
    assert cli.main(["decompress", "run", "run/ising.npvae"]) == 0
    assert_same(np.load("run/ising.npy"), data.load("ising").x_val)


def test_an_archive_is_read_as_it_is(run, rows):
    np.savez("x.npz", rows=rows.astype(np.int16), labels=np.array([["a"]] * 20))
    assert_same(compress.array_in(Path("x.npz")), rows.astype(np.int16))
    np.savez("both.npz", x=rows, other=rows[:, 0])
    assert_same(compress.array_in(Path("both.npz")), rows)


def test_grey_levels_are_compressed_by_one_draw(run, rows, error_of):
    np.save("grey.npy", 40 * rows)
    assert "zeros and ones (or 0 and 255); got 40" in error_of("compress", "run", "grey.npy")
    assert not list(Path("run").glob("*.npvae"))
    assert cli.main(["compress", "run", "grey.npy", "--binarize", "--out", "x.npvae"]) == 0
    assert cli.main(["decompress", "run", "x.npvae", "--out", "y.npy"]) == 0
    drawn = np.load("y.npy")
    assert (drawn.dtype, drawn.shape) == (np.uint8, rows.shape)
    assert not (drawn > rows).any()
    assert 0.1 < drawn.sum() / rows.sum() < 0.22  # 40/255 is 0.157
    assert compress.binarized(vae(), rows, "rows") is rows
    with pytest.raises(ValueError, match="--binarize is for a model of zeros and ones, and the likelihood categorical codes"):
        compress.binarized(vae("categorical"), rows, "rows")


def test_what_the_commands_refuse(run, rows, error_of, tmp_path):
    Path("there.npvae").touch()
    Path("there.npy").touch()
    for argv, message in [
        (["compress", "run", "missing.npy"], "missing.npy"),
        (["compress", "run", "x.csv"], "needs .npy or .npz"),
        (["compress", "run", "there.npy"], "there.npy: cannot be used"),
        (["compress", "missing"], "missing is not a run folder"),
        (["decompress", "run", "missing.npvae"], "missing.npvae"),
        (["decompress", "run", "x.npy"], "x.npy is not a file that npvae compress has written"),
    ]:
        assert message in error_of(*argv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there.npvae", "there.npy", "x.npy"]
    assert "--workers" in error_of("compress", "run", "--workers", "0", status=2)


def test_what_cannot_be_written_or_coded_is_refused_before_the_work(run, rows, error_of, monkeypatch):
    calls = []
    monkeypatch.setattr(compress, "data_of", recorded(calls, RuntimeError()))
    monkeypatch.setattr(Path, "read_bytes", recorded(calls, RuntimeError()))
    Path("there.npvae").touch()
    for argv, message in [
        (["compress", "run", "x.npy", "--out", "x.zip"], "--out must name a .npvae file; got x.zip"),
        (["compress", "run", "x.npy", "--out", "there.npvae"], "there.npvae exists already; name another file with --out"),
        (["decompress", "run", "there.npvae", "--out", "x.png"], "--out must name a .npy file; got x.png"),
        (["decompress", "run", "there.npvae", "--out", "x.npy"], "x.npy exists already; name another file with --out"),
    ]:
        assert message in error_of(*argv)
    monkeypatch.setattr(compress.commands, "trained_model", lambda args: (npvae.models.Autoencoder(256, 2), {}, {}))
    for argv in (["compress", "run", "x.npy"], ["decompress", "run", "there.npvae"]):
        assert "bits-back coding needs a VAE or a HierarchicalVAE, not Autoencoder" in error_of(*argv)
    assert calls == []


def test_a_failed_write_leaves_no_file(run, rows, monkeypatch, error_of):
    content, _ = bits_back.compress(npvae.VAE.load("run/checkpoint.npz"), rows)
    Path("x.npvae").write_bytes(content)

    def full(path, write_to):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(compress.files, "replace_file", full)
    assert "No space left" in error_of("decompress", "run", "x.npvae", "--out", "y.npy")
    assert "No space left" in error_of("compress", "run", "x.npy", "--out", "y.npvae")
    assert not list(Path().glob("y.*"))


# --------------------------------------------------------------------------------------------------- standard compressors


def test_sheets_hold_every_image_once():
    images = np.random.default_rng(0).integers(0, 256, (23, 3, 5), dtype=np.uint8)
    for sheet, shapes in [(2800, [(3, 115)]), (20, [(18, 20)]), (12, [(12, 10)] * 2 + [(12, 10)])]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(standard_compressors, "SHEET", sheet)
            pictures = standard_compressors.sheets(images.reshape(23, 15), (3, 5))
        assert [picture.shape for picture in pictures] == shapes
        tiles = [picture[i : i + 3, j : j + 5] for picture in pictures for i in range(0, picture.shape[0], 3)
                 for j in range(0, picture.shape[1], 5)]  # fmt: skip
        np.testing.assert_array_equal(tiles[:23], images)
        assert not np.any(tiles[23:])


def test_rows_without_a_shape_are_rows_of_a_picture():
    assert standard_compressors.sheets(np.zeros((10, 2000), np.uint8), None)[0].shape == (10, 2000)


@pytest.mark.parametrize("is_binary", [True, False])
def test_sizes_are_those_of_files_that_can_be_read_back(is_binary, monkeypatch):
    from PIL import Image

    symbols = np.random.default_rng(0).integers(0, 2 if is_binary else 256, (400, 16), dtype=np.uint8)
    files = []
    save = Image.Image.save

    def kept(image, file, **options):
        save(image, file, **options)
        files.append(file.getvalue())

    monkeypatch.setattr(Image.Image, "save", kept)
    found = standard_compressors.sizes(symbols, (4, 4), is_binary)
    for name, content in zip([name for name in ("PNG", "WebP lossless") if name in found], files):
        assert found[name] == len(content)
        shown = np.asarray(Image.open(BytesIO(content)).convert("L")) // (255 if is_binary else 1)
        np.testing.assert_array_equal(shown.reshape(4, 400, 4).swapaxes(0, 1).reshape(400, 16), symbols)
    least = symbols.size / (8 if is_binary else 1)  # noise cannot be compressed
    assert all(least <= found[name] < least + 100 for name in ("gzip -9", "xz -9e"))
    assert least <= found["bzip2 -9"] < 1.5 * least
    assert all(size < 200 for size in standard_compressors.sizes(np.zeros_like(symbols), (4, 4), is_binary).values())


def test_webp_is_left_out_where_there_is_none_or_the_image_is_too_large(monkeypatch):
    from PIL import features

    assert "WebP lossless" not in standard_compressors.sizes(np.zeros((1, 16384), np.uint8), None, False)
    monkeypatch.setattr(features, "check", lambda name: False)
    assert list(standard_compressors.sizes(np.zeros((1, 4), np.uint8), None, False)) == ["gzip -9", "bzip2 -9", "xz -9e", "PNG"]
