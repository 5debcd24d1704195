"""One training step of a convolutional VAE on images of 28 × 28: npvae against PyTorch, and the two back ends' layers alone.

    python benchmarks/bench_convolution.py [--repeats N]

The model is 28×28-14×14×32-7×7×64-256-32 and back, with kernels of 4 × 4 and a stride of 2, relu, Bernoulli likelihood, batches
of 100. PyTorch's (oneDNN's convolutions) is written with torch.nn, channels first and channels last, plain and compiled, and
with the fused Adam. First verifies, then times: all take 20 steps from the same weights, on the same batches with the same
noise, and unless the losses agree to 1e-3 no time is printed. Then they run by turns, each drawing its own noise, and the
median of the repeats is printed. A library that is not installed is a row that says so (pip install '.[bench]'). Last, what the
layout decides: the time to copy the patches of an image, channels last as npvae has them, and channels first.
"""

import argparse
import json
import time

import numpy as np
from common import RESULTS, interleaved, machine, print_machine, settled, spread

from npvae import kernels, ops
from npvae.core.workers import Workers
from npvae.data.rows import Rows
from npvae.kernels import convolution
from npvae.kernels.compile import jit
from npvae.models import ConvolutionalVAE
from npvae.training.optim import Adam
from npvae.training.step import Step

CHANNELS, KERNEL, STRIDE, HIDDEN, LATENT, BATCH = (32, 64), 4, 2, 256, 32, 100
LEARNING_RATE, VERIFY_STEPS = 1e-3, 20
LAYOUTS = {"PyTorch": False, "PyTorch, channels last": True}


class Npvae:
    """npvae's own step, as `npvae.fit` takes it, by n workers."""

    def __init__(self, images, n=2):
        self.model = ConvolutionalVAE(images.shape[1], LATENT, CHANNELS, KERNEL, STRIDE, (HIDDEN,), "relu")
        self.rows, self.workers, self.count = Rows.of(self.model, (images,), "data"), Workers(n), 0
        self.step = Step(self.model, self.rows, BATCH, Adam(LEARNING_RATE), self.workers)

    def run(self, batches):
        with self.workers:
            started = time.perf_counter()
            for rows in batches:
                self.step(rows, self.count)
                self.count += 1
            return time.perf_counter() - started

    def step_with(self, x, eps):
        grad = np.empty_like(self.model.theta)
        terms, _ = self.model.gradient(x, eps[None], out=grad)
        self.step.optimizer.step(self.model.theta, grad, self.step.state)
        return terms.loss


