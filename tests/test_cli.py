"""The command line: what it leaves, what it prints, what it refuses."""

import contextlib
import functools
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import npvae
from npvae import cli, data, evaluate, plots, runs, saving
from npvae.history import History, TrainingState
from npvae.schedules import BurdaStages, Cosine, Cyclical, Linear, StepDecay

SMALL = ["--hidden", "8", "--epochs", "2", "--batch-size", "50"]
PICTURES = ["grid.png", "latent.png", "loss.png", "reconstructions.png", "samples.png"]
ROW = dict.fromkeys(["epoch", "step", "seconds", "train_loss", "train_nll", "train_kl", "val_loss", "val_nll", "val_kl"], 1.0)


def make_small(patch, folder):
    """A small embedded data set, small pictures, and a folder of one's own to work in."""
    patch.setattr(data, "ISING_ROWS", (40, 10))
    patch.setattr(plots, "save", functools.partial(plots.save, dpi=25))
    patch.chdir(folder)


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    make_small(monkeypatch, tmp_path)


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take ten times as long as these runs; where a test looks at something else, none are drawn."""
    monkeypatch.setattr(runs, "draw_pictures", lambda *args: {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder with its pictures, and what was printed, made once for this file by `npvae train` without --out."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        make_small(patch, folder)
        assert cli.main(["train", *SMALL]) == 0
    return folder / "runs/ising", out.getvalue()


@pytest.fixture
def run(small_world, finished, tmp_path):
    """A copy of the run folder to work with, `run` in the current one."""
    shutil.copytree(finished[0], tmp_path / "run")
    return Path("run")


def error_of(capsys, *argv, status=1):
    """The one line that a failing command prints."""
    try:
        code = cli.main(list(argv))
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    assert code == status
    assert err.count("\n") == 1, err
    assert err.startswith("npvae")
    assert "Traceback" not in out + err
    return err


def test_train_leaves_the_run_folder(finished):
    folder, out = finished
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".lock", "best.npz", "checkpoint.npz", "checkpoint.previous.npz", "config.json", "metrics.jsonl", *PICTURES]
    )
    for path in folder.glob("[!.]*"):
        assert f"    {path.name} " in out
        assert path.stat().st_size > 0
    assert "epoch 2/2  train" in out
    assert "next: npvae evaluate runs/ising" in out
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert list(rows[0]) == list(ROW)
    last = rows[-1]
    assert (
        f"after 2 epochs, {last['seconds']:.0f} s: validation loss {last['val_loss']:.2f} = nll {last['val_nll']:.2f} + "
        f"kl {last['val_kl']:.2f} nats"
    ) in out
    config = json.loads((folder / "config.json").read_text())
    assert config["arguments"] == {
        "data": "ising", "epochs": 2, "batch_size": 50, "latent": 2, "hidden": [8], "activation": "relu",
        "likelihood": "bernoulli", "sigma": 0.1, "seed": 0, "data_dir": None, "workers": None, "initialization": "glorot",
        "output_bias": False, "objective": "elbo", "train_samples": 1, "beta": 1.0, "annealing_epochs": 0,
        "annealing_cycles": 0, "free_bits_per_dimension": 0.0, "free_bits_total": 0.0, "learning_rate": 1e-3,
        "learning_rate_schedule": "constant", "learning_rate_drop_epochs": 10, "learning_rate_drop_factor": 0.1,
        "max_gradient_norm": None, "weight_decay": 0.0, "early_stopping": None,
    }  # fmt: skip
    assert config["image_shape"] == [16, 16]
    assert config["npvae"] == npvae.__version__
    assert config["versions"]["numpy"] == np.__version__
    assert config["versions"]["python"] == sys.version.split()[0]
    assert config["blas"][0]["num_threads"] >= 1
    model = npvae.VAE.load(folder / "checkpoint.npz")
    assert model.config == config["model"]
    assert model.n_features == 256


@pytest.mark.usefixtures("no_pictures")
def test_a_used_default_folder_is_passed_over(capsys):
    Path("runs/ising").mkdir(parents=True)
    assert cli.main(["train", *SMALL]) == 0
    assert "run       runs/ising-2" in capsys.readouterr().out
    assert not list(Path("runs/ising").iterdir())


@pytest.mark.parametrize(("taken", "free"), [([], "a.png"), (["a.png"], "a-2.png"), (["a.png", "a-2.png"], "a-3.png")])
def test_free_path_is_the_first_that_does_not_exist(taken, free):
    for name in taken:
        Path(name).touch()
    assert runs.free_path(Path("a.png")) == Path(free)


def test_the_same_seed_repeats_the_run_to_the_last_pixel(finished, capsys):
    assert cli.main(["train", *SMALL, "--out", "again", "--seed", "0"]) == 0
    for picture in PICTURES:
        assert Path("again", picture).read_bytes() == (finished[0] / picture).read_bytes()
    first, again = (npvae.VAE.load(folder / "checkpoint.npz").theta for folder in (finished[0], Path("again")))
    np.testing.assert_array_equal(first, again)


@pytest.mark.usefixtures("no_pictures")
def test_every_option_reaches_the_model_or_the_training(monkeypatch):
    seen = []

    def fit(model, x_train, x_val, **options):
        seen.append((model.config, (len(x_train), len(x_val)), options))
        return History([ROW])

    monkeypatch.setattr(npvae.train, "fit", fit)
    argv = ["--latent", "3", "--hidden", "7", "5", "--activation", "silu", "--likelihood", "gaussian", "--sigma", "0.3"]
    argv += ["--epochs", "4", "--batch-size", "11", "--learning-rate", "0.02", "--beta", "0", "--seed", "6", "--workers", "2"]
    argv += ["--annealing-epochs", "3", "--initialization", "he", "--output-bias", "--train-samples", "3"]
    argv += ["--free-bits-per-dimension", "0.1", "--max-gradient-norm", "5", "--weight-decay", "0.01", "--early-stopping", "8"]
    assert cli.main(["train", "--out", "new", *argv]) == 0
    config, rows, options = seen[0]
    expected = {
        "n_features": 256, "n_latent": 3, "hidden": [7, 5], "decoder_hidden": [5, 7], "activation": "silu",
        "likelihood": "gaussian", "sigma": 0.3, "seed": 6, "initialization": "he",
    }  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    assert rows == (520, 130)
    assert callable(options.pop("on_epoch"))
    assert callable(options.pop("on_step"))
    assert options == {
        "epochs": 4, "batch_size": 11, "optimizer": npvae.Adam(0.02), "beta": Linear(3 * 48, 0.0, 0), "seed": 6, "workers": 2,
        "output_bias": True, "resume": None, "objective": "elbo", "n_samples": 3, "free_bits_per_dimension": 0.1,
        "free_bits_total": 0.0, "max_gradient_norm": 5, "weight_decay": 0.01, "early_stopping": 8,
    }  # fmt: skip
    assert json.loads(Path("new/config.json").read_text())["arguments"] == {
        "data": "ising", "data_dir": None, "epochs": 4, "batch_size": 11, "latent": 3, "hidden": [7, 5], "activation": "silu",
        "likelihood": "gaussian", "sigma": 0.3, "learning_rate": 0.02, "beta": 0, "seed": 6, "workers": 2,
        "annealing_epochs": 3, "initialization": "he", "output_bias": True, "objective": "elbo", "train_samples": 3,
        "annealing_cycles": 0, "free_bits_per_dimension": 0.1, "free_bits_total": 0.0, "learning_rate_schedule": "constant",
        "learning_rate_drop_epochs": 10, "learning_rate_drop_factor": 0.1, "max_gradient_norm": 5, "weight_decay": 0.01,
        "early_stopping": 8,
    }  # fmt: skip
    assert cli.main(["train", "--out", "linear", "--hidden"]) == 0
    assert seen[1][0]["hidden"] == []
    assert seen[1][2]["beta"] == 1.0


@pytest.mark.parametrize(
    ("argv", "name", "expected"),
    [  # 520 rows, 50 of them a step: 11 steps per epoch
        (["--learning-rate-schedule", "cosine"], "optimizer", npvae.Adam(Cosine(1e-3, 2 * 11))),
        (["--learning-rate-schedule", "burda", "--learning-rate", "0.01"], "optimizer", npvae.Adam(BurdaStages(11, 0.01))),
        (
            ["--learning-rate-schedule", "step", "--learning-rate-drop-epochs", "3", "--learning-rate-drop-factor", "0.5"],
            "optimizer",
            npvae.Adam(StepDecay(1e-3, 33, 0.5)),
        ),
        (["--annealing-epochs", "6", "--annealing-cycles", "2", "--beta", "4"], "beta", Cyclical(66, 2, end=4.0)),
        (["--free-bits-total", "3"], "free_bits_total", 3.0),
        (["--objective", "iwae"], "objective", "iwae"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_schedules_and_objectives_of_the_options(argv, name, expected, monkeypatch):
    seen = []
    monkeypatch.setattr(npvae.train, "fit", lambda *_, **options: seen.append(options) or History([ROW]))
    assert cli.main(["train", "--out", "new", *SMALL, *argv]) == 0
    assert seen[0][name] == expected


def test_cycles_of_annealing_need_epochs_to_go_over(capsys):
    error = error_of(capsys, "train", "--out", "new", *SMALL, "--annealing-cycles", "2")
    assert "--annealing-cycles needs --annealing-epochs" in error
    assert not Path("new").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_every_remedy_trains_and_is_evaluated_at_its_best_epoch(capsys):
    argv = ["--free-bits-per-dimension", "0.2", "--annealing-epochs", "1", "--max-gradient-norm", "1", "--weight-decay", "0.1"]
    argv += ["--early-stopping", "1", "--learning-rate", "0.5", "--epochs", "9", "--learning-rate-schedule", "cosine"]
    assert cli.main(["train", "--out", "new", *SMALL, *argv]) == 0
    model, state = saving.load_progress("new")
    assert state.best is not None
    np.testing.assert_array_equal(saving.load_model("new", best=True).theta, state.best.theta)
    assert cli.main(["evaluate", "new", "--samples", "2", "--json"]) == 0
    out = capsys.readouterr().out
    measured = json.loads(out[out.index("{") :])
    model.theta = state.best.theta
    assert measured["kl"] == pytest.approx(npvae.evaluate.kl_per_dimension(model, data.load("ising").x_val).sum(), rel=1e-6)


@pytest.mark.usefixtures("no_pictures")
def test_resume_goes_on_to_the_same_result(run, capsys):
    assert cli.main(["train", *SMALL, "--epochs", "4", "--out", "whole"]) == 0
    assert cli.main(["train", "--resume", "--epochs", "4", "--workers", "1", "--out", "run"]) == 0
    whole, parts = (npvae.VAE.load(f"{out}/checkpoint.npz").theta for out in ("whole", "run"))
    np.testing.assert_array_equal(whole, parts)
    metrics = [[json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
               for out in ("whole", "run")]  # fmt: skip
    for a, b in zip(*metrics, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    arguments = json.loads((run / "config.json").read_text())["arguments"]
    assert (arguments["epochs"], arguments["workers"], arguments["hidden"]) == (4, 1, [8])


def test_progress_is_read_as_it_was_saved(tmp_path):
    model = npvae.VAE(4, 1, (), backend="numpy")
    optimizer = {"t": 7, "m": model.theta + 1, "v": model.theta**2}
    state = TrainingState(optimizer, epoch=2, step=9, seconds=1.5, skipped=3, history=History([ROW, ROW]))
    saving.save_progress(tmp_path, model, state)
    read_model, read = saving.load_progress(tmp_path)
    np.testing.assert_array_equal(read_model.theta, model.theta)
    assert read.optimizer.keys() == optimizer.keys()
    for name, value in optimizer.items():
        np.testing.assert_array_equal(read.optimizer[name], value)
    assert (read.epoch, read.step, read.seconds, read.skipped) == (2, 9, 1.5, 3)
    assert read.history.rows == state.history.rows


def figures_of(monkeypatch, model, dataset):
    """The run's pictures by file name, as figures that are not written, and what is said of them."""
    figures = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.update({path.name: figure}))
    return figures, runs.draw_pictures(Path("folder"), model, dataset, History([{**ROW, "val_kl": 5.0}, ROW]))


