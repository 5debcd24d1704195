"""Rows: what is refused, what a minibatch holds, and what is drawn afresh."""

import numpy as np
import pytest
from small_models import Regression, Well, lattice_rows, small_model

import npvae
from npvae.data.rows import ROWS_PER_CHECK, Rows, is_binary


def test_one_grey_pixel_in_the_last_of_many_rows_is_found():
    x = np.zeros((2500, 3), np.float32)
    assert is_binary(x)
    x[-1, -1] = 0.5
    assert not is_binary(x)


def test_bytes_are_grey_levels_and_other_types_are_values():
    model = small_model(likelihood="gaussian")
    grey = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (3, 1))
    np.testing.assert_allclose(npvae.model_input(model, grey), grey / 255, rtol=1e-6)
    for binary in (grey > 99, (grey > 99).astype(float), (grey > 99).astype(np.float32)):
        np.testing.assert_array_equal(npvae.model_input(model, binary), grey > 99)
        assert npvae.model_input(model, binary).dtype == np.float32
    bernoulli = small_model()
    assert set(np.unique(npvae.model_input(bernoulli, grey, 0))) <= {0, 1}
    np.testing.assert_array_equal(npvae.model_input(bernoulli, grey, 0), npvae.model_input(bernoulli, grey, 0))


@pytest.mark.parametrize("likelihood", ["beta_binomial", "categorical"])
def test_for_a_likelihood_of_levels_all_bytes_are_grey_and_none_is_drawn(likelihood):
    model = small_model(likelihood=likelihood)
    for grey in (np.tile(np.arange(0, 256, 17, dtype=np.uint8), (3, 1)), np.eye(16, dtype=np.uint8)):
        rows = Rows.of(model, grey, "x")
        assert not rows.binarize
        (batch,) = rows.batch(np.arange(3), np.random.default_rng(0))
        np.testing.assert_allclose(batch, grey[:3] / 255, rtol=1e-6)
        np.testing.assert_array_equal(model.check(batch)[0], batch)  # rounded to float32 they are levels still
    halves = np.full((2 * ROWS_PER_CHECK, 16), 1.0)
    halves[-1, -1] = 0.5
    with pytest.raises(ValueError, match=r"^faces cannot be used: x must hold grey levels k/255, .*; got 0\.5$"):
        Rows.of(model, halves, "faces")


def test_a_batch_holds_the_rows_asked_for_as_the_model_s_dtype():
    x = np.arange(80).reshape(5, 16)
    for dtype in ("float32", "float64"):
        rows = Rows.of(small_model(likelihood="gaussian", dtype=dtype), x, "x")
        assert len(rows) == 5
        out = np.full((2, 16), np.nan, dtype)
        (batch,) = rows.batch(np.array([4, 1]), np.random.default_rng(0), out)
        assert batch is out
        np.testing.assert_array_equal(batch, x[[4, 1]])
        (batch,) = rows.batch(np.array([4, 1]), np.random.default_rng(0))
        np.testing.assert_array_equal(batch, x[[4, 1]])
        assert batch.dtype == dtype


def test_all_arrays_of_a_tuple_are_taken_by_the_same_rows():
    x, y, z = np.arange(20.0).reshape(10, 2), np.arange(10) * 3, np.arange(60).reshape(10, 2, 3)

    class Wide(Regression):
        def check(self, x, y, z):
            assert len(x) == len(y) == len(z)
            return x, y, z

    rows = Rows.of(Wide(2), (x, list(y), z), "x")
    batch = rows.batch(np.array([7, 0, 3]), np.random.default_rng(0))
    for got, array in zip(batch, (x, y, z)):
        np.testing.assert_array_equal(got, array[[7, 0, 3]])
    assert len(rows) == 10


