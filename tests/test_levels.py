"""What uint8 data mean: decided by the data that a model is trained on, kept with it, and the same at every entrance."""

import copy
import json
import pickle

import numpy as np
import pytest
from conftest import SMALL
from mean_field import MeanField
from small_models import Regression, small_model

import npvae
from npvae.app import cli
from npvae.core import levels
from npvae.core.levels import BINARY, GREY
from npvae.data.rows import Rows
from npvae.models import evaluate, ppca
from npvae.models.autoencoder import Autoencoder
from npvae.models.flow import Flow
from npvae.training import checkpoint

D = 16
FACES = np.random.default_rng(0).integers(0, 256, (40, D), np.uint8)
DARK = (FACES > 99).astype(np.uint8)  # nothing above 1
MODELS = {
    "vae gaussian": lambda: small_model(likelihood="gaussian", sigma=0.5),
    "vae bernoulli": lambda: small_model(),
    "vae float64": lambda: small_model(likelihood="gaussian", dtype="float64"),
    "vae numba": lambda: small_model(likelihood="gaussian", backend="numba"),
    "autoencoder": lambda: Autoencoder(D, 2, (4,), backend="numpy"),
    "flow": lambda: Flow(D, 2, (4,), backend="numpy"),
}
OF_LEVELS = {
    "vae beta_binomial": lambda: small_model(likelihood="beta_binomial"),
    "vae categorical": lambda: small_model(likelihood="categorical"),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
also_of_levels = pytest.mark.parametrize("make", [*MODELS.values(), *OF_LEVELS.values()], ids=[*MODELS, *OF_LEVELS])


def trained(make, x, x_val=None):
    model = make()
    npvae.fit(model, x, x_val, epochs=1, batch_size=20, progress=False)
    return model


def entrances(model, x):
    """What every entrance of a model says of x."""
    found = {"check": model.check(x), "input": npvae.model_input(model, x, 0), "encode": model.encode(x),
             "forward": model.forward(x, model.draw(np.random.default_rng(0), x))[0],
             "measure": [measure.value for measure in model.measure(x, n_samples=3)]}  # fmt: skip
    if hasattr(model, "reconstruct"):
        found["reconstruct"] = model.reconstruct(x)
    if hasattr(model, "log_likelihood"):
        args = () if isinstance(model, Flow) else (3, 0)
        found["log_likelihood"] = model.log_likelihood(x, *args)
    if isinstance(model, npvae.VAE):
        for function in (evaluate.elbo, evaluate.kl_parts, evaluate.log_likelihood):
            found[function.__name__] = function(model, x, rng=0)
        for function in (evaluate.posterior, evaluate.active_units, evaluate.kl_per_dimension):
            found[function.__name__] = function(model, x)
    return found


def numbers(value):
    """All numbers of nested tuples, lists, dicts and arrays."""
    if isinstance(value, (tuple, list, dict)):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in numbers(part)]
    return np.ravel(value).tolist()


# ---- the rule ----


@pytest.mark.parametrize(
    ("x", "kept", "decides", "scale"),
    [
        ([0, 255], None, False, GREY),
        ([0, 2], None, False, GREY),
        ([0, 0], None, False, BINARY),
        ([0, 1], None, True, BINARY),
        ([0, 0], None, True, BINARY),
        ([0, 2], None, True, GREY),
        ([0, 1], GREY, False, GREY),
        ([0, 0], GREY, True, GREY),
        ([0, 1], BINARY, False, BINARY),
        ([0, 1], BINARY, True, BINARY),
    ],
)
def test_bytes_are_read_as_the_training_data_were(x, kept, decides, scale):
    assert levels.scale_of(np.array([x], np.uint8), "x", kept, decides) == scale
    for dtype in (bool, np.float32, float, np.int64):
        assert levels.scale_of(np.array([x]).astype(dtype), "x", kept, decides) == 1


def test_what_cannot_be_known_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^x of dtype uint8 with nothing above 1 [^\n]* x\.astype\(bool\)[^\n]* x / 255$"):
        levels.scale_of(DARK, "x")
    for decides in (False, True):
        with pytest.raises(ValueError, match=r"^x_val must be zeros and ones, [^\n]* the uint8 value 255: [^\n]*x_val / 255$"):
            levels.scale_of(np.array([[0, 255]], np.uint8), "x_val", BINARY, decides)


# ---- one meaning at every entrance ----


@also_of_levels
def test_grey_levels_are_the_same_at_every_entrance(make):
    model = trained(make, FACES)
    floats = FACES * np.float32(GREY)
    if model.data_kind == "binary":  # of which model_input draws zeros and ones
        np.testing.assert_array_equal(model.check(FACES), model.check(floats))
    expected = entrances(model, floats)
    for name, value in entrances(model, FACES).items():
        np.testing.assert_allclose(numbers(value), numbers(expected[name]), rtol=1e-4, atol=1e-6, err_msg=name)