def test_pictures_show_validation_rows_with_their_labels(monkeypatch):
    model, dataset = npvae.VAE(256, 2, (), seed=3, backend="numpy"), data.load("ising")
    figures, descriptions = figures_of(monkeypatch, model, dataset)
    assert sorted(figures) == sorted(descriptions) == PICTURES
    shown = [0, 11, 23, 35, 46, 58, 70, 82, 93, 105, 117, 129]  # from the first of 130 rows to the last
    x = dataset.x_val.astype(np.float32)
    axes = figures["reconstructions.png"].axes
    images = [a.images[0].get_array().ravel() for a in axes]
    np.testing.assert_array_equal(images, np.concatenate([x[shown], model.reconstruct(x[shown])]))
    assert [a.get_title() for a in axes[:12]] == [f"{t:.3g}" for t in dataset.labels_val[shown]]
    assert figures["reconstructions.png"].get_suptitle() == "temperature (J/k)"
    points = figures["latent.png"].axes[0].collections[0]
    seen = np.column_stack([points.get_offsets(), points.get_array()])
    expected = np.column_stack([model.encode(x)[0], dataset.labels_val])
    np.testing.assert_array_equal(seen[np.lexsort(seen.T)], expected[np.lexsort(expected.T)])
    assert figures["loss.png"].axes[2].lines[1].get_ydata().tolist() == [5, 1]
    assert figures["samples.png"].axes[0].images[0].get_array().shape == (8 * 17 - 1, 8 * 17 - 1)  # 64 draws


