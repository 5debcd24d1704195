"""Embeddings, attention and recurrences."""

import numpy as np

from hand_written import Pair, normal, right, wrong
from hand_written.losses import softmax

# ----------------------------------------------------------------------------------------------------- embeddings

WORDS = np.array([[0, 3, 3], [2, 0, 3]])  # repeated words


@right
def embedding():
    """Rows of a table by integers, np.add.at for repeated ones."""

    def backward(dout, cache):
        shape, ids = cache
        dtable = np.zeros(shape)
        np.add.at(dtable, ids, dout)
        return dtable

    return Pair(lambda table, ids: (table[ids], (table.shape, ids)), backward, (normal(5, 2), WORDS))


@wrong
def embedding_that_loses_repeated_words():
    """dtable[ids] += dout keeps one of the repeated words."""

    def backward(dout, cache):
        shape, ids = cache
        dtable = np.zeros(shape)
        dtable[ids] += dout
        return dtable

    return Pair(lambda table, ids: (table[ids], (table.shape, ids)), backward, (normal(5, 2), WORDS))


def skip_gram(sign):
    """Negative sampling: a centre, its true neighbour and three others."""

    def forward(centre, context):
        p = 1 / (1 + np.exp(-(context @ centre)))
        return -np.log(p[0]) - np.log(1 - p[1:]).sum(), (centre, context, p)

    def backward(dloss, cache):
        centre, context, p = cache
        ds = p.copy()
        ds[0] -= 1
        ds[1:] *= sign
        return dloss * context.T @ ds, dloss * np.outer(ds, centre)

    return Pair(forward, backward, (normal(3), normal(4, 3, seed=1)))


@right
def word_vectors():
    """Negative sampling."""
    return skip_gram(1)


@wrong
def word_vectors_with_a_sign():
    """The negative samples' gradient has the wrong sign."""
    return skip_gram(-1)


# ------------------------------------------------------------------------------------------------------ attention


def attention(x, Wq, Wk, Wv):
    """One causal head: rows of x are steps."""
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    scores = q @ k.T / np.sqrt(q.shape[1])
    scores = np.where(np.tril(np.ones(scores.shape)) > 0, scores, -np.inf)
    a = softmax(scores)
    return a @ v, (x, Wq, Wk, Wv, q, k, v, a)


def attention_backward(dout, cache, scaled=True, row_sum=True, values=True):
    x, Wq, Wk, Wv, q, k, v, a = cache
    da = dout @ v.T
    ds = a * (da - (da * a).sum(axis=1, keepdims=True)) if row_sum else a * da
    if scaled:
        ds = ds / np.sqrt(q.shape[1])
    dq, dk, dv = ds @ k, ds.T @ q, a.T @ dout
    dx = dq @ Wq.T + dk @ Wk.T
    if values:
        dx = dx + dv @ Wv.T
    return dx, x.T @ dq, x.T @ dk, x.T @ dv


def of_attention(**options):
    args = normal(5, 4), *(normal(4, 3, seed=s) for s in (1, 2, 3))
    return Pair(attention, lambda d, c: attention_backward(d, c, **options), args)


@right
def causal_attention():
    """A head with −inf above the diagonal."""
    return of_attention()


@wrong
def attention_not_scaled_in_backward():
    """1/√d is in the forward only."""
    return of_attention(scaled=False)


@wrong
def attention_softmax_without_its_row_sum():
    """The softmax's Jacobian lacks its second term."""
    return of_attention(row_sum=False)


@wrong
def attention_without_the_values_path():
    """dx lacks the path through the values."""
    return of_attention(values=False)


# ---------------------------------------------------------------------------------------------------- recurrences


def rnn(x, Wx, Wh, b):
    """Rows of x are steps; all hidden states, in a buffer of zeros with the initial one in front."""
    h = np.zeros((len(x) + 1, len(b)))
    for t in range(len(x)):
        h[t + 1] = np.tanh(x[t] @ Wx + h[t] @ Wh + b)
    return h[1:].copy(), (x, Wx, Wh, h)


def rnn_backward(dout, cache, carry=True, previous=0, bias_of_last=False):
    x, Wx, Wh, h = cache
    dx, dWx, dWh, db, dnext = np.zeros_like(x), np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(len(Wh)), np.zeros(len(Wh))
    for t in reversed(range(len(x))):
        dpre = (dout[t] + (dnext if carry else 0)) * (1 - h[t + 1] ** 2)
        dx[t], dnext = Wx @ dpre, Wh @ dpre
        dWx += np.outer(x[t], dpre)
        dWh += np.outer(h[t + previous], dpre)
        db = dpre if bias_of_last else db + dpre
    return dx, dWx, dWh, db


