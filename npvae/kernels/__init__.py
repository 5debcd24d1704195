"""Compiled twins of the NumPy ops, and the table `NUMBA` that puts them in place; the simulation kernels live here too."""

from npvae.backend import NUMPY
from npvae.kernels.optim import adam_step

NUMBA = NUMPY._replace(adam_step=adam_step)
