# %% [markdown]
# # 03 Activations, their slopes and their kinks
#
# **Why.** Without a curved function between them, two affine maps are one affine map. The activation is that function. Its
# slope multiplies every gradient that flows back through the layer, so the slope decides whether a deep network learns at all.
# And one of the activations, relu, has a kink: a point without a slope. What a program does there is a decision.
#
# **Read before.** Lessons 01 and 02; `npvae/ops/layers.py` from `relu_forward` on. Lectures (2024), "Overarching view of a
# neural network", in the notes that examples/README.md names.
#
# **Prediction.** A difference quotient with the step δ goes wrong at relu where the kink lies between its two points, that is
# for |pre| < δ. If pre is N(0, 1), a share of about 2 δ φ(0) = 2 · 0.01/√(2π) = **0.0080** of all entries does, for δ = 0.01.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

from npvae.ops.layers import ACTIVATIONS

# %% [markdown]
# ## Five pairs
#
# An activation acts on each number by itself, h = f(pre). Then the chain rule is a product, number by number:
#
#     dpre = dh f'(pre).
#
# The slopes, derived in the docstrings of the package:
#
#     (RELU)      h = max(pre, 0)          h' = 1 for pre > 0, else 0
#     (TANH)      h = tanh(pre)            h' = 1 − h²
#     (SIGMOID)   h = 1/(1 + e^−pre)       h' = σ(pre) σ(−pre)
#     (SOFTPLUS)  h = log(1 + e^pre)       h' = σ(pre): softplus is a smooth relu, and σ a smooth jump
#     (SILU)      h = pre σ(pre)           h' = σ(pre) + h σ(−pre)
#
# relu, tanh and sigmoid can do with their own output h alone (relu: is h > 0?). A network that keeps h for the next layer then
# need not keep pre.
#
# Judge all five: Im f(pre + i 10⁻²⁰)/10⁻²⁰ is the slope to rounding (the complex step, lesson 04).

# %%
names = ["relu", "tanh", "sigmoid", "softplus", "silu"]
pre = np.linspace(-4, 4, 200)  # an even number of points: none of them is 0
values, slopes = {}, {}
for name in names:
    forward, backward = ACTIVATIONS[name]
    values[name], cache = forward(pre)
    slopes[name] = backward(np.ones_like(pre), cache)  # dh = 1, so that dpre is the slope
    by_complex_step = forward(pre + 1e-20j)[0].imag / 1e-20
    difference = np.abs(slopes[name] - by_complex_step).max()
    print(f"{name:8s} largest slope {slopes[name].max():.3f}, differs from the complex step by {difference:.0e}")
    assert difference < 1e-14

# %% [markdown]
# ## Saturation
#
# The slope of σ is largest at pre = 0, where it is ½ · ½ = 1/4. Each sigmoid layer therefore multiplies the gradient by at
# most 1/4, apart from what its weights do. Ten layers, at best: 4⁻¹⁰ = 9.5 · 10⁻⁷. This is the vanishing gradient (Hochreiter
# 1991). The slope of tanh at 0 is 1, and that of relu is 1 wherever the unit is on, which is why these are used inside of
# networks.

# %%
print(f"\nten sigmoid layers let through at most {0.25**10:.1e} of a gradient")
for at in 0.0, 2.0, 5.0, 40.0:
    slope = {name: float(ACTIVATIONS[name][1](np.ones(1), ACTIVATIONS[name][0](np.array([at]))[1])[0]) for name in names}
    print(f"slope at pre = {at:4.0f}: " + "  ".join(f"{name} {value:.1e}" for name, value in slope.items()))

# %% [markdown]
# At pre = 40 the sigmoid's slope is 4 · 10⁻¹⁸, tiny but not zero. Written as h (1 − h) it would be exactly 0, because
# h = 1 − 4 · 10⁻¹⁸ rounds to 1. The package keeps σ(−pre) from the forward pass instead: same mathematics, all digits. (tanh
# shows the rounding: its slope 1 − h² at 40 is 0 in the table, and the truth is 7 · 10⁻³⁵.)

# %%
h = 1 / (1 + np.exp(-40.0))
print(f"\nslope of the sigmoid at 40: h (1 - h) = {h * (1 - h):.1e}, sigma(pre) sigma(-pre) = {h / (1 + np.exp(40.0)):.1e}")
assert h * (1 - h) == 0.0

