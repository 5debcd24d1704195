"""Is a hand-written gradient right? Checks for anybody's code, each with the accuracy that it really reaches.

    assert_gradients    one line for a test: picks from the checks below
    check_pair          a forward/backward pair, every entry of every argument, by the complex step   1e-12
    directional_check   a scalar function of any size, along random directions, by the complex step   1e-13
    adjoint_test        a linear map and its transpose, <A v, w> = <v, Aᵀ w>                          1e-14, float32 1e-6
    taylor_test         the remainder of a right gradient falls as h²; no complex arithmetic          order 1.9
    fd_check            extrapolated central differences in every entry; kinks and ties are seen      1e-6

To check a layer of your own:

    def scale_forward(x, gain):
        return x * gain, (x, gain)
    def scale_backward(dout, cache):
        return dout * cache[1], (dout * cache[0]).sum(axis=0)
    print(check_pair(scale_forward, scale_backward, np.random.randn(4, 3), np.random.randn(3)))

Every check returns a `Report`, and raises AssertionError with its text unless it has passed (or assert_passed=False). theta and
grad are arrays, dicts or lists of arrays, or these nested, and f takes what theta is; grad may be a function of theta, or be
left out where f returns (loss, gradient). Arguments are handed over as copies. Glue for other code, at most three lines:

    layer = Layer()                                       # an object that keeps its cache and its gradients on itself
    forward = lambda x, W: (setattr(layer, "W", W), layer.forward(x))[1:] + (None,)
    backward = lambda dout, cache: (layer.backward(dout), layer.dW)

    def loss(theta):                                      # a network with parameters: theta = dict(net.parameters)
        net.parameters.update(theta)
        return net.loss(x, y)

    def loss(theta):                                      # a function with noise of its own
        rng = np.random.default_rng(0)                    # (np.random.seed(0) for code that draws from np.random)
        return elbo(theta, x, rng)

The generator is seeded inside, at each call, and its numbers differ from draw to draw. One that is frozen to a constant would
hide that a model draws twice, and differentiates another draw than it uses.

**The three verdicts**, `Report.verdict`. *passed*: the gradient agrees to within the threshold that the row shows. *wrong*: it
differs by more than that, than ten times the estimated error of the reference, and than what rounding explains. *inconclusive*:
neither can be known, and the report says why. An inconclusive report has not passed.

**The complex step**, Im f(x + ih)/h with h = 1e-20, subtracts nothing: it is f' to the rounding of f itself (Squire & Trapp
1998; Martins, Sturdza & Alonso 2003). It needs an f that runs on complex numbers: branch on `.real`, and keep abs, norm, conj
and sign away from what is differentiated. Differences along random directions confirm it first, each to its own estimated
error (1e-9 to 1e-13 of the slope): a lost part that is larger is found, and a smaller one is not seen (details["confirmed"]).
Where complex numbers fail, differences judge that argument, and the row says so.

**Differences**: (f(x + h) − f(x − h))/2h for h, h/2, h/4, ... from the size of theta's entries down to rounding, and up where
that is better; windows of five steps are extrapolated to h = 0 (Ridders 1982). Their error is estimated: curvature by leaving
out the first or last step, rounding by the noise of f at the smallest steps over h. So no scale from 1e-12 to 1e12 needs a
step chosen by hand. They do not see what is narrower than the smallest step clear of rounding.

**Kinks and ties**: the slopes on both sides, extrapolated as well, meet below a kink's distance; where they stay apart down to
rounding, theta lies on the kink. There every slope between the two is right, the row counts these entries and shows the slopes.
All entries moved together must still give f's slope, where it has one.

**Rounding**: a right gradient differs from the reference by the rounding of both. Where a difference exceeds the threshold,
theta is moved in its last place; a hundred times what that changes is allowed (a solve with condition 1e6, a bias before a
normalisation), and the row shows the threshold that results, or, above 1e-3, that there is no verdict. A gradient that is zero
to this rounding passes as that.

**How backward is used** (check_pair): called twice, after a fresh forward, with two independent douts and their combination,
and after a forward with other input. Noise, state that a later forward overwrites, gradients that accumulate, writing into
arguments and a backward that is not linear in dout are named. theta and dout come from generators that no user's own seed
repeats.

No check judges the forward: the right gradient of a wrong loss passes. None sees errors at inputs that it was not given.

Cost: an array of n entries takes n calls of f and some 60 more by the complex step, and n to 3n by differences where the
gradient is right (sixteen entries are moved together; each by itself, 6 to 90 calls, only where they speak against it, at kinks
and in arrays of at most sixteen); directional_check takes some 60 a tensor, however large, and taylor_test 50.

The files: `pairs` has check_pair, `usage` how backward is used, `excuses` rounding and ties; `directions` has
directional_check; `differences` has taylor_test, fd_check and adjoint_test, `entries` what is done in each entry;
`derivatives` and `extrapolation` the differences and their errors, `complex_step` the complex step and its confirmation;
`assertions`, `report` and `arguments` are what they say. The folder needs NumPy and nothing else: copy it to where you want
it.
"""

from .arguments import EPS
from .assertions import assert_gradients
from .complex_step import REMEDY, STEP, ComplexStepError, complex_step_grad
from .differences import ADJOINT_THRESHOLDS, FD_THRESHOLD, TAYLOR_THRESHOLD, adjoint_test, fd_check, taylor_test
from .directions import DIRECTIONAL_THRESHOLD, directional_check
from .pairs import PAIR_THRESHOLD, check_pair
from .report import Report, Row

__all__ = [
    "check_pair", "directional_check", "adjoint_test", "taylor_test", "fd_check", "assert_gradients", "complex_step_grad",
    "ComplexStepError", "Report", "Row", "STEP", "EPS", "REMEDY",
    "PAIR_THRESHOLD", "DIRECTIONAL_THRESHOLD", "TAYLOR_THRESHOLD", "FD_THRESHOLD", "ADJOINT_THRESHOLDS",
]  # fmt: skip