class Torch:
    """The same model as a user of PyTorch writes it."""

    def __init__(self, images, ours, channels_last, is_compiled=False):
        import torch

        nn, self.torch, (a, b) = torch.nn, torch, CHANNELS
        n_small, how = b * 7 * 7, (KERNEL, STRIDE, (KERNEL - STRIDE) // 2)
        self.net = nn.ModuleList([
            nn.Conv2d(1, a, *how), nn.Conv2d(a, b, *how), nn.Linear(n_small, HIDDEN), nn.Linear(HIDDEN, 2 * LATENT),
            nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, n_small), nn.ConvTranspose2d(b, a, *how),
            nn.ConvTranspose2d(a, 1, *how, bias=False)])  # fmt: skip
        self.pixel_bias = nn.Parameter(torch.zeros(images.shape[1]))
        values = ours.model.parameters
        names = ["encoder.0", "encoder.1", "encoder.2", "posterior", "decoder.0", "decoder.1", "decoder.2", "likelihood"]
        for name, layer in zip(names, self.net):
            layer.weight.data = torch.from_numpy(in_torch(values[f"{name}.W"], name))
            if layer.bias is not None:
                layer.bias.data = torch.from_numpy(in_torch(values[f"{name}.b"], name))
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.images = torch.from_numpy(images)
        self.loss_of = torch.compile(self.loss) if is_compiled else self.loss
        parameters = [*self.net.parameters(), self.pixel_bias]
        self.optimizer = torch.optim.Adam(parameters, LEARNING_RATE, (0.9, 0.999), 1e-8, fused=True)

    def loss(self, x, eps):
        F, (c1, c2, d1, d2, d3, d4, t1, t2) = self.torch.nn.functional, self.net
        h = F.relu(c2(F.relu(c1(x.reshape(-1, 1, 28, 28).contiguous(memory_format=self.layout)))))
        mu, logvar = d2(F.relu(d1(h.flatten(1)))).chunk(2, dim=1)
        z = mu + self.torch.exp(0.5 * logvar) * eps
        h = F.relu(d4(F.relu(d3(z)))).reshape(-1, CHANNELS[1], 7, 7).contiguous(memory_format=self.layout)
        logits = t2(F.relu(t1(h))).flatten(1) + self.pixel_bias
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        return (nll - 0.5 * self.torch.sum(1 + logvar - mu.pow(2) - logvar.exp())) / len(x)

    def step_with(self, x, eps):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(self.torch.as_tensor(x), self.torch.as_tensor(eps))
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, batches):
        started = time.perf_counter()
        for rows in batches:
            x = self.torch.bernoulli(self.images[self.torch.from_numpy(rows)].float() / 255)
            self.step_with(x, self.torch.randn(len(rows), LATENT))
        return time.perf_counter() - started


def in_torch(value, name):
    """A copy of a parameter in PyTorch's order of axes: beside dense layers, images of 7 × 7 have their channels first."""
    if value.ndim == 4:
        order = (3, 2, 0, 1) if name.startswith("encoder") else (0, 3, 1, 2)
        return value.transpose(order).copy()
    shape = 7, 7, CHANNELS[1]
    if name == "encoder.2" and value.ndim == 2:
        value = value.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    if name == "decoder.1":
        value = value.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(value.shape)
    return value.T.copy()


def contenders(images):
    """name -> contender, and name -> why one is missing."""
    ours = Npvae(images)
    found, missing = {"npvae": ours, "npvae, 1 worker": Npvae(images, 1)}, {}
    for name, channels_last in LAYOUTS.items():
        for is_compiled in (False, True):
            title = name + (", compiled" if is_compiled else "")
            try:
                found[title] = Torch(images, ours, channels_last, is_compiled)
            except ImportError as error:
                missing[title] = f"not installed ({error.name})"
    return found, missing


def verify(found, images):
    """SystemExit where losses disagree after common steps."""
    rng, losses = np.random.default_rng(1), {}
    for _ in range(VERIFY_STEPS):
        x = (rng.random((BATCH, images.shape[1])) < images[rng.integers(0, len(images), BATCH)] / 255).astype(np.float32)
        eps = rng.standard_normal((BATCH, LATENT), np.float32)
        losses = {name: float(contender.step_with(x, eps)) for name, contender in found.items()}
    reference = losses["npvae"]
    if not all(abs(loss - reference) <= 1e-3 * abs(reference) for loss in losses.values()):
        raise SystemExit(f"no times: after {VERIFY_STEPS} steps the losses are {losses}")
    return losses


