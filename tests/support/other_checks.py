"""Other people's checks of gradients, with the tolerances that they publish.

Each takes f, a scalar function of one float64 vector, the vector theta, and grad, its gradient there. It returns a verdict,
"passed", "rejected" or "inconclusive", and what it is based on.
"""

import importlib.util

import numpy as np


def scipy_check_grad(f, theta, grad):
    """scipy.optimize.check_grad: the 2-norm of grad minus forward differences. SciPy leaves the verdict to the reader.

    Its own tests take what is 0 to seven decimals for right: assert_almost_equal(check_grad(...), 0), which is < 1.5e-7
    (scipy/optimize/tests/test_optimize.py, test_check_grad).
    """
    from scipy.optimize import check_grad

    error = check_grad(f, lambda x: grad, theta)
    return ("passed" if error < 1.5e-7 else "rejected"), f"{error:.1e}"


def cs231n(f, theta, grad):
    """The rule of the cs231n notes: |fa − fn| / max(|fa|, |fn|) of the worst entry, fn by central differences, h = 1e-5.

    "relative error > 1e-2 usually means the gradient is probably wrong", "1e-7 and less you should be happy": what lies
    between is left to judgement (https://cs231n.github.io/neural-networks-3/#gradcheck).
    """
    h, worst = 1e-5, 0.0
    for k in range(theta.size):
        step = np.zeros_like(theta)
        step[k] = h
        numeric = (f(theta + step) - f(theta - step)) / (2 * h)
        largest = max(abs(grad[k]), abs(numeric))
        worst = np.maximum(worst, abs(grad[k] - numeric) / largest if largest != 0 else 0.0)
    return ("passed" if worst <= 1e-7 else "inconclusive" if worst <= 1e-2 else "rejected"), f"{worst:.1e}"


def jax_check_vjp(f, theta, grad):
    """The rule of jax.test_util.check_grads, mode "rev", in float64: one random direction v, central difference, eps = 1e-4.

    |c g·v − c difference| <= 1e-5 + 1e-5 |c difference| with a random c (jax/_src/public_test_util.py: check_vjp, EPS = 1e-4,
    default_gradient_tolerance[float64] = 1e-5, RandomState(0)). It is written out here, so that it applies to NumPy code.
    """
    rng = np.random.RandomState(0)
    v, c = rng.randn(theta.size), rng.randn()
    expected = c * (f(theta + 1e-4 * v) - f(theta - 1e-4 * v)) * (0.5 / 1e-4)
    found = c * (grad @ v)
    return ("passed" if abs(found - expected) <= 1e-5 + 1e-5 * abs(expected) else "rejected"), f"{found:.8g}, {expected:.8g}"


def torch_gradcheck(f, theta, grad):
    """torch.autograd.gradcheck itself with its defaults (eps 1e-6, atol 1e-5, rtol 1e-3), on an autograd.Function around f."""
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.tensor(f(x.detach().numpy().copy()), dtype=torch.float64)

        @staticmethod
        def backward(ctx, dout):
            return dout * torch.from_numpy(grad)

    x = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    return ("passed" if torch.autograd.gradcheck(Function.apply, (x,), raise_exception=False) else "rejected"), ""


CHECKS = {
    "scipy.optimize.check_grad": scipy_check_grad,
    "rule of cs231n": cs231n,
    "jax.test_util.check_grads": jax_check_vjp,
    "torch.autograd.gradcheck": torch_gradcheck if importlib.util.find_spec("torch") else None,
}
SIGHT = {  # the relative tolerances above; SciPy's is absolute
    "scipy.optimize.check_grad": 1e-7,
    "rule of cs231n": 1e-7,
    "jax.test_util.check_grads": 1e-5,
    "torch.autograd.gradcheck": 1e-3,
}
NOTES = """\
The others get what they ask for: a scalar function of one flat float64 vector. SciPy's check_grad returns a number, of which
SciPy's own tests ask that it is below 1.5e-7. The rule of cs231n calls a relative error above 1e-2 wrong and one below 1e-7
right; between the two stands *inconclusive*. Of JAX the rule of check_vjp in float64 is written out for NumPy code. PyTorch's
gradcheck is run itself, with its defaults. Where no check can know, those without a third verdict can only say *wrong*. The
`threshold=` that some cases ask of npvae, because a guard is meant, the others are not given. The sources of the tolerances
are in [other_checks.py](other_checks.py)."""
