"""The progress bar of long work."""

import sys

from tqdm import tqdm


def progress_bar(progress, **options):
    """A tqdm bar on stderr if `progress` is asked for and stderr is a terminal; else a silent one."""
    options = {"unit": " rows", "unit_scale": True, "leave": False, "dynamic_ncols": True, **options}
    return tqdm(disable=not (progress and sys.stderr.isatty()), **options)
