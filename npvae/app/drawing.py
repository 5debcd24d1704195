"""What the pictures are made of: colours, grey images side by side, points coloured by label. Shapes: n rows, D data."""

import math

import numpy as np
from matplotlib import colormaps

TRAIN, VAL = "#4477aa", "#ee6677"
FRAME = "#a9bcd0"  # around and between images
GREY = colormaps["gray"].with_extremes(bad=FRAME)
MAX_LEGEND_LABELS = 10  # more distinct labels than this get a colour bar
LONGEST = 12  # times the other side, of an image that is shown with square pixels


def coloured_scatter(figure, axes, x, y, labels, label_name):
    """Points coloured by label: a legend for a few distinct whole numbers, a colour bar for quantities."""
    style = {"s": 6, "lw": 0, "alpha": 0.8}
    if labels is None:
        axes.scatter(x, y, color=TRAIN, **style)
        return
    distinct = np.unique(labels)
    if len(distinct) <= MAX_LEGEND_LABELS and labels.dtype.kind in "iub":
        for i, label in enumerate(distinct):
            points = labels == label
            axes.scatter(x[points], y[points], color=colormaps["tab10"](i), label=str(label), **style)
        axes.legend(title=label_name, frameon=False, markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        points = axes.scatter(x, y, c=labels, cmap="viridis", **style)
        figure.colorbar(points, ax=axes, label=label_name).solids.set_alpha(1)


def tile(images, image_shape, columns, gap=1):
    """Images (n, D) side by side in one array, `gap` pixels of NaN (drawn in FRAME) between them."""
    rows = math.ceil(len(images) / columns)
    height, width = image_shape[0] + gap, image_shape[1] + gap
    canvas = np.full((rows * height - gap, columns * width - gap), np.nan)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        canvas[top : top + image_shape[0], left : left + image_shape[1]] = image.reshape(image_shape)
    return canvas


def show_image(axes, image, low, high):
    """A grey image in a thin frame, so that white ones show on white paper, its first row at the top. Its pixels are square,
    unless it is so long that nothing of it would be seen."""
    aspect = "equal" if 1 / LONGEST <= image.shape[0] / image.shape[1] <= LONGEST else "auto"
    axes.imshow(image, cmap=GREY, vmin=low, vmax=high, interpolation="nearest", origin="upper", aspect=aspect)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FRAME)


def grey_range(x):
    """What is drawn black and white: 0 and 1 for values within them, else the extremes."""
    low, high = float(np.min(x)), float(np.max(x))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
