"""The same training step in PyTorch and JAX, written as their own users write it.

Each peer is a class with the same methods, so that `bench_step.py` can run them by turns:

    Peer(task, theta)                task: of `tasks.py`; theta: npvae's initial parameters by name
    step(rows)                       one training step on these rows of the data: draw the batch and the noise, forward,
                                     backward, Adam; asynchronous where the library is
    step_with(x, noise, condition)   the same on a given batch and what npvae's model has drawn for it; returns the loss
    run(batches)                     a step on each of these, and wait until all is done
    theta()                          the parameters in npvae's order, 1-D (PyTorch)

The batch x is grey levels / 255, which are binarised for the Bernoulli likelihood, as npvae does, or points as they are. The
losses are in `torch_losses.py` and `jax_losses.py`: of the ways that the libraries offer (JAX's betaln and betabinom.logpmf
among them) the fastest in both.

PyTorch: torch.nn.functional and torch.optim.Adam(fused=True), gradients set to None, torch.compile for the compiled form, as
in the PyTorch performance tuning guide (pytorch.org/tutorials/recipes/recipes/tuning_guide.html). JAX: one jitted function
for the whole step with its buffers donated, random numbers inside it from a key that is split, as in the JAX documentation
("Stateful computations", "Buffer donation") and its example examples/mnist_vae.py; and all steps of a run in one lax.scan, with
JAX's own generator of random numbers and with the processor's (rbg).
"""

import numpy as np
from tasks import N, noise_shape

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class TorchEager:
    """PyTorch, operation by operation, with the fused Adam."""

    name = "PyTorch eager"

    def __init__(self, task, theta):
        import torch
        from torch_losses import LOSSES

        self.torch, self.task = torch, task
        self.layers = {}
        for name in (name.removesuffix(".W") for name in theta if name.endswith(".W")):
            W, b = theta[f"{name}.W"], theta[f"{name}.b"]
            layer = torch.nn.Linear(*W.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(W.T.copy()))
                layer.bias.copy_(torch.from_numpy(b))
            self.layers[name] = layer
        parameters = [parameter for layer in self.layers.values() for parameter in layer.parameters()]
        self.optimizer = torch.optim.Adam(parameters, task.learning_rate, (BETA1, BETA2), EPSILON, fused=True)
        self.data = [torch.from_numpy(array) for array in task.data]
        self.loss_of_model = LOSSES[task.kind](task.config)
        self.loss_of = self.loss

    def loss(self, *batch_and_noise):
        return self.loss_of_model(lambda name, h: self.layers[name](h), *batch_and_noise)

    def step_with(self, x, noise, *condition):
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        noise = tuple(map(torch.as_tensor, noise)) if isinstance(noise, tuple) else torch.as_tensor(noise)
        loss = self.loss_of(torch.as_tensor(x), noise, *map(torch.as_tensor, condition))
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def step(self, rows):
        torch, (images, *condition) = self.torch, self.data
        rows = torch.from_numpy(rows)
        x = images[rows]
        if images.dtype == torch.uint8:
            x = x.float() / N
        if self.task.config["likelihood"] == "bernoulli":
            x = torch.bernoulli(x)
        noise = torch.randn(*noise_shape(self.task, len(rows)))
        if self.task.kind == "Diffusion":
            noise = (torch.rand(1) + torch.arange(len(rows)) / len(rows)) % 1, noise
        self.step_with(x, noise, *(array[rows] for array in condition))

    def run(self, batches):
        for rows in batches:
            self.step(rows)

    def theta(self):
        layers = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in self.layers.values()]
        return np.concatenate([array.ravel() for pair in layers for array in pair])


class TorchOneThread(TorchEager):
    """The same on one thread, which is faster where a second one costs more than it does."""

    name = "PyTorch eager, 1 thread"

    def run(self, batches):
        threads = self.torch.get_num_threads()
        self.torch.set_num_threads(1)
        super().run(batches)
        self.torch.set_num_threads(threads)


