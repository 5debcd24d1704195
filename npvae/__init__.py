"""npvae: a variational autoencoder and its relatives from scratch in NumPy, every gradient derived and checked by hand.

The map. Each room may use those below it in this list, never one above; read the files of ops first, in the order in which they
stand here, then models/vae.py.

    app/         what a user types and sees
        cli          the command `npvae`: its options and exit status
        parser       how options are parsed, and those that several commands take
        commands     what `npvae train`, `evaluate`, `sample` and `gradcheck` do
        explore      the page of `npvae explore`; its styles and code are in explore.html
        make_data    what `npvae data` does: simulations as files
        compress     what `npvae compress` and `npvae decompress` do
        standard_compressors  gzip, bzip2, xz, PNG and WebP, for comparison
        report       what the commands print of a run and its numbers
        estimator    the VAE as a scikit-learn estimator
        settings     what a run can be told: options, defaults, and which model is meant
        dataset      the data of a run
        arguments    what a run was told: the options given, for a new run and for one that goes on
        run_folder   what a run leaves on the disk
        sweep        what `npvae sweep` does: trainings with several seeds and settings, and their table
        mpi          processes that mpiexec has started together
        interruption Ctrl-C and SIGTERM during training
        terminal     stdout and stderr in every encoding
        pictures     the pictures of a run on the disk
        plots        every picture as a figure
        latent_pictures  pictures of a latent space: traversals, paths between data, use of dimensions
        drift_pictures  a drift that makes a ground state: its walkers, where it pulls them, how they go
        drawing      what these are made of: images side by side, coloured points
        backward_flow  backpropagation through a model, drawn: ops, values, gradients
        op_graph     where its boxes and arrows stand
        recording    one pass of a model, recorded: its ops and what flowed between them
    checking/    the evidence that gradients are right
        gradcheck    complex step, finite differences, Taylor and adjoint tests, for your own layers too
        cases        every op and model in every regime
        distributions  the pairs of distributions among them
        energies     those of energies and of critics among them
        pair         a forward/backward pair and its arguments
        run          the cases put before the checks
    training/    one loop for every model
        fit          epochs and minibatches
        lbfgs        all rows at once
        step         one step: the gradient shard by shard, and the update
        together     the step of workers that compute one gradient together, and update theta in it
        validation   how good a model is on other rows
        bad_rows     rows that spoil a loss, found and named
        optim        optimisers over one flat parameter vector
        turns        players who take turns, each with an optimiser and a part of theta of its own
        schedules    learning rates and settings that change with the step
        state        where a run stands, and the line that tells of an epoch
        checkpoint   a run in files
    models/      what is minimised: forward, and backward mirrored; one file per model
        vae          the variational autoencoder
        conv_vae     the VAE of images, with convolutions in encoder and decoder
        cvae         the VAE of data given a condition, such as a class label
        autoencoder  its relative without noise; PCA where it is linear
        flow         a normalizing flow of affine coupling layers
        hierarchical  a chain of VAEs: latents above latents
        latent_chain  the latents of such a chain: of data, drawn downwards, how good and how much used
        boltzmann    the restricted Boltzmann machine, by contrastive divergence
        partition_function  its log Z, and what that takes to say: log p(x), KL(f ‖ p)
        path_posterior  paths that led to measured outcomes, with a stochastic differential equation as latent variable
        drift        ground states of quantum systems: a drift learned by walkers, without data
        drift_energy  its energy: long walks, error bars, the limit of short steps
        quantum_systems  systems by name: potential, known drift, exact energy, settings
        diffusion    variational diffusion: a chain whose encoder is fixed and adds noise
        diffusion_terms  the terms of its loss, in both decompositions of the ELBO
        reverse_process  draws and densities of a trained diffusion
        energy       an energy-based model, trained by Langevin samples or by score matching
        energy_density  its samples, its partition function, its log p(x)
        adversarial  a generator of samples and a critic, trained in turn
        transport    how far samples are from data: optimal transport, coverage
        likelihoods  p(x|z) by name: its ops, its mean, its samples
        conditions   conditions as arrays, checked
        latent_variable  what models with a Gaussian latent variable share
        objectives   what a VAE minimises: ELBO, importance-weighted bound, free bits
        evaluate     how good a model with a latent variable is
        ppca         probabilistic PCA, the linear VAE that is solved in closed form
        fused        the gradient in one call of chains of VAEs, diffusions, Boltzmann machines and drifts
        protocol     what training, checks and commands ask of a model
        common       what models made of dense layers share
        bits_back    data compressed by a VAE or a chain of VAEs to nearly its −ELBO, and restored
        saved        models in files, copies of models
        backend      the two tables of ops
    data/        what is learned from
        ising        the Ising model: lattices by Wolff's algorithm, their energy and magnetization
        ising_exact  its exact results: Onsager's, Yang's, Kaufman's
        autocorrelation  how many steps of a Markov chain make an independent one
        mnist        MNIST, verified byte by byte
        toy          eight densities in the plane
        arrays       your own .npy and .npz files
        packed       compressed arrays as files
        rows         checked rows, and how a minibatch is made of them
    kernels/     compiled twins of ops: the same names and signatures in Numba
        layers       bias and activation in one pass
        convolution  convolutions as products with patches
        mlp          dense layers one after the other
        latent       clip, sample and KL in one pass
        likelihood   value and gradient of a likelihood in one pass
        full_posterior  clip, sample and KL with full covariance in one pass
        learned_prior  clip, sample and KL of two Gaussians in one pass
        gaussian_likelihoods  learned variances in one pass
        discrete     likelihoods of whole numbers in one pass
        pixel_mixture  the noise in a grey level and its derivatives in one pass
        binarize     zeros and ones drawn from grey levels
        updates      the sum over shards and the update in one pass
        vae          forward and backward of a whole VAE in one call, by one worker or several together
        latent_kinds the row loops between the encoder's output and z, of each kind of posterior
        team         how workers wait for each other inside of a kernel
        chains       the same of a chain of VAEs
        transitions  the transitions of such a chain in one pass each
        energy       activations with two derivatives, chains of Langevin steps
        diffusion    the same of a diffusion with a fixed schedule
        drift        walkers that move by a drift, and its gradient, all steps of a few walkers in one call
        drift_network  the network of particles in a block of few walkers
        particles    what networks are told of particles; bases of drifts and their local energies
        dense        dense products of few rows
        sparse       products with matrices of few non-zeros
        tiles        what both are made of: sums that stay in registers, as vector instructions
        views        pieces of a long flat array as arrays of their own
        elementary   exp, log1p, tanh that vectorise
        reproducible exp, log, the normal distribution, dense layers: the same bits everywhere
        rans         the stack of bits of entropy coding
        codes        probabilities as whole numbers
        bits_back    rows of data coded and decoded in one call
        bit_swap     the same with a chain of latents
        ising        the cluster flip of the simulation
        uniforms     uniform random numbers of many chains at once
        boltzmann    Gibbs sampling and the gradient of a Boltzmann machine, in one call each
        partition    enumeration by a Gray code, annealing of many chains
        compile      how kernels are compiled and cached
    ops/         the mathematics: pairs of pure functions, forward and backward side by side
        layers       affine map and activations
        convolution  convolution and transposed convolution, the layers of images
        mlp          layers one after the other
        latent       reparameterised sample, Gaussian KL, and where two gradients meet
        likelihood   p(x|z): negative log-likelihoods
        bounds       how nll and kl become the loss
        coupling     affine coupling layers, their inverse and log-determinant
        full_posterior  q(z|x) with correlations: its Cholesky factor, sample and KL
        gaussian_kl  the KL of two Gaussians, diagonal or full
        learned_prior  the latent against a prior that is a network's output
        chains       Gaussian transitions one after the other, up and down again
        joining      a condition beside data or latent
        gaussian_likelihoods  p(x|z) with learned variances
        discrete     p(x|z) of whole numbers: categorical and beta-binomial
        sde          stochastic differential equations: integration, and the KL of path measures
        potentials   potentials of quantum systems, and their forces
        cusps        drifts that are known of ground states, and the energy that they leave
        pair_features  the drift of particles that can be exchanged: networks of one and of two
        diffusion    noise added step by step and predicted: the terms of its ELBO, the steps back
        langevin     Langevin steps, and the Metropolis test that makes them exact
        energy       an energy and its score, score matching, the two phases of contrastive divergence
        adversarial  what critic and generator minimise, and the penalty on the critic's slope
        noise_schedule  how much noise stands at which time, and how a network is told the time
        pixel_mixture  the noise in a grey level by Bayes' rule, from a prior of each pixel
        uniforms     uniform random numbers of many chains at once
        boltzmann    restricted Boltzmann machines: energies, conditionals, Gibbs sampling
        partition    log Z of such a machine: by enumeration, and by annealed importance sampling
        binarize     zeros and ones drawn from grey levels
        updates      the arithmetic of the optimisers
        reproducible exp, log, the normal distribution, dense layers: the same bits everywhere
        rans         asymmetric numeral systems: the stack of bits of entropy coding
        codes        probabilities as whole numbers, and symbols coded with them
        bits_back    rows of data coded by a VAE at the price of the bound
        bit_swap     the same with a chain of latents, in Bit-Swap's order
    core/        small helpers that know nothing of models
        checks       input checks and their messages
        levels       what uint8 data mean: grey levels, or zeros and ones
        files        the file format, replacement of files in one step, safe readers
        options      one table of options per model
        parameters   the flat parameter vector: names, views, initial values
        numerics     sums that keep their digits
        randomness   random numbers as pure functions of seed and counters
        progress     the progress bar, and lines that never end the work
        cores        how many cores this process may use
        workers      work shared by several threads
        ranks        and by several processes, over MPI

    x ─ layers ─▶ h ─ layers ─▶ mu, logvar ─(+eps) latent ─▶ z ─ layers ─▶ h' ─ layers ─▶ logits ─ likelihood ─▶ nll
                                   └───────────── latent: kl ────────────────────────────────────────────────▶ kl
                                                             loss = mean over batch of (nll + beta * kl)
"""

