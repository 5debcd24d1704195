# %% [markdown]
# # 05 A network fits a function
#
# **Why.** Now the pieces meet: two affine maps with a tanh between them, a loss, a backward pass that calls the pairs in
# reverse, and an optimiser. With enough hidden units the network can follow any continuous function on a bounded interval, as
# closely as wanted (Cybenko 1989, Hornik 1991). Here one sees how, and what the data's noise has to say about it.
#
# **Read before.** Lessons 01 to 04. Lectures (2024), "The optimization problem" to "More on the general approximation theorem",
# in the notes that examples/README.md names.
#
# **Prediction.** The data are y = F(x) + noise, with noise of variance σ² = 0.01. Nothing can predict the noise of a new
# datum. So even the best fit has the mean squared error σ² = **0.0100** on new data, and 20 hidden units, fitted to 500 rows,
# come within 20 % of it. Two hidden units are too few for F and stay far above.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

import npvae
from npvae.ops.layers import dense_backward, dense_forward
from npvae.training.optim import initial_state

# %% [markdown]
# ## Data
#
# A wave with a narrow bump on it, 500 noisy rows to learn from, 10 000 others to test with.


# %%
def F(x):
    return np.sin(5 * x) + np.exp(-20 * (x - 0.4) ** 2)


rng = np.random.default_rng(0)
sigma = 0.1
x_train, x_test = rng.uniform(-2, 2, (500, 1)), rng.uniform(-2, 2, (10_000, 1))  # (B, 1)
y_train = F(x_train) + sigma * rng.standard_normal(x_train.shape)
y_test = F(x_test) + sigma * rng.standard_normal(x_test.shape)
for kind, x, y in ("training", x_train, y_train), ("test", x_test, y_test):
    print(f"mean squared noise of the {kind} rows: {np.mean((y - F(x)) ** 2):.4f}")

# %% [markdown]
# ## The network, forward and backward
#
# h = tanh(x W1 + b1) has H hidden units, and out = h W2 + b2 is a weighted sum of them. The loss is the mean squared error,
# loss = 1/B Σ_r (out_r − y_r)² over the rows r. Its derivative is dout_r = 2 (out_r − y_r)/B.
# This is the only line that knows the loss; the rest is `dense_backward`, called in reverse order.
#
# `dense_backward(dh, cache)` returns dx, dW and db. Here is the flow: dx of the second layer is dh of the first.


# %%
def forward(p, x, y):
    h, cache1 = dense_forward(x, p["W1"], p["b1"], "tanh")  # (B, 1) -> (B, H)
    out, cache2 = dense_forward(h, p["W2"], p["b2"], "identity")  # (B, H) -> (B, 1)
    residual = out - y
    loss = (residual * residual).mean()
    return loss, (cache1, cache2, residual)


def backward(cache):
    cache1, cache2, residual = cache
    dout = 2 * residual / residual.size  # loss = (residual * residual).mean()
    dh, dW2, db2 = dense_backward(dout, cache2)  # out = h @ W2 + b2
    _, dW1, db1 = dense_backward(dh, cache1, need_dx=False)  # h = tanh(x @ W1 + b1); x is data, dx is not needed
    return {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}


def initial_parameters(H, rng):
    """All parameters in one flat vector, with a name for each part of it. The bends of tanh are spread over the data."""
    theta = np.zeros(3 * H + 1)
    p = {"W1": theta[:H].reshape(1, H), "b1": theta[H : 2 * H], "W2": theta[2 * H : 3 * H].reshape(H, 1), "b2": theta[3 * H :]}
    p["W1"][:] = 2 * rng.standard_normal((1, H))
    p["b1"][:] = -p["W1"][0] * np.linspace(-2, 2, H)  # unit k bends where x W1 + b1 = 0
    p["W2"][:] = rng.standard_normal((H, 1)) / np.sqrt(H)
    return theta, p


# %% [markdown]
# ## Judge the gradient before using it
#
# Move each parameter by 10⁻²⁰ i (lesson 04) and compare.