# %% [markdown]
# ## The kink
#
# At pre = 0, relu has the slope 0 to the left and 1 to the right. No number is *the* slope. Every number between 0 and 1 is a
# subgradient: a line through the kink with this slope stays below the function. The package takes 0. What does a difference
# say?
#
# The central difference is (f(pre + δ) − f(pre − δ))/2δ. For |pre| < δ one of its two points is on each side of the kink, and
# it gives (pre + δ)/2δ: a ramp from 0 to 1, with ½ at the kink itself. A small δ makes the ramp narrower, but at the kink ½
# remains.

# %%
relu_forward, relu_backward = ACTIVATIONS["relu"]


def central_difference(pre, step):
    return (relu_forward(pre + step)[0] - relu_forward(pre - step)[0]) / (2 * step)


for step in 1e-1, 1e-3, 1e-5:
    print(f"at the kink: central difference with step {step:.0e} gives {central_difference(np.zeros(1), step)[0]:.3f}")
print(f"at the kink: relu_backward gives {relu_backward(np.ones(1), relu_forward(np.zeros(1))[1])[0]:.3f}")
print(f"at the kink: the complex step gives {relu_forward(np.zeros(1) + 1e-20j)[0].imag[0] / 1e-20:.3f}")

# %% [markdown]
# So a gradient check by differences reports errors at kinks where the code is right. How often? As often as |pre| < δ. For a
# standard normal pre of density φ this is about 2 δ φ(0). The complex step never moves the real part, so it stays on its side
# of the kink.
#
# We count on 200 000 numbers. The standard error of the share is √(share/n) = 0.0002.

# %%
n, step = 200_000, 0.01
pre_sample = np.random.default_rng(0).standard_normal(n)
by_backward = relu_backward(np.ones(n), relu_forward(pre_sample)[1])
wrong = np.abs(central_difference(pre_sample, step) - by_backward) > 1e-6
wrong_complex = np.abs(relu_forward(pre_sample + 1e-20j)[0].imag / 1e-20 - by_backward) > 1e-6
print(f"\ncontradict relu_backward, of {n} entries: central difference {wrong.sum()}, complex step {wrong_complex.sum()}")
assert wrong_complex.sum() == 0

# %% [markdown]
# ## The picture
#
# Functions, slopes, and what differences make of relu's slope.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
colours = dict(zip(names, ["#222222", "#4477aa", "#228833", "#ee6677", "#aa3377"]))
for name in names:
    left.plot(pre, values[name], color=colours[name], label=name)
    middle.plot(pre, slopes[name], color=colours[name])
left.legend(frameon=False)
left.set(xlabel="pre", ylabel="h", ylim=(-1.2, 3), title="the activations")
middle.axhline(0.25, color="0.6", lw=0.8, ls=":")
middle.text(-3.9, 0.27, "¼", color="0.4")
middle.set(xlabel="pre", ylabel="dh/dpre", title="their slopes")
near = np.linspace(-0.25, 0.25, 1001)
for delta, colour in (0.2, "#ccbb44"), (0.1, "#ee6677"), (0.01, "#4477aa"):
    right.plot(near, central_difference(near, delta), color=colour, label=f"difference, δ = {delta:g}")
right.plot(near, np.where(near > 0, 1, 0), color="#222222", lw=1, ls="--", label="relu_backward")
right.plot(0, 0.5, "o", color="#c8394b", ms=6)
right.annotate("½ for every δ", (0, 0.5), (0.07, 0.42), color="#c8394b")
right.legend(frameon=False, fontsize=8, loc="upper left")
right.set(xlabel="pre", ylabel="slope of relu", ylim=(-0.05, 1.35), title="relu's kink, seen by differences")
keep(figure, "03_activations")

# %% [markdown]
# **Now:** exercises 3 to 6, `python examples/learn/check.py 3`.

# %%
predicted, measured = 2 * step / np.sqrt(2 * np.pi), wrong.mean()
assert abs(measured - predicted) < 5 * np.sqrt(predicted / n)
print(f"predicted {predicted:.4f}, measured {measured:.4f}")
