"""The command `npvae`: its options and its exit status. Errors are one line on stderr."""

import argparse
import sys
import warnings

from npvae import models
from npvae.app import commands, compress, make_data, mpi, settings, sweep, terminal
from npvae.app.parser import Parser, add_data_dir, add_run, argument_type
from npvae.core import options
from npvae.core.checks import NpvaeWarning
from npvae.core.ranks import OtherRankFailedError

TRAIN_DESCRIPTION = """\
Train a model. Without arguments: a variational autoencoder on lattices of the Ising
model, which are simulated on the spot. Leaves a run folder with config.json,
metrics.jsonl, checkpoint.npz and pictures."""
TRAIN_EXAMPLES = """\
examples:
  npvae train
  npvae train --data mnist --latent 20 --hidden 400 --epochs 20
  npvae train --data spectra.npy --likelihood gaussian --sigma 0.05
  npvae train --data counts.npy --likelihood gaussian --scale standardise
  npvae train --data mnist --condition label
  npvae train --resume --out runs/ising --epochs 60
  mpiexec -n 4 npvae train --data spectra.npy --batch-size 1024
  npvae train --model my_model.py --data spectra.npy"""


def main(argv=None):
    """Run the command; returns the exit status."""
    with terminal.usable(), mpi.one_voice():
        try:
            status = run(sys.argv[1:] if argv is None else list(argv))
            sys.stdout.flush()  # what cannot be written is an error of this command
            return status
        except KeyboardInterrupt:
            return fail("interrupted", 130)
        except MemoryError:
            return fail("not enough memory for this size of data and model")
        except BrokenPipeError:  # the reader of our output has left: nothing to say, and nobody to say it to
            return 1
        except (ValueError, OSError, FloatingPointError, OtherRankFailedError) as error:
            return fail(" ".join(str(error).split()))


def run(argv):
    """Parse the options and do what they ask; warnings become lines on stderr."""
    args = build_parser(argv).parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", NpvaeWarning)
        warnings.showwarning = lambda message, *_: mpi.told()[0] or print(f"npvae: warning: {message}", file=sys.stderr)
        return args.run(args)


def fail(message, status=1):
    mpi.wait_for_rank_0()
    print(f"npvae: error: {message}", file=sys.stderr)
    mpi.end_all(status)
    return status