@also_of_levels
def test_a_dark_row_means_the_same_alone_and_beside_others(make):
    model = trained(make, FACES)
    dark = np.eye(D, dtype=np.uint8)[:1]
    for checked in (model.check(dark)[0], model.check(np.concatenate([dark, FACES]))[0][:1]):
        np.testing.assert_allclose(checked, dark / 255, rtol=1e-6)
    entrances(model, np.eye(D, dtype=np.uint8))


@every_model
def test_after_zeros_and_ones_grey_levels_are_refused_everywhere(make):
    model = trained(make, DARK)
    entrances(model, DARK)
    np.testing.assert_array_equal(model.check(DARK)[0], DARK)
    calls = [model.check, model.encode, lambda x: npvae.model_input(model, x, 0), lambda x: model.measure(x, n_samples=2),
             lambda x: npvae.fit(model, x, epochs=1), lambda x: npvae.fit(model, DARK, x, epochs=1)]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="must be zeros and ones, as the uint8 data that the model was trained on"):
            call(FACES)


@every_model
def test_a_new_model_takes_what_is_clear_and_asks_for_the_rest(make):
    model = make()
    np.testing.assert_allclose(model.check(FACES)[0], FACES / 255, rtol=1e-6)
    assert not model.check(np.zeros((2, D), np.uint8))[0].any()
    for call in (model.check, model.encode, lambda x: npvae.model_input(model, x, 0)):
        with pytest.raises(ValueError, match="may be zeros and ones or dark grey levels"):
            call(DARK)
    np.testing.assert_array_equal(model.check(DARK.astype(bool))[0], DARK)
    assert levels.kept_by(model) is None  # looking decides nothing
    npvae.fit(model, FACES / 255, epochs=1, progress=False)
    assert levels.kept_by(model) is None  # nor do floats


@pytest.mark.parametrize("make", OF_LEVELS.values(), ids=OF_LEVELS)
def test_for_a_model_of_levels_bytes_are_grey_whatever_they_are(make, tmp_path):
    """New or trained on dark bytes: there are no zeros and ones to mistake them for."""
    model = make()
    for _ in range(2):
        assert levels.kept_by(model) == GREY
        for x in (DARK, FACES, np.zeros((2, D), np.uint8)):
            np.testing.assert_allclose(model.check(x)[0], x / 255, rtol=1e-6)
        np.testing.assert_allclose(npvae.model_input(model, DARK), DARK / 255, rtol=1e-6)
        npvae.fit(model, DARK, FACES, epochs=1, progress=False)
    model.save(tmp_path / "model.npz")
    assert levels.kept_by(npvae.VAE.load(tmp_path / "model.npz")) == GREY


def test_levels_are_recognised_within_rounding():
    grey = np.arange(256.0)[None]
    for x in ((grey / 255).astype(np.float32), grey / 255 + 3e-6, grey * np.float32(GREY)):
        np.testing.assert_array_equal(levels.levels_of(levels.check_levels("x", x)), grey)
    for wrong in (grey / 255 + 5e-6, grey / 256, -grey / 255, np.array([[0.5, 0.0]])):
        with pytest.raises(ValueError, match=r"^faces must hold grey levels k/255, k = 0 to 255, [^\n]*; got"):
            levels.check_levels("faces", wrong)
    with pytest.raises(ValueError, match=r"got 200 \(if these are levels from 0 to 255, give them as uint8, [^\n]*\)$"):
        levels.check_levels("faces", np.array([[0.0, 1.0, 200.0]]))


