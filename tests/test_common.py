"""What models made of dense layers share: configurations, layers, checks, and parameters that stay one memory."""

import copy
import inspect
import json
import pickle

import numpy as np
import pytest

import npvae
from npvae.models import common


class Toy:
    """A model for the eyes of `config_of`: every kind of value that a constructor keeps."""

    def __init__(self, width, hidden=(5,), name="toy", dtype="float32", flag=True, nothing=None, seed=0):
        self.width, self.hidden, self.name, self.flag, self.nothing, self.seed = width, tuple(hidden), name, flag, nothing, seed
        self.dtype = np.dtype(dtype)

    config = property(common.config_of)


def test_a_configuration_is_the_constructor_s_arguments_as_plain_values():
    config = Toy(3, [4, 2], dtype=np.float64).config
    assert config == {"width": 3, "hidden": [4, 2], "name": "toy", "dtype": "float64", "flag": True, "nothing": None, "seed": 0}
    assert [type(value) for value in config.values()] == [int, list, str, str, bool, type(None), int]
    assert json.loads(json.dumps(config)) == config
    assert Toy(**config).config == config


@pytest.mark.parametrize("changes", [{}, {"hidden": (np.int64(6), 5), "decoder_hidden": [4], "sigma": np.float32(0.5)}])
def test_a_vae_has_the_architecture_of_its_configuration(changes):
    model = npvae.VAE(7, 2, likelihood="gaussian", dtype=np.float64, initialization="he", backend="numpy", **changes)
    twin = npvae.VAE(**json.loads(json.dumps(model.config)))
    assert twin.config == model.config
    np.testing.assert_array_equal(twin.theta, model.theta)


def test_layers_end_without_an_activation():
    model = npvae.VAE(7, 2, (5, 4), "silu", backend="numpy")
    assert [activation for *_, activation in model.encoder] == ["silu", "silu", "identity"]
    assert [W.shape for W, *_ in model.decoder] == [(2, 4), (4, 5), (5, 7)]
    assert all(np.shares_memory(array, model.theta) for W, b, _ in model.encoder + model.decoder for array in (W, b))


def test_widths_are_positive_integers():
    assert common.widths_of("hidden", [np.int64(3), 2]) == (3, 2)
    assert common.widths_of("hidden", 400) == common.widths_of("hidden", np.int64(400)) == (400,)
    for wrong in (400.0, None, True):
        with pytest.raises(ValueError, match="hidden must be an integer of at least 1; got"):
            common.widths_of("hidden", wrong)
    with pytest.raises(ValueError, match="hidden must be an integer of at least 1; got 0"):
        common.widths_of("hidden", (3, 0))


WITH_LAYERS = {name: kind for name, kind in npvae.models.classes().items() if "hidden" in inspect.signature(kind).parameters}


@pytest.mark.parametrize("kind", WITH_LAYERS.values(), ids=WITH_LAYERS)
def test_a_number_is_the_width_of_one_hidden_layer(kind):
    widths = (4, 3) if hasattr(kind, "takes_condition") else (4,)  # a square number, for models of images
    widths = widths if getattr(kind, "takes_data", True) else ()
    model = kind(*widths, hidden=5, backend="numpy")
    assert (model.hidden, model.config["hidden"]) == ((5,), [5])
    assert model.shapes(*widths, hidden=5) == model.parameters.shapes
    np.testing.assert_array_equal(model.theta, kind(*widths, hidden=(5,), backend="numpy").theta)


def test_a_number_is_the_width_of_the_decoder_s_hidden_layer():
    model = npvae.VAE(6, hidden=(4, 3), decoder_hidden=5, backend="numpy")
    assert model.decoder_hidden == (5,)
    assert model.shapes(6, hidden=(4, 3), decoder_hidden=5) == model.parameters.shapes


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "copy": lambda model: model.copy(),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", npvae.models.classes().values(), ids=npvae.models.classes())
def test_theta_and_parameters_of_a_copy_are_one_memory(kind, make):
    model = next(iter(kind.examples("numpy"))).model
    model.theta += 0.1
    twin = make(model)
    assert type(twin) is kind
    assert twin.config == model.config
    np.testing.assert_array_equal(twin.theta, model.theta)
    assert list(twin.parameters) == list(model.parameters)
    assert twin.parameters.shapes == model.parameters.shapes
    assert not np.shares_memory(twin.theta, model.theta)

    before = model.theta.copy()
    twin.theta[:] = np.arange(twin.theta.size)
    np.testing.assert_array_equal(np.concatenate([value.ravel() for value in twin.parameters.values()]), twin.theta)
    name = list(twin.parameters)[-1]
    twin.parameters[name][...] = -1
    assert (twin.theta[-twin.parameters[name].size :] == -1).all()
    twin.parameters[name] = 7  # assignment copies into the view
    assert (twin.theta[-twin.parameters[name].size :] == 7).all()
    np.testing.assert_array_equal(model.theta, before)
    assert twin.theta.ctypes.data % 64 == 0  # on a cache line, as in a new model
