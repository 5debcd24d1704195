"""A pair as a scalar function, and a scalar function of dicts or lists as one of a flat vector, for checks that want these."""

import inspect
from copy import deepcopy

import numpy as np

from hand_written import Scalar


def contracted(pair):
    """The scalar function Σ weights·out of a pair's arguments, as a Scalar of a dict."""
    args = list(pair.args)
    names = list(inspect.signature(pair.forward).parameters)
    names = names[: len(args)] if len(names) >= len(args) else [f"arg{p}" for p in range(len(args))]
    positions = differentiated(args, names, pair.options.get("wrt"))
    out, cache = pair.forward(*args)
    outs = [np.asarray(part) for part in (out if isinstance(out, tuple) else (out,))]
    rng = np.random.default_rng([20, 14, 7])
    weights = [rng.uniform(0.5, 1.5, o.shape) * rng.choice([-1, 1], o.shape) if o.dtype.kind == "f" else None for o in outs]
    grads = pair.backward(*[np.array(w) for w in weights if w is not None], cache)
    grads = grads if isinstance(grads, (tuple, list)) else (grads,)
    kept = {names[p]: deepcopy(grad) for p, grad in zip(positions, grads) if grad is not None}

    def f(theta):
        given = [theta.get(name, arg) for name, arg in zip(names, args)]
        out, _ = pair.forward(*given)
        return sum((w * part).sum() for w, part in zip(weights, out if isinstance(out, tuple) else (out,)) if w is not None)

    options = {key: value for key, value in pair.options.items() if key != "wrt"}
    return Scalar(f, {names[p]: args[p] for p in positions if names[p] in kept}, kept, options)


def differentiated(args, names, wrt):
    """The positions of the arguments that backward gives gradients of."""
    if wrt is not None:
        return [names.index(p) if isinstance(p, str) else p for p in ([wrt] if isinstance(wrt, (str, int)) else wrt)]
    arrays = [p for p, arg in enumerate(args) if all(isinstance(leaf, np.ndarray) for leaf in leaves(arg))]
    return [p for p in arrays if all(leaf.dtype.kind == "f" for leaf in leaves(args[p]))] or arrays


def flattened(scalar):
    """f, theta and gradient of a Scalar with one flat float64 vector for dicts and lists, the loss a float."""
    pieces = [np.asarray(leaf) for leaf in leaves(scalar.theta)]
    sizes = np.cumsum([piece.size for piece in pieces])[:-1]
    theta = np.concatenate([piece.ravel() for piece in pieces]).astype(np.float64)
    if [np.shape(leaf) for leaf in leaves(scalar.grad)] != [piece.shape for piece in pieces]:
        raise ValueError("the gradient's shapes are not those of theta")
    grad = np.concatenate([np.ravel(leaf) for leaf in leaves(scalar.grad)]).astype(np.float64)

    def f(vector):
        parts = iter([part.reshape(piece.shape) for part, piece in zip(np.split(vector.copy(), sizes), pieces)])
        value = scalar.f(like(scalar.theta, parts))
        return float(np.squeeze(value[0] if isinstance(value, tuple) else value))

    return f, theta, grad


def leaves(tree):
    """The arrays of nested dicts, lists and tuples, in order."""
    if isinstance(tree, (dict, list, tuple)):
        return [leaf for branch in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(branch)]
    return [tree]


def like(tree, parts):
    """The next arrays of the iterator `parts` in the place of tree's."""
    if isinstance(tree, dict):
        return {key: like(branch, parts) for key, branch in tree.items()}
    return type(tree)(like(branch, parts) for branch in tree) if isinstance(tree, (list, tuple)) else next(parts)
