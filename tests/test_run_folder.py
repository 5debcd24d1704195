"""The run folder: what lies in it, whose it is, and what of its config is believed."""

import copy
import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import PICTURES, SMALL

import npvae
from npvae.app import cli, run_folder, settings
from npvae.core import files
from npvae.training.state import columns

pytestmark = pytest.mark.usefixtures("small_world")


def test_train_leaves_the_run_folder(finished):
    folder, out = finished
    names = [".lock", "best.npz", "checkpoint.npz", "checkpoint.previous.npz", "config.json", "metrics.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, *PICTURES])
    for path in folder.glob("[!.]*"):
        assert f"    {path.name} " in out
        assert path.stat().st_size > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert list(rows[0]) == columns(npvae.Terms)


def test_config_holds_all_that_repeats_the_run(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["arguments"] == {
        "model": "vae", "data": "ising", "epochs": 2, "batch_size": 50, "latent": 2, "hidden": [8], "activation": "relu",
        "likelihood": "bernoulli", "sigma": 0.1, "min_sigma": 1 / 255, "posterior": "diagonal", "condition": None,
        "seed": 0, "data_dir": None, "workers": None, "scale": None,
        "image_shape": None, "initialization": "glorot",
        "output_bias": False, "objective": "elbo", "train_samples": 1, "beta": 1.0, "annealing_epochs": 0,
        "annealing_cycles": 0, "free_bits_per_dimension": 0.0, "free_bits_total": 0.0, "learning_rate": 1e-3,
        "learning_rate_schedule": "constant", "learning_rate_drop_epochs": 10, "learning_rate_drop_factor": 0.1,
        "max_gradient_norm": None, "weight_decay": 0.0, "early_stopping": None, "reduction": "fastest",
    }  # fmt: skip
    assert config["image_shape"] == [16, 16]
    assert config["scaling"] is None
    assert re.fullmatch("[0-9a-f]{64}", config["data_sha256"])
    assert config["npvae"] == npvae.__version__
    assert config["versions"]["numpy"] == np.__version__
    assert config["versions"]["python"] == sys.version.split()[0]
    assert config["blas"][0]["num_threads"] >= 1
    model = npvae.VAE.load(folder / "checkpoint.npz")
    assert config["model"] == {"class": "VAE", "config": model.config}
    assert model.n_features == 256


@pytest.mark.usefixtures("no_pictures")
def test_a_used_default_folder_is_passed_over(capsys):
    Path("runs/ising").mkdir(parents=True)
    assert cli.main(["train", *SMALL]) == 0
    assert "run       runs/ising-2" in capsys.readouterr().out
    assert not list(Path("runs/ising").iterdir())


@pytest.mark.parametrize(("taken", "free"), [([], "a.png"), (["a.png"], "a-2.png"), (["a.png", "a-2.png"], "a-3.png")])
def test_the_first_name_that_is_free_is_made(taken, free):
    for name in taken:
        Path(name).touch()
    assert run_folder.first_made(Path("a.png"), lambda file: file.touch(exist_ok=False)) == Path(free)
    assert Path(free).is_file()


def test_programs_that_begin_at_once_get_a_folder_each(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as if all had looked before any made its folder
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(run_folder.new_folder(default="x"))) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(folders) == sorted(Path("runs", name) for name in ["x", *(f"x-{i}" for i in range(2, 25))])


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_somebody_began_since_we_looked_is_left_alone(error_of, monkeypatch):
    new_folder = run_folder.new_folder

    def late(path, default):
        folder = new_folder(path, default)
        (folder / "config.json").write_text("of another run")
        return folder

    monkeypatch.setattr(run_folder, "new_folder", late)
    assert "run folder run is already in use: name another with --out" in error_of("train", *SMALL, "--out", "run")
    assert Path("run/config.json").read_text() == "of another run"


@pytest.mark.usefixtures("no_pictures")
def test_hidden_files_are_no_run():
    Path("run").mkdir()
    Path("run/.DS_Store").touch()
    assert cli.main(["train", *SMALL, "--out", "run"]) == 0


def test_pictures_that_are_drawn_at_once_get_a_name_each(tmp_path):
    paths = []

    def make():
        paths.append(run_folder.new_file(None, tmp_path / "draws.png").name)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(paths) == sorted(["draws.png", *(f"draws-{i}.png" for i in range(2, 9))])


def test_a_used_run_folder_is_left_alone(run, error_of):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert "already in use" in error_of("train", *SMALL, "--out", "run")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_folder_that_cannot_be_made(error_of):
    Path("file").write_text("mine")
    assert "run folder file/run cannot be made" in error_of("train", *SMALL, "--out", "file/run")
    assert "run folder file cannot be made" in error_of("train", *SMALL, "--out", "file")
    assert Path("file").read_text() == "mine"
    for runs in ("a file", "a link to a disk that is not there"):
        Path("runs").write_text("mine") if runs == "a file" else Path("runs").symlink_to("gone/scratch")
        assert "run folder runs/ising cannot be made" in error_of("train", *SMALL)
        Path("runs").unlink()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"arguments": 3}'])
def test_a_damaged_config_is_named(run, error_of, content):
    (run / "config.json").write_text(content)
    assert "config.json: damaged" in error_of("evaluate", "run")


def test_files_have_the_usual_permissions(run):
    Path("usual").touch()
    for path in run.glob("*.*"):
        assert path.stat().st_mode == Path("usual").stat().st_mode, path


def changed_config(folder, *names, value=None):
    """Give one entry of config.json another value; take it out if that is None."""
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text())
    part = config
    for name in names[:-1]:
        part = part[name]
    if value is None:
        del part[names[-1]]
    else:
        part[names[-1]] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(("names", "value", "message"), [
    (["arguments", "epochs"], -1, "epochs must be an integer of at least 1; got -1"),
    (["arguments", "epochs"], 1.5, "epochs must be an integer of at least 1; got 1.5"),
    (["arguments", "epochs"], True, "epochs must be an integer of at least 1; got True"),
    (["arguments", "hidden"], 8, "hidden"),
    (["arguments", "hidden"], [8, 0], "hidden must be an integer of at least 1; got 0"),
    (["arguments", "likelihood"], "poisson", "likelihood must be one of bernoulli, gaussian, gaussian_global, "
     "gaussian_learned, categorical, beta_binomial; got 'poisson'"),
    (["arguments", "output_bias"], 1, "output_bias must be true or false; got 1"),
    (["arguments", "data"], ["ising"], "data must be text; got ['ising']"),
    (["arguments", "layers"], 3, "unknown arguments layers"),
    (["arguments", "workers"], "two", "workers must be an integer of at least 1; got 'two'"),
    (["arguments", "data_dir"], 5, "damaged, or not written by this version of npvae train"),
    (["arguments", "model"], 5, "damaged, or not written by this version of npvae train"),
    (["arguments", "model"], None, "damaged, or not written by this version of npvae train"),
    (["model", "class"], None, "damaged, or not written by this version of npvae train"),
    (["image_shape"], [16, 15], "image_shape [16, 15] of 256 features"),
    (["image_shape"], [-16, -16], "image_shape must be an integer of at least 1"),
    (["data_sha256"], None, "damaged, or not written by this version of npvae train (KeyError('data_sha256'))"),
    (["data_sha256"], 5, "damaged, or not written by this version of npvae train"),
    (["scaling"], None, "damaged, or not written by this version of npvae train (KeyError('scaling'))"),
    (["scaling"], [1], "a scaling must hold shift and factor"),
    (["arguments", "scale"], "much", "scale must be standardise, or a number above 0; got 'much'"),
    (["arguments", "image_shape"], [0], "image_shape must be none, or an integer of at least 1; got 0"),
    (["versions"], [1], "damaged, or not written by this version of npvae train"),
    (["blas"], [1], "damaged, or not written by this version of npvae train"),
])  # fmt: skip
def test_a_config_with_a_value_that_cannot_be_is_refused(run, error_of, names, value, message):
    changed_config(run, *names, value=value)
    error = error_of("evaluate", "run")
    assert "run/config.json: " in error
    assert message in error


