"""How good a model is on rows that it is not trained on."""

import math

import numpy as np

from npvae.core.randomness import VALIDATION, generator
from npvae.core.ranks import Ranks
from npvae.core.workers import parts_of


def validation_settings(model, settings):
    """The settings that validation rows are measured with: the model's choice, else those of training."""
    choose = getattr(model, "validation_settings", None)
    return settings if choose is None else choose(**settings)


def validate(model, rows, settings=None, batch_size=128, seed=0, workers=None, ranks=None):
    """Means of the model's Terms over `rows`, with settings as numbers. Noise and binarisation depend on the seed alone, so
    that the values of two epochs differ by the model only; workers and ranks, if given, share the batches and change no bit of
    the result."""
    n, settings = len(rows), settings or {}

    def sums_of(i):
        index = np.arange(i * batch_size, min((i + 1) * batch_size, n))
        terms = terms_of(model, rows, index, generator(seed, VALIDATION, i), settings)
        return [len(index) * float(value) for value in terms]  # Python's numbers: infinity and NaN add up without a warning

    ranks = Ranks() if ranks is None else ranks
    n_batches = math.ceil(n / batch_size)
    batches = [i for part in parts_of(n_batches, ranks.n, ranks.rank, 1) for i in range(part.start, part.stop)]
    sums = ranks.gathered(lambda: [*map(sums_of, batches)] if workers is None else workers.deal(sums_of, batches))
    return model.Terms(*(sum(column) / n for column in zip(*sums)))


def terms_of(model, rows, index, rng, settings):
    """The model's Terms of the rows `index`."""
    batch = rows.batch(index, rng)
    noise = model.draw(rng, *batch, **settings)
    with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
        terms, _ = model.forward(*batch, noise, **settings)
    return terms