import sys as _sys

from npvae import data, models
from npvae.checking import gradcheck
from npvae.core import checks
from npvae.data.rows import model_input
from npvae.models import evaluate, ppca
from npvae.models.vae import VAE, Terms
from npvae.ops import bounds, latent, layers, likelihood
from npvae.training import checkpoint, optim, schedules
from npvae.training.fit import fit
from npvae.training.lbfgs import fit_lbfgs
from npvae.training.optim import SGD, AdaGrad, Adam, Momentum, RMSProp
from npvae.training.state import History


def __getattr__(name):
    """npvae.plots and npvae.VAEEstimator, imported when they are first used, since they bring Matplotlib and scikit-learn."""
    if name == "plots":
        from npvae.app import plots

        return plots
    if name == "VAEEstimator":
        from npvae.app.estimator import VAEEstimator

        return VAEEstimator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "SGD", "VAE", "AdaGrad", "Adam", "History", "Momentum", "RMSProp", "Terms", "bounds", "checkpoint", "checks", "data",
    "evaluate", "fit", "fit_lbfgs", "gradcheck", "latent", "layers", "likelihood", "model_input", "models", "optim", "ppca",
    "schedules",
]  # fmt: skip

for _module in (bounds, checkpoint, checks, evaluate, gradcheck, latent, layers, likelihood, optim, ppca, schedules):
    _sys.modules[f"npvae.{_module.__name__.rpartition('.')[2]}"] = _module  # so that `from npvae.gradcheck import ...` works