def test_arrays_of_different_lengths_are_refused():
    for y, length in [(np.zeros(9), "9"), (3.0, "a single value")]:
        with pytest.raises(ValueError, match=f"x_train must be arrays with the same number of rows; got 10, {length}"):
            Rows.of(Regression(2), (np.zeros((10, 2)), y), "x_train")
    with pytest.raises(ValueError, match="array 1 of x_train must be a rectangular array of numbers"):
        Rows.of(Regression(2), (np.zeros((2, 2)), [[1, 2], [3]]), "x_train")


class Conditional(Regression):
    """Takes a class number for each row, or the classes one-hot, and is shown them one-hot in float32."""

    def check(self, x, y):
        y = np.asarray(y)
        return np.asarray(x, np.float32), np.eye(3, dtype=np.float32)[y.astype(int)] if y.ndim == 1 else y


@pytest.mark.parametrize("n", [5, 2 * ROWS_PER_CHECK + 3])
def test_a_batch_holds_what_the_model_s_check_made_of_the_condition(n):
    y = np.arange(n) % 3
    rows = Rows.of(Conditional(2), (np.zeros((n, 2)), y), "x_train")
    index = np.arange(n)[::-2]
    _, condition = rows.batch(index, np.random.default_rng(0))
    assert condition.dtype == np.float32
    np.testing.assert_array_equal(condition, np.eye(3)[y[index]])
    assert y.dtype == int  # the caller's own


@pytest.mark.parametrize("returned", [None, "x", "x, y, y"])
def test_a_check_that_does_not_return_the_batch_is_named(returned):
    class Careless(Regression):
        def check(self, x, y):
            return {"x": (x,), "x, y, y": (x, y, y), None: None}[returned]

    with pytest.raises(ValueError, match=r"^check of Careless must return a tuple of the 2 arrays$"):
        Rows.of(Careless(2), (np.zeros((4, 2)), np.zeros(4)), "x_train")


def test_every_row_is_put_before_the_model_s_check_and_its_error_names_the_data():
    seen = []

    class Careful(Regression):
        def check(self, x, y):
            seen.append(len(x))
            if (y < 0).any():
                raise ValueError("y must not be negative")
            return x, y

    n = 2 * ROWS_PER_CHECK + 3
    y = np.ones(n)
    Rows.of(Careful(2), (np.zeros((n, 2)), y), "x_train")
    assert seen == [ROWS_PER_CHECK, ROWS_PER_CHECK, 3]
    y[-1] = -1
    with pytest.raises(ValueError, match=r"^x_val cannot be used: y must not be negative$"):
        Rows.of(Careful(2), (np.zeros((n, 2)), y), "x_val")


def test_no_data_make_empty_batches():
    rows = Rows.of(Well(), (), "x_train")
    assert len(rows) == 0
    assert rows.batch(np.arange(1), np.random.default_rng(0)) == ()


def test_rows_that_were_checked_before_are_returned():
    rows = Rows.of(small_model(), lattice_rows(5), "x")
    assert Rows.of(small_model(), rows, "x_train") is rows


def test_grey_levels_are_drawn_with_their_own_generator_and_others_draw_nothing():
    grey = np.full((50, 16), 128, np.uint8)
    for binarize, likelihood, draws in [(True, "bernoulli", True), (False, "bernoulli", False), (True, "gaussian", False)]:
        rows = Rows.of(small_model(likelihood=likelihood), grey, "x", binarize)
        rng, twin = np.random.default_rng(0), np.random.default_rng(0)
        (batch,) = rows.batch(np.arange(50), rng)
        assert rows.binarize == draws
        assert (rng.bit_generator.state != twin.bit_generator.state) == draws
        assert np.array_equal(np.unique(batch), [0, 1] if draws else [np.float32(128 / 255)])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((5, 3)), r"^data must have 16 columns, the model's n_features; got shape \(5, 3\)$"),
        (np.full((5, 16), 1.5), r"^data must lie in \[0, 1\]"),
        (np.full((5, 16), np.inf), "^data must be finite"),
        (np.zeros((0, 16)), "^data must be a real array"),
    ],
)
def test_bad_rows_are_named(x, message):
    with pytest.raises(ValueError, match=message):
        npvae.model_input(small_model(), x, name="data")
