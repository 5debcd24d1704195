"""A variational autoencoder in one file: read it from top to bottom, then read the package.

The same model as npvae.VAE with one hidden layer, written with nothing but NumPy: forward pass, backward pass by hand, Adam,
a check of the gradient by the complex step. It simulates lattices of the Ising model, learns them, and prints what it learned.

    python examples/vae_in_one_file.py            (about 10 seconds)

Shapes: B batch, D data, H hidden, L latent.
"""

import sys

import numpy as np


def ising(temperatures, n, size, sweeps, rng):
    """n lattices at each temperature (J = k_B = 1, no field, periodic, size even): (number of temperatures · n, size²) of ±1.

    Metropolis: a flip that costs the energy dE is accepted with probability min(1, e^(−dE/T)). The sites of one colour of a
    checkerboard have no neighbour of their own colour, so all of them may flip at once.
    """
    T = np.repeat(temperatures, n)[:, None, None].astype(np.float32)
    up = rng.random(T.shape) < 0.5  # begin in order, half of the lattices up and half down
    s = np.where(up, 1, -1).astype(np.float32) * np.ones((size, size), np.float32)
    row, column = np.indices((size, size))
    for half_sweep in range(2 * sweeps):
        colour = (row + column + half_sweep) % 2 == 0
        neighbours = np.roll(s, 1, 1) + np.roll(s, -1, 1) + np.roll(s, 1, 2) + np.roll(s, -1, 2)
        dE = 2 * s * neighbours
        flip = colour & (rng.random(s.shape, np.float32) < np.exp(-dE / T))
        s = np.where(flip, -s, s)
    return s.reshape(len(s), -1).astype(float)


def init(D, H, L, rng):
    """Glorot-uniform weights, zero biases."""
    def W(n_in, n_out):
        a = np.sqrt(6 / (n_in + n_out))
        return rng.uniform(-a, a, (n_in, n_out))

    return {"W1": W(D, H), "b1": np.zeros(H), "W2": W(H, 2 * L), "b2": np.zeros(2 * L),
            "W3": W(L, H), "b3": np.zeros(H), "W4": W(H, D), "b4": np.zeros(D)}  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def forward(p, x, eps):
    """Loss = −ELBO in nats, mean over the batch; x (B, D) of zeros and ones, eps (B, L) from N(0, I)."""
    h1 = np.tanh(x @ p["W1"] + p["b1"])  # (B, H)    encoder
    mu, logvar = np.split(h1 @ p["W2"] + p["b2"], 2, axis=1)  # (B, L), (B, L)
    sigma = np.exp(logvar / 2)
    z = mu + sigma * eps  # (B, L)    a sample of q(z|x) = N(mu, σ²)
    h2 = np.tanh(z @ p["W3"] + p["b3"])  # (B, H)    decoder
    logits = h2 @ p["W4"] + p["b4"]  # (B, D)

    nll = (np.log(1 + np.exp(logits)) - x * logits).sum(axis=1)  # −log p(x|z), Bernoulli
    kl = 0.5 * (mu**2 + sigma**2 - 1 - logvar).sum(axis=1)  # KL(q(z|x) ‖ N(0, I))
    return (nll + kl).mean(), (x, eps, h1, mu, logvar, sigma, z, h2, logits)


def backward(p, cache):
    """The gradient of the loss: the lines of `forward` in reverse; dname is d loss/d name."""
    x, eps, h1, mu, logvar, sigma, z, h2, logits = cache
    B = len(x)
    g = {}
    dlogits = (sigmoid(logits) - x) / B  # nll' = σ(logits) − x
    g["W4"], g["b4"] = h2.T @ dlogits, dlogits.sum(axis=0)  # logits = h2 W4 + b4
    dh2 = dlogits @ p["W4"].T
    dpre2 = dh2 * (1 - h2**2)  # tanh' = 1 − tanh²
    g["W3"], g["b3"] = z.T @ dpre2, dpre2.sum(axis=0)
    dz = dpre2 @ p["W3"].T
    # mu and logvar feed both z and the KL: each receives two gradients
    dmu = dz + mu / B  # z = mu + σ eps;  kl = ½ mu² + ...
    dlogvar = dz * eps * sigma / 2 + 0.5 * (np.exp(logvar) - 1) / B  # dσ/dlogvar = σ/2;  kl = ½ (e^logvar − logvar) + ...
    dposterior = np.concatenate([dmu, dlogvar], axis=1)  # (B, 2L)
    g["W2"], g["b2"] = h1.T @ dposterior, dposterior.sum(axis=0)
    dpre1 = (dposterior @ p["W2"].T) * (1 - h1**2)
    g["W1"], g["b1"] = x.T @ dpre1, dpre1.sum(axis=0)
    return g


def adam(p, g, m, v, t, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """One step of Adam (Kingma & Ba 2015, Algorithm 1), t = 1, 2, ..."""
    for name in p:
        m[name] = beta1 * m[name] + (1 - beta1) * g[name]
        v[name] = beta2 * v[name] + (1 - beta2) * g[name] ** 2
        m_hat, v_hat = m[name] / (1 - beta1**t), v[name] / (1 - beta2**t)
        p[name] -= learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)


def gradient_error(p, x, eps, n=200):
    """The largest error of `backward` at n random parameters, against Im loss(p + ih)/h with h = 1e-20 (the complex step,
    exact to rounding: nothing is subtracted), relative to the largest of those derivatives."""
    g = backward(p, forward(p, x, eps)[1])
    rng, exact, ours = np.random.default_rng(0), [], []
    for _ in range(n):
        name = rng.choice(list(p))
        i = rng.integers(p[name].size)
        shifted = {key: value.astype(complex) for key, value in p.items()}
        shifted[name].flat[i] += 1e-20j
        exact.append(forward(shifted, x, eps)[0].imag / 1e-20)
        ours.append(g[name].flat[i])
    return np.abs(np.subtract(exact, ours)).max() / np.abs(exact).max()


def main(epochs=20):
    rng = np.random.default_rng(0)
    spins = ising(np.linspace(1, 4, 13), 200, size=12, sweeps=400, rng=rng)  # (2600, 144)
    x, magnetisation = (spins + 1) / 2, spins.mean(axis=1)  # zeros and ones, (2600, 144); (2600,)
    p = init(D=x.shape[1], H=64, L=2, rng=rng)
    m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    print(f"error of the hand-written gradient: {gradient_error(p, x[::100], rng.standard_normal((26, 2))):.0e}")

    t = 0
    for epoch in range(1, epochs + 1):
        losses = []
        for rows in np.array_split(rng.permutation(len(x)), len(x) // 50):
            loss, cache = forward(p, x[rows], rng.standard_normal((len(rows), 2)))
            t += 1
            adam(p, backward(p, cache), m, v, t)
            losses.append(loss)
        print(f"epoch {epoch:2}/{epochs}  −ELBO {np.mean(losses):6.2f} nats")

    mu = np.split(np.tanh(x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"], 2, axis=1)[0]
    correlation = max(abs(np.corrcoef(mu[:, l], magnetisation)[0, 1]) for l in range(2))
    print(f"one latent coordinate has become the magnetisation: correlation {correlation:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
