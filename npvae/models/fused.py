"""The gradient in one call of models whose files are full: methods of `npvae.models.HierarchicalVAE`, `Diffusion`,
`BoltzmannMachine` and `Drift`.

What they must equal is the models' `forward`, then `backward`; see `npvae.models.VAE.gradient`.
"""

import numpy as np

from npvae.core.parameters import views_of
from npvae.ops import diffusion, noise_schedule


def composed_gradient(model, batch_and_noise, settings, dloss, out):
    """`forward`, then `backward`: Terms, and a number that no square of an entry of the gradient exceeds."""
    with np.errstate(over="ignore", invalid="ignore"):  # the numbers returned show it
        terms, cache = model.forward(*batch_and_noise, **settings, check=False)
        model.backward(cache, dloss, out)
        return terms, np.dot(out, out)


def chain_gradient(model, x, eps, beta=1.0, objective="elbo", top_kl="closed", n_samples=None, free_bits_per_dimension=0.0,
                   free_bits_total=0.0, dloss=1.0, out=None, workspace=None):  # fmt: skip
    """As `npvae.VAE.gradient`."""
    out = np.empty_like(model.theta) if out is None else out
    free_bits = {"free_bits_per_dimension": free_bits_per_dimension, "free_bits_total": free_bits_total}
    workspace = chain_workspace(model, len(x), len(eps) if eps.ndim == 3 else 1) if workspace is None else workspace
    if workspace is None or model.dtype.kind == "c" or any(free_bits.values()):
        settings = {"beta": beta, "objective": objective, "top_kl": top_kl} | free_bits
        return composed_gradient(model, (x, eps), settings, dloss, out)
    kind = objective, top_kl, model.likelihood, model.p_x_given_z.number
    *terms, bound = model.ops.chain_gradient(model.theta, x, eps, beta, *kind, dloss, out, workspace)
    return model.Terms(*terms), bound


def chain_workspace(model, n_rows, n_samples=1, n_shards=1, **_):
    """As `npvae.VAE.workspace`."""
    make = getattr(model.ops, "chain_workspace", None)
    networks = model.encoders, model.priors, model.decoder_layers
    return make and make(model.activation, *networks, n_rows, n_samples, model.likelihood, n_shards)


def diffusion_gradient(model, x, noise, objective="matching", times="spread", dloss=1.0, out=None, workspace=None):
    """As `npvae.VAE.gradient`; arguments as in `npvae.models.Diffusion.forward`, not checked."""
    out = np.empty_like(model.theta) if out is None else out
    workspace = diffusion_workspace(model, len(x), objective=objective) if workspace is None else workspace
    if workspace is None or model.dtype.kind == "c" or objective != "matching":
        return composed_gradient(model, (x, noise), {"objective": objective}, dloss, out)
    t, eps = noise
    step = model.times_of(t, objective).step
    *terms, bound = model.ops.diffusion_gradient(model.theta, x, eps, step, dloss, out, workspace)
    return model.Terms(*terms), bound


def diffusion_workspace(model, n_rows, n_shards=1, objective="matching", **_):
    """As `npvae.VAE.workspace`: there is one for denoising terms of a fixed schedule, a network for all times, and an output
    that is multiplied by a number and added to x_t."""
    make = getattr(model.ops, "diffusion_workspace", None)
    is_plain = (objective, model.time) == ("matching", "fourier") and model.predicts in diffusion.PREDICTIONS
    if make is None or model.schedule == "learned" or not is_plain:
        return None
    n, zero = model.n_steps - 1, np.zeros((1, model.n_features))
    steps = steps_table(model, model.times_of((np.arange(n) + 0.5) / n, objective))
    first, last = (model.levels(np.array([u]))[0] for u in (0.0, 1.0))  # (1,) each
    prior, half_signal = diffusion.prior_kl_forward(zero, last)[0].item(), 0.5 / (1 + np.exp(last).item())
    if model.likelihood == "levels":
        ends = half_signal, prior, 0.0, np.exp(0.5 * first).item()
    else:
        ends = half_signal, prior, model.reconstruction_forward(zero, zero, first)[0].item(), 0.0
    return make(model.activation, model.layers, n_rows, n_shards, steps, *ends)


def steps_table(model, at):
    """What a step has of its own, in a row each (n, 4 + ·): a, s, the factor of the output, the term's weight, the features."""
    gamma = model.levels(at.u)[0]
    a, s = diffusion.signal_and_noise(model.own(gamma))
    factor, _ = diffusion.coefficient(a, s, model.predicts)
    weight, _ = diffusion.weight_forward(model.levels(at.below)[0], gamma)
    features = noise_schedule.fourier_input_forward(np.empty((at.n, 0), model.dtype), at.u, model.n_frequencies)[0]
    return np.concatenate([a, s, factor, model.own(at.n * weight)[:, None], features], axis=1)


def boltzmann_gradient(model, x, noise, n_steps=1, dloss=1.0, out=None, workspace=None):
    """As `npvae.VAE.gradient`; arguments as in `npvae.models.BoltzmannMachine.forward`, not checked."""
    out, most = np.empty_like(model.theta) if out is None else out, len(x) + len(noise)
    if workspace is None or len(workspace[0]) < most:
        workspace = buffers_of_both_phases(model, most)
    if workspace is None or model.dtype.kind == "c":
        return composed_gradient(model, (x, noise), {}, dloss, out)
    offsets = model.buffers["visible_offset"], model.buffers["hidden_offset"]
    grads = views_of(out, model.parameters.shapes).values()
    phases = model.ops.boltzmann_gradient(x, noise, model.machine, offsets, model.is_centred, dloss, grads, workspace)
    return model.Terms(phases[0] - phases[1], *phases, 0.0), np.dot(out, out)  # no log-variances: none are clipped


def boltzmann_workspace(model, n_rows, n_steps=1, **_):
    """As `npvae.VAE.workspace`: for so many rows, and as many chains or all of them."""
    return buffers_of_both_phases(model, n_rows + max(n_rows, model.n_chains))


def buffers_of_both_phases(model, n_rows):
    """The workspace for n_rows rows of data and chains together; None where there is none."""
    make = getattr(model.ops, "boltzmann_workspace", None) if model.visible == "binary" else None
    return make and make(n_rows, model.n_features, model.n_hidden, model.dtype)


def drift_gradient(model, noise, martingale="held", dloss=1.0, out=None, workspace=None):
    """As `npvae.VAE.gradient`; arguments as in `npvae.models.Drift.forward`, not checked."""
    out = np.empty_like(model.theta) if out is None else out
    workspace = drift_workspace(model) if workspace is None else workspace
    is_another = martingale == "held" and not np.array_equal(model.buffers["held"], model.theta)
    if workspace is None or is_another:  # of another control that is held nothing is compiled
        return composed_gradient(model, (noise,), {"martingale": martingale}, dloss, out)
    *arrays, level = noise
    energy, of_noise, boundary = model.ops.drift_gradient(model.theta, *arrays, model.dt, martingale, dloss, out, workspace)
    return model.terms_of(energy, of_noise, boundary, level, martingale), np.dot(out, out)


def drift_workspace(model, n_rows=None, **_):
    """As `npvae.VAE.workspace`, for any number of walkers."""
    make = getattr(model.ops, "drift_workspace", None)
    if make is None or model.dtype.kind == "c" or (model.reference, model.scheme) != ("base", "heun"):
        return None
    return make(model.activation, model.network(model.parameters).parameters[:3], model.physics)
