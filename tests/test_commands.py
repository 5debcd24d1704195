"""What the commands do: train, resume, evaluate, sample, check gradients. With data of one's own: test_own_data.py."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PICTURES, SMALL

import npvae
from npvae import data, evaluate
from npvae.app import cli, commands, plots
from npvae.models.protocol import Measure
from npvae.training import checkpoint, fit
from npvae.training.schedules import BurdaStages, Cosine, Cyclical, Linear, StepDecay
from npvae.training.state import History, columns

pytestmark = pytest.mark.usefixtures("small_world")
ROW = dict.fromkeys(columns(npvae.Terms), 1.0)


# ---------------------------------------------------------------------------------------------------------------- train


def test_train_says_what_it_reached_and_what_comes_next(finished):
    folder, out = finished
    assert "epoch 2/2  train" in out
    assert "next: npvae evaluate runs/ising" in out
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert (
        f"after 2 epochs, {last['seconds']:.0f} s: validation loss {last['val_loss']:.2f} (nll {last['val_nll']:.2f}, "
        f"kl {last['val_kl']:.2f}) nats per datum"
    ) in out


def test_the_same_seed_repeats_the_run_to_the_last_pixel(finished, capsys):
    assert cli.main(["train", *SMALL, "--out", "again", "--seed", "0"]) == 0
    for picture in PICTURES:
        assert Path("again", picture).read_bytes() == (finished[0] / picture).read_bytes()
    first, again = (npvae.VAE.load(folder / "checkpoint.npz").theta for folder in (finished[0], Path("again")))
    np.testing.assert_array_equal(first, again)


@pytest.mark.usefixtures("no_pictures")
def test_every_option_reaches_the_model_or_the_training(monkeypatch):
    seen = []

    def note(model, x_train, x_val, **options):
        seen.append((model.copy(), (len(x_train), len(x_val)), options))
        return History([ROW])

    monkeypatch.setattr(fit, "fit", note)
    argv = ["--latent", "3", "--hidden", "7", "5", "--activation", "silu", "--likelihood", "gaussian", "--sigma", "0.3"]
    argv += ["--epochs", "4", "--batch-size", "11", "--learning-rate", "0.02", "--beta", "0", "--seed", "6", "--workers", "2"]
    argv += ["--annealing-epochs", "3", "--initialization", "he", "--output-bias", "--train-samples", "3"]
    argv += ["--free-bits-per-dimension", "0.1", "--max-gradient-norm", "5", "--weight-decay", "0.01", "--early-stopping", "8"]
    argv += ["--posterior", "full", "--min-sigma", "0.02"]
    assert cli.main(["train", "--out", "new", *argv]) == 0
    model, rows, options = seen[0]
    config = model.config
    expected = {
        "n_features": 256, "n_latent": 3, "hidden": [7, 5], "decoder_hidden": [5, 7], "activation": "silu",
        "likelihood": "gaussian", "sigma": 0.3, "seed": 6, "initialization": "he", "posterior": "full", "min_sigma": 0.02,
    }  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    assert rows == (520, 130)
    assert callable(options.pop("on_epoch"))
    assert callable(options.pop("on_step"))
    assert options == {
        "epochs": 4, "batch_size": 11, "optimizer": npvae.Adam(0.02), "beta": Linear(3 * 48, 0.0, 0), "seed": 6, "workers": 2,
        "resume": None, "objective": "elbo", "n_samples": 3, "free_bits_per_dimension": 0.1,
        "free_bits_total": 0.0, "max_gradient_norm": 5, "weight_decay": 0.01, "early_stopping": 8, "reduction": "fastest",
        "comm": None, "steps_per_epoch": 520,
    }  # fmt: skip
    mean = data.load("ising").x_train.mean(axis=0)
    np.testing.assert_allclose(model.parameters["likelihood.b"], mean, rtol=1e-6)  # --output-bias
    assert json.loads(Path("new/config.json").read_text())["arguments"] == {
        "model": "vae", "data": "ising", "data_dir": None, "scale": None, "image_shape": None, "condition": None, "epochs": 4,
        "batch_size": 11, "latent": 3, "hidden": [7, 5],
        "activation": "silu",
        "likelihood": "gaussian", "sigma": 0.3, "learning_rate": 0.02, "beta": 0, "seed": 6, "workers": 2,
        "annealing_epochs": 3, "initialization": "he", "output_bias": True, "objective": "elbo", "train_samples": 3,
        "annealing_cycles": 0, "free_bits_per_dimension": 0.1, "free_bits_total": 0.0, "learning_rate_schedule": "constant",
        "learning_rate_drop_epochs": 10, "learning_rate_drop_factor": 0.1, "max_gradient_norm": 5, "weight_decay": 0.01,
        "early_stopping": 8, "posterior": "full", "min_sigma": 0.02, "reduction": "fastest",
    }  # fmt: skip
    assert cli.main(["train", "--out", "linear", "--hidden"]) == 0
    assert seen[1][0].config["hidden"] == []
    assert seen[1][2]["beta"] == 1.0
    assert not seen[1][0].parameters["likelihood.b"].any()


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
    monkeypatch.setattr(fit, "fit", lambda *_, **options: seen.append(options) or History([ROW]))
    assert cli.main(["train", "--out", "new", *SMALL, *argv]) == 0
    assert seen[0][name] == expected


def test_cycles_of_annealing_need_epochs_to_go_over(error_of):
    error = error_of("train", "--out", "new", *SMALL, "--annealing-cycles", "2")
    assert "--annealing-cycles needs --annealing-epochs" in error
    assert not Path("new").exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_every_remedy_trains_and_is_evaluated_at_its_best_epoch(capsys):
    argv = ["--free-bits-per-dimension", "0.2", "--annealing-epochs", "1", "--max-gradient-norm", "1", "--weight-decay", "0.1"]
    argv += ["--early-stopping", "1", "--learning-rate", "0.5", "--epochs", "9", "--learning-rate-schedule", "cosine"]
    assert cli.main(["train", "--out", "new", *SMALL, *argv]) == 0
    model, state = checkpoint.load_progress("new")
    assert state.best is not None
    np.testing.assert_array_equal(checkpoint.load_model("new", best=True).theta, state.best.theta)
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


def test_resume_refuses_other_settings(run, error_of):
    options = ["--hidden", "9", "4", "--learning-rate", "1", "--batch-size", "50", "--scale", "2"]
    message = error_of("train", "--resume", "--out", "run", *options)
    assert message == (
        "npvae: error: --resume goes on with the settings of run/config.json: --scale is not given there, not 2.0; --hidden is "
        "8 there, not 9 4; --learning-rate is 0.001 there, not 1.0. Leave out what differs, or begin another run\n"
    )


@pytest.mark.usefixtures("no_pictures")
def test_one_command_line_starts_a_run_and_restarts_it(capsys, monkeypatch):
    np.save("x.npy", np.eye(20))
    line = ["train", *SMALL, "--data", "x.npy", "--seed", "3", "--out", "job", "--resume"]
    assert cli.main(line) == 0  # there is no folder yet
    assert "epoch 2/2" in capsys.readouterr().out
    before = npvae.VAE.load("job/checkpoint.npz").theta
    assert cli.main(line) == 0  # there is nothing left to do
    out = capsys.readouterr().out
    assert "epoch 2/2" not in out
    assert "after 2 epochs" in out
    np.testing.assert_array_equal(npvae.VAE.load("job/checkpoint.npz").theta, before)
    for name in ("empty", "killed"):
        Path(name).mkdir()
    Path("killed/.lock").touch()
    Path("killed/.config.json.123").touch()
    for name in ("empty", "killed"):
        assert cli.main([*line[:-3], "--out", name, "--resume"]) == 0
        np.testing.assert_array_equal(npvae.VAE.load(f"{name}/checkpoint.npz").theta, before)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_goes_on_where_its_data_have_moved_and_not_with_others(error_of, capsys):
    for folder in ("old", "new", "other"):
        Path(folder).mkdir()
    np.save("old/x.npy", np.eye(20))
    line = ["train", *SMALL, "--data", "x.npy", "--data-dir"]
    assert cli.main([*line, "old", "--out", "run"]) == 0
    os.rename("old/x.npy", "new/x.npy")
    np.save("other/x.npy", np.tri(20))
    resume = ["--resume", "--out", "run", "--epochs", "3"]
    assert "the data are not those that run was trained on: their SHA-256 is " in error_of(*line, "other", *resume)
    assert cli.main([*line, "new", *resume]) == 0
    assert json.loads(Path("run/config.json").read_text())["arguments"]["data_dir"] == str(Path("new").resolve())
    assert cli.main(["train", *resume, "--epochs", "4"]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--samples", "1"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main(["evaluate", "run", "--samples", "1", "--data-dir", "other"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("npvae: warning: the data are not those that run was trained on")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("no_pictures")
def test_a_learning_rate_that_more_epochs_move_is_announced(capsys):
    np.save("x.npy", np.eye(20))
    line = ["train", *SMALL, "--data", "x.npy", "--out", "run"]
    assert cli.main([*line, "--learning-rate-schedule", "cosine"]) == 0
    capsys.readouterr()
    assert cli.main(["train", "--resume", "--out", "run", "--epochs", "4"]) == 0
    assert (
        "note      the learning rate goes on at 0.0005, not at 0: its schedule goes over 4 epochs now, not 2\n"
        in capsys.readouterr().out
    )
    assert cli.main(["train", "--resume", "--out", "run", "--epochs", "4"]) == 0
    assert "note" not in capsys.readouterr().out


def test_unusable_data_leave_no_folder(error_of):
    np.save("bad.npy", np.full((10, 4), 7.0))
    assert "must lie in [0, 1]" in error_of("train", "--data", "bad.npy")
    np.save("one.npy", np.zeros((1, 4)))
    assert "at least 2 rows" in error_of("train", "--data", "one.npy")
    np.save("nan.npy", np.full((10, 4), np.nan))
    assert "nan" in error_of("train", "--data", "nan.npy", "--likelihood", "gaussian")
    np.save("huge.npy", np.zeros((10, 4)))
    assert "parameters" in error_of("train", "--data", "huge.npy", "--hidden", "100000", "100000")
    for options in (["--free-bits-total", "1", "--objective", "iwae"], ["--annealing-cycles", "2"]):
        error_of("train", *SMALL, *options)
    assert not Path("runs").exists()


def test_training_that_diverges_is_one_line(error_of):
    message = error_of("train", *SMALL, "--activation", "softplus", "--learning-rate", "1e30")
    assert "a lower learning rate may help" in message


def test_a_damaged_or_missing_checkpoint_is_named(run, error_of):
    (run / "checkpoint.previous.npz").unlink()
    npvae.VAE.load(run / "checkpoint.npz").save("model.npz")
    os.replace("model.npz", run / "checkpoint.npz")
    assert "holds a model but no training state" in error_of("train", "--resume", "--out", "run")
    (run / "checkpoint.npz").write_bytes(b"PK\x03\x04 broken")
    assert "checkpoint.npz: not an npvae checkpoint, or damaged" in error_of("evaluate", "run")
    (run / "checkpoint.npz").unlink()
    assert "checkpoint.npz does not exist" in error_of("sample", "run")


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_was_stopped_early_says_so(capsys):
    np.save("x.npy", np.eye(20))
    argv = ["train", *SMALL, "--data", "x.npy", "--epochs", "50", "--early-stopping", "2", "--learning-rate", "0.1"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    model, state = checkpoint.load_progress("runs/x")
    assert f"stopped early: no lower validation loss in 2 epochs; kept the weights of epoch {state.best.epoch}" in out
    assert state.epoch == state.best.epoch + 2 < 50
    assert not np.array_equal(model.theta, state.best.theta)


# ------------------------------------------------------------------------------------------------------------- evaluate


@pytest.mark.usefixtures("no_pictures", "few_cases")
def test_a_run_is_evaluated_and_checked_with_the_settings_that_its_training_ended_with(monkeypatch, capsys):
    np.save("x.npy", np.eye(20))
    argv = ["--objective", "iwae", "--train-samples", "3", "--beta", "0.5", "--annealing-epochs", "1", "--activation", "tanh"]
    assert cli.main(["train", *SMALL, "--data", "x.npy", "--out", "run", *argv]) == 0
    seen, forward = [], npvae.VAE.forward

    def noted(self, x, eps, **settings):
        seen.append((eps.shape[:-2], settings))
        return forward(self, x, eps, **settings)

    monkeypatch.setattr(npvae.VAE, "forward", noted)
    assert cli.main(["gradcheck", "run"]) == 0
    wanted = {"objective": "iwae", "n_samples": 3, "beta": 0.5, "free_bits_per_dimension": 0.0, "free_bits_total": 0.0}
    assert seen
    assert all(item == ((3,), wanted) for item in seen)
    seen.clear()
    monkeypatch.delattr(npvae.VAE, "measure")
    assert cli.main(["evaluate", "run"]) == 0
    assert seen == [((3,), {"objective": "iwae", "n_samples": 3, "beta": 0.5})]


@pytest.mark.usefixtures("no_pictures", "few_cases")
def test_the_data_of_a_run_that_is_checked_may_have_moved(error_of):
    np.save("x.npy", np.eye(20))
    assert cli.main(["train", *SMALL, "--data", "x.npy", "--out", "run"]) == 0
    Path("moved").mkdir()
    os.rename("x.npy", "moved/x.npy")
    assert "x.npy" in error_of("gradcheck", "run")
    assert cli.main(["gradcheck", "run", "--data-dir", "moved"]) == 0


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
        f"elbo {results['elbo']:.3f} nats ± {error:.3f}, the noise of 10 z per datum",
        f" nll {results['nll']:.3f} nats −ELBO = nll + kl",
        f" kl {results['kl']:.4f} nats = mutual information + aggregate KL ",
        f" mutual information {results['mutual_information']:.4f} nats I(x; z): what z tells about x, at most 4.868 ",
        f" aggregate kl {results['aggregate_kl']:.4f} nats KL(q(z) ‖ p(z)): ",
        f"log likelihood {results['log_likelihood']:.3f} nats log p(x) is at least this; 100 samples per datum",
        f"bits per dimension, elbo {bits['elbo']:.4f} bits ",
        f" bits per dimension, log likelihood {bits['log_likelihood']:.4f} bits",
        f"active units {results['active_units']} of 2 ",
    ):
        assert words in printed
    widest = int(np.argmax(kl))
    assert f"kl per dimension, nats z_{widest + 1} {kl[widest]:.4f} {'█' * 40} z_{2 - widest} {kl[1 - widest]:.4f}" in printed


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
    assert results["units"]["elbo"] == "nats"
    assert results["active_units"] == evaluate.active_units(model, x).sum()


def test_what_is_not_finite_is_null_in_json_and_said_in_the_table(run, monkeypatch, capsys):
    measures = [Measure("elbo", np.float64("nan"), "nats"), Measure("kl", [np.inf, 1.0], "nats")]
    monkeypatch.setattr(npvae.VAE, "measure", lambda *args, **kwargs: measures)
    assert cli.main(["evaluate", "run", "--json"]) == 0
    results = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (results["elbo"], results["kl"]) == (None, [None, 1.0])
    assert cli.main(["evaluate", "run"]) == 0
    assert "nan nats" in capsys.readouterr().out


def test_grey_images_are_measured_as_binarised_with_the_seed(monkeypatch):
    grey = np.random.default_rng(0).random((6, 9))
    dataset = data.Dataset("grey", grey, grey, None, "label", (3, 3))
    model = npvae.VAE(9, 2, (), backend="numpy")
    expected = [evaluate.elbo(model, npvae.model_input(model, grey, seed), seed, 10).elbo for seed in (1, 2)]
    for seed, elbo in zip((1, 2), expected):
        batch = commands.validation_rows(model, dataset, seed)
        measures = commands.measures_of(model, batch, SimpleNamespace(samples=3, seed=seed), {})
        assert next(m.value for m in measures if m.name == "elbo") == elbo


# --------------------------------------------------------------------------------------------------------------- sample


def test_sample_draws_as_many_as_asked_with_the_seed(run, capsys):
    assert cli.main(["sample", "run"]) == 0
    assert (run / "draws.png").read_bytes() == (run / "samples.png").read_bytes()  # the run's own: 64 draws of seed 0
    assert "run/draws.png: 64 draws of VAE(" in capsys.readouterr().out
    for name, options in [("other.png", ["--seed", "1"]), ("few.PNG", ["--count", "5"])]:
        assert cli.main(["sample", "run", "--out", name, *options]) == 0
        assert Path(name).read_bytes() != (run / "samples.png").read_bytes()
    assert "few.PNG: 5 draws" in capsys.readouterr().out


def test_sample_never_writes_over_a_picture(run, error_of, monkeypatch):
    written = []
    monkeypatch.setattr(plots, "save", lambda figure, path: (written.append(str(path)), path.write_text("mine")))
    assert cli.main(["sample", "run"]) == 0
    assert cli.main(["sample", "run"]) == 0
    assert written == ["run/draws.png", "run/draws-2.png"]
    assert "exists already" in error_of("sample", "run", "--out", "run/draws.png")
    assert "--out must name a .png file" in error_of("sample", "run", "--out", "x.pdf")
    assert written == ["run/draws.png", "run/draws-2.png"]


@pytest.mark.usefixtures("run")
def test_a_picture_that_cannot_be_drawn_is_one_line_and_leaves_nothing(error_of, monkeypatch):
    def fail(figure, path):
        path.write_bytes(b"half a picture")
        raise RuntimeError("Failed to process string with tex\nbecause latex could not be found")

    monkeypatch.setattr(plots, "save", fail)
    expected = "draws.png could not be drawn (RuntimeError: Failed to process string with tex because latex could not be found)"
    assert expected in error_of("sample", "run")
    assert not Path("run/draws.png").exists()


# ----------------------------------------------------------------------------------------------------- scale and image shape


def calls_of(monkeypatch, module, name):
    """The positional arguments of every call of a function from now on."""
    calls, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: calls.append(args) or function(*args, **kwargs))
    return calls


def results_of(monkeypatch, module, name):
    """What every call of a function returns from now on."""
    results, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: results.append(function(*args)) or results[-1])
    return results


@pytest.fixture(params=["standardise", "16"])
def scaled_run(request, no_pixels):
    """A function: trains a model on x.npy with --scale and --image-shape; returns the Dataset and the trained model."""
    np.save("x.npy", 300 + 20 * np.random.default_rng(0).standard_normal((40, 6)))

    def train(*argv):
        line = ["train", "--data", "x.npy", "--scale", request.param, "--image-shape", "2", "3", "--out", "run"]
        assert cli.main([*line, "--epochs", "1", "--hidden", "4", "--batch-size", "20", *argv]) == 0
        scale = request.param if request.param == "standardise" else float(request.param)
        return data.load("x.npy", scale=scale), npvae.models.saved.load("run/checkpoint.npz")

    return train


GAUSSIAN = ["--likelihood", "gaussian", "--sigma", "1"]


@pytest.mark.parametrize("model", ["vae", "flow"])
def test_draws_have_the_units_and_the_image_shape_of_the_data(scaled_run, monkeypatch, model):
    calls = calls_of(monkeypatch, plots, "samples")
    dataset, trained = scaled_run("--model", model, *(GAUSSIAN if model == "vae" else []))
    os.rename("x.npy", "gone.npy")
    assert cli.main(["sample", "run"]) == 0
    assert len(calls) == 2
    for drawn, image_shape, _ in calls:
        np.testing.assert_allclose(drawn, dataset.scaling.undo(trained.sample(64, 0)), rtol=1e-6)
        assert tuple(image_shape) == (2, 3)


@pytest.mark.parametrize("model", ["vae", "autoencoder"])
def test_reconstructions_have_the_units_and_the_image_shape_of_the_data(scaled_run, monkeypatch, model):
    calls = calls_of(monkeypatch, plots, "reconstructions")
    dataset, trained = scaled_run("--model", model, *GAUSSIAN)
    x = npvae.model_input(trained, dataset.x_val)
    [(shown, reconstructed, image_shape, *_)] = calls
    np.testing.assert_allclose(shown, data.load("x.npy").x_val, rtol=1e-6)
    np.testing.assert_allclose(reconstructed, dataset.scaling.undo(trained.reconstruct(x)), rtol=1e-6)
    assert image_shape == (2, 3)


def test_the_decoded_grid_has_the_units_of_the_data(scaled_run, monkeypatch):
    decoded, drawn = calls_of(monkeypatch, npvae.VAE, "decode"), calls_of(monkeypatch, plots, "tile")
    dataset, trained = scaled_run(*GAUSSIAN)
    np.testing.assert_allclose(drawn[-1][0], dataset.scaling.undo(trained.decode(decoded[-1][1])), rtol=1e-6)


@pytest.mark.usefixtures("few_cases")
@pytest.mark.parametrize("model", ["vae", "autoencoder"])
def test_a_run_is_evaluated_and_checked_on_its_data_as_they_were_scaled(scaled_run, monkeypatch, capsys, model):
    dataset, trained = scaled_run("--model", model, *GAUSSIAN)
    seen = results_of(monkeypatch, commands, "validation_rows")
    assert cli.main(["evaluate", "run", "--samples", "2"]) == 0
    np.testing.assert_array_equal(seen[0][0], npvae.model_input(trained, dataset.x_val))
    assert cli.main(["gradcheck", "run"]) == 0
    np.testing.assert_allclose(seen[1][0], dataset.x_val, rtol=1e-6)
    assert capsys.readouterr().err == ""


def test_other_data_are_evaluated_with_the_scaling_of_the_run(scaled_run, monkeypatch, capsys):
    dataset, _ = scaled_run(*GAUSSIAN)
    np.save("x.npy", 3 * np.load("x.npy") + 1)
    seen = results_of(monkeypatch, commands, "validation_rows")
    assert cli.main(["evaluate", "run", "--samples", "2"]) == 0
    in_file = data.load("x.npy").x_val
    np.testing.assert_allclose(seen[0][0], (in_file - dataset.scaling.shift) / dataset.scaling.factor, rtol=1e-5)
    assert "warning" in capsys.readouterr().err


def test_data_for_zeros_and_ones_are_not_standardised(error_of):
    np.save("x.npy", np.eye(12))
    error = error_of("train", *SMALL, "--data", "x.npy", "--scale", "standardise")
    assert "--scale standardise is for real-valued data, and this model wants values in [0, 1]" in error
    assert not Path("runs").exists()


def test_an_image_shape_that_cannot_be_is_one_line(error_of):
    np.save("x.npy", np.eye(12))
    for given, message in [(["3"], "--image-shape takes ROWS COLUMNS, or none; got 3"), ([], "or none; got nothing"),
                           (["none", "4"], "or none; got none 4"), (["5", "5"], "of product 12")]:  # fmt: skip
        assert message in error_of("train", *SMALL, "--data", "x.npy", "--image-shape", *given)
    assert not Path("runs").exists()


@pytest.mark.usefixtures("no_pictures")
def test_square_rows_may_be_curves():
    np.save("x.npy", np.eye(16))
    for given, shape in [([], [4, 4]), (["--image-shape", "none"], None), (["--image-shape", "2", "8"], [2, 8])]:
        out = "-".join(["run", *given])
        assert cli.main(["train", *SMALL, "--data", "x.npy", "--out", out, *given]) == 0
        assert json.loads(Path(out, "config.json").read_text())["image_shape"] == shape


# ----------------------------------------------------------------------------------------------------------- the end of a run


def test_a_run_without_anything_finite_ends_with_an_error(error_of, monkeypatch):
    monkeypatch.setattr(checkpoint, "is_sound", lambda state: False)
    error = error_of("train", *SMALL, "--out", "run")
    assert "training has ended with parameters that give nothing finite. They are not saved, and run holds no model" in error


# ------------------------------------------------------------------------------------------------------------ gradcheck


def checked(capsys, *argv):
    """The exit status and the lines of `npvae gradcheck`."""
    status = cli.main(["gradcheck", *argv])
    return status, capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("few_cases")
def test_gradcheck_prints_a_row_for_each_op_and_model(capsys):
    status, lines = checked(capsys)
    assert status == 0
    assert lines[0].split()[:3] == ["op", "or", "model"]
    assert lines[1].startswith("affine ")
    assert all(line.endswith("ok") for line in lines[1:3])
    assert "checks of 3 cases in" in lines[4]
    assert lines[4].endswith(": all passed")


@pytest.mark.usefixtures("few_cases")
def test_gradcheck_checks_the_model_of_a_run_on_its_rows(run, capsys):
    status, lines = checked(capsys, "run")
    assert status == 0
    assert [line.split()[0] for line in lines[1:3]] == ["affine", "run"]
    assert not any("VAE 40" in line for line in lines)
    status, lines = checked(capsys, "run", "--json")
    reports = json.loads("\n".join(lines))
    model = npvae.VAE.load(run / "checkpoint.npz").copy(dtype="float64")
    assert {report["case"] for report in reports["reports"]} == {"affine", "affine, square", f"run, {model}"}
    assert reports["passed"] is True


@pytest.mark.usefixtures("few_cases")
def test_a_wrong_gradient_is_told_with_exit_status_1(run, capsys, monkeypatch):
    right = npvae.VAE.backward

    def wrong(self, cache, dloss=1.0, out=None):
        grads = right(self, cache, dloss, out)
        grads["posterior.b"] *= 0.5
        return grads

    monkeypatch.setattr(npvae.VAE, "backward", wrong)
    status, lines = checked(capsys, "run")
    assert status == 1
    assert any(line.startswith("run, VAE(") and "FAILED" in line for line in lines)
    assert any("FAILED, see above" in line for line in lines)
    status, lines = checked(capsys, "run", "--json")
    assert status == 1
    assert json.loads("\n".join(lines))["passed"] is False
