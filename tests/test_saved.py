"""Models in files: what is no model is refused, a class of one's own has to be handed over, and nothing in a file runs code."""

from pathlib import Path

import mean_field
import numpy as np
import pytest

import npvae
from npvae.core import files
from npvae.models import saved


def test_a_file_keeps_the_name_it_was_given(tmp_path):
    npvae.VAE(4, 1, (), backend="numpy").save(str(tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert npvae.VAE.load(str(tmp_path / "model")).n_features == 4


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        npvae.VAE.load(tmp_path / "none.npz")


SMALL = {"n_features": 4, "n_latent": 2, "hidden": []}  # 32 parameters
MODEL = {"class": "VAE", "config": SMALL}


def vae(**config):
    return {"model": {"class": "VAE", "config": {**SMALL, **config}}}


@pytest.mark.parametrize(
    ("arrays", "metadata", "message"),
    [
        ({"theta": np.zeros(3)}, {}, "not a saved npvae model"),
        ({}, {"model": MODEL}, "not a saved npvae model"),
        ({"theta": np.zeros(3)}, vae(n_features=-4), "not a saved npvae model"),
        ({"theta": np.zeros(32)}, vae(wrong=4), "not a saved npvae model"),
        ({"theta": np.zeros(32)}, {"model": [4]}, "not a saved npvae model"),
        ({"theta": np.zeros(32)}, {"model": {"class": "VAE", "config": [4]}}, "not a saved npvae model"),
        ({"theta": np.zeros(32)}, {"model": {"class": ["VAE"], "config": SMALL}}, "not a saved npvae model"),
        ({"theta": np.zeros(32)}, {"model": SMALL}, "not a saved npvae model"),
        ({"theta": np.zeros(32)}, {"model": {**MODEL, "class": "Flow"}}, "it holds a model of class Flow, not VAE"),
        ({"theta": np.zeros(31, np.float32)}, {"model": MODEL}, r"theta of shape \(31,\) for 32 parameters"),
        ({"theta": np.zeros((32, 1), np.float32)}, {"model": MODEL}, r"must be float32 \(32,\); got float32 \(32, 1\)"),
        ({"theta": np.zeros(32)}, {"model": MODEL}, r"must be float32 \(32,\); got float64 \(32,\)"),
        ({"theta": np.full(32, np.nan, np.float32)}, {"model": MODEL}, "theta must be finite"),
    ],
)
def test_a_checkpoint_that_is_no_model_is_refused(tmp_path, arrays, metadata, message):
    files.write(tmp_path / "a.npz", arrays, metadata)
    with pytest.raises(ValueError, match=message) as error:
        npvae.VAE.load(tmp_path / "a.npz")
    assert "a.npz" in str(error.value)


def test_a_model_that_could_not_be_read_again_is_not_written(tmp_path):
    model = npvae.VAE(4, 2, (), backend="numpy")
    model.save(tmp_path / "a.npz")
    good, model.theta[5] = model.theta.copy(), np.inf
    with pytest.raises(ValueError, match=r"theta must be finite; got inf at \[5\]"):
        model.save(tmp_path / "a.npz")
    np.testing.assert_array_equal(npvae.VAE.load(tmp_path / "a.npz").theta, good)


def of_another_class():
    """A model of a class that npvae does not know, with weights of its own."""
    model = mean_field.MeanField(5, first_logit=0.25)
    model.theta += np.arange(5, dtype=np.float32)
    return model


def test_what_is_saved_is_loaded_whatever_the_class(tmp_path):
    for i, kind in enumerate(npvae.models.classes().values()):
        model = next(iter(kind.examples("numpy"))).model.copy(dtype="float32")
        model.theta += 1
        model.save(tmp_path / str(i))
        loaded = saved.load(tmp_path / str(i))
        assert (type(loaded), loaded.config) == (kind, model.config)
        np.testing.assert_array_equal(loaded.theta, model.theta)


def test_a_class_that_is_not_npvae_s_has_to_be_handed_over(tmp_path):
    path, model = tmp_path / "a.npz", of_another_class()
    saved.save(model, path)
    with pytest.raises(ValueError, match=r"a\.npz: not a saved npvae model \(a model of class MeanField, which is none of"):
        saved.load(path)
    with pytest.raises(ValueError, match="it holds a model of class MeanField, not VAE"):
        npvae.VAE.load(path)
    loaded = saved.load(path, mean_field.MeanField)
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded.theta, model.theta)


class Counter(mean_field.MeanField):
    """A model with a buffer: what training changes and no gradient reaches."""

    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.buffers["chain"] = np.zeros((2, self.n_features))


def test_buffers_are_saved_and_copied_with_the_parameters(tmp_path):
    model = Counter(3)
    model.buffers["chain"] += np.arange(3)
    saved.save(model, tmp_path / "a.npz")
    loaded, copy = saved.load(tmp_path / "a.npz", Counter), model.copy(dtype="float64")
    for twin in (loaded, copy):
        np.testing.assert_array_equal(twin.buffers["chain"], model.buffers["chain"])
        assert not np.shares_memory(twin.buffers["chain"], model.buffers["chain"])
    assert copy.theta.dtype == np.float64


@pytest.mark.parametrize("chain", [None, np.zeros((2, 4)), np.zeros((2, 3), np.float32)])
def test_a_buffer_that_does_not_fit_is_named(tmp_path, chain):
    model = Counter(3)
    arrays = {"theta": model.theta} | ({} if chain is None else {"buffers.chain": chain})
    files.write(tmp_path / "a.npz", arrays, {"model": saved.description(model)})
    with pytest.raises(ValueError, match=r"a\.npz: buffer chain is missing or of another shape"):
        saved.load(tmp_path / "a.npz", Counter)


@pytest.mark.parametrize("name", ["mine.py", "mine.py:Mine", "mine", "os.system", "npvae.app.cli.main", "classes", "common"])
def test_nothing_in_a_file_names_code_to_be_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("open('trace', 'w')")
    files.write("a.npz", {"theta": np.zeros(32, np.float32)}, {"model": {"class": name, "config": SMALL}})
    with pytest.raises(ValueError, match=r"a\.npz: not a saved npvae model"):
        saved.load("a.npz")
    assert not Path("trace").exists()
