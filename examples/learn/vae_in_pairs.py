"""The model of ../vae_in_one_file.py, written with the pairs of npvae.ops; npvae.VAE is the next rung.

Compare the three, function by function: the same numbers, gradients included (tests/test_rungs.py). Here a forward pass calls
the forward function of each pair in order, and the backward pass calls the backward functions in reverse. What was a line of
algebra in the one file, such as dlogits = (sigmoid(logits) − x) / B, is now split between the pairs that it came from.

    python examples/learn/vae_in_pairs.py            (about a second)

Shapes: B batch, D data, H hidden, L latent; the parameters p have the names and shapes of the one file.
"""

import numpy as np

from npvae.ops.bounds import elbo_backward, elbo_forward
from npvae.ops.latent import latent_backward, latent_forward
from npvae.ops.layers import dense_backward, dense_forward
from npvae.ops.likelihood import bernoulli_nll_backward, bernoulli_nll_forward
from npvae.ops.updates import adam_step


def init(D, H, L, rng):
    """Glorot-uniform weights, zero biases."""
    p = {}
    for i, (n_in, n_out) in enumerate([(D, H), (H, 2 * L), (L, H), (H, D)], start=1):
        a = np.sqrt(6 / (n_in + n_out))
        p |= {f"W{i}": rng.uniform(-a, a, (n_in, n_out)), f"b{i}": np.zeros(n_out)}
    return p


def forward(p, x, eps):
    """Loss = −ELBO in nats, mean over the batch; x (B, D) of zeros and ones, eps (B, L) from N(0, I)."""
    h1, cache1 = dense_forward(x, p["W1"], p["b1"], "tanh")  # (B, D) -> (B, H)    encoder
    posterior, cache2 = dense_forward(h1, p["W2"], p["b2"], "identity")  # (B, H) -> (B, 2L)
    (z, kl), latent_cache = latent_forward(posterior, eps)  # (B, 2L) -> (B, L), (B, L)
    h2, cache3 = dense_forward(z, p["W3"], p["b3"], "tanh")  # (B, L) -> (B, H)    decoder
    logits, cache4 = dense_forward(h2, p["W4"], p["b4"], "identity")  # (B, H) -> (B, D)
    nll, nll_cache = bernoulli_nll_forward(logits, x)  # (B, D) -> (B,)
    loss, bound_cache = elbo_forward(nll, kl, beta=1.0)  # (B,), (B, L) -> a number
    return loss, (cache1, cache2, latent_cache, cache3, cache4, nll_cache, bound_cache)


def backward(cache):
    """The gradient of the loss: the calls of `forward` in reverse; dname is d loss/d name."""
    cache1, cache2, latent_cache, cache3, cache4, nll_cache, bound_cache = cache
    g = {}
    dnll, dkl = elbo_backward(1.0, bound_cache)  # loss from nll, kl
    dlogits = bernoulli_nll_backward(dnll, nll_cache)  # nll from logits
    dh2, g["W4"], g["b4"] = dense_backward(dlogits, cache4)  # logits from h2
    dz, g["W3"], g["b3"] = dense_backward(dh2, cache3)  # h2 from z
    dposterior = latent_backward(dz, dkl, latent_cache)  # z and kl from posterior: the two gradients are added in there
    dh1, g["W2"], g["b2"] = dense_backward(dposterior, cache2)  # posterior from h1
    _, g["W1"], g["b1"] = dense_backward(dh1, cache1, need_dx=False)  # h1 from x, which is data
    return g


def adam(theta, grad, m, v, t, learning_rate=5e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """One step of Adam, t = 1, 2, ...; npvae.ops.updates works on flat vectors, of which theta and grad get a view."""
    adam_step(theta.ravel(), grad.ravel(), m, v, t, learning_rate, beta1, beta2, epsilon)


def main(steps=200):
    rng = np.random.default_rng(0)
    x = (rng.random((100, 36)) < np.where(rng.random((100, 1)) < 0.5, 0.9, 0.1)).astype(float)  # mostly ones, or mostly zeros
    p = init(D=36, H=16, L=2, rng=rng)
    m, v = ({name: np.zeros(value.size) for name, value in p.items()} for _ in range(2))
    for t in range(1, steps + 1):
        loss, cache = forward(p, x, rng.standard_normal((len(x), 2)))
        g = backward(cache)
        for name in p:
            adam(p[name], g[name], m[name], v[name], t)
        if t == 1 or t % 50 == 0:
            print(f"step {t:3}  −ELBO {loss:6.2f} nats")


if __name__ == "__main__":
    main()
