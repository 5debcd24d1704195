"""The picture of backpropagation: the ops of a model from top to bottom, what flows down, and the gradients that flow back up.

`npvae.app.recording` runs the model, `npvae.app.op_graph` says where boxes and arrows stand, and here they are drawn.
"""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from npvae.app import op_graph
from npvae.app.op_graph import BOX_WIDTH, CELL_HEIGHT, CELL_WIDTH, LINE, MARGIN
from npvae.app.recording import record

FOOT, HEAD = 0.65, 0.62  # heights of the colour bar, and of the title
FONT_SIZE = 7.5
NOTE_LENGTH = 36  # characters that fit into a box; longer notes are written smaller
INK, FRAME, BOX = "0.35", "#8899aa", "#eef2f7"
COLOURS = ListedColormap(colormaps["YlOrRd"](np.linspace(0.15, 1, 256)))  # without the palest


def backward_flow(model, x, noise=None, **settings):
    """One forward and one backward pass of any model that `npvae.fit` trains, its ops as boxes from top to bottom: a Figure.

    x is the batch, (B, D), or a tuple for a model with several inputs or none; noise as the model's `draw` gives it (by default
    drawn with the seed 0); settings as for its `forward`. Beside each arrow stand the name, the shape and the root mean square
    of what flows down it, and the root mean square of the gradient that flows back; beside each box the same of its parameters.
    Colours show the size of gradients. Where several ops read an array, the gradients that they return are added: a plus.

    It runs on a copy: the model stays as it is. The ops are the forward/backward pairs that the model calls, those of npvae or
    others that are named and written like them; a model that calls none is drawn by its parameters alone. ValueError for what
    the model cannot use.
    """
    recorded = record(model, x, noise, **settings)
    nodes, edges = op_graph.graph_of(recorded, type(model).__name__)
    width, depth = op_graph.arrange(nodes, edges)
    width, height = max(width, 6.0), depth + FOOT + HEAD
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, FOOT / height, 1, 1 - FOOT / height))
    axes.set(xlim=(0, width), ylim=(-depth, HEAD))
    axes.set_axis_off()
    shape = f", {recorded.given[0].name} {shape_of(recorded.given[0].value)}" if recorded.given else ""
    axes.text(MARGIN, 0.42, f"{type(model).__name__}: forward and backward{shape}", fontsize=10, va="center")
    note = "grey, down: values; coloured, up: gradients of the loss; each with its root mean square"
    axes.text(MARGIN, 0.17, note, fontsize=FONT_SIZE, color=INK, va="center")
    norm = colour_scale(figure, edges, recorded)
    for node in nodes:
        draw_node(axes, node, recorded, norm)
    for edge in sorted(edges, key=lambda edge: 0.0 if edge.gradient is None else rms(edge.gradient)):  # the largest on top
        draw_arrows(axes, edge, edges, norm)
    for node in nodes:
        draw_labels(axes, node, edges, norm)
    return figure


def rms(array):
    """The root mean square."""
    array = np.asarray(array, np.float64)
    return math.sqrt(np.mean(array * array)) if array.size else 0.0


def size_of(array):
    """The root mean square as it is written, in two digits or as a whole number."""
    size = rms(array)
    return f"{size:.0f}" if 100 <= size < 1e5 else f"{size:.2g}"


def shape_of(array):
    """A shape as it is written: (B, D), nothing for a number."""
    return str(np.shape(array)) if np.ndim(array) else ""


def colour_scale(figure, edges, recorded):
    """The colours of gradients over their decades, with a bar at the foot."""
    sizes = [rms(edge.gradient) for edge in edges if edge.gradient is not None] + [rms(g) for g in recorded.gradients.values()]
    sizes = [size for size in sizes if size > 0 and math.isfinite(size)] or [1.0]
    low, high = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes)))
    norm = LogNorm(10.0**low, 10.0 ** max(high, low + 1))
    width, height = figure.get_size_inches()
    bar = figure.add_axes((MARGIN / width, 0.42 / height, 4 / width, 0.13 / height))
    figure.colorbar(ScalarMappable(norm, COLOURS), cax=bar, orientation="horizontal")
    bar.set_xlabel("root mean square of the gradient (grey: zero)", fontsize=FONT_SIZE, labelpad=1)
    bar.tick_params(labelsize=FONT_SIZE)
    return norm


