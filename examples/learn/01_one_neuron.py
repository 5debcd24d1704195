# %% [markdown]
# # 01 One neuron and the chain rule
#
# **Why.** Backpropagation is the chain rule, applied once to every arrow of a drawing. On a single neuron all of it fits on
# one picture: a value on every arrow, and below it a gradient. All later lessons do the same with arrays.
#
# **Read before.** Nothing. You need the derivative of a product and the chain rule for one variable. Lectures (2024), "Setting
# up the basic equations for neural networks", in the notes that examples/README.md names.
#
# **Prediction.** The numbers are chosen so that everything comes out as a fraction, and the gradient of the first weight can
# be worked out by hand. The prediction is dw1 = −3/64 · 2 + 1/32 = **−1/16 = −0.0625**. What is measured does not use the
# chain rule: the weight is moved a little and the loss is computed again.

# %%
import matplotlib.pyplot as plt
import numpy as np
from showing import keep

# %% [markdown]
# ## Forward: one operation a line
#
# A neuron weighs its inputs, adds a bias, and sends the sum through the logistic function σ(pre) = 1/(1 + e^−pre):
#
#     pre = w1 x1 + w2 x2 + b,    h = σ(pre).
#
# Its output h should be the target 1. We measure the misfit by ½ (h − target)², and add a small penalty ½ decay w1² that keeps
# the first weight small. The sum is the loss. Each line below is one operation with a name for its result: an *atom*.
#
# With b = log 3 the neuron is at pre = log 3, where σ = 1/(1 + 1/3) = 3/4.

# %%
x1, x2, target = 2.0, 1.0, 1.0  # the datum
w1, w2, b = 0.5, -1.0, np.log(3)  # the parameters
decay = 1 / 16

p1 = w1 * x1
p2 = w2 * x2
pre = p1 + p2 + b
h = 1 / (1 + np.exp(-pre))
error = h - target
fit = 0.5 * error**2
penalty = 0.5 * decay * w1**2
loss = fit + penalty
print(f"pre {pre:.4f}  h {h:.4f}  error {error:.4f}  fit {fit:.5f} + penalty {penalty:.5f} = loss {loss:.5f}")

# %% [markdown]
# ## Backward: the same lines in reverse
#
# Write `dh` for the derivative of the loss with respect to h, and so on for every name. Begin with dloss = 1. Then take the
# lines of the forward pass from the last to the first. Each asks the same question: *the gradient of my output is known; what
# is the gradient of my input?* The answer is the chain rule, with only the derivative of this one line in it:
#
#     d(input) = d(output) · ∂output/∂input.
#
# * A **sum** hands the gradient on unchanged, to each of its terms.
# * A **product** multiplies the gradient by the other factor.
# * A **function of one number** multiplies it by its slope. For the logistic function with u = e^−pre, h = 1/(1 + u), so the
#   slope is u/(1 + u)² = h · u/(1 + u) = h (1 − h).
#
# No line needs to know the rest of the network. Behind each line stands the forward line that it differentiates.

# %%
dloss = 1.0
dfit = dloss  # loss = fit + penalty
dpenalty = dloss  # loss = fit + penalty
derror = dfit * error  # fit = 0.5 * error**2
dh = derror  # error = h - target
dpre = dh * h * (1 - h)  # h = 1 / (1 + np.exp(-pre)), (SIGMOID)
dp1 = dpre  # pre = p1 + p2 + b
dp2 = dpre  # pre = p1 + p2 + b
db = dpre  # pre = p1 + p2 + b
dw2 = dp2 * x2  # p2 = w2 * x2
dw1_fit = dp1 * x1  # p1 = w1 * x1
dw1_penalty = dpenalty * decay * w1  # penalty = 0.5 * decay * w1**2

# %% [markdown]
# ## Two ways to the loss: add
#
# Two lines above use w1: the product p1 and the penalty. A change of w1 reaches the loss along both ways, and to first order
# the two effects add. So do the gradients. This is the second rule of backpropagation: where a value is used twice, two
# gradients are added. Between the ops of a VAE it is needed at one place: mu and logvar reach the loss through the sample z and
# through the KL. Inside of an op it is needed as well: a weight is used by every row of the batch (lesson 02).

# %%
dw1 = dw1_fit + dw1_penalty
print(f"dw1 = {dw1_fit:.5f} (fit) + {dw1_penalty:.5f} (penalty) = {dw1:.5f}")
print(f"dw2 = {dw2:.5f}, db = {db:.5f}")

# %% [markdown]
# By hand: error = 3/4 − 1 = −1/4. The slope is 3/4 · 1/4 = 3/16, so dpre = −3/64. The first way gives −3/64 · 2 = −3/32, the
# second 1/16 · 1/2 = 1/32. Their sum is −2/32 = −1/16.
#
# The gradient of a neuron factorises: dw1 = dpre x1 and dw2 = dpre x2 share dpre, and each weight adds only its own input. A
# weight whose input is zero has the gradient zero. A neuron that is saturated (h near 0 or 1) hardly moves any of its weights,
# because its slope h (1 − h) is close to 0.

# %% [markdown]
# ## Judge it: move a weight and look
#
# The derivative is what the loss does when a weight moves. So compute the whole loss at w1 + 10⁻⁵ and at w1 − 10⁻⁵ and divide
# the difference by the distance, 2 · 10⁻⁵. This needs the forward pass only. (How good such a check can be is lesson 04.)