# %%
theta, p = initial_parameters(5, rng)
grads = backward(forward(p, x_train, y_train)[1])
for name in p:
    exact = np.zeros(p[name].size)
    for k in range(p[name].size):
        moved = {other: value.astype(complex) for other, value in p.items()}
        moved[name].flat[k] += 1e-20j
        exact[k] = forward(moved, x_train, y_train)[0].imag / 1e-20
    difference = np.abs(exact - grads[name].ravel()).max()
    print(f"d{name} {grads[name].shape}: differs from the complex step by {difference:.0e}")
    assert difference < 1e-14

# %% [markdown]
# ## Train
#
# Adam (lesson 09) on all 500 rows at once, 2000 steps, for 2, 5 and 20 hidden units. The learning rate falls to zero along a
# cosine.

# %%
n_steps, fits = 2000, {}
for H in 2, 5, 20:
    theta, p = initial_parameters(H, np.random.default_rng(1))
    adam = npvae.Adam(lambda t: 0.03 * 0.5 * (1 + np.cos(np.pi * t / n_steps)))
    state = initial_state(adam, theta)
    for _ in range(n_steps):
        loss, cache = forward(p, x_train, y_train)
        grads = backward(cache)
        adam.step(theta, np.concatenate([grads[name].ravel() for name in p]), state)  # moves theta, hence p, in place
    test = forward(p, x_test, y_test)[0]
    fits[H] = p, test
    print(f"{H:2} hidden units, {theta.size:2} parameters: mean squared error {loss:.4f} in training, {test:.4f} on new data")

# %% [markdown]
# The error on new data falls with the number of units, towards σ² = 0.01 and no further. The error in training is lower than
# that only where the rows happen to have less noise, or where the fit follows some of it: that is what new data are for. (The
# mean squared noise of 500 rows, printed above, itself scatters by σ² √(2/500) = 0.0006 around σ².)
#
# ## Why any function
#
# A steep tanh is a step; the difference of two steps is a bump; narrow bumps side by side, each with its own height, come as
# close as wanted to a continuous function on an interval. That is the idea behind the theorem. It does not say how many units
# are needed, nor that training finds them.
#
# ## The picture
#
# Left: the fits. Middle: what each of the five units contributes; the fit is their sum. Right: the error on new data.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.9), layout="constrained", width_ratios=[1.3, 1.3, 1])
line = np.linspace(-2, 2, 400)[:, None]
colours = {2: "#ccbb44", 5: "#ee6677", 20: "#4477aa"}
left.plot(x_train, y_train, ".", color="0.8", ms=3, label="training data")
left.plot(line, F(line), "--", color="#222222", lw=1.2, label="F")
for H, (p, _) in fits.items():
    h, _ = dense_forward(line, p["W1"], p["b1"], "tanh")
    left.plot(line, h @ p["W2"] + p["b2"], color=colours[H], label=f"{H} units")
    if H == 5:
        middle.plot(line, h * p["W2"][:, 0], color="0.55", lw=1)
        middle.plot(line, h @ p["W2"] + p["b2"], color=colours[5], lw=2, label="their sum with b2")
        middle.plot([], [], color="0.55", lw=1, label="the 5 units, h W2")
left.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
left.set(xlabel="x", ylabel="y", ylim=(-1.8, 3.4), title="fits with 2, 5 and 20 hidden units")
middle.legend(frameon=False, fontsize=8, loc="upper right")
middle.set(xlabel="x", ylim=(-4, 4.8), title="how five units make a curve")
right.semilogy([str(H) for H in fits], [test for _, test in fits.values()], "o-", color="#33608f")
right.axhline(sigma**2, color="#c8394b", ls="--", lw=1)
right.text(0, 1.12 * sigma**2, "σ², the noise", color="#c8394b")
right.set(xlabel="hidden units", ylabel="mean squared error on new data", ylim=(7e-3, 1), title="no fit beats the noise")
keep(figure, "05_a_network_fits_a_function")

# %% [markdown]
# **Now:** exercise 7, `python examples/learn/check.py 7`.

# %%
predicted, measured = sigma**2, fits[20][1]
assert predicted * 0.95 < measured < predicted * 1.2
assert fits[2][1] > 5 * predicted
print(f"predicted {predicted:.4f}, measured {measured:.4f}")
