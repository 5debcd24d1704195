"""The command `npvae data`: the files that it writes, what it prints, and what it refuses."""

import math
import sys

import numpy as np
import pytest

from npvae import data
from npvae.app import cli, make_data
from npvae.data import ising


def run(tmp_path, *options):
    """`npvae data ising` into ising.npz of a folder; returns its exit status and the arrays of the file."""
    status = cli.main(["data", "ising", "--size", "6", "--out", str(tmp_path / "ising.npz"), *options])
    return status, dict(np.load(tmp_path / "ising.npz")) if status == 0 else None


def test_the_file_is_what_simulate_draws(tmp_path):
    status, arrays = run(tmp_path, "--temperatures", "1.5", "2:3:0.5", "--samples", "8", "--chains", "2", "--seed", "3")
    assert status == 0
    sample = ising.simulate([1.5, 2.0, 2.5, 3.0], 8, size=6, seed=3, n_chains=2)
    assert arrays["x"].dtype == np.uint8
    expected = {"x": sample.spins, "labels": sample.temperature, **sample._asdict()}
    assert set(arrays) == {"x", "labels", "temperature", "magnetization", "energy", "chain"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_model_trains_on_the_file(tmp_path, capsys):
    run(tmp_path, "--temperatures", "1.5:3:0.5", "--samples", "20", "--workers", "1")
    assert f"next: npvae train --data {tmp_path / 'ising.npz'}" in capsys.readouterr().out
    dataset = data.load(str(tmp_path / "ising.npz"), condition="temperature")
    assert dataset.image_shape == (6, 6)
    np.testing.assert_array_equal(dataset.condition_val[:, 0], dataset.labels_val)
    command = ["train", "--data", str(tmp_path / "ising.npz"), "--hidden", "8", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert cli.main(command) == 0
    assert "loss" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "values"), [
    ("2.5", [2.5]), ("1:2:0.5", [1, 1.5, 2]), ("1:1.9:0.5", [1, 1.5]), ("2:2:0.1", [2]), ("1.1:1.3:0.1", [1.1, 1.2, 1.3]),
    ("0.25:4.0:0.25", [0.25 * k for k in range(1, 17)]), ("1e-3:3e-3:1e-3", [0.001, 0.002, 0.003]),
])  # fmt: skip
def test_temperatures_are_numbers_and_ranges_with_both_ends(text, values):
    assert make_data.temperatures(text) == values


@pytest.mark.parametrize("text", ["", "hot", "1:2", "1:2:3:4", "0", "-1", "nan", "inf", "1:inf:1", "2:1:0.1", "1:2:0", "1:2:-1",
                                  "1::1", "1:2:1e-9", "1:1e308:1e-308"])  # fmt: skip
def test_other_temperatures_are_refused_in_one_line(text, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, f"--temperatures={text}")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("npvae data ising: error: argument --temperatures: must ")
    assert f"got {text!r}" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_table_compares_with_the_exact_results(tmp_path, capsys):
    run(tmp_path, "--temperatures", "0.1", "2", "4", "--samples", "50", "--chains", "3")
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:6]]
    assert header[:2] == ["T", "clusters"]
    sample = ising.simulate([0.1, 2.0, 4.0], 50, size=6, n_chains=3)
    for row, T, energy, m, *thinning in zip(rows, [0.1, 2, 4], sample.energy.reshape(3, 150),
                                            abs(sample.magnetization).reshape(3, 150), *sample.thinning):  # fmt: skip
        values = [float(word) for word in row if word not in ("±", "-")]
        mean, error = make_data.mean_and_error(energy.reshape(3, 50))
        exact = ising.kaufman_energy(T, 6)
        expected = [T, *thinning, mean, exact, *([(mean - exact) / error] if error else []), m.mean(),
                    *([ising.onsager_magnetization(T)] if T < 2.2 else [])]  # fmt: skip
        np.testing.assert_allclose(values, expected, rtol=0, atol=0.0501)
        assert row.count("-") == (T == 0.1) + (T == 4)  # all energies the same: no error to divide by; no infinite |m|


@pytest.mark.parametrize("a", [0.0, 0.8])
def test_the_error_of_the_mean_counts_autocorrelation_and_chains(a):
    """Four AR(1) chains of 500 values, 400 times: the means scatter by as much as the errors say."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 4))
    chains = np.empty((400, 4, 500))
    for t in range(500):
        x = chains[:, :, t] = a * x + math.sqrt(1 - a**2) * rng.standard_normal((400, 4))
    means, errors = np.transpose([make_data.mean_and_error(group) for group in chains])
    assert errors.mean() == pytest.approx(means.std(), rel=0.12)
    assert make_data.mean_and_error(np.ones((2, 1))) == (1, 0)


def test_an_existing_file_is_kept(tmp_path, capsys):
    (tmp_path / "ising.npz").write_text("mine")
    assert run(tmp_path, "--samples", "1")[0] == 1
    assert capsys.readouterr().err == f"npvae: error: {tmp_path / 'ising.npz'} exists already; name another file with --out\n"
    assert (tmp_path / "ising.npz").read_text() == "mine"


def test_without_out_the_first_free_name_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert cli.main(["data", "ising", "--size", "2", "--samples", "1", "--temperatures", "2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ising-2.npz", "ising.npz"]


@pytest.mark.parametrize("options", [["--size", "5000"], ["--samples", "10000000000"]])
def test_what_cannot_be_simulated_leaves_no_file(options, tmp_path, capsys):
    assert run(tmp_path, *options)[0] == 1
    error = capsys.readouterr().err
    assert error.startswith("npvae: error: ")
    assert " must " in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_simulation_leaves_no_file(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(ising, "simulate", interrupted)
    assert run(tmp_path)[0] == 130
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(tmp_path, "--samples", "2")
    assert "Ising" in capsys.readouterr().err


def test_help_says_what_the_file_holds(capsys):
    with pytest.raises(SystemExit):
        cli.main(["data", "ising", "--help"])
    text = capsys.readouterr().out
    for name in ("x", "temperature", "magnetization", "energy", "chain"):
        assert f"\n  {name} " in text
    with pytest.raises(SystemExit):
        cli.main(["data"])
    assert "required: KIND" in capsys.readouterr().err
