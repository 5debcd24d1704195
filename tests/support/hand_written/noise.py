"""Noise: drawn inside, handed in, frozen, drawn twice."""

import numpy as np

from hand_written import Pair, Scalar, normal, right, wrong


def sampler(draw_again):
    """A Gaussian sampler whose generator is seeded anew in each forward; draw_again hands backward a second draw."""

    def forward(mu, logvar):
        rng = np.random.default_rng(0)
        eps = rng.standard_normal(mu.shape)
        sigma = np.exp(0.5 * logvar)
        return mu + sigma * eps, (sigma, rng.standard_normal(mu.shape) if draw_again else eps)

    def backward(dz, cache):
        sigma, eps = cache
        return dz, 0.5 * dz * sigma * eps

    return Pair(forward, backward, (normal(4, 2), normal(4, 2, seed=1)))


@right
def sampler_seeded_inside():
    """Noise from a generator that is seeded inside the forward."""
    return sampler(draw_again=False)


@wrong
def sampler_that_draws_twice():
    """Forward uses one draw and backward another."""
    return sampler(draw_again=True)


@right(unknowable="f draws its noise anew at each call, so that no two of its values belong together")
def loss_with_noise_inside():
    """A loss over a fresh sample at each call."""
    rng = np.random.default_rng(3)
    theta = normal(5)
    return Scalar(lambda t: ((t + 0.1 * rng.standard_normal(t.shape)) ** 2).sum(), theta, 2 * theta)


@right(unknowable="forward draws its noise anew at each call, so that no two of its values belong together")
def dropout_with_the_mask_drawn_inside():
    """Dropout that draws its mask from a generator of its own."""
    rng = np.random.default_rng(4)

    def forward(x):
        mask = (rng.random(x.shape) < 0.8) / 0.8
        return x * mask, mask

    return Pair(forward, lambda dout, mask: dout * mask, (normal(5, 4),))


@right
def dropout_with_its_mask_handed_in():
    """Dropout, the mask an argument of bools."""
    mask = np.random.default_rng(4).random((5, 4)) < 0.8
    return Pair(lambda x, m: (x * m / 0.8, m), lambda dout, m: dout * m / 0.8, (normal(5, 4), mask))


@wrong
def dropout_without_its_scale():
    """1/0.8 is in the forward only."""
    mask = np.random.default_rng(4).random((5, 4)) < 0.8
    return Pair(lambda x, m: (x * m / 0.8, m), lambda dout, m: dout * m, (normal(5, 4), mask))


@right(unknowable="f takes the next batch at each call, so that no two of its values belong together")
def loss_of_the_next_batch():
    """An iterator inside f: each call sees other rows."""
    rows, w, calls = normal(12, 3), normal(3, seed=1), []

    def f(w):
        calls.append(None)
        k = len(calls) % 4
        return ((rows[3 * k : 3 * k + 3] @ w) ** 2).sum()

    return Scalar(f, w, 2 * rows[3:6].T @ (rows[3:6] @ w))


def restored(draws):
    """½ |θ + noise|², the generator put back to its state in each call; the gradient belongs to draw number `draws`."""
    rng, theta = np.random.RandomState(0), normal(4)
    state = rng.get_state()

    def f(t):
        rng.set_state(state)
        return 0.5 * ((t + 0.3 * rng.randn(4)) ** 2).sum()

    rng.set_state(state)
    noise = [rng.randn(4) for _ in range(draws)][-1]
    return Scalar(f, theta, theta + 0.3 * noise)


@right
def state_of_the_generator_put_back():
    """Noise frozen by get_state and set_state."""
    return restored(1)


@wrong
def state_of_the_generator_put_back_and_two_draws():
    """The gradient belongs to the second draw; the frozen state does not hide it."""
    return restored(2)