def build_parser(argv=()):
    """The parser; the options of `npvae train` are those of the model that argv names."""
    parser = Parser(
        prog="npvae",
        description="A variational autoencoder and its relatives from scratch in NumPy. Start with: npvae train",
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(subparsers, _kind_of(argv))
    sweep.add_parser(subparsers)
    make_data.add_parser(subparsers)
    _add_evaluate(subparsers)
    _add_sample(subparsers)
    _add_explore(subparsers)
    compress.add_commands(subparsers)
    _add_gradcheck(subparsers)
    return parser


def _kind_of(argv):
    """The class of the model that `npvae train` is asked for: its own options depend on it."""
    if list(argv[:1]) != ["train"]:
        return models.VAE
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--model", nargs="?")
    finder.add_argument("--condition", nargs="?")
    finder.add_argument("rest", nargs="*")
    found, _ = finder.parse_known_args(list(argv[1:]))
    return settings.model_class(options.path(found.model or settings.default_model(found.condition)))


def _add_train(subparsers, kind):
    ours = ", ".join(settings.npvae_models())
    parser = subparsers.add_parser(
        "train",
        help="train a model and leave a run folder",
        description=TRAIN_DESCRIPTION,
        epilog=TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("data and run")
    group.add_argument("--model", metavar="M", type=options.path, help=f"{ours}, or FILE.py with a model of your own "
                       f"(default: {settings.DEFAULT_MODEL}; with --condition: {settings.DEFAULT_CONDITIONAL}); its options "
                       "are listed by: npvae train --model M --help")  # fmt: skip
    defaults = settings.defaults(kind)
    _add_options(group, settings.RUN, defaults)
    group.add_argument("--data-dir", metavar="DIR", type=options.path, help="folder of the MNIST files or of DATA; without "
                       "it, MNIST is downloaded once")  # fmt: skip
    group.add_argument("--out", metavar="RUN", type=options.path, help="run folder, new or empty (default: the "
                       "first free of runs/DATA, runs/DATA-2, ...)")  # fmt: skip
    group.add_argument("--workers", metavar="N", type=argument_type(options.integer(1)), help="threads that share each batch, "
                       "of each process (default: one for small models, else the cores available)")  # fmt: skip
    group.add_argument("--resume", action="store_true", help="continue the run in --out with its own settings, or begin it if "
                       "the folder is empty or not there, so that one command line starts and restarts a job. --epochs, "
                       "--workers and --data-dir (data that have moved) may be new, other options only as they are in "
                       "RUN/config.json")  # fmt: skip
    _add_options(parser.add_argument_group(f"model ({kind.__name__})"), settings.model_options(kind), defaults)
    if settings.training_options(kind):
        _add_options(parser.add_argument_group("what is minimised"), settings.training_options(kind), defaults)
    _add_options(parser.add_argument_group("how it is minimised"), settings.OPTIMISATION, defaults)
    parser.set_defaults(run=commands.train, kind=kind)


def _add_options(group, table, defaults):
    """The options of a table, each told with its default."""
    for option in table:
        default, name = defaults[option.name], "--" + option.name.replace("_", "-")
        text = option.help.replace("%", "%%")
        if option.check is options.flag:
            action = argparse.BooleanOptionalAction if default else "store_true"
            group.add_argument(name, help=text + (" (default: yes)" if default else ""), action=action, default=None)
            continue
        if default not in (None, []):
            text += f" (default: {settings.in_words(default)})"
        group.add_argument(name, help=text, metavar=option.metavar, choices=option.choices, type=argument_type(option.check),
                           nargs="*" if option.many else None)  # fmt: skip


def _add_evaluate(subparsers):
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a trained model on its validation rows",
        description="Print how good the model of a run is on its validation rows (MNIST: the test images). Of a VAE: ELBO, "
        "nll, kl (in total and per latent dimension), active units, the importance-weighted log-likelihood and bits per "
        "dimension. Nats are means per datum; grey images are binarised once.",
    )
    add_run(parser)
    add_data_dir(parser)
    parser.add_argument("--samples", type=argument_type(options.integer(1)), default=100, metavar="K",
                        help="importance samples per datum (default: 100)")  # fmt: skip
    parser.add_argument("--seed", type=argument_type(options.integer(0)), default=0, metavar="S",
                        help="of binarisation and noise (default: 0)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=commands.evaluate)


def _add_sample(subparsers):
    parser = subparsers.add_parser(
        "sample",
        help="draw from a trained model",
        description="Draw from the model of a run as a picture. Of a VAE: E[x|z], the mean of the data that the model expects "
        "at draws of z from the prior. A conditional model draws for every class in turn, or for the conditions of validation "
        "rows: it needs the data of RUN.",
    )
    add_run(parser)
    add_data_dir(parser)
    parser.add_argument("--count", type=argument_type(options.integer(1)), default=64, metavar="N",
                        help="how many (default: 64)")  # fmt: skip
    parser.add_argument("--out", metavar="PNG", type=options.path, help="the new picture to write (default: the "
                        "first free of RUN/draws.png, RUN/draws-2.png, ...)")  # fmt: skip
    parser.add_argument("--seed", type=argument_type(options.integer(0)), default=0, metavar="S",
                        help="of the draws (default: 0)")  # fmt: skip
    parser.set_defaults(run=commands.sample)


def _add_explore(subparsers):
    parser = subparsers.add_parser(
        "explore",
        help="move through a trained model's latent space, in a browser",
        description="Write one HTML page, to be opened in any browser, that needs nothing else: what the model of a run "
        "decodes is redrawn while you move through the plane of two latent dimensions, on which the validation rows are dots. "
        "Further dimensions have sliders.",
    )
    add_run(parser)
    add_data_dir(parser)
    parser.add_argument("--out", metavar="HTML", type=options.path, help="the new page to write (default: the first free of "
                        "RUN/explore.html, RUN/explore-2.html, ...)")  # fmt: skip
    parser.add_argument("--pictures", action="store_true", help="beside the page, draw one latent dimension after the other, "
                        "paths between data, and how much each dimension is used")  # fmt: skip
    parser.set_defaults(run=_explore)


def _explore(args):
    from npvae.app.explore import explore  # brings Matplotlib

    return explore(args)


def _add_gradcheck(subparsers):
    parser = subparsers.add_parser(
        "gradcheck",
        help="check the gradients",
        description="Check the gradients of every forward/backward pair and every model, on both back ends, in five ways: the "
        "complex step (exact to rounding), central differences, the Taylor test, float32 against float64, and what holds for "
        "every backward pass (linear, pure, zero for zero). Exit status 1 if anything fails.",
    )
    add_run(parser, optional=True)
    add_data_dir(parser)
    parser.add_argument("--json", action="store_true", help="print every report as JSON instead of the table")
    parser.set_defaults(run=commands.gradcheck)
