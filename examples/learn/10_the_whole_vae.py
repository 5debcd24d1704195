# %% [markdown]
# # 10 The whole VAE, forward and back
#
# **Why.** All parts are known now: affine maps, activations, the reparameterised sample, the KL, the likelihood, the bound.
# This lesson runs them once forward and once backward, tensor by tensor, on lattices of 4 × 4 spins. It shows the one place
# where a VAE is not a chain: mu and logvar receive two gradients each.
#
# **Read before.** Lessons 02, 06, 07 and 08; `npvae/models/vae.py`, whose `forward` and `backward` are the lines below; "The
# flow, forward and backward" in examples/README.md.
#
# **Prediction.** If all parameters move along their gradient g, θ + t g, the loss changes at the rate Σ_i g_i g_i = |g|². The
# complex step measures that rate from the forward pass alone. Divided by |g|² it is 1. Every parameter takes part: one wrong
# sign anywhere, and it is another number.

# %%
import numpy as np
from showing import keep

import npvae
from npvae.ops.bounds import elbo_backward, elbo_forward
from npvae.ops.latent import (
    gaussian_kl_backward,
    gaussian_kl_forward,
    posterior_backward,
    posterior_forward,
    reparameterize_backward,
    reparameterize_forward,
)
from npvae.ops.layers import dense_backward, dense_forward
from npvae.ops.likelihood import bernoulli_nll_backward, bernoulli_nll_forward

rng = np.random.default_rng(10)
lattices = npvae.data.ising.simulate(temperatures=np.linspace(1, 4, 13), n_samples=2, size=4, seed=0)
x = lattices.spins.astype(float)  # (B, D) = (26, 16), zeros and ones
model = npvae.VAE(n_features=16, n_latent=2, hidden=(8,), activation="tanh", backend="numpy", dtype="float64", seed=1)
eps = rng.standard_normal((26, 2))  # (B, L)
print(f"{'parameter':16} {'shape':9} numbers")
for name, value in model.parameters.items():
    print(f"{name:16} {value.shape!s:9} {value.size:7}")
print(f"{'all together':16} {model.theta.shape!s:9} {model.theta.size:7}")

# %% [markdown]
# ## One forward and one backward pass
#
# The backward pass is the forward pass read from below. Each line calls the partner of one line above, hands it the gradient of
# that line's output, and gets the gradients of its inputs.


# %%
def forward_and_backward(p, x, eps):
    """Every tensor and its gradient, name -> (value, gradient), and the gradients of the parameters p."""
    h1, encoder_cache = dense_forward(x, p["encoder.0.W"], p["encoder.0.b"], "tanh")  # (B, D) -> (B, H)
    posterior, posterior_cache = dense_forward(h1, p["posterior.W"], p["posterior.b"], "identity")  # (B, H) -> (B, 2L)
    (mu, logvar), split_cache = posterior_forward(posterior)  # (B, 2L) -> (B, L), (B, L)
    z, z_cache = reparameterize_forward(mu, logvar, eps)  # (B, L)
    kl, kl_cache = gaussian_kl_forward(mu, logvar)  # (B, L)
    h2, decoder_cache = dense_forward(z, p["decoder.0.W"], p["decoder.0.b"], "tanh")  # (B, L) -> (B, H)
    logits, likelihood_cache = dense_forward(h2, p["likelihood.W"], p["likelihood.b"], "identity")  # (B, H) -> (B, D)
    nll, nll_cache = bernoulli_nll_forward(logits, x)  # (B, D) -> (B,)
    loss, bound_cache = elbo_forward(nll, kl, 1.0)  # (B,), (B, L) -> a number

    g = {}
    dnll, dkl = elbo_backward(1.0, bound_cache)  # loss = nll.mean() + kl.sum(axis=1).mean()
    dlogits = bernoulli_nll_backward(dnll, nll_cache)  # nll = -log p(x|z)
    dh2, g["likelihood.W"], g["likelihood.b"] = dense_backward(dlogits, likelihood_cache)  # logits = h2 @ W + b
    dz, g["decoder.0.W"], g["decoder.0.b"] = dense_backward(dh2, decoder_cache)  # h2 = tanh(z @ W + b)
    dmu_kl, dlogvar_kl = gaussian_kl_backward(dkl, kl_cache)  # kl = ½ (mu² + e^logvar − 1 − logvar)
    dmu_z, dlogvar_z = reparameterize_backward(dz, z_cache)  # z = mu + e^(logvar/2) * eps
    dmu = dmu_z + dmu_kl  # mu feeds both z and kl: two gradients
    dlogvar = dlogvar_z + dlogvar_kl  # and so does logvar
    dposterior = posterior_backward(dmu, dlogvar, split_cache)  # mu, logvar = the halves of posterior
    dh1, g["posterior.W"], g["posterior.b"] = dense_backward(dposterior, posterior_cache)  # posterior = h1 @ W + b
    dx, g["encoder.0.W"], g["encoder.0.b"] = dense_backward(dh1, encoder_cache)  # h1 = tanh(x @ W + b)

    tensors = {"x": (x, dx), "h1": (h1, dh1), "posterior": (posterior, dposterior), "mu": (mu, dmu),
               "logvar": (logvar, dlogvar), "kl": (kl, dkl), "z": (z, dz), "h2": (h2, dh2),
               "logits": (logits, dlogits), "nll": (nll, dnll)}  # fmt: skip
    parts = {"mu": (dmu_z, dmu_kl), "logvar": (dlogvar_z, dlogvar_kl)}
    return loss, tensors, parts, g


