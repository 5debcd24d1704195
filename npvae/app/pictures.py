"""The pictures of a run on the disk. They come last, when all results are safe, so one that cannot be drawn ends nothing."""

import warnings
from functools import partial

import numpy as np

from npvae.core.checks import NpvaeWarning
from npvae.data.arrays import Mapped

MAX_MAPPED_ROWS = 10_000  # of a file that may be larger than the memory


def draw_pictures(folder, model, val_rows, dataset, history):
    """Write the pictures of a run; returns a dict of file name -> what it shows. A warning tells of one that fails, and the
    others are drawn."""
    drawn = {}
    try:
        for name, description, figure in pictures(model, val_rows, dataset, history):
            try:
                save_picture(folder / name, figure)
                drawn[name] = description
            except OSError as error:
                warnings.warn(str(error), NpvaeWarning, stacklevel=2)
    except Exception as error:  # whatever a model may raise
        warnings.warn(f"not all pictures could be made ({in_words(error)})", NpvaeWarning, stacklevel=2)
    return drawn


def pictures(model, val_rows, dataset, history):
    """The pictures of a run: (file name, what it shows, a Figure or a function that makes it) each."""
    yield "loss.png", "the history of training", partial(history_figure, history, model)
    if hasattr(model, "pictures"):
        from npvae.app import plots

        is_mapped = any(isinstance(array, Mapped) for array in val_rows.arrays)
        n = min(len(val_rows), MAX_MAPPED_ROWS) if is_mapped else len(val_rows)
        batch = val_rows.batch(np.arange(n), np.random.default_rng(0))
        with plots.own_settings():  # for figures that are made at once
            yield from model.pictures(plots, *batch, dataset)


def history_figure(history, model):
    from npvae.app import plots

    return plots.history(history, model)


def save_picture(path, figure):
    """Write a Figure, or what a function makes, as PNG; OSError in one line where that fails, and then there is no file."""
    try:
        from npvae.app import plots  # Matplotlib takes half a second to load, and may be broken

        plots.save(figure, path)
    except BaseException as error:  # whatever Matplotlib, its fonts, LaTeX or the disk may raise, and Ctrl-C
        path.unlink(missing_ok=True)
        if not isinstance(error, Exception):
            raise
        raise OSError(f"the picture {path} could not be drawn ({in_words(error)})") from error


def in_words(error):
    """The kind of an error and what it says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