@pytest.mark.parametrize(("n_latent", "image_shape", "drawn"), [(2, (2, 2), True), (3, (2, 2), False), (2, None, False)])
def test_the_decoded_grid_is_drawn_for_two_dimensions_and_images(monkeypatch, n_latent, image_shape, drawn):
    dataset = data.Dataset("bits", np.eye(4), np.eye(4), None, "label", image_shape)
    figures, _ = figures_of(monkeypatch, npvae.VAE(4, n_latent, (), backend="numpy"), dataset)
    assert ("grid.png" in figures) == drawn
    assert not figures["reconstructions.png"].axes[0].get_title()


def test_the_latent_picture_shows_the_dimensions_with_the_largest_kl(monkeypatch):
    model = npvae.VAE(4, 3, (), backend="numpy")
    model.parameters["posterior.W"][:, 2] = 0
    model.parameters["posterior.b"][2] = 3  # far from the prior's mean, and the same for every row
    dataset = data.Dataset("bits", np.eye(4), np.eye(4), None, "label", None)
    figures, _ = figures_of(monkeypatch, model, dataset)
    assert figures["latent.png"].axes[0].get_ylabel() == "posterior mean of $z_{3}$"


def evaluated(capsys, *options):
    """What `npvae evaluate --json` says."""
    assert cli.main(["evaluate", "run", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_evaluate_prints_the_numbers_of_its_json_with_their_units(run, capsys):
    results = evaluated(capsys)
    assert cli.main(["evaluate", "run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    bits, kl = results["bits_per_dimension"], results["kl_per_dimension"]
    error = results["elbo_standard_error"]
    for words in (
        "measured on 130 validation rows; means per datum",
        f"ELBO {results['elbo']:.3f} nats ± {error:.3f}, the noise of 10 z per datum",
        f" nll {results['nll']:.3f} nats −ELBO = nll + kl",
        f" kl {results['kl']:.3f} nats = I(x; z) + KL(q(z) ‖ p(z)) ",
        f" I(x; z) {results['mutual_information']:.3f} nats what z tells about x, at most 4.868 ",
        f" KL(q(z)‖p(z)) {results['aggregate_kl']:.3f} nats ",
        f"log p(x) at least {results['log_likelihood']:.3f} nats importance-weighted, 100 samples per datum",
        f"bits per dimension {bits['elbo']:.4f} bits from the ELBO; {bits['log_likelihood']:.4f} from log p(x)",
        f"active units {results['active_units']} of 2 ",
    ):
        assert words in printed
    widest = int(np.argmax(kl))
    assert f"nats z_{widest + 1} {kl[widest]:.4f} {'█' * 40} z_{2 - widest} {kl[1 - widest]:.4f}" in printed


def test_evaluate_json_is_what_the_library_says(run, capsys):
    results = evaluated(capsys, "--samples", "20", "--seed", "5")
    model = npvae.VAE.load(run / "checkpoint.npz")
    x = npvae.model_input(model, data.load("ising").x_val, 5)
    bound, log_likelihood = evaluate.elbo(model, x, 5, 10), evaluate.log_likelihood(model, x, 20, 5).mean()
    assert results["run"] == "run"
    assert results["rows"] == 130
    assert (results["elbo_samples"], results["log_likelihood_samples"], results["n_latent"]) == (10, 20, 2)
    assert tuple(results[name] for name in ("elbo", "nll", "kl", "elbo_standard_error")) == pytest.approx(bound)
    assert results["log_likelihood"] == pytest.approx(log_likelihood)
    assert (results["mutual_information"], results["aggregate_kl"]) == pytest.approx(evaluate.kl_parts(model, x, 5))
    assert results["kl_per_dimension"] == pytest.approx(evaluate.kl_per_dimension(model, x).tolist())
    bits = {"elbo": -bound.elbo / 256 / np.log(2), "log_likelihood": -log_likelihood / 256 / np.log(2)}
    assert results["bits_per_dimension"] == pytest.approx(bits)
    assert results["active_units"] == evaluate.active_units(model, x).sum()


def test_grey_images_are_measured_as_binarised_with_the_seed(monkeypatch):
    grey = np.random.default_rng(0).random((6, 9))
    dataset = data.Dataset("grey", grey, grey, None, "label", (3, 3))
    model = npvae.VAE(9, 2, (), backend="numpy")
    expected = [evaluate.elbo(model, npvae.model_input(model, grey, seed), seed, 10).elbo for seed in (1, 2)]
    assert [runs.measure(model, dataset, 3, seed)["elbo"] for seed in (1, 2)] == expected


def test_sample_draws_as_many_as_asked_with_the_seed(run, capsys):
    assert cli.main(["sample", "run"]) == 0
    assert (run / "draws.png").read_bytes() == (run / "samples.png").read_bytes()  # the run's own: 64 draws of seed 0
    assert "run/draws.png: 64 draws of VAE(" in capsys.readouterr().out
    for name, options in [("other.png", ["--seed", "1"]), ("few.PNG", ["--count", "5"])]:
        assert cli.main(["sample", "run", "--out", name, *options]) == 0
        assert Path(name).read_bytes() != (run / "samples.png").read_bytes()
    assert "few.PNG: 5 draws" in capsys.readouterr().out


def test_sample_never_writes_over_a_picture(run, capsys, monkeypatch):
    written = []
    monkeypatch.setattr(plots, "save", lambda figure, path: (written.append(str(path)), path.write_text("mine")))
    assert cli.main(["sample", "run"]) == 0
    assert cli.main(["sample", "run"]) == 0
    assert written == ["run/draws.png", "run/draws-2.png"]
    capsys.readouterr()
    assert "exists already" in error_of(capsys, "sample", "run", "--out", "run/draws.png")
    assert "--out must name a .png file" in error_of(capsys, "sample", "run", "--out", "x.pdf")
    assert written == ["run/draws.png", "run/draws-2.png"]


@pytest.mark.usefixtures("no_pictures")
def test_own_data_with_labels_and_gaussian_likelihood(capsys, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    t = rng.random(60)
    x = np.sin(np.linspace(0, 6, 12) + 6 * t[:, None]) + 0.1 * rng.standard_normal((60, 12))
    np.savez("waves.npz", x=x, labels=t)
    assert cli.main(["train", *SMALL, "--data", "waves.npz", "--likelihood", "gaussian", "--latent", "1"]) == 0
    out = capsys.readouterr().out
    assert "54 rows to train on, 6 to validate on" in out
    monkeypatch.chdir(tmp_path.parent)  # the run remembers where its data are
    folder = tmp_path / "runs/waves"
    assert cli.main(["evaluate", str(folder), "--samples", "5"]) == 0
    assert cli.main(["sample", str(folder), "--count", "4"]) == 0
    os.rename(tmp_path / "waves.npz", tmp_path / "moved.npz")
    capsys.readouterr()
    assert "waves.npz" in error_of(capsys, "evaluate", str(folder))


@pytest.mark.usefixtures("no_pictures")
def test_data_dir_is_where_the_data_are_and_may_move(capsys):
    Path("old").mkdir()
    np.save("old/bits.npy", np.eye(12))
    assert cli.main(["train", *SMALL, "--data", "bits.npy", "--data-dir", "old"]) == 0
    assert json.loads(Path("runs/bits/config.json").read_text())["arguments"]["data_dir"] == str(Path("old").resolve())
    os.rename("old", "new")
    assert cli.main(["evaluate", "runs/bits", "--samples", "2", "--data-dir", "new"]) == 0
    capsys.readouterr()
    assert "bits.npy" in error_of(capsys, "evaluate", "runs/bits")


def test_own_rows_are_split_once_and_keep_their_labels():
    rows = np.arange(40.0)
    np.savez("rows.npz", x=np.tile(rows[:, None], 2), labels=rows)
    dataset = data.load("rows.npz")
    np.testing.assert_array_equal(dataset.labels_val, dataset.x_val[:, 0])
    assert len(dataset.x_val) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([dataset.x_train, dataset.x_val])[:, 0]), rows)
    np.testing.assert_array_equal(data.load("rows.npz").x_val, dataset.x_val)


@pytest.mark.parametrize(
    ("shape", "image_shape"), [((9,), (3, 3)), ((2, 3), (2, 3)), ((1,), None), ((8,), None), ((2, 2, 2), None)]
)
def test_own_rows_are_images_where_they_came_as_such_or_are_square(shape, image_shape):
    np.save("rows.npy", np.zeros((5, *shape)))
    assert data.load("rows.npy").image_shape == image_shape


BAD = [
    (["train", "--data", "nothing"], "data must be ising, mnist or the path"),
    (["train", "--data", "nothing.npy"], "nothing.npy"),
    (["train", "--data", "mnist", "--data-dir", "."], "missing train-images-idx3-ubyte"),
    (["train", "--resume"], "--resume needs --out RUN"),
    (["train", "--resume", "--out", "nothing"], "nothing is not a run folder"),
    (["evaluate", "nothing"], "nothing is not a run folder"),
    (["sample", "nothing"], "nothing is not a run folder"),
]
BAD_USE = [
    ([], "COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["train", "--epochs", "0"], "argument --epochs: must be an integer of at least 1; got '0'"),
    (["train", "--latent", "two"], "argument --latent: must be an integer of at least 1; got 'two'"),
    (["train", "--hidden", "5", "-5"], "argument --hidden"),
    (["train", "--learning-rate", "nan"], "argument --learning-rate: must be a number above 0; got 'nan'"),
    (["train", "--beta", "-1"], "argument --beta"),
    (["train", "--beta", "inf"], "argument --beta"),
    (["train", "--sigma", "0"], "argument --sigma"),
    (["train", "--seed", "-1"], "argument --seed: must be an integer of at least 0"),
    (["train", "--workers", "0"], "argument --workers: must be an integer of at least 1"),
    (["train", "--activation", "gelu"], "argument --activation: invalid choice: 'gelu'"),
    (["train", "--likelihood", "poisson"], "argument --likelihood"),
    (["train", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    (["evaluate"], "RUN"),
    (["evaluate", "run", "--samples", "0"], "argument --samples"),
    (["sample", "run", "--count", "0"], "argument --count"),
]


@pytest.mark.parametrize(("argv", "message"), BAD)
def test_what_cannot_be_done_is_one_line(capsys, argv, message):
    assert message in error_of(capsys, *argv)
    assert not Path("runs").exists()


@pytest.mark.parametrize(("argv", "message"), BAD_USE)
def test_wrong_options_are_one_line(capsys, argv, message):
    assert message in error_of(capsys, *argv, status=2)


def test_a_used_run_folder_is_left_alone(run, capsys):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "already in use" in error_of(capsys, "train", *SMALL, "--out", "run")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_folder_that_cannot_be_made(capsys):
    Path("file").write_text("mine")
    assert "run folder file/run cannot be made" in error_of(capsys, "train", *SMALL, "--out", "file/run")
    assert "run folder file cannot be made" in error_of(capsys, "train", *SMALL, "--out", "file")
    assert Path("file").read_text() == "mine"


def test_resume_refuses_other_settings(run, capsys):
    options = ["--hidden", "9", "--learning-rate", "1", "--data-dir", "."]
    message = error_of(capsys, "train", "--resume", "--out", "run", *options)
    assert "leave out --hidden, --learning-rate, --data-dir" in message


def test_unusable_data_leave_no_folder(capsys):
    np.save("bad.npy", np.full((10, 4), 7.0))
    assert "must lie in [0, 1]" in error_of(capsys, "train", "--data", "bad.npy")
    np.save("one.npy", np.zeros((1, 4)))
    assert "at least 2 rows" in error_of(capsys, "train", "--data", "one.npy")
    np.save("nan.npy", np.full((10, 4), np.nan))
    assert "nan" in error_of(capsys, "train", "--data", "nan.npy", "--likelihood", "gaussian")
    np.save("huge.npy", np.zeros((10, 4)))
    assert "parameters" in error_of(capsys, "train", "--data", "huge.npy", "--hidden", "100000", "100000")
    assert not Path("runs").exists()


def test_training_that_diverges_is_one_line(capsys):
    message = error_of(capsys, "train", *SMALL, "--activation", "softplus", "--learning-rate", "1e30")
    assert "a lower learning rate may help" in message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"arguments": 3}'])
def test_a_damaged_config_is_named(run, capsys, content):
    (run / "config.json").write_text(content)
    assert "config.json: damaged" in error_of(capsys, "evaluate", "run")


def test_a_damaged_or_missing_checkpoint_is_named(run, capsys):
    (run / "checkpoint.previous.npz").unlink()
    npvae.VAE.load(run / "checkpoint.npz").save("model.npz")
    os.replace("model.npz", run / "checkpoint.npz")
    assert "holds a model but no training state" in error_of(capsys, "train", "--resume", "--out", "run")
    (run / "checkpoint.npz").write_bytes(b"PK\x03\x04 broken")
    assert "checkpoint.npz: not an npvae checkpoint, or damaged" in error_of(capsys, "evaluate", "run")
    (run / "checkpoint.npz").unlink()
    assert "checkpoint.npz does not exist" in error_of(capsys, "sample", "run")


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [(KeyboardInterrupt, "interrupted", 130), (MemoryError, "not enough memory", 1), (OSError("two\nlines"), "two lines", 1)],
)
def test_accidents_are_one_line_and_a_status(capsys, monkeypatch, error, message, status):
    def stumble(*args, **kwargs):
        raise error

    monkeypatch.setattr(data, "load", stumble)
    assert f"npvae: error: {message}" in error_of(capsys, "train", status=status)


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["sample", "--help"]])
def test_help_teaches(capsys, argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: npvae")
    assert len(out.splitlines()) > 8


def test_python_m_npvae_is_the_command():
    result = subprocess.run([sys.executable, "-m", "npvae", "evaluate", "nothing"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("npvae: error: nothing is not a run folder")


def test_output_that_nobody_reads_is_no_error(run):
    command = [sys.executable, "-u", "-m", "npvae", "evaluate", "run", "--samples", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_own_data_may_move(capsys):
    np.save("bits.npy", np.eye(12, dtype=bool))
    assert cli.main(["train", *SMALL, "--data", "bits.npy", "--out", "run"]) == 0
    Path("moved").mkdir()
    os.rename("bits.npy", "moved/bits.npy")
    assert cli.main(["evaluate", "run", "--samples", "2", "--data-dir", "moved"]) == 0


def test_beta_zero_in_any_spelling():
    for text in ("0", "0.00", "0e0"):
        assert cli.build_parser().parse_args(["train", "--beta", text]).beta == 0


def test_files_have_the_usual_permissions(run):
    Path("usual").touch()
    for path in run.glob("*.*"):
        assert path.stat().st_mode == Path("usual").stat().st_mode, path
