"""Conditions p(x|condition): which arrays they are, halves of images, and what the commands make of them."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import npvae
from npvae import data, evaluate
from npvae.app import cli, commands, plots
from npvae.core.checks import NpvaeWarning
from npvae.data import arrays, mnist
from npvae.models import ConditionalVAE

pytestmark = pytest.mark.usefixtures("small_world")
NUMBERS = np.arange(40.0)
X = np.repeat(NUMBERS[:, None], 6, axis=1)  # each row is full of its number in the file
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 7, 4)).astype(np.uint8)
FLAT = IMAGES.reshape(40, 28)


def saved(**contents):
    np.savez("rows.npz", **{"x": X, **contents})
    return "rows.npz"


# ---- labels, and arrays of a file ----


VALUES = [  # as they are in the file, and as a model is given them
    (NUMBERS, NUMBERS[:, None]),
    (NUMBERS.astype(np.float32) / 3, NUMBERS[:, None].astype(np.float32) / 3),
    (NUMBERS.astype(np.uint8), NUMBERS.astype(np.int64)),
    (NUMBERS > 7, (NUMBERS > 7).astype(np.int64)),
]
PAIRS = np.stack([NUMBERS, -NUMBERS], axis=1)


@pytest.mark.parametrize(("name", "condition", "values", "expected"), [
    *((name, condition, *pair) for name, condition in [("labels", "label"), ("y", "label"), ("pose", "pose")]
      for pair in VALUES),
    ("pose", "pose", PAIRS, PAIRS), ("pose", "pose", PAIRS.astype(np.int8), PAIRS.astype(np.float32)),
])  # fmt: skip
def test_every_row_keeps_its_condition(name, condition, values, expected):
    dataset = data.load(saved(**{name: values}), condition=condition)
    for x, given in (dataset.train, dataset.val):
        np.testing.assert_array_equal(given, expected[x[:, 0].astype(int)])
        assert given.dtype == expected.dtype
    assert (len(dataset.x_train), len(dataset.x_val)) == (36, 4)
    assert dataset.condition_name == condition
    assert dataset.n_condition == (expected.shape[1] if expected.ndim == 2 else 1 + int(values.max()))
    assert dataset.description.endswith(f"4 to validate on, given the {condition}")


@pytest.mark.parametrize("of", ["numbers_train", "numbers_val"])
def test_the_largest_class_counts_wherever_it_is(of):
    labels = np.zeros(40, int)
    labels[getattr(data.load(saved()), of)[0]] = 5
    assert data.load(saved(labels=labels), condition="label").n_condition == 6


def test_without_a_condition_there_is_none():
    dataset = data.load(saved(labels=NUMBERS))
    assert (dataset.condition_train, dataset.condition_val, dataset.condition_name, dataset.n_condition) == (None, None, "", 0)
    [x_train], [x_val] = dataset.train, dataset.val
    assert x_train is dataset.x_train
    assert x_val is dataset.x_val
    assert "given" not in dataset.description


def test_the_labels_of_mnist_are_class_numbers(monkeypatch):
    x, y = FLAT.repeat(28, axis=1), np.arange(40) % 10
    y = y.astype(np.uint8)
    monkeypatch.setattr(mnist, "load", lambda *_: mnist.MNIST(x, y, x[:5], y[5:10]))
    dataset = data.load("mnist", condition="label")
    np.testing.assert_array_equal(dataset.condition_train, y)
    np.testing.assert_array_equal(dataset.condition_val, [5, 6, 7, 8, 9])
    assert (dataset.n_condition, dataset.condition_name) == (10, "digit")


def test_temperatures_are_quantities():
    dataset = data.load("ising", condition="label")
    for x, given, n in [(*dataset.train, 40), (*dataset.val, 10)]:
        np.testing.assert_array_equal(given, data.ISING_TEMPERATURES.repeat(n)[:, None])
        assert len(given) == len(x)
    assert (dataset.n_condition, dataset.condition_name) == (1, "temperature (J/k)")


def test_the_condition_is_not_scaled_and_the_labels_stay():
    for scale in (2.0, data.STANDARDISE):
        dataset = data.load(saved(labels=NUMBERS + 3), scale=scale, condition="label")
        np.testing.assert_array_equal(dataset.condition_val[:, 0], dataset.labels_val)
        np.testing.assert_allclose(dataset.labels_val, dataset.in_own_units(dataset.x_val)[:, 0] + 3)
        assert dataset.description.endswith(", given the label")


def test_the_data_may_be_the_only_other_array_and_x_may_be_the_condition():
    np.savez("a.npz", images=IMAGES, pose=NUMBERS[:, None])
    assert data.load("a.npz", condition="pose").image_shape == (7, 4)
    np.savez("a.npz", images=IMAGES, x=NUMBERS)
    dataset = data.load("a.npz", condition="x")
    np.testing.assert_array_equal(dataset.condition_val[:, 0], dataset.numbers_val)


def test_the_digest_knows_the_condition():
    digests = []
    for changes, condition in [({}, None), ({}, "pose"), ({"pose": NUMBERS + 1}, "pose"), ({}, "label"),
                               ({"labels": 2 * NUMBERS}, "label")]:  # fmt: skip
        digests.append(data.load(saved(**{"pose": -NUMBERS, "labels": NUMBERS} | changes), condition=condition).digest)
    assert len(set(digests)) == 5
    saved(x=FLAT)
    assert data.load("rows.npz", condition="half", image_shape=(7, 4)).digest == data.load("rows.npz").digest


BAD = [
    ({}, "label", r"^condition label needs data with labels, as a .npz file holds them in an array labels or y; got rows.npz"),
    ({"labels": -NUMBERS.astype(int)}, "label", r"must be class numbers from 0 to at most 999 .*; got values from -39 to 0"),
    ({"labels": 26 * NUMBERS.astype(int)}, "label", r"; got values from 0 to 1014: a quantity is saved as floats"),
    ({"labels": np.where(NUMBERS == 3, np.nan, 1)}, "label", r"^the condition label must be finite; got nan"),
    ({"pose": np.where(NUMBERS == 3, np.inf, 1)}, "pose", r"^rows.npz: the condition pose must be finite; got inf at \[3, 0\]"),
    ({"pose": NUMBERS[:39]}, "pose", r"pose must be real numbers of shape \(40,\) or \(40, C\); got float64 of shape \(39,\)"),
    ({"pose": IMAGES}, "pose", r"or \(40, C\); got uint8 of shape \(40, 7, 4\)"),
    ({"pose": NUMBERS[:, None][:, :0]}, "pose", r"or \(40, C\); got float64 of shape \(40, 0\)"),
    ({"pose": np.full(40, "left")}, "pose", "array pose of dtype <U4"),
    ({}, "pose", r"arrays x \(40, 6\)\), needs an intact .* of two or more dimensions, and an array pose for the condition"),
    ({}, "x", r"arrays x \(40, 6\)\), needs .*, and an array x for the condition"),
    ({}, 3, r"^condition must be label, half, or the name of an array of a .npz file; got 3 with the data rows.npz"),
    ({}, "half", "^condition half needs images of at least 2 rows of pixels; got no images, but rows of 6 values: image_shape"),
]


@pytest.mark.parametrize(("contents", "condition", "message"), BAD)
def test_a_condition_that_cannot_be_is_refused(contents, condition, message):
    saved(**contents)
    with pytest.raises(ValueError, match=message):
        data.load("rows.npz", condition=condition)


def test_a_condition_that_other_data_do_not_have_is_refused():
    np.save("rows.npy", X)
    for name, condition, message in [("rows.npy", "pose", "rows.npy: a .npy file has no second array pose for the condition"),
                                     ("rows.npy", "label", "^condition label needs data with labels"),
                                     ("toy:ring", "label", "got points of the density ring"),
                                     ("toy:ring", "half", "got no images, but rows of 2 values"),
                                     ("ising", "pose", "got 'pose' with the data ising")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            data.load(name, condition=condition)
    with pytest.raises(ValueError, match="got images of a single row"):
        data.load("rows.npy", condition="half", image_shape=(1, 6))


def test_labels_that_are_no_numbers_are_no_condition():
    saved(labels=np.full(40, "cat"))
    with pytest.warns(NpvaeWarning, match="labels are left out"), pytest.raises(ValueError, match="needs data with labels"):
        data.load("rows.npz", condition="label")


def test_class_numbers_have_one_name_for_every_dtype():
    for dtype in (np.uint8, np.int8, np.int64, np.uint64, ">i2"):
        given = arrays.as_condition(np.array([3, 0, 2], dtype), 3)
        assert (given.dtype, given.tolist()) == (np.int64, [3, 0, 2])
    assert arrays.as_condition(np.array([999, 0]), 2).tolist() == [999, 0]
    with pytest.raises(ValueError, match=r"^mine must be class numbers .* where it holds integers; got values from 0 to 1000"):
        arrays.as_condition(np.array([1000, 0]), 2, "mine")
    for values in (["a", "b"], [1j, 2], [None, 1]):
        with pytest.raises(ValueError, match=r"^mine must be real numbers of shape \(2,\) or \(2, C\); got "):
            arrays.as_condition(values, 2, "mine")


# ---- halves of images ----


def original(dataset):
    """The validation images in the file that the halves of a data set came from, (4, 28)."""
    return np.load("faces.npy").reshape(40, -1)[dataset.numbers_val]


@pytest.fixture(params=["uint8", "float32", "float64", "bool"])
def faces(request, small_world):
    images = IMAGES > 100 if request.param == "bool" else IMAGES.astype(request.param)
    np.save("faces.npy", images / images.dtype.type(255) if request.param.startswith("float") else images)
    return request.param


@pytest.mark.parametrize("scale", [None, 2.0, data.STANDARDISE])
def test_the_lower_half_is_learned_given_the_upper(scale, faces):
    whole, dataset = data.load("faces.npy", scale=scale), data.load("faces.npy", scale=scale, condition="half")
    factor = 1 / 255 if (faces, scale) == ("uint8", None) else 1
    for given, x, expected in [(dataset.condition_train, dataset.x_train, whole.x_train),
                               (dataset.condition_val, dataset.x_val, whole.x_val)]:  # fmt: skip
        assert (given.shape[1], x.shape[1]) == (12, 16)  # three rows of four pixels, four rows
        np.testing.assert_allclose(given, expected[:, :12] * factor, rtol=1e-14 if faces == "float64" else 1e-6)
        np.testing.assert_array_equal(x, expected[:, 12:])
        assert (x.dtype, given.dtype) == (whole.x_val.dtype, np.float64 if faces == "float64" else np.float32)
        assert x.flags.c_contiguous
    assert (dataset.n_condition, dataset.condition_name, dataset.image_shape) == (12, "upper half", (4, 4))
    assert dataset.description == whole.description + ", the lower half of each given the upper"


@pytest.mark.parametrize("scale", [None, 2.0, data.STANDARDISE])
def test_halves_are_shown_as_whole_images_in_their_own_units(scale, faces):
    dataset = data.load("faces.npy", scale=scale, condition="half")
    seen = 255 if (faces, scale) == ("uint8", None) else 1  # such x are divided by 255 when they become model input
    images, shape = dataset.whole_images(dataset.condition_val, dataset.x_val / seen)
    np.testing.assert_allclose(images * seen, original(dataset), rtol=1e-5, atol=1e-5)
    assert shape == (7, 4)
    np.testing.assert_allclose(dataset.in_own_units(dataset.x_val), original(dataset)[:, 12:], rtol=1e-5, atol=1e-5)


def test_the_scaling_of_whole_images_serves_other_halves():
    np.save("faces.npy", FLAT)
    first = data.load("faces.npy", scale=data.STANDARDISE, image_shape=(7, 4), condition="half")
    again = data.load("faces.npy", scale=first.whole.scaling, image_shape=(7, 4), condition="half")
    np.testing.assert_allclose(again.condition_val, first.condition_val, rtol=1e-6)
    np.testing.assert_allclose(again.x_val, first.x_val, rtol=1e-6)
    assert (first.whole.scaling.shift.shape, first.scaling.shift.shape, first.scaling.factor.shape) == ((28,), (16,), (16,))


def test_bytes_that_are_zeros_and_ones_stay_such():
    np.save("faces.npy", IMAGES > 100)
    expected = data.load("faces.npy", condition="half")
    np.save("faces.npy", (IMAGES > 100).astype(np.uint8))
    np.testing.assert_array_equal(data.load("faces.npy", condition="half").condition_train, expected.condition_train)


def test_images_with_an_even_number_of_rows_have_equal_halves():
    np.save("faces.npy", IMAGES[:, :6])
    dataset = data.load("faces.npy", condition="half")
    assert (dataset.n_condition, dataset.x_val.shape, dataset.image_shape) == (12, (4, 12), (3, 4))


def test_rows_without_halves_are_shown_as_they_are():
    dataset = data.load(saved(labels=NUMBERS), scale=4.0, image_shape=(2, 3), condition="label")
    images, shape = dataset.whole_images(dataset.condition_val, dataset.x_val)
    np.testing.assert_allclose(images, X[dataset.numbers_val], rtol=1e-6)
    assert shape == (2, 3)


# ---- what is drawn ----


@pytest.mark.parametrize(("n", "counts"), [(64, [7, 6, 6, 7, 6, 6, 7, 6, 6, 7]), (10, [1] * 10), (20, [2] * 10), (1, [1])])
def test_every_class_is_drawn_in_order_and_as_often_as_the_others(n, counts):
    condition = data.load(saved(labels=np.arange(40) % 10), condition="label").conditions(n)
    assert len(condition) == n
    assert np.all(np.diff(condition) >= 0)
    found = np.bincount(condition, minlength=len(counts))
    assert sorted(found) == sorted(counts)
    assert condition[0] == 0


def test_quantities_are_those_of_validation_rows_at_equal_distances():
    dataset = data.load(saved(labels=NUMBERS), condition="label")
    np.testing.assert_array_equal(dataset.conditions(2), dataset.condition_val[[0, 3]])
    np.testing.assert_array_equal(dataset.conditions(1), dataset.condition_val[:1])
    np.testing.assert_array_equal(dataset.conditions(7), dataset.condition_val[[0, 0, 1, 1, 2, 2, 3]])


# ---- at the command line ----


def train(*argv, out="run"):
    line = ["train", "--epochs", "2", "--batch-size", "10", "--hidden", "4", "--likelihood", "gaussian", "--out", out, *argv]
    assert cli.main(line) == 0
    return ConditionalVAE.load(f"{out}/checkpoint.npz")


def noted(monkeypatch, name):
    """The arguments of every call of a method of the model from now on."""
    calls, method = [], getattr(ConditionalVAE, name)
    monkeypatch.setattr(ConditionalVAE, name, lambda self, *args, **settings: calls.append([np.copy(a) if isinstance(
        a, np.ndarray) else a for a in args]) or method(self, *args, **settings))  # fmt: skip
    return calls


def drawn_by(monkeypatch, *argv):
    """What `npvae sample` hands to the picture: rows, image_shape, title."""
    calls = []
    monkeypatch.setattr(plots, "samples", lambda *args: calls.append(args))
    monkeypatch.setattr(plots, "save", lambda figure, path: figure())
    assert cli.main(["sample", "run", *argv]) == 0
    return calls[0]


@pytest.mark.usefixtures("few_cases", "no_pixels")
def test_a_run_with_labels_goes_all_the_way(monkeypatch, capsys):
    saved(labels=np.arange(40) % 4)
    shown = []
    monkeypatch.setattr(ConditionalVAE, "pictures", lambda *args: shown.append(args[2:]) or ())
    model = train("--data", "rows.npz", "--condition", "label")
    config = json.loads(Path("run/config.json").read_text())
    assert (config["arguments"]["model"], config["arguments"]["condition"]) == ("conditionalvae", "label")
    assert (model.n_features, model.n_condition) == (6, 4)
    assert "data      rows.npz, 36 rows to train on, 4 to validate on, given the label\n" in capsys.readouterr().out
    dataset = data.load("rows.npz", condition="label")
    [(x, condition, passed)] = shown
    np.testing.assert_array_equal(x, dataset.x_val)
    np.testing.assert_array_equal(condition, np.eye(4)[dataset.condition_val])
    np.testing.assert_array_equal(passed.condition_train, dataset.condition_train)

    assert cli.main(["train", "--resume", "--out", "run", "--epochs", "3"]) == 0
    again = train("--resume", "--condition", "label", "--epochs", "4")
    whole = train("--data", "rows.npz", "--condition", "label", "--epochs", "4", out="whole")
    assert not np.array_equal(again.theta, model.theta)
    np.testing.assert_array_equal(again.theta, whole.theta)

    capsys.readouterr()
    assert cli.main(["evaluate", "run", "--json", "--samples", "2"]) == 0
    expected = evaluate.log_likelihood(again, again.check(*dataset.val), 2, 0).mean()
    assert json.loads(capsys.readouterr().out)["log_likelihood"] == pytest.approx(expected)
    assert cli.main(["gradcheck", "run"]) == 0
    drawn, image_shape, title = drawn_by(monkeypatch, "--count", "6", "--seed", "1")
    np.testing.assert_array_equal(drawn, again.sample(np.array([0, 0, 1, 2, 2, 3]), 1))
    assert (image_shape, title) == (None, "E[x|z, label], 0 to 3 in order")


@pytest.mark.usefixtures("no_pictures")
def test_rows_are_trained_on_with_their_own_conditions(monkeypatch):
    saved(pose=NUMBERS)
    calls = noted(monkeypatch, "draw")
    train("--data", "rows.npz", "--condition", "pose")
    assert {len(x) for _, x, _ in calls} == {10, 6, 4}
    for _, x, condition in calls:
        np.testing.assert_array_equal(x[:, :1], condition)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("scale", ["2", "standardise"])
def test_completed_images_are_shown_whole_in_their_own_units(monkeypatch, scale):
    np.save("faces.npy", IMAGES.astype(float))
    model = train("--data", "faces.npy", "--condition", "half", "--scale", scale)
    assert json.loads(Path("run/config.json").read_text())["image_shape"] == [4, 4]
    Path("moved").mkdir()
    os.rename("faces.npy", "moved/faces.npy")
    drawn, image_shape, title = drawn_by(monkeypatch, "--count", "3", "--data-dir", "moved")
    dataset = data.load("moved/faces.npy", scale=float(scale) if scale == "2" else scale, condition="half")
    upper = dataset.condition_val[[0, 1, 3]]
    np.testing.assert_allclose(drawn[:, :12], FLAT[dataset.numbers_val[[0, 1, 3]], :12], rtol=1e-5)
    np.testing.assert_allclose(drawn[:, 12:], dataset.in_own_units(model.sample(upper, 0)), rtol=1e-5)
    assert (image_shape, title) == ((7, 4), "E[x|z, upper half], of validation rows")


@pytest.mark.usefixtures("no_pictures")
def test_other_data_are_evaluated_with_the_scaling_of_the_run(monkeypatch, capsys):
    np.save("faces.npy", FLAT.astype(float))
    train("--data", "faces.npy", "--condition", "half", "--image-shape", "7", "4", "--scale", "standardise")
    scaling = data.load("faces.npy", scale="standardise").scaling
    np.save("faces.npy", 3.0 * FLAT)
    calls = noted(monkeypatch, "measure")
    assert cli.main(["evaluate", "run", "--samples", "2"]) == 0
    expected = data.load("faces.npy", scale=scaling).x_val
    np.testing.assert_allclose(np.hstack(calls[0][1::-1]), expected, rtol=1e-5)
    assert "the data are not those that run was trained on" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_not_resumed_with_other_conditions(error_of):
    saved(pose=NUMBERS)
    train("--data", "rows.npz", "--condition", "pose")
    assert "--condition is pose there, not label" in error_of("train", "--resume", "--out", "run", "--condition", "label")
    saved(pose=NUMBERS + 1)
    assert "the data are not those that run was trained on" in error_of("train", "--resume", "--out", "run")


@pytest.mark.usefixtures("no_pictures", "few_cases")
def test_a_run_is_checked_on_rows_with_their_own_conditions():
    saved(x=np.repeat(NUMBERS.repeat(10)[:, None], 2, axis=1), pose=NUMBERS.repeat(10))  # 40 rows to validate on, 32 checked
    train("--data", "rows.npz", "--condition", "pose")
    case = commands.run_case(cli.build_parser().parse_args(["gradcheck", "run"]))
    rows = np.sort(np.random.default_rng(0).choice(40, 32, replace=False))
    expected = data.load("rows.npz").x_val[rows]
    for (x, condition), rows_of_file in [(case.others, expected[:16]), (case.batch, expected[16:])]:
        np.testing.assert_array_equal(x, rows_of_file)
        np.testing.assert_array_equal(condition, x[:, :1])
        assert x.dtype == condition.dtype == np.float64


def test_draws_of_a_model_without_a_latent_variable_are_called_so():
    dataset = data.load(saved(labels=np.arange(40) % 4), condition="label")
    model = SimpleNamespace(sample=lambda condition, seed: condition[:, None] + seed)
    drawn, image_shape, title = commands.conditional_draws(model, dataset, 4, 5)
    assert (drawn.tolist(), image_shape, title) == ([[5], [6], [7], [8]], None, "draws given the label, 0 to 3 in order")


@pytest.mark.usefixtures("no_pictures")
def test_a_condition_makes_the_model_a_conditional_one(capsys):
    for argv, kind in [(["--condition", "label"], ConditionalVAE), (["--epochs", "3", "--condition=half"], ConditionalVAE),
                       (["--condition", "label", "--model", "vae"], npvae.VAE), ([], npvae.VAE)]:  # fmt: skip
        assert cli.build_parser(["train", *argv]).parse_args(["train", *argv]).kind is kind
    with pytest.raises(SystemExit):
        cli.main(["train", "--condition", "label", "--help"])
    assert "model (ConditionalVAE):" in capsys.readouterr().out
    saved(x=FLAT, labels=NUMBERS)
    assert cli.main(["train", "--data", "rows.npz", "--condition", "label", "--likelihood", "gaussian", "--epochs", "1"]) == 0
    assert Path("runs/conditionalvae-rows").is_dir()


@pytest.mark.parametrize(("argv", "message"), [
    (["--model", "vae", "--condition", "label"],
     "--condition label is for a model that takes a condition, and VAE takes none: leave out --model (for conditionalvae) or"),
    (["--model", "conditionalvae"], "ConditionalVAE is a model of x given a condition: say which, as in --condition label"),
    (["--condition", "pose"], "and an array pose for the condition"),
    (["--condition", "half"], "condition half needs images"),
])  # fmt: skip
def test_a_model_and_a_condition_that_do_not_go_together_are_one_line(error_of, argv, message):
    saved()
    assert message in error_of("train", "--data", "rows.npz", *argv)
    assert not Path("runs").exists()
