"""The losses of the models of `tasks.py` in PyTorch, each the mean over a batch, as a function of

    dense        dense(name, h) is the dense layer of this name in npvae, (B, n_in) -> (B, n_out)
    x            (B, D), the batch
    noise        what npvae's model draws: eps (1, B, L), or of a diffusion (t (B,), eps (1 or 2, B, D))
    condition    (B, C) where the model has one

The beta-binomial probability of the grey levels is written with log-gamma functions, and takes log C(255, k) from a table.
"""

import math

import torch
import torch.nn.functional as F
from tasks import LOG_2PI, LOG_BINOMIALS, MAX_LOG, MAX_LOGVAR, MIN_LOG, MIN_LOGVAR, N, levels_in_reach


def mlp(dense, part, depth, last, activation, h):
    """The hidden layers part.0, part.1, ... and then the layer `last`."""
    for i in range(depth):
        h = activation(dense(f"{part}.{i}", h))
    return dense(last, h)


def vae_loss(config):
    depth, nll_of = len(config["hidden"]), NLL[config["likelihood"]]

    def loss(dense, x, eps, condition=None):
        h = x if condition is None else torch.cat([x, condition], dim=1)
        mu, logvar = mlp(dense, "encoder", depth, "posterior", F.relu, h).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * eps[0]
        h = z if condition is None else torch.cat([z, condition], dim=1)
        nll = nll_of(mlp(dense, "decoder", depth, "likelihood", F.relu, h), x)
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (nll + kl) / len(x)

    return loss


def bernoulli_nll(output, x):
    return F.binary_cross_entropy_with_logits(output, x, reduction="sum")


def gaussian_learned_nll(output, x):
    mean, logvar = output.chunk(2, dim=1)
    logvar = logvar.clamp(MIN_LOGVAR, MAX_LOGVAR)
    return 0.5 * torch.sum((x - mean).pow(2) * torch.exp(-logvar) + logvar + LOG_2PI)


def beta_binomial_nll(output, x):
    lgamma = torch.lgamma
    alpha, beta = output.clamp(MIN_LOG, MAX_LOG).exp().chunk(2, dim=1)
    k = torch.round(N * x)
    numerator = lgamma(k + alpha) + lgamma(N - k + beta) - lgamma(N + alpha + beta)
    denominator = lgamma(alpha) + lgamma(beta) - lgamma(alpha + beta)
    return -torch.sum(log_binomials[k.long()] + numerator - denominator)


log_binomials = torch.from_numpy(LOG_BINOMIALS)
NLL = {"bernoulli": bernoulli_nll, "gaussian_learned": gaussian_learned_nll, "beta_binomial": beta_binomial_nll}


def chain_loss(config):
    depth, latent = config["depth"], config["latent"]
    T = len(latent)

    def loss(dense, x, eps):
        noise = eps[0].split(latent, dim=1)
        z, logvars = [x], [None]
        for t in range(1, T + 1):
            mu, logvar = mlp(dense, f"encoder.{t}", depth, f"posterior.{t}", torch.tanh, z[-1]).chunk(2, dim=1)
            z.append(mu + torch.exp(0.5 * logvar) * noise[t - 1])
            logvars.append(logvar)
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())  # of the topmost, in closed form
        for t in range(1, T):
            mu, logvar = mlp(dense, f"prior.{t}", depth, f"prior.{t}", torch.tanh, z[t + 1]).chunk(2, dim=1)
            u2 = (z[t] - mu).pow(2) * torch.exp(-logvar)
            kl = kl + 0.5 * torch.sum(u2 - noise[t - 1].pow(2) + logvar - logvars[t])
        nll = bernoulli_nll(mlp(dense, "decoder", depth, "likelihood", torch.tanh, z[1]), x)
        return (nll + kl) / len(x)

    return loss


def diffusion_loss(config):
    low, high, n, depth = config["gamma_min"], config["gamma_max"], config["n_steps"] - 1, len(config["hidden"])
    frequencies = math.pi * 2.0 ** torch.arange(config["n_frequencies"])
    weight = n * math.expm1((high - low) / n)
    noise_1, signal_1 = 1 / (1 + math.exp(-high)), 1 / (1 + math.exp(high))  # s² and a² of the last latent
    is_levels = config["likelihood"] == "levels"

    def loss(dense, x, noise):
        (t, eps), (B, D) = noise, x.shape
        x = 2 * x - 1 if is_levels else x
        u = (torch.floor(t * n).clamp(max=n - 1) + 1)[:, None] / n
        gamma = low + (high - low) * u
        s = torch.sigmoid(gamma).sqrt()
        x_t = torch.sigmoid(-gamma).sqrt() * x + s * eps[0]
        angles = u * frequencies
        read = torch.cat([x_t, 2 * u - 1, angles.sin(), angles.cos()], dim=1)
        eps_hat = s * x_t + mlp(dense, "denoiser", depth, "denoiser", F.silu, read)
        steps = 0.5 * weight * torch.sum((eps[0] - eps_hat).pow(2))
        prior = 0.5 * (signal_1 * torch.sum(x * x - 1) - B * D * math.log(noise_1))
        if is_levels:
            return (steps + prior + levels_nll(x, eps[1], low)) / B
        return (steps + prior) / B + 0.5 * D * (1 + LOG_2PI + low)

    return loss


def levels_nll(x, eps, gamma):
    """−log p(x|x_1) of grey levels, over the levels in reach: x, eps (B, D) -> the sum over all."""
    r = math.exp(0.5 * gamma)
    steps, spacing = levels_in_reach(r)
    nearest = torch.round((x + r * eps + 1) / spacing).clamp(0, N)
    k = nearest + torch.from_numpy(steps)[:, None, None]  # (levels, B, D)
    m = (k * spacing - 1 - x) / r
    weights = torch.exp(m * (eps - 0.5 * m)) * ((k >= 0) & (k <= N))
    return torch.log(weights.sum(dim=0)).sum()


LOSSES = {"VAE": vae_loss, "ConditionalVAE": vae_loss, "HierarchicalVAE": chain_loss, "Diffusion": diffusion_loss}
