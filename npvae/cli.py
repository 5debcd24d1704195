"""The command `npvae`: its options and its exit status. Errors are one line on stderr."""

import argparse
import math
import os
import sys
import warnings

from npvae import commands
from npvae.bounds import OBJECTIVES
from npvae.checks import NpvaeWarning
from npvae.layers import ACTIVATIONS
from npvae.parameters import INITIALIZATIONS
from npvae.runs import DEFAULTS
from npvae.vae import LIKELIHOODS


def main(argv=None):
    """Run the command; returns the exit status."""
    args = build_parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", NpvaeWarning)
            warnings.showwarning = lambda message, *_: print(f"npvae: warning: {message}", file=sys.stderr)
            return args.run(args)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except MemoryError:
        return fail("not enough memory for this size of data and model")
    except BrokenPipeError:  # the reader of our output has left: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, FloatingPointError) as error:
        return fail(" ".join(str(error).split()))


def fail(message, status=1):
    print(f"npvae: error: {message}", file=sys.stderr)
    return status


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def integer(minimum):
    """An argparse type: whole numbers of at least `minimum`."""

    def parse(text):
        if not text.removeprefix("-").isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {minimum}; got {text!r}")
        return int(text)

    return parse


def number(text, low, word):
    """A finite number that is `word` ("above" or "at least") `low`, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value < math.inf or (word == "above" and value == low):
        raise argparse.ArgumentTypeError(f"must be a number {word} {low}; got {text!r}")
    return value


def positive(text):
    """An argparse type."""
    return number(text, 0, "above")


def not_negative(text):
    """An argparse type."""
    return number(text, 0, "at least")


def build_parser():
    parser = Parser(
        prog="npvae",
        description="A variational autoencoder from scratch in NumPy. Start with: npvae train",
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(subparsers)
    _add_evaluate(subparsers)
    _add_sample(subparsers)
    _add_gradcheck(subparsers)
    return parser


def _add_train(subparsers):
    parser = subparsers.add_parser(
        "train",
        help="train a model and leave a run folder",
        description="Train a variational autoencoder. Without arguments: on lattices of the Ising model, which are simulated "
        "on the spot. Leaves a folder with config.json, metrics.jsonl, checkpoint.npz and pictures.",
        epilog="Examples: npvae train   |   npvae train --data mnist --latent 20 --hidden 400 --epochs 20   |   "
        "npvae train --data spectra.npy --likelihood gaussian --sigma 0.05",
    )
    activations = [name for name in ACTIVATIONS if name != "identity"]

    add = _adder(parser.add_argument_group("data and run"))
    add("--data", "ising, mnist, or the path of a .npy or .npz file", metavar="DATA")
    add("--data-dir", "folder of the MNIST files, or of DATA; without it MNIST is downloaded once", metavar="DIR")
    add("--out", "run folder, new or empty (default: the first free runs/DATA)", metavar="RUN")
    add("--epochs", "passes over the training rows", metavar="N", type=integer(1))
    add("--batch-size", "rows per step", metavar="N", type=integer(1))
    add("--seed", "of weights, order and noise; the same seed repeats the run (default: 0)", metavar="S", type=integer(0))
    add("--workers", "threads that share each batch (default: one for small models, else the cores available)",
        metavar="N", type=integer(1))  # fmt: skip
    add("--resume", "continue the run folder given by --out; of the other options only --epochs and --workers may be given",
        action="store_true")  # fmt: skip
    add = _adder(parser.add_argument_group("model"))
    add("--latent", "dimensions of the latent z", metavar="L", type=integer(1))
    add("--hidden", "widths of the encoder's hidden layers, which the decoder mirrors; none for a linear model",
        metavar="H", type=integer(1), nargs="*")  # fmt: skip
    add("--activation", f"of the hidden layers: {', '.join(activations)}", metavar="A", choices=activations)
    add("--likelihood", "bernoulli, for data in [0, 1] (grey levels are binarised afresh for every minibatch), or gaussian, "
        "with fixed --sigma", metavar="K", choices=LIKELIHOODS)  # fmt: skip
    add("--sigma", "standard deviation of the gaussian likelihood, in units of the data", metavar="S", type=positive)
    add("--initialization", "of the weights: glorot, or he, made for relu", metavar="I", choices=list(INITIALIZATIONS))
    add("--output-bias", "start the output's bias at the data's mean", action="store_true", default=None)
    _add_objective(_adder(parser.add_argument_group("what is minimised, and remedies against posterior collapse")))
    _add_optimization(_adder(parser.add_argument_group("how it is minimised")))
    parser.set_defaults(run=commands.train)


def _adder(group):
    """add(name, help, ...): add_argument that tells the default."""

    def add(name, help, **options):
        default = DEFAULTS.get(name.removeprefix("--").replace("-", "_")) or None
        note = "" if default is None else f" (default: {default[0] if default == DEFAULTS['hidden'] else default})"
        group.add_argument(name, help=help + note, **options)

    return add


def _add_objective(add):
    add(
        "--objective",
        "elbo, or iwae: the importance-weighted bound of --train-samples samples",
        metavar="O",
        choices=OBJECTIVES,
    )
    add("--train-samples", "samples of z per datum and step", metavar="S", type=integer(1))
    add("--beta", "weight of the KL in the loss nll + beta kl; 1 is the ELBO", metavar="B", type=not_negative)
    add("--annealing-epochs", "epochs over which the weight of the KL rises from 0 to --beta, against posterior collapse",
        metavar="N", type=integer(0))  # fmt: skip
    add("--annealing-cycles", "cyclical annealing: the weight rises so many times within --annealing-epochs; 0 for once",
        metavar="N", type=integer(0))  # fmt: skip
    add(
        "--free-bits-per-dimension",
        "nats of KL that cost nothing, for each latent dimension",
        metavar="NATS",
        type=not_negative,
    )
    add("--free-bits-total", "nats of KL that cost nothing, for all latent dimensions together", metavar="NATS",
        type=not_negative)  # fmt: skip


def _add_optimization(add):
    add("--learning-rate", "Adam's step size", metavar="R", type=positive)
    add("--learning-rate-schedule", "constant; step: times --learning-rate-drop-factor every --learning-rate-drop-epochs; "
        "cosine: down to 0 at --epochs; burda: eight stages of 1, 3, 9, ... epochs", metavar="K",
        choices=["constant", "step", "cosine", "burda"])  # fmt: skip
    add("--learning-rate-drop-epochs", "of the schedule step", metavar="N", type=integer(1))
    add("--learning-rate-drop-factor", "of the schedule step", metavar="F", type=positive)
    add("--max-gradient-norm", "shorten longer gradients to this norm", metavar="G", type=positive)
    add("--weight-decay", "each step multiplies the weights by 1 − learning rate · W", metavar="W", type=not_negative)
    add("--early-stopping", "stop after N epochs without a lower validation loss, and keep the best epoch's weights",
        metavar="N", type=integer(1))  # fmt: skip


def _add_evaluate(subparsers):
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a trained model on its validation rows",
        description="Print ELBO, nll, kl (in total and per latent dimension), active units, the importance-weighted "
        "log-likelihood and bits per dimension of a run, on its validation rows (MNIST: the test images). Nats are means "
        "per datum; grey images are binarised once.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the folder that npvae train left")
    parser.add_argument("--samples", type=integer(1), default=100, metavar="K", help="importance samples per datum (100)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data are, if they moved since the training")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="S", help="of binarisation and noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=commands.evaluate)


def _add_sample(subparsers):
    parser = subparsers.add_parser(
        "sample",
        help="draw from a trained model",
        description="Draw z from the prior N(0, I) and picture E[x|z], the mean of the data that the model expects there.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the folder that npvae train left")
    parser.add_argument("--count", type=integer(1), default=64, metavar="N", help="how many (default: 64)")
    parser.add_argument("--out", metavar="PNG", help="the new picture to write (default: the first free RUN/draws.png)")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="S", help="of the draws (default: 0)")
    parser.set_defaults(run=commands.sample)


def _add_gradcheck(subparsers):
    parser = subparsers.add_parser(
        "gradcheck",
        help="prove the gradients",
        description="Put every forward/backward pair and the whole model, on both back ends, before five checks: the complex "
        "step (exact to rounding), central differences, the Taylor test, float32 against float64, and what every backward "
        "pass owes (linear, pure, zero for zero). Exit status 1 if anything fails.",
    )
    parser.add_argument("run_folder", metavar="RUN", nargs="?", help="check the model of this run on its own validation rows, "
        "in place of the small models")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print every report as JSON instead of the table")
    parser.set_defaults(run=commands.gradcheck)
