"""The same training step in PyTorch and JAX, written as their own users write it.

Each peer is a class with the same four methods, so that `bench_step.py` can run them by turns:

    Peer(widths, theta, images,      widths D, H, ..., L; theta: npvae's initial parameters by name; images uint8 (n, D);
         likelihood, condition,      likelihood "bernoulli", "gaussian_learned" or "beta_binomial", as in npvae.VAE; with a
         learning_rate)              condition (n, C), which is joined to x and to z, the model is npvae.models.ConditionalVAE
    step(rows)                       one training step on these rows: draw the batch, forward, backward, Adam; asynchronous
                                     where the library is
    step_with(x, eps, condition)     the same on a given batch and noise; returns the loss
    finish()                         wait until everything asked for is done
    theta()                          the parameters in npvae's order, 1-D (PyTorch)

The batch x is grey levels / 255, which are binarised for the Bernoulli likelihood, as npvae does. The beta-binomial probability
of the grey levels is written with log-gamma functions, and takes log C(255, k) from a table: of the ways that the libraries
offer (betaln and betabinom.logpmf of JAX among them) the fastest in both.

PyTorch: torch.nn.functional and torch.optim.Adam(fused=True), gradients set to None, torch.compile for the compiled form, as
in the PyTorch performance tuning guide (pytorch.org/tutorials/recipes/recipes/tuning_guide.html). JAX: one jitted function
for the whole step with its buffers donated, random numbers inside it from a key that is split, as in the JAX documentation
("Stateful computations", "Buffer donation") and its example examples/mnist_vae.py.
"""

import math

import numpy as np

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
N = 255  # the highest grey level
MIN_LOGVAR, MAX_LOGVAR = -2 * math.log(N), 20.0  # bounds of a learned log-variance, as in npvae
MIN_LOG, MAX_LOG = -23.0, 23.0  # bounds of log α and log β
LOG_2PI = math.log(2 * math.pi)
LOG_BINOMIALS = np.array([math.log(math.comb(N, k)) for k in range(N + 1)], np.float32)


class TorchEager:
    """PyTorch, operation by operation, with the fused Adam."""

    name = "PyTorch eager"

    def __init__(self, widths, theta, images, likelihood="bernoulli", condition=None, learning_rate=1e-3):
        import torch

        self.torch, self.likelihood = torch, likelihood
        depth = len(widths) - 2
        names = [*(f"encoder.{i}" for i in range(depth)), "posterior", *(f"decoder.{i}" for i in range(depth)), "likelihood"]
        self.layers = torch.nn.ModuleList()
        for name in names:
            W, b = theta[f"{name}.W"], theta[f"{name}.b"]
            layer = torch.nn.Linear(*W.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(W.T.copy()))
                layer.bias.copy_(torch.from_numpy(b))
            self.layers.append(layer)
        self.n_encoder = depth + 1
        self.optimizer = torch.optim.Adam(self.layers.parameters(), learning_rate, (BETA1, BETA2), EPSILON, fused=True)
        self.images = torch.from_numpy(images)
        self.condition = None if condition is None else torch.from_numpy(condition)
        self.log_binomials = torch.from_numpy(LOG_BINOMIALS)
        self.n_latent = widths[-1]
        self.loss_of = self.loss

    def loss(self, x, eps, condition=None):
        torch, F = self.torch, self.torch.nn.functional
        h = x if condition is None else torch.cat([x, condition], dim=1)
        for layer in self.layers[: self.n_encoder - 1]:
            h = F.relu(layer(h))
        mu, logvar = self.layers[self.n_encoder - 1](h).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * eps
        h = z if condition is None else torch.cat([z, condition], dim=1)
        for layer in self.layers[self.n_encoder : -1]:
            h = F.relu(layer(h))
        nll = self.nll(self.layers[-1](h), x)
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (nll + kl) / len(x)

    def nll(self, output, x):
        torch, F, lgamma = self.torch, self.torch.nn.functional, self.torch.lgamma
        if self.likelihood == "bernoulli":
            return F.binary_cross_entropy_with_logits(output, x, reduction="sum")
        if self.likelihood == "gaussian_learned":
            mean, logvar = output.chunk(2, dim=1)
            logvar = logvar.clamp(MIN_LOGVAR, MAX_LOGVAR)
            return 0.5 * torch.sum((x - mean).pow(2) * torch.exp(-logvar) + logvar + LOG_2PI)
        alpha, beta = output.clamp(MIN_LOG, MAX_LOG).exp().chunk(2, dim=1)
        k = torch.round(N * x)
        numerator = lgamma(k + alpha) + lgamma(N - k + beta) - lgamma(N + alpha + beta)
        denominator = lgamma(alpha) + lgamma(beta) - lgamma(alpha + beta)
        return -torch.sum(self.log_binomials[k.long()] + numerator - denominator)

    def step_with(self, x, eps, condition=None):
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        condition = None if condition is None else torch.as_tensor(condition)
        loss = self.loss_of(torch.as_tensor(x), torch.as_tensor(eps), condition)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def step(self, rows):
        torch = self.torch
        rows = torch.from_numpy(rows)
        x = self.images[rows].float() / N
        if self.likelihood == "bernoulli":
            x = torch.bernoulli(x)
        condition = None if self.condition is None else self.condition[rows]
        self.step_with(x, torch.randn(len(rows), self.n_latent), condition)

    def finish(self):
        pass

    def theta(self):
        layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in self.layers]
        return np.concatenate([array.ravel() for pair in layers for array in pair])


