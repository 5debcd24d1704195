"""What training, checkpoints, checks, plots and commands ask of a model. Nobody inherits: these pages are the documentation,
and a test holds every model to them.

    Model          what `npvae.fit` needs
    more           offered under fixed names, and used where it is there (at the end of this file)
"""

from typing import Any, NamedTuple, Protocol

import numpy as np


class Model(Protocol):
    """A model that `npvae.fit` trains. B is the number of rows of a batch, P the number of parameters.

    `batch` is a tuple of arrays with the same rows: (x,) for a VAE, (x, condition), or () for a model without data, whose rows
    are then those of the noise.
    `settings` are keywords, the values that the schedules give for this step (beta, the objective's name, ...).
    `noise` is an array whose rows lie on the last axis but one (on the only axis of a 1-D array), a tuple of such, or None.
    """

    theta: np.ndarray  # (P,) everything that is trained; assignment copies into it
    parameters: dict  # name -> view of theta; a view kept elsewhere is cut off when the model is pickled
    buffers: dict  # name -> array: what training changes and no gradient reaches (persistent chains); mostly {}. To them is
    # added how uint8 data are read, where it is trained on such (`npvae.core.levels`)
    config: dict  # type(model)(**config) has the same architecture; values that JSON can hold
    Terms: type  # NamedTuple of floats, the loss first: the columns of history, bar, metrics.jsonl and plot

    def check(self, *batch) -> tuple:
        """The batch as a tuple of arrays of the model's dtype; ValueError for what cannot be used. What training uses of the
        arrays beside the data x is what it returns, so it must take that too, and leave it as it is."""

    def draw(self, rng, *batch, **settings) -> Any:
        """The noise of one step: everything random of a forward pass."""

    def forward(self, *batch_and_noise, **settings) -> tuple:
        """Terms, means over the rows, and the cache for backward. The noise comes last, None if draw gave None."""

    def backward(self, cache, dloss=1.0, out=None) -> dict:
        """name -> gradient of dloss · loss, views of `out` (P,), a fresh vector if None."""


class Example(NamedTuple):
    """A small float64 model with data, for the checks of its gradient."""

    name: str  # what stands before the first comma is a row of the checks' table
    model: Any
    batch: tuple  # of 2B rows: the checks may train on the first half, and look at the second
    settings: dict


class Player(NamedTuple):
    """One of several networks that are trained in turn, each by a loss of its own."""

    part: slice  # of theta
    n_steps: int  # one after the other, before the next player's
    limit: float | None = None  # largest size that an entry of the part may have after its step: weight clipping


class Measure(NamedTuple):
    """One number that `npvae evaluate` prints, or several."""

    name: str
    value: Any  # a number, a list of numbers, or a dict of them; what JSON can hold
    unit: str = ""
    note: str = ""  # in words, for who reads it


# What a model may offer beyond that. `npvae.app` and `npvae.checking` use what is there and say what is not.
#
#   n_features                 the width of the data, which is then checked
#   units                      of the Terms, "nats per datum"
#   decimals                   of the Terms in lines of text; 2 where it is not there
#   terms_help                 dict: name of a Term -> what it is, for the plots
#   data_kind                  "real"; "binary": values in [0, 1], grey levels drawn as zeros and ones for each minibatch; or
#                              "levels": k/255 with whole numbers k of 0 to 255, which uint8 data always are then
#   takes_condition            True where a batch is (x, condition): the constructor takes n_condition beside n_features, decode
#                              and sample(condition, rng) a condition (n, C) or class numbers (n,), and what is called before
#                              training the whole batch
#   options                    tuple of core.options.Option: the command line, config.json and the README read it
#   gradient(*batch_and_noise, dloss=1.0, out=None, workspace=None, **settings)
#                              Terms, and a number that is finite only where the square of every entry of the gradient, written
#                              to `out`, is: forward and backward in one call, used in place of them
#   workspace(n_rows, n_shards=1, **settings)
#                              the buffers of `gradient` for at most so many rows. Where they have a field `team`, the workers
#                              compute one gradient together, each with such buffers (`npvae.training.together`)
#   couples_rows(**settings), join(terms, caches, weights, gathered=...)
#                              for a loss that is no mean over rows: whether it is, and from the shards' Terms and caches those
#                              of the whole batch, before their backward passes. Over several ranks gathered(compute) gives the
#                              lists of all of them, this one's being compute()
#   multiplications            of a row, or of one of `chains`, in the forward pass of a step; as many as there are parameters
#                              where it is not told. The number of workers is chosen by it
#   chains                     persistent Markov chains (C, ...), an array among the buffers, or None. Each step hands draw the
#                              shard's rows of them, draw(rng, *batch, chains=rows, **settings): a view, which draw moves in
#                              place; the noise holds a copy. Each worker has rows of its own, at least one, which rest in a
#                              step that has no shard for it, and move in one that is skipped. Without the
#                              keyword (validation, checks) draw moves no buffer: its chains start at the data, or at copies.
#                              A step without data is cut among the workers as the chains are
#   takes_data                 False where a batch is (): the constructor takes no n_features, `npvae train` loads no data
#   players(**settings)        of a game: name -> Player, in the order of their turns. Each step has the setting `player`, the
#                              name of the one whose loss forward gives and whose part the step moves; the gradient is that of
#                              this loss with respect to all of theta
#   adam                       dict: hyperparameters of Adam that training takes where nobody gives an optimiser
#   check_settings(**settings) ValueError for settings that cannot be
#   validation_settings(**settings)   the settings that validation rows are measured with
#   examples(backend)          classmethod, yields Examples in every regime: `npvae.checking` puts them before its checks
#   encode, decode, reconstruct, sample(n, rng), log_likelihood(x, ...)
#   decoder, likelihood        dense layers (W, b, activation) and the name of p(x|z): what the page of `npvae explore` decodes
#                              with
#   measure(*batch, n_samples, seed, progress)   yields Measures of validation rows
#   pictures(plots, *batch, dataset)   yields (file name, what it shows, Figure or a function that makes it: should one
#                              fail, the others are drawn); plots is `npvae.app.plots`, handed in
#   copy(**changes), save(path), load(path)   see npvae.models.saved