class TorchCompiled(TorchEager):
    """PyTorch with the loss compiled by TorchInductor, forward and backward."""

    name = "PyTorch compiled"

    def __init__(self, *args):
        super().__init__(*args)
        self.torch._dynamo.reset()  # of rows before this one: after eight versions of a function it would compile no more
        self.loss_of = self.torch.compile(self.loss)


class JaxJit:
    """JAX, the whole step in one jitted function."""

    name, generator = "JAX jit", None  # None: JAX's own

    def __init__(self, task, theta):
        import jax
        import jax.numpy as jnp
        from jax_losses import LOSSES

        self.jax, learning_rate, loss_of_model = jax, task.learning_rate, LOSSES[task.kind](task.config)

        def loss_of(p, *batch_and_noise):
            return loss_of_model(lambda name, h: h @ p[f"{name}.W"] + p[f"{name}.b"], *batch_and_noise)

        def update(state, *batch_and_noise):
            p, m, v, t = state
            loss, g = jax.value_and_grad(loss_of)(p, *batch_and_noise)
            t += 1
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
            c1, c2 = 1 - BETA1**t, 1 - BETA2**t
            p = jax.tree.map(lambda p, m, v: p - learning_rate * (m / c1) / (jnp.sqrt(v / c2) + EPSILON), p, m, v)
            return (p, m, v, t), loss

        def draw_and_update(state, key, data, rows):
            (images, *condition), (key, key_x, key_eps, key_t) = data, jax.random.split(key, 4)
            x = images[rows]
            if images.dtype == jnp.uint8:
                x = x.astype(jnp.float32) / N
            if task.config["likelihood"] == "bernoulli":
                x = jax.random.bernoulli(key_x, x).astype(jnp.float32)
            noise = jax.random.normal(key_eps, noise_shape(task, len(rows)))
            if task.kind == "Diffusion":
                noise = (jax.random.uniform(key_t) + jnp.arange(len(rows)) / len(rows)) % 1, noise
            state, loss = update(state, x, noise, *(array[rows] for array in condition))
            return state, key, loss

        self.update = jax.jit(update, donate_argnums=0)
        self.one_step, self.draw_and_update = draw_and_update, jax.jit(draw_and_update, donate_argnums=(0, 1))
        p = {name: jnp.array(value) for name, value in theta.items()}
        zeros = {name: jnp.zeros_like(value) for name, value in p.items()}
        self.state = (p, zeros, {name: jnp.zeros_like(value) for name, value in p.items()}, jnp.float32(0))
        self.key = jax.random.key(0, impl=self.generator)
        self.data = tuple(map(jnp.array, task.data))

    def step_with(self, x, noise, *condition):
        self.state, loss = self.update(self.state, x, noise, *condition)
        return loss

    def step(self, rows):
        self.state, self.key, _ = self.draw_and_update(self.state, self.key, self.data, rows)

    def run(self, batches):
        for rows in batches:
            self.step(rows)
        self.jax.block_until_ready(self.state)


class JaxScan(JaxJit):
    """JAX, all steps of a run in one lax.scan: nothing of a step is Python's."""

    name = "JAX scan"

    def __init__(self, *args):
        super().__init__(*args)
        jax = self.jax

        def steps(state, key, data, batches):
            return jax.lax.scan(lambda carry, rows: (self.one_step(*carry, data, rows)[:2], None), (state, key), batches)[0]

        self.steps = jax.jit(steps, donate_argnums=(0, 1))

    def run(self, batches):
        self.state, self.key = self.steps(self.state, self.key, self.data, np.stack(batches))
        self.jax.block_until_ready(self.state)


class JaxScanRbg(JaxScan):
    """The same with the generator "rbg"."""

    name, generator = "JAX scan, rbg", "rbg"


PEERS = (TorchEager, TorchOneThread, TorchCompiled, JaxJit, JaxScan, JaxScanRbg)
