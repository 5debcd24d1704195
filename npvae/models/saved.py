"""Models in files, and copies of models: for whatever has theta, buffers and config.

A file holds theta and the buffers, the name of the class and its config. The class is looked up by its name in `npvae.models`,
or given by the caller: nothing in a file names code to be run.
"""

import numpy as np

from npvae.core import checks, files, levels
from npvae.core.parameters import size_of


def copied(model, **changes):
    """A model of the same class, theta and buffers; keywords change its config, e.g. dtype="float64" or backend="numpy"."""
    twin = type(model)(**{**model.config, **changes})
    twin.theta = model.theta
    for name, value in model.buffers.items():
        own = twin.buffers.get(name, value)  # of the twin's own dtype; what training adds, a new model does not have
        twin.buffers[name] = value.astype(own.dtype)
    return twin


def save(model, path):
    """Write the model to one npz file, replacing it in one step; OSError where that fails, ValueError for parameters that are
    not finite, which could not be read again."""
    files.write(path, arrays_of(model), {"model": description(model)})


def arrays_of(model):
    """What a file holds of a model's arrays; ValueError for parameters that are not finite."""
    checks.finite("theta", model.theta)
    return {"theta": model.theta, **{f"buffers.{name}": value for name, value in model.buffers.items()}}


def description(model):
    """What a file says of a model, for JSON."""
    return {"class": type(model).__name__, "config": model.config}


def load(path, kind=None):
    """The model of a file written by `save` or of a run's checkpoint; ValueError if it is not one.

    kind: the class; None for one of `npvae.models`, by the name in the file.
    """
    arrays, metadata = files.read(path)
    return from_file(arrays, metadata, path, kind)


def load_as(kind, path):
    """The model of a file written by `save` or of a run's checkpoint, which must be of this class; ValueError if it is not."""
    return load(path, kind)


def from_file(arrays, metadata, path, kind=None):
    """The model of what `files.read` returned; `path` is for the error message."""
    try:
        name, config, theta = metadata["model"]["class"], metadata["model"]["config"], arrays["theta"]
        kind = class_called(name, kind)
        if hasattr(kind, "shapes"):  # no memory is set aside for a model that the file does not hold
            n_parameters = size_of(kind.shapes(**config))
            if theta.size != n_parameters:
                raise ValueError(f"theta of shape {theta.shape} for {n_parameters} parameters")
        model = kind(**config)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: not a saved npvae model ({error})") from None
    if theta.shape != model.theta.shape or theta.dtype != model.theta.dtype:
        needs = f"{model.theta.dtype} {model.theta.shape}"
        raise ValueError(f"{path}: theta must be {needs}; got {theta.dtype} {theta.shape}")
    checks.finite(f"{path}: theta", theta)
    model.theta = theta
    if f"buffers.{levels.BUFFER}" in arrays:  # which training adds to those of a new model
        model.buffers = {**model.buffers, levels.BUFFER: np.zeros(())}
    for name, value in model.buffers.items():
        saved = arrays.get(f"buffers.{name}")
        if saved is None or saved.shape != value.shape or saved.dtype != value.dtype:
            raise ValueError(f"{path}: buffer {name} is missing or of another shape")
        model.buffers[name] = saved
    return model


def class_called(name, kind=None):
    """The class of a model by the name in a file: `kind`, which must be called so, or one of `npvae.models`; else
    ValueError."""
    import npvae.models

    if kind is not None:
        if kind.__name__ != name:
            raise ValueError(f"it holds a model of class {name}, not {kind.__name__}")
        return kind
    classes = npvae.models.classes()
    if name not in classes:
        raise ValueError(f"a model of class {name}, which is none of {', '.join(classes)}: say whose it is (--model FILE.py)")
    return classes[name]
