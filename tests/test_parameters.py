"""The flat parameter vector: names and shapes, views that stay views, copies of the whole, places in memory."""

import copy
import functools
import math
import multiprocessing
import pickle

import numpy as np
import pytest
from mean_field import MeanField
from small_models import Regression, lattice_rows, small_model

import npvae
from npvae.core import parameters as module
from npvae.core.parameters import Parameters, Theta, check_dtype, dense_shapes, size_of, views_of, zeros
from npvae.models.autoencoder import Autoencoder
from npvae.models.flow import Flow

SHAPES = {"a.W": (2, 3), "a.b": (3,), "scale": (), "c": (1, 2, 2)}
COPIES = {
    "copy": Parameters.copy,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    **{f"pickle {protocol}": functools.partial(lambda protocol, value: pickle.loads(pickle.dumps(value, protocol)), protocol)
       for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
    "pickle, arrays read-only": lambda value: through_read_only_buffers(value),
}


def through_read_only_buffers(value):
    """As process pools hand over large arrays: beside the pickle, mapped into memory that cannot be written."""
    buffers = []
    pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(pickled, buffers=[bytes(buffer.raw()) for buffer in buffers])




def counted(dtype="float64"):
    """Parameters with the values 0, 1, 2, ... in order."""
    parameters = Parameters(SHAPES, dtype)
    parameters.flat[:] = np.arange(14)
    return parameters


def test_names_shapes_and_order():
    assert dense_shapes({"x": (4, 2), "y": (2, 5)}) == {"x.W": (4, 2), "x.b": (2,), "y.W": (2, 5), "y.b": (5,)}
    assert list(dense_shapes({"y": (1, 1), "x": (1, 1)})) == ["y.W", "y.b", "x.W", "x.b"]
    assert dense_shapes({}) == {}
    assert size_of(SHAPES) == 6 + 3 + 1 + 4
    assert size_of({}) == 0


def test_views_share_the_vector_s_memory_in_order():
    flat = np.arange(14.0)
    views = views_of(flat, SHAPES)
    assert {name: value.shape for name, value in views.items()} == SHAPES
    np.testing.assert_array_equal(views["a.W"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(views["a.b"], [6, 7, 8])
    np.testing.assert_array_equal(views["c"], [[[10, 11], [12, 13]]])
    views["a.b"][1] = -1
    assert flat[7] == -1
    flat[13] = -2
    assert views["c"][0, 1, 1] == -2


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_parameters_are_zeros_of_their_dtype_at_first(dtype):
    parameters = Parameters(SHAPES, dtype)
    assert parameters.flat.dtype == dtype
    assert parameters.shapes == SHAPES
    assert list(parameters) == list(SHAPES)
    assert not parameters.flat.any()
    assert all(np.shares_memory(value, parameters.flat) for value in parameters.values())


def test_assignment_copies_into_the_view():
    parameters = counted()
    view, values = parameters["a.W"], np.full((2, 3), 7.0)
    parameters["a.W"] = values
    assert parameters["a.W"] is view
    np.testing.assert_array_equal(parameters.flat[:6], 7)
    values[:] = 8
    assert (view == 7).all()
    parameters["a.b"] = 5  # a number for all
    np.testing.assert_array_equal(parameters.flat[6:9], 5)
    parameters["a.b"] += 1
    np.testing.assert_array_equal(parameters.flat[6:9], 6)
    assert np.shares_memory(parameters["a.b"], parameters.flat)


def test_several_names_at_once_are_assigned_alike():
    parameters = counted()
    view = parameters["a.W"]
    parameters.update({"a.W": np.full((2, 3), 7.0)}, scale=9.0)
    parameters |= {"a.b": np.full(3, 8.0)}
    assert parameters["a.W"] is view
    np.testing.assert_array_equal(parameters.flat, [7] * 6 + [8] * 3 + [9, 10, 11, 12, 13])
    with pytest.raises(KeyError):
        parameters.update(b=1.0)


def test_what_does_not_fit_is_refused_and_changes_nothing():
    parameters = counted()
    with pytest.raises(KeyError, match=r"a\.V"):
        parameters["a.V"] = np.zeros((2, 3))
    with pytest.raises(ValueError, match="broadcast"):
        parameters["a.W"] = np.zeros((3, 2))
    assert list(parameters) == list(SHAPES)
    np.testing.assert_array_equal(parameters.flat, np.arange(14))


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_copies_have_memory_of_their_own_in_which_names_and_vector_are_one(way, dtype):
    parameters = counted(dtype)
    twin = COPIES[way](parameters)
    assert type(twin) is Parameters
    assert (twin.shapes, twin.flat.dtype) == (parameters.shapes, parameters.flat.dtype)
    np.testing.assert_array_equal(twin.flat, parameters.flat)
    assert not np.shares_memory(twin.flat, parameters.flat)
    twin.flat[:] = 0
    assert not any(value.any() for value in twin.values())
    twin["a.b"] = 3
    np.testing.assert_array_equal(twin.flat[6:9], 3)
    np.testing.assert_array_equal(parameters.flat, np.arange(14))


@pytest.mark.parametrize("way", ["copy.deepcopy", "pickle 5", "pickle, arrays read-only"])
@pytest.mark.parametrize("model", [small_model(), small_model(backend="numba"), Regression(3)], ids=["numpy", "numba", "own"])
def test_copies_of_a_model_train_like_it_and_leave_it_alone(way, model):
    twin = COPIES[way](model)
    assert type(twin) is type(model)
    np.testing.assert_array_equal(twin.theta, model.theta)
    before = model.theta.copy()
    twin.theta = twin.theta + 1
    for name, value in twin.parameters.items():
        np.testing.assert_array_equal(value, model.parameters[name] + 1)
    np.testing.assert_array_equal(model.theta, before)
    if isinstance(model, npvae.VAE):
        thetas = []
        for each in (COPIES[way](model), COPIES[way](COPIES[way](model))):
            npvae.fit(each, lattice_rows(20), epochs=2, progress=False)
            thetas.append(each.theta)
            np.testing.assert_array_equal(np.concatenate([v.ravel() for v in each.parameters.values()]), each.theta)
        np.testing.assert_array_equal(*thetas)
        assert not np.array_equal(thetas[0], before)
        np.testing.assert_array_equal(model.theta, before)


DATA = np.maximum(lattice_rows(400), lattice_rows(400, seed=1))  # more ones than zeros, which each of the models can learn
MODELS = {
    "VAE": lambda: small_model(),
    "Autoencoder": lambda: Autoencoder(16, 2, (8,), likelihood="bernoulli", backend="numpy"),
    "Flow": lambda: Flow(16, 4, (8,), backend="numpy"),
    "own": lambda: MeanField(16),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def val_losses(model):
    settings = {"epochs": 3, "batch_size": 20, "optimizer": npvae.Adam(1e-2), "progress": False}
    return npvae.fit(model, DATA[:200], DATA[200:], **settings)["val_loss"]


def is_one_memory(model):
    names = np.concatenate([value.ravel() for value in model.parameters.values()])
    return np.array_equal(names, model.theta) and all(np.shares_memory(v, model.theta) for v in model.parameters.values())


@every_model
@pytest.mark.parametrize("way", ["copy.deepcopy", "pickle 0", "pickle 5", "pickle, arrays read-only"])
def test_copies_of_every_model_learn_as_the_model_does(make, way):
    model = make()
    twin = COPIES[way](model)
    losses = val_losses(twin)
    assert is_one_memory(twin)
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(val_losses(model), losses)
    np.testing.assert_array_equal(model.theta, twin.theta)


def test_a_model_learns_in_another_process():
    models = [make() for make in MODELS.values()]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        losses = pool.map(val_losses, models)
        twins = pool.map(copy.copy, models)
    for model, twin, found in zip(models, twins, losses):
        assert is_one_memory(twin)
        np.testing.assert_array_equal(val_losses(model), found)


@every_model
def test_names_and_vector_stay_one_memory_whatever_is_done(make):
    model = make()
    name, view = next(iter(model.parameters.items()))
    changes = [lambda: model.parameters.update({name: 1.0}), lambda: model.parameters.setdefault(name, 2.0),
               lambda: setattr(model, "theta", np.arange(model.theta.size)), lambda: setattr(model, "theta", 0.5)]  # fmt: skip
    for change in changes:
        change()
        assert model.parameters[name] is view
        assert is_one_memory(model)
    model.parameters |= {name: 3.0}
    assert (view == 3).all()
    removals = [lambda: model.parameters.pop(name), lambda: model.parameters.popitem(), lambda: model.parameters.clear(),
                lambda: model.parameters.__delitem__(name), lambda: model.parameters.pop("no such", None)]  # fmt: skip
    for removal in removals:
        with pytest.raises(TypeError, match=f"^parameters cannot be removed: the model has {name}"):
            removal()
    with pytest.raises(KeyError, match="no such"):
        model.parameters.setdefault("no such", np.ones(3))
    assert is_one_memory(model)
    kept, model.parameters = model.parameters, {name: value + 1 for name, value in model.parameters.items()}
    for use in (lambda: model.theta, lambda: setattr(model, "theta", 1), lambda: npvae.fit(model, DATA, epochs=1)):
        with pytest.raises(TypeError, match=r"^parameters of a model are views of theta, not a dict: [^\n]*update\(...\)$"):
            use()
    model.parameters = kept
    assert is_one_memory(model)


def test_a_deep_copy_keeps_together_what_was_one_memory():
    model = small_model()
    copied = copy.deepcopy({"model": model, "theta": model.theta, "W": model.parameters["posterior.W"]})
    assert copied["theta"] is copied["model"].theta is not model.theta
    assert copied["W"] is copied["model"].parameters["posterior.W"]


class Holder:
    theta = Theta()

    def __init__(self):
        self.parameters = counted()


def test_theta_is_the_vector_and_assignment_copies_into_it():
    holder = Holder()
    flat = holder.parameters.flat
    assert holder.theta is flat
    values = np.arange(14.0)[::-1].copy()
    holder.theta = values
    assert holder.theta is flat
    values[:] = 0
    np.testing.assert_array_equal(holder.parameters["a.W"], [[13, 12, 11], [10, 9, 8]])
    holder.theta += 1
    assert holder.theta is flat
    assert flat[0] == 14
    with pytest.raises(ValueError, match="broadcast"):
        holder.theta = np.zeros(13)
    assert isinstance(Holder.theta, Theta)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0,), (7,), (3, 1000)])
@pytest.mark.parametrize("place", range(4))
def test_zeros_lie_at_a_quarter_of_a_page_of_their_own(place, shape, dtype):
    array = zeros(shape, dtype, place)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert not array.any()
    if array.size:
        assert array.ctypes.data % 4096 == place * 1024
        array[:] = 1  # all of it is there


@pytest.mark.parametrize("dtype", ["float32", np.float64, np.dtype("complex128"), complex])
def test_dtypes_a_model_can_have(dtype):
    assert check_dtype(dtype) == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "int64", "no such", object(), bool])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be one of float32, float64, complex128"):
        check_dtype(dtype)


@pytest.mark.parametrize("name", module.INITIALIZATIONS)
def test_initial_weights_have_the_spread_that_their_widths_ask_for_and_biases_stay(name):
    parameters = Parameters(dense_shapes({"wide": (300, 200), "narrow": (200, 50)}), "float32")
    parameters.flat[:] = 3
    module.INITIALIZATIONS[name](parameters, np.random.default_rng(0))
    for layer, (n_in, n_out) in {"wide": (300, 200), "narrow": (200, 50)}.items():
        W = parameters[f"{layer}.W"]
        if name == "glorot":
            bound = math.sqrt(6 / (n_in + n_out))
            assert 0.99 * bound < np.abs(W).max() <= bound * (1 + 1e-6)
            expected = bound / math.sqrt(3)
        else:
            expected = math.sqrt(2 / n_in)
        assert W.std() == pytest.approx(expected, rel=0.05)
        assert abs(W.mean()) < 5 * expected / math.sqrt(W.size)
        assert (parameters[f"{layer}.b"] == 3).all()
