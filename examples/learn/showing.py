"""What the lessons do with their pictures."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def keep(figure, name):
    """Save a figure as name.png beside the lessons, or in the folder that is the script's only argument.

    In a notebook it also shows under its cell. Figures of pyplot do so by themselves.
    """
    argument = Path(sys.argv[1]) if len(sys.argv) == 2 else HERE
    folder = argument if argument.is_dir() else HERE
    figure.savefig(folder / f"{name}.png", dpi=100)
    if in_a_notebook() and not hasattr(figure, "number"):  # pyplot numbers its figures
        from IPython.display import Image, display

        display(Image(filename=folder / f"{name}.png"))


def in_a_notebook():
    """Whether IPython runs this."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