def test_an_older_config_is_refused(run, error_of):
    """Before models had names, `model` was the VAE's config."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["model"] = config["model"]["config"]
    del config["arguments"]["model"]
    path.write_text(json.dumps(config))
    for argv in (["evaluate", "run"], ["sample", "run"], ["gradcheck", "run"], ["train", "--resume", "--out", "run"]):
        assert "config.json: damaged, or not written by this version of npvae train" in error_of(*argv)


def test_an_older_checkpoint_is_refused(run, error_of, monkeypatch):
    (run / "checkpoint.previous.npz").unlink()
    arrays, metadata = files.read(run / "checkpoint.npz")
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA", 3)
        files.write(run / "checkpoint.npz", arrays, {name: metadata[name] for name in ("model", "training")})
    for argv in (["evaluate", "run"], ["sample", "run"], ["train", "--resume", "--out", "run"]):
        error = error_of(*argv)
        assert "run/checkpoint.npz: a file of schema 3, and this version of npvae reads schema 4: train again" in error


def test_arguments_that_are_missing_have_their_defaults(run):
    changed_config(run, "arguments", "weight_decay")
    arguments = run_folder.read_config(run)["arguments"]
    assert run_folder.checked_arguments(run, arguments, settings.all_options(npvae.VAE))["weight_decay"] == 0.0


@pytest.mark.parametrize("name", ["mine.py", "mine.py:Mine", "{}/mine.py", "{}/mine.py:Mine", "mine", "./mine.py"])
def test_nothing_in_a_config_names_code_to_be_run(run, error_of, tmp_path, name):
    Path("mine.py").write_text("open('trace', 'w')\nfrom npvae import VAE\nclass Mine(VAE): pass\n")
    changed_config(run, "arguments", "model", value=name.format(tmp_path))
    for argv in (["evaluate", "run"], ["sample", "run"], ["gradcheck", "run"], ["train", "--resume", "--out", "run"]):
        assert "the model of run is not one of npvae's: name the file with its code, as in --model" in error_of(*argv)
    changed_config(run, "arguments", "model", value="vae")
    changed_config(run, "model", "class", value="mine.py:Mine")
    changed_config(run, "arguments", "data", value="mine.py")
    assert "data must be ising" in error_of("evaluate", "run")
    assert not Path("trace").exists()


CONFIG = {"versions": dict.fromkeys(("numpy", "scipy", "numba"), "1"), "blas": [{"internal_api": "mkl", "version": "2"}]}


def test_changes_of_the_environment_are_put_in_words(monkeypatch):
    now = copy.deepcopy(CONFIG)
    monkeypatch.setattr(run_folder, "environment", lambda: now)
    assert run_folder.changes_since(CONFIG) == []
    now["versions"]["scipy"], now["blas"][0]["version"] = "9", "3"
    assert run_folder.changes_since(CONFIG) == ["scipy 1 became 9", "BLAS mkl 2 None became mkl 3 None"]
    unknown = ["numpy None became 1", "scipy None became 9", "numba None became 1", "BLAS  became mkl 3 None"]
    assert run_folder.changes_since({}) == unknown


def test_libraries_are_named_in_one_order():
    pools = [{"internal_api": "openblas", "version": version, "architecture": "Zen"} for version in ("0.3.31", "0.3.30")]
    assert run_folder.blas_in_words(pools) == run_folder.blas_in_words(pools[::-1])


@pytest.mark.parametrize("before", ["import numpy", "import scipy.linalg, numpy", "import numpy, scipy.linalg"])
def test_the_same_libraries_are_recorded_whatever_was_loaded_before(before):
    code = f"{before}\nfrom npvae.app import run_folder\nprint(run_folder.blas_in_words(run_folder.environment()['blas']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == run_folder.blas_in_words(run_folder.environment()["blas"])


@pytest.mark.usefixtures("no_pictures")
def test_another_environment_is_said(run, monkeypatch, capsys):
    environment = run_folder.environment()
    environment["versions"]["numpy"] = "9.9"
    environment["blas"] = [{"internal_api": "mkl", "version": "1", "architecture": "Foo"}]
    monkeypatch.setattr(run_folder, "environment", lambda: environment)
    capsys.readouterr()
    assert cli.main(["train", "--resume", "--epochs", "3", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert f"note      numpy {np.__version__} became 9.9: the last bits may not be those of a run without the break" in out
    assert "became mkl 1 Foo" in out


def test_only_one_holds_a_run_folder(tmp_path):
    holding = run_folder.exclusive(tmp_path)
    with holding, pytest.raises(BlockingIOError, match="is in use by another npvae train"), run_folder.exclusive(tmp_path):
        pass
    with run_folder.exclusive(tmp_path):
        pass


def lock_answers(code):
    def lock(handle):
        raise OSError(code, os.strerror(code))

    return lock


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_somebody_holds(code, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "lock", lock_answers(code))
    with pytest.raises(BlockingIOError, match="is in use by another npvae train"), run_folder.exclusive(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EIO, errno.EINVAL])
@pytest.mark.usefixtures("no_pictures")
def test_a_file_system_without_locks_gets_a_warning(code, monkeypatch, capsys):
    monkeypatch.setattr(files, "lock", lock_answers(code))
    assert cli.main(["train", *SMALL, "--out", "run"]) == 0
    assert capsys.readouterr().err == (
        f"npvae: warning: the file system of run has no locks ({os.strerror(code)}): see to it that no other npvae train "
        "writes there\n"
    )


@pytest.mark.usefixtures("no_pictures")
def test_a_run_folder_in_use_is_refused(run, error_of):
    with run_folder.exclusive("run"):
        error = error_of("train", "--resume", "--epochs", "3", "--out", "run")
    assert "run folder run is in use by another npvae train" in error
    assert cli.main(["train", "--resume", "--epochs", "3", "--out", "run"]) == 0
