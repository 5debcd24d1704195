"""The command-line parser: errors in one line, checks as types, and the arguments that several commands take."""

import argparse

from npvae.app import mpi
from npvae.core import options


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line. Options are not abbreviated: what is unique depends on the model."""

    def __init__(self, **keywords):
        super().__init__(allow_abbrev=False, **keywords)

    def error(self, message):
        self.exit(2, None if mpi.told()[0] else f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def argument_type(check):
    """A check of `npvae.core.options` as an argparse type."""

    def parse(text):
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def add_run(parser, optional=False):
    """The run folder that a command reads, and where its model's code is."""
    parser.add_argument("run_folder", metavar="RUN", nargs="?" if optional else None, type=options.path,
                        help="the folder that npvae train left"
                        + (", whose model to check in place of npvae's small examples" if optional else ""))  # fmt: skip
    parser.add_argument("--model", metavar="FILE.py", type=options.path,
                        help="the code of the run's model, where it is not one of npvae's"
                        + ("; without RUN: check the examples of this model" if optional else ""))  # fmt: skip


def add_data_dir(parser):
    """Where the data of that run are now."""
    parser.add_argument("--data-dir", metavar="DIR", type=options.path, help="where the data of RUN are, if they "
                        "moved since the training")  # fmt: skip