def of_rnn(**options):
    args = normal(4, 3), normal(3, 2, seed=1), normal(2, 2, seed=2), normal(2, seed=3)
    return Pair(rnn, lambda d, c: rnn_backward(d, c, **options), args)


@right
def recurrent_network():
    """tanh cells, states in a buffer of zeros."""
    return of_rnn()


@wrong
def recurrent_network_without_its_past():
    """The gradient is not carried from step to step."""
    return of_rnn(carry=False)


@wrong
def recurrent_network_with_the_wrong_state():
    """dWh uses h[t] of the same step in place of the one before."""
    return of_rnn(previous=1)


@wrong
def recurrent_network_with_the_bias_of_one_step():
    """db keeps the last step only."""
    return of_rnn(bias_of_last=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, W, U, b):
    """Gates i, f, o, g in one matrix; a list of caches, as it is written step by step."""
    n = U.shape[0]
    h, c, steps, outs = np.zeros(n), np.zeros(n), [], []
    for x_t in x:
        pre = x_t @ W + h @ U + b
        i, f, o, g = sigmoid(pre[:n]), sigmoid(pre[n : 2 * n]), sigmoid(pre[2 * n : 3 * n]), np.tanh(pre[3 * n :])
        c_new = f * c + i * g
        steps.append((x_t, h, c, i, f, o, g, c_new))
        h, c = o * np.tanh(c_new), c_new
        outs.append(h)
    return np.array(outs), (steps, W, U)


def lstm_backward(dout, cache, cell_path=True, old_cell=True):
    steps, W, U = cache
    dW, dU, db, dx = np.zeros_like(W), np.zeros_like(U), np.zeros(W.shape[1]), []
    dh, dc = np.zeros(len(U)), np.zeros(len(U))
    for t in reversed(range(len(steps))):
        x_t, h, c, i, f, o, g, c_new = steps[t]
        dh = dh + dout[t]
        dc = (dc if cell_path else 0) + dh * o * (1 - np.tanh(c_new) ** 2)
        df = dc * (c if old_cell else c_new)
        dpre = np.hstack([dc * g * i * (1 - i), df * f * (1 - f), dh * np.tanh(c_new) * o * (1 - o), dc * i * (1 - g**2)])
        dW += np.outer(x_t, dpre)
        dU += np.outer(h, dpre)
        db += dpre
        dx.insert(0, W @ dpre)
        dh, dc = U @ dpre, dc * f
    return np.array(dx), dW, dU, db


def of_lstm(**options):
    args = normal(3, 2), normal(2, 8, seed=1), normal(2, 8, seed=2), normal(8, seed=3)
    return Pair(lstm, lambda d, c: lstm_backward(d, c, **options), args)


@right
def lstm_step_by_step():
    """An LSTM with its steps in a list."""
    return of_lstm()


@wrong
def lstm_without_the_cell_path():
    """The cell's gradient is not carried from step to step."""
    return of_lstm(cell_path=False)


@wrong
def lstm_with_the_new_cell_in_the_forget_gate():
    """The forget gate's gradient reads c_t in place of c_{t−1}."""
    return of_lstm(old_cell=False)


def gru(x, h, W, U):
    """One step; update gate z, reset gate r, candidate n."""
    k = len(h)
    a = x @ W
    z, r = sigmoid(a[:k] + h @ U[:, :k]), sigmoid(a[k : 2 * k] + h @ U[:, k : 2 * k])
    n = np.tanh(a[2 * k :] + (r * h) @ U[:, 2 * k :])
    return (1 - z) * n + z * h, (x, h, W, U, z, r, n)


def gru_backward(dout, cache, sign=1, reset=True):
    x, h, W, U, z, r, n = cache
    k = len(h)
    dn = dout * (1 - z) * (1 - n**2)
    dz = sign * dout * (h - n) * z * (1 - z)
    drh = U[:, 2 * k :] @ dn
    dr = drh * h * r * (1 - r)
    da = np.concatenate([dz, dr, dn])
    dh = dout * z + U[:, :k] @ dz + U[:, k : 2 * k] @ dr + drh * (r if reset else 1)
    dU = np.concatenate([np.outer(h, dz), np.outer(h, dr), np.outer(r * h, dn)], axis=1)
    return W @ da, dh, np.outer(x, da), dU


def of_gru(**options):
    args = normal(3), normal(2, seed=1), normal(3, 6, seed=2), normal(2, 6, seed=3)
    return Pair(gru, lambda d, c: gru_backward(d, c, **options), args)


@right
def gru_step():
    """One step of a gated recurrent unit."""
    return of_gru()


@wrong
def gru_step_with_the_gate_turned_round():
    """z and 1 − z are exchanged in the gate's gradient."""
    return of_gru(sign=-1)


@wrong
def gru_step_without_its_reset():
    """dh through the candidate lacks the factor r."""
    return of_gru(reset=False)
