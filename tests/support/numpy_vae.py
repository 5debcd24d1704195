"""A VAE on the NumPy back end, which begins at once, for tests that start processes: npvae train --model numpy_vae.py"""

import functools
import os
import signal

import npvae
from npvae.app import commands

RANK = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK")
FAULT, STEP, WHOSE = (os.environ.get("FAULT", "") + "::").split(":")[:3]  # what happens, in which step, on which rank

if "NO_PICTURES" in os.environ:  # they would take longer than the training
    commands.draw_pictures = lambda folder, *_: (folder / "loss.png").touch() or {}


class NumpyVAE(npvae.VAE):
    @functools.wraps(npvae.VAE.__init__)  # whose arguments `config` tells
    def __init__(self, *args, **options):
        super().__init__(*args, **{**options, "backend": "numpy"})
        self.n_draws = 0

    def draw(self, rng, *batch, **settings):
        self.n_draws += 1
        if RANK == WHOSE and str(self.n_draws) == STEP:
            if FAULT == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if FAULT == "fails":
                raise MemoryError("no memory for this batch")
        return super().draw(rng, *batch, **settings)
