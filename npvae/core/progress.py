"""Progress bars and lines of long work. They never end it: stderr and stdout may be None (under pythonw, in a service), closed,
or unable to write a letter."""

import sys

from tqdm import tqdm


def progress_bar(progress, **options):
    """A tqdm bar on stderr if `progress` is asked for and stderr is a terminal; else a silent one."""
    options = {"unit": " rows", "unit_scale": True, "leave": False, "dynamic_ncols": True, **options}
    return tqdm(disable=not (progress and is_terminal(sys.stderr)), **options)


def is_terminal(stream):
    """Whether a stream is there and writes to a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # None, an object that only writes, a closed file
        return False


def tell(line):
    """Write a line to stdout, above a bar that may be there; nothing where there is no stdout."""
    if getattr(sys.stdout, "closed", False):
        return
    try:
        tqdm.write(line)  # nothing, where stdout is None
    except UnicodeEncodeError:
        tqdm.write(line.encode("ascii", "replace").decode())
