"""What models made of dense layers share: their options, their layers, and the checks of their constructors."""

import inspect
from collections.abc import Iterable

import numpy as np

from npvae.core import checks, levels, options
from npvae.core.options import Option
from npvae.core.parameters import INITIALIZATIONS, Parameters, check_dtype, size_of, views_of
from npvae.models.backend import BACKENDS, load_ops
from npvae.ops.layers import ACTIVATIONS

HIDDEN_ACTIVATIONS = tuple(name for name in ACTIVATIONS if name != "identity")
MAX_PARAMETERS = 2**31  # 8 GB of float32: beyond this a size is a slip of the keyboard

ACTIVATION = Option("activation", "relu", "of the hidden layers: " + ", ".join(HIDDEN_ACTIVATIONS),
                    options.one_of(*HIDDEN_ACTIVATIONS), metavar="A", choices=HIDDEN_ACTIVATIONS)  # fmt: skip
INITIALIZATION = Option("initialization", "glorot", "of the weights: glorot, or he, made for relu",
                        options.one_of(*INITIALIZATIONS), metavar="I", choices=tuple(INITIALIZATIONS))  # fmt: skip


def prepare(model, shapes, activation, backend, dtype, seed, initialization):
    """Give a model what its constructor shares with others: checked dtype, parameters of these shapes with initial weights."""
    checks.choice("activation", activation, HIDDEN_ACTIVATIONS)
    checks.choice("backend", backend, BACKENDS)
    checks.choice("initialization", initialization, list(INITIALIZATIONS))
    if size_of(shapes) > MAX_PARAMETERS:
        raise ValueError(f"the widths of the layers ask for {size_of(shapes):,} parameters; at most {MAX_PARAMETERS:,}")
    model.dtype, model.seed = check_dtype(dtype), checks.integer("seed", seed, 0)
    model.activation, model.backend, model.initialization = activation, backend, initialization
    model.buffers = {}
    model.parameters = Parameters(shapes, model.dtype)
    INITIALIZATIONS[initialization](model.parameters, np.random.default_rng(model.seed))


ops = property(lambda model: load_ops(model.backend), doc="The table of ops: the module of the model's back end.")


def widths_of(name, widths):
    """Widths of hidden layers as a tuple of positive integers, or ValueError; a number is the width of one layer."""
    widths = widths if isinstance(widths, Iterable) else (widths,)
    return tuple(checks.integer(name, width, 1) for width in widths)


def checked(model, x, name="x"):
    """x (B, D) as a C-contiguous array of the model's (real) dtype, or ValueError: the `check` of models of one array.

    uint8 grey levels become level/255 (`npvae.core.levels`). Where model.data_kind is "binary" x must lie in [0, 1], where it
    is "levels" it must hold such levels.
    """
    given = checks.real_array(name, x, n_columns=model.n_features)
    scale = levels.scale_of(given, name, levels.kept_by(model))
    x = checks.converted(name, given, model.dtype)
    if scale != 1:
        x *= x.dtype.type(scale)  # x was uint8, so it is a copy
    kind = getattr(model, "data_kind", "real")
    if kind == "levels" and scale == 1:
        levels.check_levels(name, x)
    return checks.unit_interval(name, x, given.dtype) if kind == "binary" else x


def dense_layers(parameters, names, activation):
    """The layers of these names as `ops.mlp_forward` takes them, (W, b, activation) each, the last without an activation."""
    activations = [activation] * (len(names) - 1) + ["identity"]
    return [(parameters[f"{name}.W"], parameters[f"{name}.b"], a) for name, a in zip(names, activations)]


def layers_called(model, part, widths, last):
    """The layers part.0, part.1, ..., one for each of the widths, and then `last`, as `dense_layers` gives them."""
    return dense_layers(model.parameters, [*(f"{part}.{i}" for i in range(len(widths))), last], model.activation)


def nll_forward(model, output, x):
    """−log p(x|z) of a decoder's output (..., B, ·) against x (B, D), unchecked, by the model's likelihood: (..., B) in nats,
    and the cache."""
    return model.p_x_given_z.forward(model.ops, output, x, model.parameters)


def nll_backward(model, dnll, cache):
    """Backward of nll_forward: dnll (..., B) -> doutput (..., B, ·), and a tuple of the gradients of the likelihood's own
    parameters."""
    return model.p_x_given_z.backward(model.ops, dnll, cache)


def laid_out(model, layer_grads, out=None):
    """Gradients (dW, db) of all layers, in the order of theta, as a dict like model.parameters: views of `out` (P,), a fresh
    vector if None."""
    grads = views_of(np.empty_like(model.theta) if out is None else out, model.parameters.shapes)
    for view, grad in zip(grads.values(), (grad for layer in layer_grads for grad in layer)):
        view[...] = grad
    return grads


def config_of(model):
    """The constructor's arguments as plain values, which JSON can hold: type(model)(**config) has the same architecture."""
    values = {name: getattr(model, name) for name in inspect.signature(type(model)).parameters}
    return {name: plain(value) for name, value in values.items()}


def plain(value):
    """A tuple as a list, a dtype as its name, other values as they are."""
    if isinstance(value, tuple):
        return list(value)
    return value.name if isinstance(value, np.dtype) else value