def colour_of(gradient, norm):
    """The colour of a gradient: grey where it is zero, not finite or not known."""
    size = 0.0 if gradient is None else rms(gradient)
    return COLOURS(norm(size)) if size > 0 and math.isfinite(size) else (0.8, 0.8, 0.8, 1.0)


def draw_gradient(axes, x, y, gradient, norm):
    """The root mean square of a gradient on its colour, the left end at x."""
    colour = colour_of(gradient, norm)
    text = "none" if gradient is None else size_of(gradient)
    dark = np.dot(colour[:3], (0.3, 0.59, 0.11)) < 0.45
    axes.text(x, y, text, fontsize=FONT_SIZE, va="center", color="white" if dark else "black",
              bbox={"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "none"})  # fmt: skip


def draw_node(axes, node, recorded, norm):
    """A box, and its parameters to the right of it."""
    middle = (node.top + node.bottom) / 2
    axes.add_patch(FancyBboxPatch((node.x + 0.03, node.bottom + 0.03), BOX_WIDTH - 0.06, node.height - 0.06,
                                  boxstyle="round,pad=0.03", facecolor=BOX, edgecolor=FRAME, lw=0.8))  # fmt: skip
    above = 0.085 if node.note else 0
    axes.text(node.x + 0.12, middle + above, node.title, fontsize=FONT_SIZE + 1.5, va="center", weight="bold")
    size = FONT_SIZE * min(1, NOTE_LENGTH / max(1, len(node.note)))
    axes.text(node.x + 0.12, middle - above, node.note, fontsize=size, va="center", color=INK)
    _, rows = op_graph.grid_of(node.parameters)
    for i, name in enumerate(node.parameters):
        x = node.x + BOX_WIDTH + 0.12 + CELL_WIDTH * (i // rows)
        y = middle + CELL_HEIGHT * ((rows - 1) / 2 - i % rows)
        value = recorded.parameters[name]
        own_name = name.rpartition(".")[2] if name == node.title else name.removeprefix(f"{node.title}.")
        label = f"{own_name}  {shape_of(value)}  {size_of(value)}"
        axes.text(x, y, label, fontsize=FONT_SIZE, va="center")
        draw_gradient(axes, x + CELL_WIDTH - 0.5, y, recorded.gradients[name], norm)


def draw_arrows(axes, edge, edges, norm):
    """Two lines: what flows down, and the gradient that flows up."""
    ways = [(op_graph.way_of(edge, edges, 0), INK, 1.0)]
    if edge.gradient is not None:
        ways.append((op_graph.way_of(edge, edges, 0.13)[::-1], colour_of(edge.gradient, norm), 2.0))
    for corners, colour, line_width in ways:
        axes.plot(*zip(*corners), color=colour, lw=line_width, zorder=0)
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": line_width, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", corners[-1], corners[-2], zorder=1, arrowprops=arrow)


def draw_labels(axes, node, edges, norm):
    """What stands beside the arrows that leave a node: first the sums of the gradients of outputs that several nodes read."""
    y = node.bottom - 0.03
    for edge in op_graph.shared_by(node, edges):
        y -= LINE
        axes.text(node.x + 0.33, y, "+", fontsize=FONT_SIZE + 1, va="center", ha="center", weight="bold",
                  bbox={"boxstyle": "circle,pad=0.1", "facecolor": "white", "edgecolor": "black", "lw": 0.8})  # fmt: skip
        axes.text(node.x + 0.5, y, f"d{edge.name}: gradients added", fontsize=FONT_SIZE, va="center")
        draw_gradient(axes, node.x + 2.25, y, edge.tensor.gradient, norm)
    row = [edge.source for edge in edges if edge.source.rank == node.rank]
    start = min((other.bottom - op_graph.way_out(other, edges) for other in row), default=0.0) - 0.03
    for edge in (edge for edge in edges if edge.source is node):
        y, value = start - LINE * edge.line, edge.tensor.value
        label = "  ".join(filter(None, (edge.name, shape_of(value), size_of(value))))
        axes.text(edge.x + 0.45, y, label, fontsize=FONT_SIZE, va="center")
        if edge.gradient is not None:
            axes.text(edge.x + 2.3, y, f"d{edge.name}", fontsize=FONT_SIZE, va="center", ha="right")
            draw_gradient(axes, edge.x + 2.35, y, edge.gradient, norm)
