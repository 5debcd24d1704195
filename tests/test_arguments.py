"""The arguments of a run: a new one's, and what a run that goes on keeps, takes and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

from npvae.app import arguments, cli

pytestmark = pytest.mark.usefixtures("small_world", "no_pictures")


def parsed(*argv):
    return cli.build_parser(argv).parse_args(argv)


@pytest.fixture
def begun(small_world, no_pictures):
    """run/, begun on x.npy."""
    np.save("x.npy", np.eye(20))
    assert cli.main(["train", *SMALL, "--data", "x.npy", "--learning-rate-schedule", "cosine", "--out", "run"]) == 0
    return Path("run")


def test_paths_of_a_new_run_are_absolute():
    _, told = arguments.of_new_run(parsed("train", "--data", "x.npy"))
    assert told["data"] == str(Path("x.npy").resolve())
    _, told = arguments.of_new_run(parsed("train", "--data", "x.npy", "--data-dir", "there"))
    assert (told["data"], told["data_dir"]) == ("x.npy", str(Path("there").resolve()))
    _, told = arguments.of_new_run(parsed("train"))
    names = ("data_dir", "scale", "image_shape", "condition", "workers")
    assert (told["data"], *(told[name] for name in names)) == ("ising", *[None] * 5)


@pytest.mark.usefixtures("begun")
def test_options_that_are_those_of_the_run_may_be_given_again():
    same = ["--data", f"{Path.cwd()}/../{Path.cwd().name}/x.npy", "--hidden", "8", "--epochs", "9", "--learning-rate", "1e-3",
            "--workers", "1", "--model", "vae", "--likelihood", "bernoulli"]  # fmt: skip
    _, told, config = arguments.of_resumed_run(parsed("train", "--resume", "--out", "run", *same))
    assert told == {**config["arguments"], "epochs": 9, "workers": 1}


@pytest.mark.parametrize(("given", "message"), [
    (["--data", "y.npy"], r"--data is .*x\.npy there, not .*y\.npy\."),
    (["--seed", "1"], "--seed is 0 there, not 1. Leave out what differs, or begin another run"),
    (["--output-bias"], "--output-bias is False there, not True"),
    (["--early-stopping", "3"], "--early-stopping is not given there, not 3"),
    (["--hidden"], "--hidden is 8 there, not empty"),
    (["--image-shape", "4", "5"], "--image-shape is not given there, not 4 5"),
    (["--model", "vae", "--condition", "label"], "--condition is not given there, not label"),
    (["--model", "flow", "--layers", "3"], "the model of run is vae: leave out --model flow"),
])  # fmt: skip
@pytest.mark.usefixtures("begun")
def test_an_option_that_is_not_that_of_the_run_is_refused_with_both_values(given, message):
    with pytest.raises(ValueError, match=message):
        arguments.of_resumed_run(parsed("train", "--resume", "--out", "run", *given))


def test_an_option_of_another_model_is_refused():
    np.save("x.npy", np.random.default_rng(0).random((20, 3)))
    assert cli.main(["train", "--model", "flow", "--epochs", "1", "--hidden", "4", "--data", "x.npy", "--out", "run"]) == 0
    with pytest.raises(ValueError, match="--latent is no option there, not 3"):
        arguments.of_resumed_run(parsed("train", "--resume", "--out", "run", "--latent", "3"))


def test_arguments_that_the_config_lacks_have_their_defaults(begun, capsys):
    config = json.loads((begun / "config.json").read_text())
    for name in ("scale", "image_shape", "condition", "learning_rate_drop_epochs"):
        del config["arguments"][name]
    (begun / "config.json").write_text(json.dumps(config))
    assert cli.main(["train", "--resume", "--out", "run", "--epochs", "3"]) == 0
    assert "note      the learning rate goes on at " in capsys.readouterr().out
