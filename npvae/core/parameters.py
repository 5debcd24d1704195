"""The flat parameter vector: names, shapes, views, initial values."""

import math

import numpy as np

from npvae.core import checks

DTYPES = ("float32", "float64", "complex128")


def check_dtype(dtype):
    """`dtype` (a name or a NumPy dtype) as one of the three that a model can have, else ValueError."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = dtype
    checks.choice("dtype", name, DTYPES)
    return np.dtype(name)


def dense_shapes(layers):
    """Names and shapes of the parameters of dense layers, in the order of theta: W (n_in, n_out) and b (n_out,) of each layer
    in `layers`, name -> (n_in, n_out)."""
    shapes = {}
    for name, (n_in, n_out) in layers.items():
        shapes[f"{name}.W"], shapes[f"{name}.b"] = (n_in, n_out), (n_out,)
    return shapes


def size_of(shapes):
    """How many numbers the parameters are."""
    return sum(math.prod(shape) for shape in shapes.values())


def views_of(flat, shapes):
    """A dict of views into a flat vector, one per name, in order."""
    views, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        views[name] = flat[start:stop].reshape(shape)
        start = stop
    return views


class Parameters(dict):
    """name -> view of one flat vector `flat` (P,), in order: what is trained, as a model's `parameters`.

    Assignment copies into the view, names stay what they are, and copies (copy, deepcopy, pickle) are built anew: whatever is
    done, names and vector are one memory.
    """

    def __init__(self, shapes, dtype):
        self.shapes = dict(shapes)
        self.flat = zeros((size_of(self.shapes),), dtype)
        super().__init__(views_of(self.flat, self.shapes))

    def __setitem__(self, name, value):
        """Copy value into the view; KeyError for a name that is not there."""
        self[name][...] = checks.plain_array(name, value)

    def update(self, *names_and_values, **others):
        """Assign several, as above."""
        for name, value in dict(*names_and_values, **others).items():
            self[name] = value

    def __ior__(self, values):
        self.update(values)
        return self

    def setdefault(self, name, default=None):
        """The view; KeyError for a name that is not there, which cannot be added."""
        return self[name]

    def _kept(self, *_):
        """TypeError: names cannot be removed."""
        raise TypeError(f"parameters cannot be removed: the model has {', '.join(self)}")

    __delitem__ = pop = popitem = clear = _kept

    def __reduce__(self):
        return _rebuilt, (self.shapes, self.flat.dtype, self.flat.copy())

    def __deepcopy__(self, memo):
        twin = _rebuilt(self.shapes, self.flat.dtype, self.flat)
        memo[id(self.flat)] = twin.flat  # what else in a deep copy refers to the vector or a view, refers to the twin's
        memo.update((id(view), twin[name]) for name, view in self.items())
        return twin

    def copy(self):
        """Parameters of the same values in memory of their own."""
        return self.__deepcopy__({})


def _rebuilt(shapes, dtype, flat):
    parameters = Parameters(shapes, dtype)
    parameters.flat[:] = flat
    return parameters


class Theta:
    """The attribute `theta` of a model: its parameters' flat vector. Assignment copies into it, so that the views stay."""

    def __get__(self, model, owner=None):
        if model is None:
            return self
        try:
            return model.parameters.flat
        except AttributeError:
            if not hasattr(model, "parameters"):
                raise
            raise TypeError(f"parameters of a model are views of theta, not a {type(model.parameters).__name__}: to assign "
                            "values use model.parameters.update(...)") from None  # fmt: skip

    def __set__(self, model, values):
        self.__get__(model)[:] = checks.plain_array("theta", values)


def zeros(shape, dtype, place=0):
    """Zeros whose first element lies on a cache line, at a quarter of a memory page of its own for each `place` 0 to 3.

    Vectors that are read side by side, as an optimiser does, want both: a processor's vector loads cross no cache line, and
    it does not mistake equal places in a page for the same memory. 3 % of a step; no result depends on it.
    """
    page, dtype = 4096, np.dtype(dtype)
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.zeros(n_bytes + 2 * page, np.uint8)
    start = -memory.ctypes.data % page + place * page // 4
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def glorot_uniform(parameters, rng):
    """Set every W to U(−a, a) with a = √(6/(n_in + n_out)) and leave each b as it is. Glorot & Bengio 2010, equation 16."""
    for value in parameters.values():
        if value.ndim == 2:
            bound = math.sqrt(6 / sum(value.shape))
            value[:] = rng.uniform(-bound, bound, value.shape)


def he_normal(parameters, rng):
    """Set every W to N(0, 2/n_in), made for rectifiers, and leave each b as it is. He et al. 2015, equation 10."""
    for value in parameters.values():
        if value.ndim == 2:
            value[:] = math.sqrt(2 / len(value)) * rng.standard_normal(value.shape)


INITIALIZATIONS = {"glorot": glorot_uniform, "he": he_normal}
