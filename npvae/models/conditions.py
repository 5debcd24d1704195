"""Conditions of conditional models: arrays of numbers or class labels, checked. Shapes: B batch, C condition."""

import numpy as np

from npvae.core import checks


def checked(model, condition):
    """A condition (B, C), or (B,) class labels, as (B, C) of the model's (real) dtype; ValueError if C is not n_condition."""
    if condition is None:
        raise ValueError(f"condition is missing: {type(model).__name__} takes x and a condition, in one tuple where there is "
                         "one argument for data")  # fmt: skip
    given = checks.plain_array("condition", condition)
    if given.ndim == 1 and model.n_condition > 1:
        return one_hot(model, given)
    given = given[:, None] if given.ndim == 1 else given
    return checks.converted("condition", checks.real_array("condition", given, n_columns=model.n_condition), model.dtype)


def one_hot(model, labels):
    """Class labels (B,) as rows with a one in the place of the class, (B, C), or ValueError."""
    needs = f"condition must be class labels from 0 to {model.n_condition - 1}, or numbers of shape (n, {model.n_condition})"
    if labels.dtype.kind not in "iub" or labels.size == 0:
        raise ValueError(f"{needs}; got shape {labels.shape} of dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= model.n_condition:
        raise ValueError(f"{needs}; got labels from {labels.min()} to {labels.max()}")
    return np.eye(model.n_condition, dtype=model.theta.real.dtype)[labels.astype(np.intp)]


def same_rows(name, array, condition):
    """ValueError unless there is a condition for each row of the array of this name."""
    if len(array) != len(condition):
        raise ValueError(f"condition must have one row for each of the {len(array)} rows of {name}; got {len(condition)}")
