"""npvae: a variational autoencoder from scratch in NumPy, with every gradient derived by hand and proven.

The map, in the order to read it (each file knows only those above it):

    layers.py        affine map and activations                    } pairs of pure functions,
    latent.py        reparameterisation, Gaussian KL divergence    } forward and backward
    likelihood.py    p(x|z): negative log-likelihoods              } side by side
    bounds.py        how nll and kl become the loss: ELBO, importance-weighted bound, free bits
    gradcheck.py     complex step, directional, Taylor, adjoint and finite-difference checks, for your own layers too
    checks.py        what is refused at the boundary, and how it is said
    parameters.py    names and views in the flat parameter vector
    optim.py         optimisers over one flat parameter vector
    schedules.py     learning rates and weights of the KL that change with the step
    backend.py       the table of ops: NumPy to be read, Numba to be run
    kernels/         the compiled twins, one file for each of the files above, and the Ising simulation
    archive.py       arrays in files, read without trust
    checkpoint.py    one file format for models and runs
    vae.py           the model: VAE.forward and VAE.backward as mirror images
    data/            ising.py, mnist.py, arrays.py (the user's own files)
    parallel.py      a batch shared by several workers
    batches.py       minibatches, binarisation, and the random numbers of a run
    minibatch.py     what is minimised, and its gradient for one minibatch after another
    history.py       where a run stands, and how it is told
    train.py         the loop over epochs and minibatches
    evaluate.py      ELBO, importance-weighted log-likelihood, active units, bits per dimension
    ppca.py          probabilistic PCA, the linear VAE that is solved in closed form
    subjects.py      what the proof covers: every op and the model, in every regime
    proofs.py        the subjects put before the checks
    plots.py         every picture
    saving.py        checkpoints: nothing is lost, and a run goes on to the same bits
    runs.py          the run folder
    commands.py      what `npvae train`, `evaluate`, `sample` and `gradcheck` do
    cli.py           the command `npvae`: its options

    x ─ layers ─▶ h ─ layers ─▶ mu, logvar ─(+eps) latent ─▶ z ─ layers ─▶ h' ─ layers ─▶ logits ─ likelihood ─▶ nll
                                   └───────────── latent: kl ────────────────────────────────────────────────▶ kl
                                                             loss = mean over batch of (nll + beta * kl)
"""

from npvae import bounds, checkpoint, data, evaluate, gradcheck, latent, layers, likelihood, optim, ppca, schedules
from npvae.batches import model_input
from npvae.history import History
from npvae.optim import SGD, AdaGrad, Adam, Momentum, RMSProp
from npvae.train import fit, fit_lbfgs
from npvae.vae import VAE, Terms

__version__ = "0.1.0"

__all__ = [
    "SGD", "VAE", "AdaGrad", "Adam", "History", "Momentum", "RMSProp", "Terms", "bounds", "checkpoint", "data", "evaluate",
    "fit", "fit_lbfgs", "gradcheck", "latent", "layers", "likelihood", "model_input", "optim", "ppca", "schedules",
]  # fmt: skip