def layers(model, n=BATCH // 2):
    """name -> milliseconds of a layer of n images, forward and backward, on one core: of NumPy and compiled."""
    rng, rows = np.random.default_rng(0), {}
    for part in (model.encoder, model.decoder):
        for layer in (layer for layer in part if len(layer) == 4):
            W, window = layer[0], layer[3]
            n_in = window.rows * window.columns * W.shape[0 if window.is_transposed else 2]
            x, title = rng.standard_normal((n, n_in), np.float32), "×".join(map(str, W.shape))
            rows[title] = {}
            for name, table in {"numpy": ops, "numba": kernels}.items():
                seconds = []
                for _ in range(10):
                    started = time.perf_counter()
                    h, cache = table.filter_forward(x, *layer)
                    table.filter_backward(np.ones_like(h), cache)
                    seconds.append(time.perf_counter() - started)
                rows[title][name] = 1e3 * sorted(seconds)[5]
    return rows


def layouts(n=14, channels=32, stride=2):
    """Microseconds, the least of 300, to copy the patches of one image from both layouts, and of their product with W."""
    K, size = KERNEL, n + KERNEL - stride  # padded
    places = n // stride
    last, first = np.zeros((size, size * channels), np.float32), np.zeros((channels, size, size), np.float32)
    patches, width = np.zeros((places**2, K * K * channels), np.float32), K * K * channels
    W, made = np.zeros((width, CHANNELS[1]), np.float32), np.zeros((places**2, CHANNELS[1]), np.float32)
    tasks = {
        "channels last": lambda: convolution.find_patches(last, K, stride * channels, stride, K * channels, places, patches),
        "channels first": lambda: patches_channels_first(first, K, stride, places, patches),
        "product": lambda: convolution.tiled(patches.reshape(-1), width, np.int64(1), W.reshape(-1), made.reshape(-1),
                                             len(patches), width, W.shape[1]),
    }  # fmt: skip
    found = {}
    for name, task in tasks.items():
        seconds = []
        for _ in range(300):
            started = time.perf_counter()
            task()
            seconds.append(time.perf_counter() - started)
        found[name] = 1e6 * min(seconds)
    return found


@jit
def patches_channels_first(padded, K, stride, n_columns, patches):
    """As `npvae.kernels.convolution.find_patches`, of padded (C, Y, X): rows of patches (Y' X', C K K)."""
    for r in range(len(patches)):
        y, x = r // n_columns * stride, r % n_columns * stride
        for c in range(len(padded)):
            for i in range(K):
                for j in range(K):
                    patches[r, (c * K + i) * K + j] = padded[c, y + i, x + j]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=9, metavar="N", help="interleaved runs of each contender (default: 9)")
    args = parser.parse_args()
    info, rng = machine(), np.random.default_rng(2)
    print_machine(info)
    blobs = rng.random((2000, 1, 1)) * 8 + 3  # bright discs: as many ones as in digits, without a file
    y, x = np.mgrid[-13.5:14, -13.5:14]
    images = (255 * np.exp(-((x**2 + y**2) / (2 * blobs**2)) ** 2)).astype(np.uint8).reshape(2000, 784)
    found, missing = contenders(images)
    losses = verify(found, images)

    def run(contender, n):
        return contender.run([rng.integers(0, len(images), BATCH) for _ in range(n)])

    runs = {name: lambda one=one: settled(lambda n: run(one, n), 20) / 20 for name, one in found.items()}
    seconds = interleaved(runs, args.repeats)
    ms = {name: spread([1e3 * value for value in values]) for name, values in seconds.items()}
    for name, row in ms.items():
        ratio = row["median"] / ms["npvae"]["median"]
        print(f"    {name:34}{row['median']:9.2f} ms   {row['min']:.2f} … {row['max']:.2f}   {ratio:6.2f} ×")
    for name, why in missing.items():
        print(f"    {name:34} {why}")
    with Workers(1):
        of_layers = layers(found["npvae"].model)
    for title, row in of_layers.items():
        print(f"    layer {title:14} 50 images, forward and backward, one core: NumPy {row['numpy']:.2f} ms, compiled "
              f"{row['numba']:.2f} ms")  # fmt: skip
    of_layouts = layouts()
    print("    patches of an image of 14 × 14 × 32: " + ", ".join(f"{name} {us:.1f} µs" for name, us in of_layouts.items()))
    result = {"machine": info, "model": repr(found["npvae"].model), "batch": BATCH, "milliseconds": ms, "layers": of_layers,
              "layouts": of_layouts, "losses": losses, "missing": missing}  # fmt: skip
    (RESULTS / "convolution.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