class TorchCompiled(TorchEager):
    """PyTorch with the loss compiled by TorchInductor, forward and backward."""

    name = "PyTorch compiled"

    def __init__(self, *args):
        super().__init__(*args)
        self.torch._dynamo.reset()  # of rows before this one: after eight versions of a function it would compile no more
        self.loss_of = self.torch.compile(self.loss)


class JaxJit:
    """JAX, the whole step in one jitted function."""

    name = "JAX jit"

    def __init__(self, widths, theta, images, likelihood="bernoulli", condition=None, learning_rate=1e-3):
        import jax
        import jax.numpy as jnp

        self.jax, n_latent = jax, widths[-1]
        loss_of = jax_loss(jax, len(widths) - 2, likelihood)

        def update(state, x, eps, condition=None):
            p, m, v, t = state
            loss, g = jax.value_and_grad(loss_of)(p, x, eps, condition)
            t += 1
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
            c1, c2 = 1 - BETA1**t, 1 - BETA2**t
            p = jax.tree.map(lambda p, m, v: p - learning_rate * (m / c1) / (jnp.sqrt(v / c2) + EPSILON), p, m, v)
            return (p, m, v, t), loss

        def draw_and_update(state, key, images, condition, rows):
            key, key_x, key_eps = jax.random.split(key, 3)
            x = images[rows].astype(jnp.float32) / N
            if likelihood == "bernoulli":
                x = jax.random.bernoulli(key_x, x).astype(jnp.float32)
            eps = jax.random.normal(key_eps, (len(rows), n_latent))
            condition = None if condition is None else condition[rows]
            state, loss = update(state, x, eps, condition)
            return state, key, loss

        self.update = jax.jit(update, donate_argnums=0)
        self.draw_and_update = jax.jit(draw_and_update, donate_argnums=(0, 1))
        p = {name: jnp.array(value) for name, value in theta.items()}
        zeros = {name: jnp.zeros_like(value) for name, value in p.items()}
        self.state = (p, zeros, {name: jnp.zeros_like(value) for name, value in p.items()}, jnp.float32(0))
        self.key = jax.random.key(0)
        self.images, self.condition = jnp.array(images), None if condition is None else jnp.array(condition)

    def step_with(self, x, eps, condition=None):
        self.state, loss = self.update(self.state, x, eps, condition)
        return loss

    def step(self, rows):
        self.state, self.key, _ = self.draw_and_update(self.state, self.key, self.images, self.condition, rows)

    def finish(self):
        self.jax.block_until_ready(self.state)


def jax_loss(jax, depth, likelihood):
    """The loss of a batch, mean over the rows, as a function of the parameters: `depth` hidden layers on either side."""
    jnp, gammaln = jax.numpy, jax.scipy.special.gammaln
    log_binomials = jnp.array(LOG_BINOMIALS)

    def dense(p, name, h):
        return h @ p[f"{name}.W"] + p[f"{name}.b"]

    def nll_of(output, x):
        if likelihood == "bernoulli":
            return jnp.sum(jax.nn.softplus(output) - x * output)
        if likelihood == "gaussian_learned":
            mean, logvar = jnp.split(output, 2, axis=1)
            logvar = jnp.clip(logvar, MIN_LOGVAR, MAX_LOGVAR)
            return 0.5 * jnp.sum((x - mean) ** 2 * jnp.exp(-logvar) + logvar + LOG_2PI)
        alpha, beta = jnp.split(jnp.exp(jnp.clip(output, MIN_LOG, MAX_LOG)), 2, axis=1)
        k = jnp.round(N * x)
        numerator = gammaln(k + alpha) + gammaln(N - k + beta) - gammaln(N + alpha + beta)
        denominator = gammaln(alpha) + gammaln(beta) - gammaln(alpha + beta)
        return -jnp.sum(log_binomials[k.astype(jnp.int32)] + numerator - denominator)

    def loss_of(p, x, eps, condition=None):
        h = x if condition is None else jnp.concatenate([x, condition], axis=1)
        for i in range(depth):
            h = jax.nn.relu(dense(p, f"encoder.{i}", h))
        mu, logvar = jnp.split(dense(p, "posterior", h), 2, axis=1)
        z = mu + jnp.exp(0.5 * logvar) * eps
        h = z if condition is None else jnp.concatenate([z, condition], axis=1)
        for i in range(depth):
            h = jax.nn.relu(dense(p, f"decoder.{i}", h))
        nll = nll_of(dense(p, "likelihood", h), x)
        kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))
        return (nll + kl) / len(x)

    return loss_of


PEERS = (TorchEager, TorchCompiled, JaxJit)