# %%
def loss_at(w1, w2, b):
    h = 1 / (1 + np.exp(-(w1 * x1 + w2 * x2 + b)))
    return 0.5 * (h - target) ** 2 + 0.5 * decay * w1**2


step = 1e-5
measured = (loss_at(w1 + step, w2, b) - loss_at(w1 - step, w2, b)) / (2 * step)
measured_w2 = (loss_at(w1, w2 + step, b) - loss_at(w1, w2 - step, b)) / (2 * step)
measured_b = (loss_at(w1, w2, b + step) - loss_at(w1, w2, b - step)) / (2 * step)
print(f"measured: dw1 {measured:.5f}, dw2 {measured_w2:.5f}, db {measured_b:.5f}")
assert np.allclose([dw1, dw2, db], [measured, measured_w2, measured_b], rtol=0, atol=1e-9)

# %% [markdown]
# ## Use it: one step downhill
#
# A small step against the gradient, w ← w − rate dw, changes the loss by −rate (dw1² + dw2² + db²) to first order.

# %%
rate = 0.1
lower = loss_at(w1 - rate * dw1, w2 - rate * dw2, b - rate * db)
print(f"a step of rate {rate} changes the loss by {lower - loss:.6f}; expected {-rate * (dw1**2 + dw2**2 + db**2):.6f}")

# %% [markdown]
# ## The picture
#
# Forward from left to right in blue, backward from right to left in red. Follow the red numbers from dloss = 1: each is the
# red number to its right times one slope. At w1 two red arrows arrive.

# %%
BLUE, RED = "#33608f", "#c8394b"
places = {  # name: (x, y, what is written in the node)
    "w1": (0.0, 3.6, "$w_1$"), "x1": (0.0, 2.1, "$x_1$"), "w2": (0.0, 0.6, "$w_2$"), "x2": (0.0, -0.9, "$x_2$"),
    "b": (3.0, -2.0, "$b$"), "p1": (3.0, 2.5, "×"), "p2": (3.0, 0.2, "×"), "pre": (6.0, 1.3, "+"), "h": (8.4, 1.3, "σ"),
    "error": (10.8, 1.3, "− 1"), "fit": (13.4, 1.3, "½ ( )²"), "penalty": (7.6, 4.6, "½ decay ( )²"), "loss": (15.4, 3.3, "+"),
    "end": (18.0, 3.3, "loss"),
}  # fmt: skip
arrows = [  # from, to, its value, its gradient (none for data, which are not trained)
    ("w1", "p1", w1, dw1_fit), ("x1", "p1", x1, None), ("w2", "p2", w2, dw2), ("x2", "p2", x2, None), ("b", "pre", b, db),
    ("p1", "pre", p1, dp1), ("p2", "pre", p2, dp2), ("pre", "h", pre, dpre), ("h", "error", h, dh),
    ("error", "fit", error, derror), ("fit", "loss", fit, dfit), ("w1", "penalty", w1, dw1_penalty),
    ("penalty", "loss", penalty, dpenalty), ("loss", "end", loss, dloss),
]  # fmt: skip

figure, axes = plt.subplots(figsize=(11.5, 5.6), layout="constrained")
for start, stop, value, gradient in arrows:
    (x_start, y_start, _), (x_stop, y_stop, _) = places[start], places[stop]
    axes.annotate("", (x_stop, y_stop), (x_start, y_start), zorder=1,
                  arrowprops={"arrowstyle": "-|>", "color": "0.6", "shrinkA": 17, "shrinkB": 19})  # fmt: skip
    middle = 0.5 * (x_start + x_stop), 0.5 * (y_start + y_stop)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    axes.text(middle[0], middle[1] + 0.06, f"{value:.4g}", color=BLUE, ha="center", va="bottom", bbox=box, fontsize=11)
    if gradient is not None:
        axes.text(middle[0], middle[1] - 0.06, f"{gradient:.4g}", color=RED, ha="center", va="top", bbox=box, fontsize=11)
for name, (x_node, y_node, text) in places.items():
    leaf = name in ("w1", "x1", "w2", "x2", "b", "end")
    shape = "round,pad=0.35" if leaf else "round4,pad=0.45"
    axes.text(x_node, y_node, text, ha="center", va="center", fontsize=12, zorder=3,
              bbox={"boxstyle": shape, "facecolor": "#f3efe2" if leaf else "white", "edgecolor": "0.4"})  # fmt: skip
two_ways = f"two ways, added:\n$dw_1$ = {dw1_fit:.5f} + {dw1_penalty:.5f}\n= {dw1:.4f}"
axes.text(0.7, 4.3, two_ways, color=RED, ha="center", fontsize=11)
axes.text(18.3, -0.9, "value, forward →", color=BLUE, ha="right", fontsize=12)
axes.text(18.3, -1.5, "← gradient of the loss, backward", color=RED, ha="right", fontsize=12)
axes.set(xlim=(-0.9, 18.8), ylim=(-2.5, 5.6))
axes.axis("off")
axes.set_title("One neuron: the value of every arrow, and the gradient of the loss with respect to it")
keep(figure, "01_one_neuron")

# %% [markdown]
# **Now:** exercise 1, `python examples/learn/check.py 1`.

# %%
predicted = -1 / 16
assert abs(dw1 - predicted) < 1e-15
assert abs(measured - predicted) < 1e-9
print(f"predicted {predicted:.4f}, measured {measured:.4f}")
