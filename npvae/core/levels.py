"""What uint8 data mean: grey levels 0–255, read as level/255, or zeros and ones. Floats and bool are taken as they are.

A row of bytes whose largest value is 1 may be either. So the data set that a model is trained on decides, once: grey levels if
it holds anything above 1, else zeros and ones (`npvae.data.rows`). The model keeps the decision in `model.buffers`, and so do
its files and copies; every entrance of the model (fit, forward, encode, elbo, ...) follows it. A model that was never trained
on uint8 data takes a value above 1 as a sign of grey levels, and refuses what cannot be known. For a model of levels
(data_kind "levels") they are grey levels always.
"""

import numpy as np

LEVELS = 256
GREY, BINARY = 1 / (LEVELS - 1), 1.0  # the factors that uint8 values are multiplied by
BUFFER = "uint8_scale"
TOLERANCE = 1e-3  # of a level, far above what float32 rounds level/255 by


def scale_of(x, name, kept=None, decides=False):
    """The factor that turns the array x into what a model sees: 1 unless x is uint8, for which GREY or BINARY is decided.

    kept: what was decided before (`kept_by`), None for nothing; decides: x is the data set that decides if nothing was.
    ValueError, calling x `name`, for what cannot be known, and for values above 1 after zeros and ones.
    """
    if x.dtype != np.uint8:
        return 1.0
    if kept == GREY:
        return GREY
    highest = x.max()
    if kept == BINARY and highest > 1:
        raise ValueError(
            f"{name} must be zeros and ones, as the uint8 data that the model was trained on; got the uint8 value {highest}: "
            f"give grey levels as {name} / 255"
        )
    if kept is None and highest == 1 and not decides:
        raise ValueError(
            f"{name} of dtype uint8 with nothing above 1 may be zeros and ones or dark grey levels, which a model that was not "
            f"trained on uint8 data cannot know: give zeros and ones as {name}.astype(bool), grey levels as {name} / 255"
        )
    return GREY if highest > 1 else BINARY


def kept_by(model):
    """What was decided for a model: GREY, BINARY, or None for nothing."""
    if getattr(model, "data_kind", "real") == "levels":
        return GREY
    scale = getattr(model, "buffers", {}).get(BUFFER)
    return None if scale is None else float(scale)


def keep(model, scale, name):
    """Keep what the data called `name` decided, GREY or BINARY, with the model; ValueError if it keeps the other."""
    if kept_by(model) not in (None, scale):
        holds, other = ("grey levels", "zeros and ones")[:: 1 if scale == GREY else -1]
        raise ValueError(f"{name} holds {holds}, and the model was trained on {other}")
    model.buffers = {**getattr(model, "buffers", {}), BUFFER: np.array(scale)}


def levels_of(x):
    """The whole numbers 0 to 255 of x = level/255, in the dtype of x."""
    return np.rint(x * (LEVELS - 1))


def check_levels(name, x):
    """x, whose values must be level/255 for levels 0 to 255, or ValueError."""
    scaled = x.astype(np.float64) * (LEVELS - 1)
    wrong = ~((scaled >= -TOLERANCE) & (scaled <= LEVELS - 1 + TOLERANCE) & (np.abs(scaled - np.rint(scaled)) <= TOLERANCE))
    if wrong.any():
        hint = " (if these are levels from 0 to 255, give them as uint8, or divided by 255)" if x.max() > 1 else ""
        raise ValueError(
            f"{name} must hold grey levels k/255, k = 0 to 255, for a likelihood of levels; got {x[wrong][0]:g}{hint}"
        )
    return x
