"""Is a hand-written gradient right? Five independent checks, each with the accuracy that it really reaches.

    check_pair          a forward/backward pair, every entry of every argument, by the complex step   1e-12
    directional_check   a model of any size, along random directions, by the complex step             1e-13
    adjoint_test        a linear map and its transpose, <A v, w> = <v, Aᵀ w>                          1e-14, float32 1e-6
    taylor_test         the remainder of a right gradient falls as h²; no complex arithmetic          order 1.9
    fd_check            central differences, the classic; kinks of f are found and left out           1e-6

The complex step, Im f(x + ih e_k)/h with h = 1e-20, subtracts nothing, so there is no cancellation and no step to tune: it is
a derivative to rounding (Squire & Trapp 1998; Martins, Sturdza & Alonso 2003). In return f must run on complex numbers:
branch on `.real`, and keep abs, norm, conj and sign away from what is differentiated. An f that loses imaginary parts is
refused with a ComplexStepError. Finite differences ask nothing of f, but they do not see a relative error of 1e-8.

To check a layer of your own:

    def scale_forward(x, gain):
        return x * gain, (x, gain)
    def scale_backward(dout, cache):
        return dout * cache[1], (dout * cache[0]).sum(axis=0)
    print(check_pair(scale_forward, scale_backward, np.random.randn(4, 3), np.random.randn(3)))

Every check returns a `Report`, and raises AssertionError with its text on failure unless assert_passed=False. theta and
grad are float64 arrays, or dicts name -> array; f then takes such a dict. A theta of another dtype is a ValueError. Errors are
relative to the gradient: where it cancels to almost zero (a bias before a normalisation), rounding alone exceeds the
thresholds. No check judges the forward: the right gradient of a wrong loss passes.

The files: `complex_step` has check_pair, directional_check and complex_step_grad; `differences` has taylor_test, fd_check and
adjoint_test; `report` has Row and Report; `arguments` has what the checks share. The folder needs NumPy and nothing else: copy
it to where you want it.
"""

from .arguments import EPS
from .complex_step import (
    DIRECTIONAL_THRESHOLD,
    GUARD_STEP,
    PAIR_THRESHOLD,
    REMEDY,
    STEP,
    ComplexStepError,
    check_pair,
    complex_step_grad,
    directional_check,
)
from .differences import ADJOINT_THRESHOLDS, FD_STEP, FD_THRESHOLD, TAYLOR_THRESHOLD, adjoint_test, fd_check, taylor_test
from .report import Report, Row

__all__ = [
    "check_pair", "directional_check", "adjoint_test", "taylor_test", "fd_check", "complex_step_grad",
    "ComplexStepError", "Report", "Row",
    "STEP", "FD_STEP", "GUARD_STEP", "EPS", "REMEDY",
    "PAIR_THRESHOLD", "DIRECTIONAL_THRESHOLD", "TAYLOR_THRESHOLD", "FD_THRESHOLD", "ADJOINT_THRESHOLDS",
]  # fmt: skip
