"""The losses of the models of `tasks.py` in JAX: the same functions as in `torch_losses.py`."""

import math

import jax
import jax.numpy as jnp
from tasks import LOG_2PI, LOG_BINOMIALS, MAX_LOG, MAX_LOGVAR, MIN_LOG, MIN_LOGVAR, N, levels_in_reach


def mlp(dense, part, depth, last, activation, h):
    """The hidden layers part.0, part.1, ... and then the layer `last`."""
    for i in range(depth):
        h = activation(dense(f"{part}.{i}", h))
    return dense(last, h)


def vae_loss(config):
    depth, nll_of = len(config["hidden"]), NLL[config["likelihood"]]

    def loss(dense, x, eps, condition=None):
        h = x if condition is None else jnp.concatenate([x, condition], axis=1)
        mu, logvar = jnp.split(mlp(dense, "encoder", depth, "posterior", jax.nn.relu, h), 2, axis=1)
        z = mu + jnp.exp(0.5 * logvar) * eps[0]
        h = z if condition is None else jnp.concatenate([z, condition], axis=1)
        nll = nll_of(mlp(dense, "decoder", depth, "likelihood", jax.nn.relu, h), x)
        kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))
        return (nll + kl) / len(x)

    return loss


def bernoulli_nll(output, x):
    return jnp.sum(jax.nn.softplus(output) - x * output)


def gaussian_learned_nll(output, x):
    mean, logvar = jnp.split(output, 2, axis=1)
    logvar = jnp.clip(logvar, MIN_LOGVAR, MAX_LOGVAR)
    return 0.5 * jnp.sum((x - mean) ** 2 * jnp.exp(-logvar) + logvar + LOG_2PI)


def beta_binomial_nll(output, x):
    gammaln = jax.scipy.special.gammaln
    alpha, beta = jnp.split(jnp.exp(jnp.clip(output, MIN_LOG, MAX_LOG)), 2, axis=1)
    k = jnp.round(N * x)
    numerator = gammaln(k + alpha) + gammaln(N - k + beta) - gammaln(N + alpha + beta)
    denominator = gammaln(alpha) + gammaln(beta) - gammaln(alpha + beta)
    return -jnp.sum(log_binomials[k.astype(jnp.int32)] + numerator - denominator)


log_binomials = jnp.array(LOG_BINOMIALS)
NLL = {"bernoulli": bernoulli_nll, "gaussian_learned": gaussian_learned_nll, "beta_binomial": beta_binomial_nll}


def chain_loss(config):
    depth, latent = config["depth"], config["latent"]
    T, ends = len(latent), [sum(latent[:t]) for t in range(1, len(latent))]

    def loss(dense, x, eps):
        noise = jnp.split(eps[0], ends, axis=1)
        z, logvars = [x], [None]
        for t in range(1, T + 1):
            mu, logvar = jnp.split(mlp(dense, f"encoder.{t}", depth, f"posterior.{t}", jnp.tanh, z[-1]), 2, axis=1)
            z.append(mu + jnp.exp(0.5 * logvar) * noise[t - 1])
            logvars.append(logvar)
        kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))  # of the topmost, in closed form
        for t in range(1, T):
            mu, logvar = jnp.split(mlp(dense, f"prior.{t}", depth, f"prior.{t}", jnp.tanh, z[t + 1]), 2, axis=1)
            u2 = (z[t] - mu) ** 2 * jnp.exp(-logvar)
            kl += 0.5 * jnp.sum(u2 - noise[t - 1] ** 2 + logvar - logvars[t])
        nll = bernoulli_nll(mlp(dense, "decoder", depth, "likelihood", jnp.tanh, z[1]), x)
        return (nll + kl) / len(x)

    return loss


def diffusion_loss(config):
    low, high, n, depth = config["gamma_min"], config["gamma_max"], config["n_steps"] - 1, len(config["hidden"])
    frequencies = jnp.array([math.pi * 2.0**k for k in range(config["n_frequencies"])])
    weight = n * math.expm1((high - low) / n)
    noise_1, signal_1 = 1 / (1 + math.exp(-high)), 1 / (1 + math.exp(high))  # s² and a² of the last latent
    is_levels = config["likelihood"] == "levels"

    def loss(dense, x, noise):
        (t, eps), (B, D) = noise, x.shape
        x = 2 * x - 1 if is_levels else x
        u = (jnp.minimum(jnp.floor(t * n), n - 1) + 1)[:, None] / n
        gamma = low + (high - low) * u
        s = jnp.sqrt(jax.nn.sigmoid(gamma))
        x_t = jnp.sqrt(jax.nn.sigmoid(-gamma)) * x + s * eps[0]
        angles = u * frequencies
        read = jnp.concatenate([x_t, 2 * u - 1, jnp.sin(angles), jnp.cos(angles)], axis=1)
        eps_hat = s * x_t + mlp(dense, "denoiser", depth, "denoiser", jax.nn.silu, read)
        steps = 0.5 * weight * jnp.sum((eps[0] - eps_hat) ** 2)
        prior = 0.5 * (signal_1 * jnp.sum(x * x - 1) - B * D * math.log(noise_1))
        if is_levels:
            return (steps + prior + levels_nll(x, eps[1], low)) / B
        return (steps + prior) / B + 0.5 * D * (1 + LOG_2PI + low)

    return loss


def levels_nll(x, eps, gamma):
    """−log p(x|x_1) of grey levels, over the levels in reach: x, eps (B, D) -> the sum over all."""
    r = math.exp(0.5 * gamma)
    steps, spacing = levels_in_reach(r)
    nearest = jnp.clip(jnp.round((x + r * eps + 1) / spacing), 0, N)
    k = nearest + steps[:, None, None]  # (levels, B, D)
    m = (k * spacing - 1 - x) / r
    weights = jnp.where((k >= 0) & (k <= N), jnp.exp(m * (eps - 0.5 * m)), 0)
    return jnp.sum(jnp.log(jnp.sum(weights, axis=0)))


LOSSES = {"VAE": vae_loss, "ConditionalVAE": vae_loss, "HierarchicalVAE": chain_loss, "Diffusion": diffusion_loss}
