"""Rows that spoil what they are averaged with: found where a loss is not finite, and named for who has to mend the data."""

import contextlib
import math

import numpy as np

from npvae.core.randomness import VALIDATION, generator
from npvae.training.validation import terms_of

MAX_NAMED_ROWS = 5


def rows_not_finite(batches, is_finite):
    """Numbers of the rows that give nothing finite even by themselves, the first MAX_NAMED_ROWS: each of `batches` (arrays of
    row numbers) that is not finite is halved until one row is left. is_finite(index) says whether these rows together are."""
    found, pieces = [], list(reversed(batches))
    while pieces and len(found) < MAX_NAMED_ROWS:
        piece = pieces.pop()
        if is_finite(piece):
            continue
        if len(piece) == 1:
            found.append(int(piece[0]))
        else:
            half = len(piece) // 2
            pieces += [piece[half:], piece[:half]]
    return sorted(found)


def in_words(found, rows, whose):
    """What `rows_not_finite` found, in words: the numbers of the rows, and a value to know them by in a file."""
    if not found:
        return f"no single row of the {whose} data is the cause"
    more = " and perhaps others" if len(found) == MAX_NAMED_ROWS else ""
    numbers = found if rows.numbers is None else rows.numbers[found].tolist()  # of the file, if they are known
    named = f"row{'s' * (len(found) > 1)} {', '.join(map(str, numbers))}{more} (counted from 0)"
    place = f"of the {whose} data" if rows.numbers is None else f"of the file, among the {whose} rows"
    return f"see {named} {place}, with absolute values up to {largest(rows, found):.4g}"


def largest(rows, index=None):
    """The largest absolute value of the data in the rows `index`, or in all."""
    x = rows.arrays[0] if index is None else rows.arrays[0][index]
    return rows.scale * max(float(x.max()), -float(x.min()))


def unscaled(rows):
    """What may be wrong where nothing is finite from the beginning: the scale of the data."""
    if not rows.arrays:
        return "The model's initial parameters may be the cause"
    return f"The data may need scaling: the largest absolute value among the training rows is {largest(rows):.4g}"


def of_validation(model, val, settings, batch_size, seed):
    """What to say where the validation loss is not finite: which rows have a loss that is not."""

    def is_finite(index):
        return math.isfinite(terms_of(model, val, index, generator(seed, VALIDATION, 0), settings)[0])

    batches = np.array_split(np.arange(len(val)), math.ceil(len(val) / batch_size))
    return f"the validation loss is not finite: {in_words(rows_not_finite(batches, is_finite), val, 'validation')}"


@contextlib.contextmanager
def unchanged_buffers(model):
    """After the block the model's buffers (persistent chains) are as they were: who looks for bad rows must not move them."""
    buffers = {name: value.copy() for name, value in model.buffers.items()}
    yield
    model.buffers.update(buffers)
