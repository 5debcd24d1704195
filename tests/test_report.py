"""What is printed of a run: its last epoch, its files, the next command, and numbers with their units."""

from pathlib import Path

import mean_field
import pytest

import npvae
from npvae.app import report
from npvae.models.protocol import Measure
from npvae.training.state import History, columns

FILES = ["config.json", "metrics.jsonl", "checkpoint.npz"]


@pytest.fixture
def lines_of(tmp_path, monkeypatch):
    """A function: the lines of the report of a run in runs/a, which holds FILES."""
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    for name in FILES:
        Path("runs/a", name).touch()

    def lines_of(model, rows, arguments, pictures):
        return report.training_report("runs/a", model, arguments, History(rows), pictures).splitlines()

    return lines_of


ROW = {**dict.fromkeys(columns(npvae.Terms), 1.0), "epoch": 12, "step": 36, "seconds": 61.7, "skipped": 0,
       "val_loss": 3.25, "val_nll": 2.0, "val_kl": 1.25, "val_clipped": 0.0}  # fmt: skip


def test_a_run_ends_with_its_validation_terms_its_files_and_the_next_command(lines_of):
    lines = lines_of(npvae.VAE(4, 1, ()), [ROW], {"model": "vae"}, {"loss.png": "the history"})
    assert lines[1] == "after 12 epochs, 62 s: validation loss 3.25 (nll 2.00, kl 1.25) nats per datum"
    assert lines[3] == "runs/a/"
    assert [line.split()[0] for line in lines[4:8]] == [*FILES, "loss.png"]  # no file that is not there
    assert lines[7] == "    loss.png                 the history"
    assert lines[8:] == ["", "next: npvae evaluate runs/a"]


def test_steps_that_were_left_out_are_counted(lines_of):
    lines = lines_of(npvae.VAE(4, 1, ()), [{**ROW, "skipped": 2}, {**ROW, "skipped": 1}], {"model": "vae"}, {})
    assert lines[2] == "3 of 36 steps left out, whose loss or gradient was not finite"


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_validation_loss_that_is_not_finite_is_no_end_as_if_all_were_well(lines_of, loss):
    lines = lines_of(npvae.VAE(4, 1, ()), [{**ROW, "val_loss": loss}], {"model": "vae"}, {})
    assert lines[-1].startswith("the validation loss is not finite, and npvae evaluate would find the same: look at the ")


def test_a_model_of_one_s_own_is_named_with_its_file(lines_of):
    row = {"epoch": 1, "step": 2, "seconds": 0.2, "skipped": 0, "train_loss": 1.0, "val_loss": 2.0}
    lines = lines_of(mean_field.MeanField(3), [row], {"model": "/a/mine.py:MeanField"}, {})
    assert lines[1] == "after 1 epoch, 0 s: validation loss 2.00"
    assert lines[-1] == "next: npvae evaluate runs/a --model /a/mine.py:MeanField"


def test_a_model_is_called_what_it_calls_itself_or_by_its_class_and_size():
    vae = npvae.VAE(4, 1, ())
    assert report.name_of(vae) == str(vae)
    assert report.name_of(mean_field.MeanField(1234)) == "MeanField(1,234 parameters)"
    assert report.name_of(mean_field.MeanField(1)) == "MeanField(1 parameter)"


@pytest.mark.parametrize(("measure", "lines"), [
    (Measure("active_units", 2, "of 3", "Var(mu)"), [f"{'active units':36}{2:10} of 3  Var(mu)"]),
    (Measure("nll", 123.45678, "nats"), [f"{'nll':36}{'123.457':>10} nats"]),
    (Measure("elbo", -9.87654, "nats"), [f"{'elbo':36}{'-9.8765':>10} nats"]),
    (Measure("n_samples", 5), []),
    (Measure("acceptance", 0.5, "", "of steps"), [f"{'acceptance':36}{'0.5000':>10}       of steps"]),
    (Measure("energy", -0.5, "hartree", "± 0.1"), [f"{'energy':36}{'-0.5000':>10} hartree ± 0.1"]),
    (Measure("bits", {"a_b": 1.5, "c": 0.25}, "bits"),
     [f"{'bits, a b':36}{'1.5000':>10} bits", f"{'bits, c':36}{'0.2500':>10} bits"]),
    (Measure("kl", [0.5, 2.0, 0.0], "nats"),
     ["\nkl, nats", f"    z_2      2.0000  {'█' * 40}", f"    z_1      0.5000  {'█' * 10}", "    z_3      0.0000"]),
    (Measure("kl", [float("nan"), float("inf"), 2.0], "nats"),
     ["\nkl, nats", "    z_1         nan", "    z_2         inf", f"    z_3      2.0000  {'█' * 40}"]),
    (Measure("elbo", float("nan"), "nats"), [f"{'elbo':36}{'nan':>10} nats"]),
    (Measure("kl", [0.0, 0.0], "nats"), ["\nkl, nats", "    z_1      0.0000", "    z_2      0.0000"]),
])  # fmt: skip
def test_numbers_are_printed_with_unit_and_note_lists_as_bars_and_others_not_at_all(measure, lines):
    assert report.measure_lines(measure) == lines