def size(a):
    """The root mean square of an array."""
    return np.sqrt((a**2).mean())


loss, tensors, parts, g = forward_and_backward(model.parameters, x, eps)
print(f"\n{'tensor':10} {'shape':9} {'value':>8} {'gradient':>9}   (root mean squares)")
for name, (value, gradient) in tensors.items():
    print(f"{name:10} {value.shape!s:9} {size(value):8.3f} {size(gradient):9.5f}")
print(f"loss {loss:.4f} nats")

# %% [markdown]
# Each row of a tensor feels the loss through 1/B only, so these gradients are small. A weight collects from all 26 rows.
#
# `model.forward` and `model.backward` are the same lines, for any number of layers and samples. They give the same numbers:

# %%
terms, cache = model.forward(x, eps)
grads = model.backward(cache)
assert abs(terms.loss - loss) < 1e-13
for name, gradient in g.items():
    assert np.allclose(gradient, grads[name], rtol=1e-12, atol=1e-15), name
print(f"\n{'parameter':16} {'value':>8} {'gradient':>9}")
for name, gradient in grads.items():
    print(f"{name:16} {size(model.parameters[name]):8.3f} {size(gradient):9.5f}")

# %% [markdown]
# ## Two gradients that pull against each other
#
# The KL pulls mu to 0 and logvar to 0. The nll pulls them to where the decoder tells the lattices apart. Training ends where
# the pulls balance. At a minimum the gradients of posterior.W and posterior.b are zero. mu = h1 W + b is linear in them, and so
#
#     Σ_r mu_r dmu_r = Σ_r (h1_r W + b) dmu_r = Σ_ij W_ij dW_ij + Σ_j b_j db_j = 0        with W, b of the columns that give mu
#
# The sum over all rows r says how the loss changes when all mu are stretched. The table has it for both parts, and that for
# logvar, before and after training. (Each row is repeated 100 times with other eps: a single eps makes dz noisy.)

# %%
trained = model.copy()
lattices = npvae.data.ising.simulate(temperatures=np.linspace(1, 4, 13), n_samples=40, size=4, seed=1)
x_train = lattices.spins.astype(float)  # (520, 16)
falling = npvae.schedules.Cosine(2e-2, 60 * 20)  # the learning rate ends at 0, after 60 epochs of 20 steps
npvae.fit(trained, x_train, epochs=60, batch_size=26, optimizer=npvae.Adam(falling), seed=0, progress=False)

x_repeated = np.tile(x_train, (100, 1))  # (520, 16) -> (52000, 16)
noise = rng.standard_normal((len(x_repeated), 2))
print(f"\n{'':33} {'through z':>9} {'from the kl':>11} {'together':>9}")
for when, vae in [("before training", model), ("after training", trained)]:
    _, tensors, parts, _ = forward_and_backward(vae.parameters, x_repeated, noise)
    for name, pair in parts.items():
        through_z, from_kl = ((tensors[name][0] * part).sum() for part in pair)
        print(f"sum of {name + ' d' + name:15} {when:16} {through_z:9.4f} {from_kl:11.4f} {through_z + from_kl:9.4f}")
        assert when == "before training" or abs(through_z + from_kl) < 0.2 * from_kl  # nearly at a minimum

# %% [markdown]
# ## The picture
#
# `npvae.plots.backward_flow` draws this for any model that `npvae.fit` trains: values go down, gradients come back up, and
# a plus marks where two are added. Names are those of the text: h1, h2, mu, logvar. (Here before training, with the same eps.)

# %%
keep(npvae.plots.backward_flow(model, x, eps), "10_the_whole_vae")

# %% [markdown]
# ## The whole gradient in one number
#
# The same model in complex arithmetic, at θ + ih g with h = 1e−20. Im(loss)/h is the rate of the loss along g.
#
# **Now:** exercise 11, `python examples/learn/check.py 11`.

# %%
gradient = np.concatenate([grads[name].ravel() for name in model.parameters])  # (P,)
shifted = npvae.VAE(**{**model.config, "dtype": "complex128"})
shifted.theta[...] = model.theta + 1e-20j * gradient
rate, squared_norm = shifted.forward(x, eps)[0].loss.imag / 1e-20, gradient @ gradient
print(f"\nrate of the loss along g {rate:.12f}, |g|² {squared_norm:.12f}")
assert abs(rate / squared_norm - 1) < 1e-12
print(f"predicted 1, measured {rate / squared_norm:.13f}, the rate of the loss along its gradient divided by |g|²")