def test_validation_rows_are_read_as_the_training_rows_were():
    model = small_model(likelihood="gaussian")
    history = npvae.fit(model, FACES, DARK, epochs=1, progress=False)
    twin = small_model(likelihood="gaussian")
    expected = npvae.fit(twin, FACES * np.float32(GREY), DARK * np.float32(GREY), epochs=1, progress=False)
    assert history["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)
    with pytest.raises(ValueError, match=r"^x_val of dtype uint8 with nothing above 1 may be"):
        npvae.fit(small_model(likelihood="gaussian"), FACES / 255, DARK, epochs=1)


def test_what_was_decided_stays():
    model = trained(MODELS["vae gaussian"], FACES)
    rows = Rows.of(model, DARK, "x_train")
    assert rows.scale == GREY
    npvae.fit(model, DARK, epochs=1, progress=False)
    assert levels.kept_by(model) == GREY
    bernoulli = trained(MODELS["vae bernoulli"], FACES)
    rows = Rows.of(bernoulli, DARK, "x_train")
    assert rows.binarize
    assert rows.batch(np.arange(40), np.random.default_rng(0))[0].mean() < 0.1  # ones with the probability 1/255


def test_rows_made_for_a_model_that_reads_them_otherwise_are_refused():
    rows = Rows.of(small_model(), FACES, "x_train")
    model = trained(MODELS["vae bernoulli"], DARK)
    with pytest.raises(ValueError, match=r"^x_train holds grey levels, and the model was trained on zeros and ones$"):
        npvae.fit(model, rows, epochs=1)


def test_starting_values_from_the_data_know_grey_levels():
    vae, flow = (MODELS[name]() for name in ("vae gaussian", "flow"))
    vae.set_output_bias(FACES)
    np.testing.assert_allclose(vae.parameters["likelihood.b"], FACES.mean(axis=0) / 255, rtol=1e-5)
    flow.standardize(FACES)
    np.testing.assert_allclose(flow.parameters["shift"], FACES.mean(axis=0) / 255, rtol=1e-5)


# ---- kept with the model ----


class Bare(Regression):
    """A model of somebody else, which has no buffers."""

    def __init__(self, n_features):
        super().__init__(n_features)
        del self.buffers


@pytest.mark.parametrize("make", [MODELS["vae gaussian"], MODELS["flow"], lambda: MeanField(D)], ids=["VAE", "Flow", "own"])
@pytest.mark.parametrize(("x", "scale"), [(FACES, GREY), (DARK, BINARY)], ids=["grey", "binary"])
def test_files_and_copies_keep_it(make, x, scale, tmp_path):
    model = trained(make, x)
    npvae.models.saved.save(model, tmp_path / "model.npz")
    state = npvae.training.state.TrainingState({"t": 0})
    checkpoint.save_progress(tmp_path, model, state)
    kind = type(model)
    twins = [model.copy(), copy.deepcopy(model), pickle.loads(pickle.dumps(model)),
             npvae.models.saved.load(tmp_path / "model.npz", kind), checkpoint.load_model(tmp_path, kind=kind)]  # fmt: skip
    for twin in twins:
        assert levels.kept_by(twin) == scale
    assert levels.kept_by(make()) is None


def test_models_without_buffers_train_on_bytes():
    model, y = Bare(D), np.ones(40)
    history = npvae.fit(model, (FACES, y), (DARK, y), epochs=2, progress=False)
    assert np.isfinite(history["val_loss"]).all()
    assert levels.kept_by(model) == GREY


@pytest.mark.usefixtures("small_world", "no_pictures")
def test_the_command_line_evaluates_what_was_trained(capsys):
    dark = FACES.copy()
    np.save("faces.npy", dark)
    assert cli.main(["train", *SMALL, "--data", "faces.npy", "--likelihood", "gaussian", "--sigma", "0.5", "--out", "run"]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--samples", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    model = checkpoint.load_model("run")
    assert levels.kept_by(model) == GREY
    x_val = npvae.data.load("faces.npy").x_val
    assert result["elbo"] == pytest.approx(evaluate.elbo(model, x_val, 0, 10).elbo, rel=1e-6)
    assert set(result) >= {"bits_per_dimension", "bits_per_grey_level"}


# ---- probabilistic PCA ----


def test_ppca_reads_bytes_as_it_was_fitted():
    grey, floats = ppca.maximum_likelihood(FACES, 2), ppca.maximum_likelihood(FACES / 255, 2)
    np.testing.assert_allclose(grey.mean, floats.mean)
    np.testing.assert_allclose(grey.sigma, floats.sigma)
    np.testing.assert_allclose(ppca.log_likelihood(grey, FACES), ppca.log_likelihood(floats, FACES / 255))
    np.testing.assert_allclose(ppca.log_likelihood(grey, DARK), ppca.log_likelihood(floats, DARK / 255))
    np.testing.assert_allclose(ppca.principal_components(FACES, 2)[0], FACES.mean(axis=0) / 255)
    binary = ppca.maximum_likelihood(DARK, 2)
    np.testing.assert_allclose(ppca.log_likelihood(binary, DARK), ppca.log_likelihood(binary, DARK.astype(float)))
    with pytest.raises(ValueError, match="x must be zeros and ones"):
        ppca.log_likelihood(binary, FACES)
    with pytest.raises(ValueError, match="may be zeros and ones or dark grey levels"):
        ppca.log_likelihood(floats, DARK)


def test_a_linear_vae_s_ppca_reads_bytes_as_it_does():
    model = npvae.VAE(D, 2, (), likelihood="gaussian", backend="numpy")
    npvae.fit(model, FACES, epochs=1, progress=False)
    exact = ppca.of_model(model)
    assert exact.uint8_scale == GREY
    np.testing.assert_allclose(ppca.log_likelihood(exact, FACES), ppca.log_likelihood(exact, FACES / 255))
