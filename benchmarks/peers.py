"""The same training step in PyTorch and JAX, written as their own users write it.

Each peer is a class with the same four methods, so that `bench_step.py` can run them by turns:

    Peer(widths, theta, images)      widths D, H, ..., L; theta: npvae's initial parameters by name; images uint8 (n, D)
    step(rows)                       one training step on these rows: binarise, forward, backward, Adam; asynchronous where
                                     the library is
    step_with(x, eps)                the same on a given binarised batch and noise; returns the loss
    finish()                         wait until everything asked for is done
    theta()                          the parameters in npvae's order, 1-D (PyTorch)

PyTorch: torch.nn.functional and torch.optim.Adam(fused=True), gradients set to None, torch.compile for the compiled form, as
in the PyTorch performance tuning guide (pytorch.org/tutorials/recipes/recipes/tuning_guide.html). JAX: one jitted function
for the whole step with its buffers donated, random numbers inside it from a key that is split, as in the JAX documentation
("Stateful computations", "Buffer donation") and its example examples/mnist_vae.py.
"""

import numpy as np

LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


class TorchEager:
    """PyTorch, operation by operation, with the fused Adam."""

    name = "PyTorch eager"

    def __init__(self, widths, theta, images):
        import torch

        self.torch = torch
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
        self.optimizer = torch.optim.Adam(self.layers.parameters(), LEARNING_RATE, (BETA1, BETA2), EPSILON, fused=True)
        self.images = torch.from_numpy(images)
        self.n_latent = widths[-1]
        self.loss_of = self.loss

    def loss(self, x, eps):
        torch, F = self.torch, self.torch.nn.functional
        h = x
        for layer in self.layers[: self.n_encoder - 1]:
            h = F.relu(layer(h))
        mu, logvar = self.layers[self.n_encoder - 1](h).chunk(2, dim=1)
        h = mu + torch.exp(0.5 * logvar) * eps
        for layer in self.layers[self.n_encoder : -1]:
            h = F.relu(layer(h))
        logits = self.layers[-1](h)
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (nll + kl) / len(x)

    def step_with(self, x, eps):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.torch.as_tensor(x), self.torch.as_tensor(eps))
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def step(self, rows):
        torch = self.torch
        x = torch.bernoulli(self.images[torch.from_numpy(rows)].float() / 255)
        self.step_with(x, torch.randn(len(rows), self.n_latent))

    def finish(self):
        pass

    def theta(self):
        layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in self.layers]
        return np.concatenate([array.ravel() for pair in layers for array in pair])


class TorchCompiled(TorchEager):
    """PyTorch with the loss compiled by TorchInductor, forward and backward."""

    name = "PyTorch compiled"

    def __init__(self, widths, theta, images):
        super().__init__(widths, theta, images)
        self.loss_of = self.torch.compile(self.loss)


class JaxJit:
    """JAX, the whole step in one jitted function."""

    name = "JAX jit"

    def __init__(self, widths, theta, images):
        import jax
        import jax.numpy as jnp

        self.jax, self.jnp = jax, jnp
        depth, n_latent = len(widths) - 2, widths[-1]
        encoder, decoder = [f"encoder.{i}" for i in range(depth)], [f"decoder.{i}" for i in range(depth)]

        def dense(p, name, h):
            return h @ p[f"{name}.W"] + p[f"{name}.b"]

        def loss_of(p, x, eps):
            h = x
            for name in encoder:
                h = jax.nn.relu(dense(p, name, h))
            mu, logvar = jnp.split(dense(p, "posterior", h), 2, axis=1)
            h = mu + jnp.exp(0.5 * logvar) * eps
            for name in decoder:
                h = jax.nn.relu(dense(p, name, h))
            logits = dense(p, "likelihood", h)
            nll = jnp.sum(jax.nn.softplus(logits) - x * logits)
            kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))
            return (nll + kl) / len(x)

        def update(state, x, eps):
            p, m, v, t = state
            loss, g = jax.value_and_grad(loss_of)(p, x, eps)
            t += 1
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
            c1, c2 = 1 - BETA1**t, 1 - BETA2**t
            p = jax.tree.map(lambda p, m, v: p - LEARNING_RATE * (m / c1) / (jnp.sqrt(v / c2) + EPSILON), p, m, v)
            return (p, m, v, t), loss

        def draw_and_update(state, key, images, rows):
            key, key_x, key_eps = jax.random.split(key, 3)
            x = jax.random.bernoulli(key_x, images[rows].astype(jnp.float32) / 255).astype(jnp.float32)
            eps = jax.random.normal(key_eps, (len(rows), n_latent))
            state, loss = update(state, x, eps)
            return state, key, loss

        self.update = jax.jit(update, donate_argnums=0)
        self.draw_and_update = jax.jit(draw_and_update, donate_argnums=(0, 1))
        p = {name: jnp.array(value) for name, value in theta.items()}
        zeros = {name: jnp.zeros_like(value) for name, value in p.items()}
        self.state = (p, zeros, {name: jnp.zeros_like(value) for name, value in p.items()}, jnp.float32(0))
        self.key = jax.random.key(0)
        self.images = jnp.array(images)

    def step_with(self, x, eps):
        self.state, loss = self.update(self.state, x, eps)
        return loss

    def step(self, rows):
        self.state, self.key, _ = self.draw_and_update(self.state, self.key, self.images, rows)

    def finish(self):
        self.jax.block_until_ready(self.state)


PEERS = (TorchEager, TorchCompiled, JaxJit)
