"""Wrong lines that people write, and what is said about them: recognised by their numbers, however the line is written.

Each is the right side of one line of an exercise. It is evaluated with the right values of everything else and compared with
what the learner's line gives. Sentences name the cause and leave the repair to the reader.
"""

import numpy as np

from .findings import fits

MISTAKES = {
    "01_one_neuron": {
        "derror": {
            "dloss * 2 * error": "the factor 1/2 of the loss is lost: it cancels the 2 that comes from the square",
            "dloss * 0.5 * error**2": "this is the loss again, not its derivative with respect to error",
            "error": "the upstream gradient dloss is missing",
        },
        "dpre": {
            "dh": "the slope of the sigmoid is missing: dpre is not dh",
            "dh * h": "the slope of the sigmoid is h (1 - h): the factor 1 - h is missing",
            "dh * h * 1 - h": "brackets are missing: a * 1 - b is a - b, and the slope of the sigmoid is h (1 - h)",
            "dh * pre * (1 - pre)": "the slope is taken at pre: in h (1 - h), h is the output of the sigmoid",
        },
        "dw": {"dpre * w": "w times x is differentiated with respect to the other factor: the factor that stays is x"},
        "dx": {"dpre * x": "w times x is differentiated with respect to the other factor: the factor that stays is w"},
        "db": {"1.0": "the upstream gradient dpre is missing: 1 is the slope alone"},
    },
    "02_affine_map": {
        "db": {
            "dpre": "db is not summed over the rows: all B rows use the same b",
            "dpre.mean(axis=0)": "a mean is taken over the rows where their sum is meant: the mean belongs to the loss, once",
            "dpre.sum(axis=1)": "it is summed over the wrong axis: the rows, axis 0, share b",
        },
        "dW": {
            "dproduct.T @ x": "this is the transpose of dW: the factors x and dproduct are in the wrong order",
            "(dproduct.T @ x).reshape(W.shape)": "the transpose is reshaped into the shape of W, which mixes up its entries",
            "x.T @ dproduct / len(x)": "dW is divided by the number of rows: the mean belongs to the loss, once",
            "x[:-1].T @ dproduct[:-1]": "the last row of the batch is left out",
        },
        "dx": {
            "dproduct @ W.reshape(W.shape[::-1])": "reshape is no transpose: it keeps the order of the numbers in memory",
            "(W @ dproduct.T)": "this is the transpose of dx: rows of the batch come first",
            "np.ones_like(dproduct) @ W.T": "the upstream gradient is missing from dx: this is the slope for ones",
        },
    },
    "03_relu": {
        "dpre": {
            "dh": "the mask is missing: where pre was cut off at 0, nothing passes",
            "np.where(dh > 0, dh, 0)": "the mask looks at the sign of dh: what was cut off depends on pre",
            "np.where(pre < 0, 0, dh)": "at pre = 0 the forward says off (pre <= 0) and this line says on: they have to agree",
            "np.where(pre > 0, 1.0, 0)": "the upstream gradient dh is missing: this is the slope alone",
            "np.where(pre > 0, 0, dh)": "the mask is the wrong way round: it lets through what was cut off",
            "np.where(pre > 0, pre, 0)": "this is the forward again: what passes backward is dh, not pre",
            "dh * pre": "the slope of relu is 1 where pre > 0, not pre",
            "dh * np.where(pre > 0, pre, 0)": "dh is multiplied by the forward's output: where pre > 0 the slope is 1",
            "-np.where(pre > 0, dh, 0)": "the sign is wrong: relu grows with pre",
        },
    },
    "04_tanh": {
        "dtop": {"dh * bottom": "h = top / bottom falls with bottom: the slope is 1/bottom"},
        "dbottom": {
            "dh * top / bottom**2": "the minus sign of the quotient rule is missing: (1/u)' = -1/u**2",
            "-dh * top / bottom": "the square of the quotient rule is missing: (1/u)' = -1/u**2",
            "-dh / bottom**2": "the factor top is missing: top / bottom is top times 1/bottom",
        },
        "dup": {
            "dtop": "up is used twice, in top and in bottom: the gradient through bottom is missing",
            "dbottom": "up is used twice, in top and in bottom: the gradient through top is missing",
            "dtop - dbottom": "bottom is up + down: its part comes with a plus sign",
        },
        "ddown": {
            "dtop + dbottom": "top is up - down: the part through top comes with a minus sign",
            "-dtop - dbottom": "bottom is up + down: the part through bottom comes with a plus sign",
        },
        "dpre": {
            "dup * up + ddown * down": "down = exp(-pre) has the slope -down: a minus sign is missing",
            "dup * up": "pre is used in down as well: that way is missing",
            "dup - ddown": "the slopes of the exponentials are missing: exp(u)' = exp(u)",
            "dh * (1 - pre**2)": "the slope 1 - h**2 is taken at pre: h is the output of tanh",
            "dh * (1 - np.tanh(h) ** 2)": "tanh is taken once more of h, which is tanh(pre) already",
            "dh * (1 - h)": "the square is missing: tanh' = 1 - tanh**2",
            "dh * (1 - h) ** 2": "the square belongs to h alone: tanh' = 1 - tanh**2",
            "dh * 1 - h**2": "brackets are missing: a * 1 - b is a - b, and the slope is 1 - h**2",
        },
    },
    "05_silu": {
        "dsigmoid": {
            "dh * h": "the factor that stays when pre * sigmoid is differentiated with respect to sigmoid is pre, not h",
            "dh * sigmoid": "the factor that stays when pre * sigmoid is differentiated with respect to sigmoid is pre",
            "dh": "the factor that stays, pre, is missing from dsigmoid: h = pre * sigmoid",
        },
        "dpre": {
            "dh * sigmoid": "the product rule has two terms: the way through sigmoid is missing",
            "dsigmoid * sigmoid * (1 - sigmoid)": "the product rule has two terms: the way through the factor pre is missing",
            "dh * sigmoid + dsigmoid * sigmoid": "the slope of the sigmoid lacks its factor 1 - sigmoid",
            "dh * sigmoid + dsigmoid": "the slope of the sigmoid is missing from the second term",
            "sigmoid + pre * sigmoid * (1 - sigmoid)": "the upstream gradient dh is missing: it was right only where dh is 1",
            "dh * h + dsigmoid * sigmoid * (1 - sigmoid)": "the first term of the product rule has h for sigmoid",
        },
    },
    "06_stable_softplus": {
        "h": {
            "np.log(1 + np.exp(pre))": "exp(pre) overflows for large pre, and 1 + exp(pre) is 1 for very negative pre",
            "np.log1p(np.exp(pre))": "exp(pre) still overflows for large pre: take only exponentials of what is not positive",
            "np.where(pre > 0, pre, 0) + np.log(1 + np.exp(-np.abs(pre)))": "log(1 + t) loses a small t: NumPy has log1p",
            "np.where(pre > 0, pre, 0)": "this is relu: the smooth part log(1 + exp(-|pre|)) is missing",
            "np.where(pre > 0, pre, 0) + np.log1p(np.exp(pre))": "the part that is added has |pre| with a minus sign, not pre",
            "1 / (1 + np.exp(-pre))": "this is the sigmoid, the slope of softplus",
        },
    },
    "07_two_layers": {
        "dW2": {
            "pre1.T @ dout": "W2 meets h1, the output of tanh, not pre1",
            "dout.T @ h1": "this is the transpose of dW2",
            "h1.T @ dout / len(h1)": "dW2 is divided by the number of rows: the mean belongs to the loss, once",
        },
        "db2": {"dout.mean(axis=0)": "db2 has the mean over the rows where their sum is meant"},
        "dh1": {
            "dout @ W2": "W2 is not transposed: forward goes along W2, backward along its transpose",
            "dout @ np.linalg.inv(W2)": "the inverse of W2 is taken: backward needs the transpose",
        },
        "dpre1": {
            "dh1": "the activation is left out: the slope of tanh is missing",
            "dh1 * (1 - pre1**2)": "the slope 1 - h1**2 is taken at pre1",
            "dh1 * (1 - h1)": "the square is missing: the slope of tanh is 1 - h1**2",
            "dh1 * h1 * (1 - h1)": "this is the slope of a sigmoid: the activation here is tanh",
            "dh1 * 1 - h1**2": "brackets are missing: a * 1 - b is a - b, and the slope is 1 - h1**2",
            "dh1 * (1 - h1) ** 2": "the square belongs to h1 alone: the slope of tanh is 1 - h1**2",
            "dh1 * (1 - np.tanh(h1) ** 2)": "tanh is taken once more of h1, which is tanh(pre1) already",
        },
        "dW1": {
            "x.T @ dh1": "dW1 starts from dh1: it has to go back through tanh first",
            "h1.T @ dpre1": "W1 meets the input x, not h1",
            "x.T @ dpre1 / len(x)": "dW1 is divided by the number of rows: the mean belongs to the loss, once",
        },
        "db1": {
            "dh1.sum(axis=0)": "db1 starts from dh1: it has to go back through tanh first",
            "dpre1.mean(axis=0)": "db1 has the mean over the rows where their sum is meant",
        },
    },
    "08_reparameterize": {
        "dmu": {
            "dz": "dmu is not summed over the samples: all S samples of a row use the same mu",
            "dz.mean(axis=0)": "dmu has the mean over the samples where their sum is meant",
            "dz[0]": "only the first sample is counted in dmu",
            "dz.sum(axis=1)": "dmu is summed over the rows, axis 1: it is the samples, axis 0, that share mu",
        },
        "dnoise": {
            "dz * eps": "noise is added to mu, and its slope is 1: eps belongs one line later, to dsigma",
            "dz * sigma": "noise is added to mu, and its slope is 1: sigma is in noise already",
        },
        "dsigma": {
            "dnoise * eps": "dsigma is not summed over the samples: all S samples of a row use the same sigma",
            "dnoise.sum(axis=0)": "the noise eps is missing from dsigma: noise = sigma * eps",
            "(dnoise * eps).mean(axis=0)": "dsigma has the mean over the samples where their sum is meant",
            "(dnoise * eps)[0]": "only the first sample is counted in dsigma",
            "(dnoise * sigma).sum(axis=0)": "the factor that stays in sigma * eps is eps: sigma is the one that is moved",
        },
        "dlogvar": {
            "dsigma * sigma": "the factor 1/2 of logvar = log sigma**2 is missing: this is the derivative for log sigma",
            "dsigma * 0.5 * sigma**2": "sigma**2 stands where sigma is meant: exp(logvar / 2) is its own derivative, times 1/2",
            "dsigma * 0.5": "the exponential is missing: exp(u)' = exp(u)",
            "0 * dsigma": "the way from z to logvar is cut: sigma is no constant",
            "dsigma / sigma": "the derivative of a logarithm is taken: here sigma is the exponential of logvar / 2",
            "-dsigma * 0.5 * sigma": "the sign of dlogvar is wrong: sigma grows with logvar",
        },
    },
    "09_gaussian_kl_value": {
        "variance": {
            "np.exp(0.5 * logvar)": "this is sigma: the variance is sigma**2, and logvar is its logarithm",
            "np.exp(2 * logvar)": "logvar is log sigma**2 already: it is not doubled once more",
            "logvar**2": "logvar is a logarithm: the variance is its exponential",
            "np.log(logvar)": "logvar is a logarithm already, and may be negative: the variance is its exponential",
            "logvar": "logvar is the logarithm of the variance: the exponential is missing",
        },
        "kl": {
            "mu * mu + variance - 1 - logvar": "the factor 1/2 of the KL is missing",
            "0.5 * (mu * mu + variance - logvar)": "the -1 is missing: for mu = 0 and sigma = 1 the KL has to be 0",
            "0.5 * (1 + logvar - mu * mu - variance)": "the sign is that of -KL, as it stands in the ELBO",
            "0.5 * (mu + variance - 1 - logvar)": "mu is not squared",
            "0.5 * (mu * mu + variance - 1 - np.log(logvar))": "logvar is a logarithm already: no second one is taken of it",
            "0.5 * (mu * mu + variance - 1)": "the term -logvar is missing: it comes from log q",
            "0.5 * (variance - 1 - logvar)": "the term mu**2 is missing: the mean of z**2 under q is mu**2 + sigma**2",
            "0.5 * (mu * mu + variance - 1 + logvar)": "logvar has the wrong sign: a narrow q is far from the prior",
            "(0.5 * (mu * mu + variance - 1 - logvar)).sum(axis=1)": "it is summed over L: asked is the KL of each dimension",
            "0.5 * (mu * mu + np.sqrt(variance) - 1 - logvar)": "sigma stands where sigma**2 is meant",
        },
    },
    "10_gaussian_kl": {
        "dsquare": {"dkl": "the factor 1/2 in front of the bracket is missing from dsquare"},
        "dmu": {
            "dsquare * mu": "the factor 2 of (mu**2)' = 2 mu is missing",
            "dsquare * 2": "mu is missing: (mu**2)' = 2 mu",
            "0 * mu": "the gradient of mu is dropped: the KL pulls mu to 0",
        },
        "dvariance": {"dkl": "the factor 1/2 in front of the bracket is missing from dvariance"},
        "dlogvar": {
            "dvariance * variance": "the term -logvar of the KL is overlooked: logvar is used twice",
            "-0.5 * dkl": "the way through variance is overlooked: logvar is used twice",
            "dkl * (variance - 1)": "the factor 1/2 of the KL is lost in dlogvar",
            "dkl * (variance**2 - 1)": "this is the derivative for a network that gives log sigma: here logvar = log sigma**2",
            "0.5 * dkl * (1 - variance)": "dlogvar has the sign of the ELBO, which contains -KL",
            "dvariance * variance + 0.5 * dkl": "the sign of the term -logvar is lost",
            "0.5 * dkl * (np.sqrt(variance) - 1)": "sigma stands where sigma**2 is meant in dlogvar",
            "dvariance - 0.5 * dkl": "the slope of the exponential is missing: dvariance / dlogvar is variance",
        },
    },
    "11_latent": {
        "dmu": {
            "dz": "mu feeds z and the KL: the gradient through the KL is missing or was overwritten",
            "dkl * mu": "mu feeds z and the KL: the gradient through z is missing or was overwritten",
            "dz * dkl * mu": "the two gradients of mu are multiplied: gradients of two ways are added",
            "dz - dkl * mu": "the gradient of the KL has the sign of the ELBO in dmu: the loss contains +KL",
            "dz + mu": "the upstream gradient dkl is missing: mu alone is the slope of the KL",
            "dz + dkl * 2 * mu": "the 1/2 of the KL is missing in dmu",
        },
        "dlogvar": {
            "dz * eps * 0.5 * sigma": "logvar feeds z and the KL: the gradient through the KL is missing or was overwritten",
            "dkl * 0.5 * (sigma**2 - 1)": "logvar feeds z and the KL: the gradient through z is missing or was overwritten",
            "dz * eps * sigma + dkl * 0.5 * (sigma**2 - 1)": "the 1/2 of exp(logvar / 2) is missing on the way through z",
            "dz * eps * 0.5 * sigma + dkl * (sigma**2 - 1)": "the 1/2 of the KL is missing in dlogvar",
            "dz * eps * 0.5 * sigma + dkl * 0.5 * (sigma - 1)": "the KL has sigma where sigma**2 is meant",
            "dz * 0.5 * sigma + dkl * 0.5 * (sigma**2 - 1)": "the noise eps is missing on the way through z",
            "dz * eps * 0.5 + dkl * 0.5 * (sigma**2 - 1)": "sigma is missing on the way through z: exp(u)' = exp(u)",
            "dz * eps * 0.5 * sigma + 0.5 * (sigma**2 - 1)": "the upstream gradient dkl is missing in dlogvar",
            "eps * 0.5 * sigma + dkl * 0.5 * (sigma**2 - 1)": "the upstream gradient dz is missing in dlogvar",
            "dz * eps * 0.5 * sigma - dkl * 0.5 * (sigma**2 - 1)": "the gradient of the KL has the sign of the ELBO in dlogvar",
            "dz * eps * 0.5 * sigma + dkl * 0.5 * sigma**2": "the term -logvar of the KL is overlooked",
        },
        "dposterior": {
            "np.concatenate([dlogvar, dmu], axis=1)": "the halves are in the wrong order: mu is the first half of posterior",
            "np.concatenate([dmu, dlogvar], axis=0)": "the halves are put below each other: they belong side by side, axis 1",
            "np.concatenate([dmu, 0 * dlogvar], axis=1)": "the half of logvar is left at zero",
        },
    },
    "12_bernoulli_in_atoms": {
        "dper_pixel": {
            "dnll[:, None]": "one column is not the shape of per_pixel: fill it up, one copy for each pixel",
            "dnll[:, None] * np.ones_like(x) / x.shape[1]": "a mean over the pixels is taken: the loss sums over them",
        },
        "dlog_p": {
            "dper_pixel * x": "the minus sign in front of the log-likelihood is missing from dlog_p",
            "-dper_pixel": "the factor x is missing from dlog_p",
        },
        "dlog_q": {
            "-dper_pixel * x": "the factor of log_q is 1 - x, not x",
            "dper_pixel * (1 - x)": "the minus sign in front of the log-likelihood is missing from dlog_q",
        },
        "dq": {
            "dlog_q * q": "dq is multiplied by q: (log q)' = 1/q",
            "dlog_q": "the slope of the logarithm is missing from dq",
            "dlog_q * np.log(q)": "dlog_q is multiplied by the logarithm itself, where its slope belongs: (log q)' = 1/q",
        },
        "dp": {
            "dlog_p / p": "p is used twice, in log_p and in q: the way through q is missing",
            "dlog_p / p + dq": "q = 1 - p falls with p: its part comes with a minus sign",
            "dlog_p * p - dq": "dlog_p is multiplied by p: (log p)' = 1/p",
            "dlog_p * np.log(p) - dq": "dlog_p is multiplied by the logarithm itself, where its slope belongs: (log p)' = 1/p",
            "-dq": "p is used twice, in log_p and in q: the way through log_p is missing",
        },
        "dlogits": {
            "dp": "the slope of the sigmoid is missing: this is the gradient with respect to the probability",
            "dp * p": "the slope of the sigmoid is p q: the factor q is missing",
            "dp * q": "the slope of the sigmoid is p q: the factor p is missing",
            "dp * logits * (1 - logits)": "the slope of the sigmoid is taken at the logits: it is p (1 - p)",
        },
    },
    "13_bernoulli_fused": {
        "dlogits": {
            "p - x": "the upstream gradient dnll is missing: each row has its own",
            "dnll[:, None] * (x - p)": "the sign is wrong: more logit is better where x = 1, and the nll falls there",
            "dnll[:, None] * (p - x) * p * (1 - p)": "the slope of the sigmoid is in p - x already: it is applied twice",
            "dnll[:, None] * (p - x) / (p * (1 - p))": "this is the gradient with respect to p: the sigmoid comes before it",
            "dnll[:, None] * (p - x) / x.shape[1]": "a mean over the pixels is taken: the nll sums over them",
            "dnll[:, None] * (p - x) / len(x)": "the mean over the batch is taken here: it belongs to the loss, once",
            "dnll[:, None] * (logits - x)": "the sigmoid is missing: logits are no probabilities",
            "dnll[:, None] * p": "x is missing: the term -x * logits is overlooked",
            "dnll[:, None] * (1 - x) * p": "only the pixels with x = 0 are counted",
            "dnll[:, None] * -x * (1 - p)": "only the pixels with x = 1 are counted",
        },
    },
    "14_gaussian_nll": {
        "dsquare": {
            "dnll[:, None] * np.ones_like(x) / 2": "the variance is forgotten: this is right for sigma = 1 only",
            "dnll[:, None] * np.ones_like(x) / variance": "the factor 1/2 of the Gaussian's exponent is lost",
            "dnll[:, None] * np.ones_like(x) / 2 * variance": "brackets are missing: a / 2 * b is (a / 2) * b",
            "dnll[:, None] * np.ones_like(x) / (2 * np.sqrt(variance))": "sigma stands where sigma**2 is meant",
            "dnll[:, None] * np.ones_like(x) / (2 * variance**2)": "the variance is sigma**2 already: it is not squared again",
            "dnll[:, None] * np.ones_like(x) / (2 * variance) / x.shape[1]": "a mean over D is taken: the nll sums over D",
            "dnll[:, None] / (2 * variance)": "one column is not the shape of square: fill it up, one copy for each entry",
        },
        "dresidual": {
            "dsquare * residual": "the factor 2 of (residual**2)' is missing",
            "dsquare * 2": "the residual is missing: (u**2)' = 2 u",
        },
        "dmean": {"-dresidual": "the sign is wrong: residual is mean - x, and grows with mean"},
    },
    "15_elbo": {
        "dnll": {
            "np.full_like(nll, dloss)": "the loss is a mean of nll, and this is the gradient of a sum: 1/(B S) is missing",
            "np.full_like(nll, dloss / nll.shape[1])": "the mean over the samples is forgotten: 1/S is missing",
            "np.full_like(nll, dloss / nll.shape[0])": "the mean over the rows is forgotten: 1/B is missing",
            "np.full_like(nll, dloss * beta / nll.size)": "beta weighs the KL, not the nll",
            "dloss * nll / nll.size": "the value nll is in it: the loss is linear in nll, with the slope 1/(B S)",
        },
        "dmean_kl": {
            "np.full_like(mean_kl, dloss)": "beta is forgotten in the backward pass",
            "np.full_like(mean_kl, dloss * beta / mean_kl.size)": "a mean over L is taken: the loss sums over L",
            "dloss * beta": "one number is not the shape of mean_kl: fill it up, one copy for each latent dimension",
            "dloss * mean_kl": "mean_kl is multiplied by beta: the factor that stays is beta, not mean_kl",
            "dloss * beta * mean_kl": "the value mean_kl is in it: the loss is linear in mean_kl, with the slope beta",
        },
        "dkl": {
            "dmean_kl * np.ones_like(kl)": "the mean over the rows is forgotten: 1/B is missing from dkl",
            "dmean_kl * np.ones_like(kl) / kl.size": "it is divided by B L: the mean runs over the rows only",
            "dmean_kl * np.ones_like(kl) / len(kl) ** 2": "1/B is applied twice",
            "dmean_kl * np.ones_like(kl) / kl.shape[1]": "it is divided by L: the mean runs over the B rows",
        },
    },
    "16_importance_weights": {
        "dbound": {
            "np.full_like(bound, dloss / bound.size)": "the sign is lost: the loss is minus the bound",
            "np.full_like(bound, -dloss)": "the loss is a mean over the rows: 1/B is missing from dbound",
        },
        "dtotal": {
            "dbound / (total / len(w))": "S has no part in it: log(total / S) = log(total) - log(S)",
            "dbound * total": "dtotal is multiplied by total: (log u)' = 1/u",
            "dbound": "the slope of the logarithm is missing from dtotal",
        },
        "dw": {
            "dtotal * w": "w is summed into total: the slope of a sum is 1, not w",
            "dtotal * np.ones_like(w) / len(w)": "total is a sum over the samples, not a mean",
        },
        "dlog_w": {
            "dw": "the slope of the exponential is missing: each sample weighs as much as any other",
            "dw * w * w": "the weights are applied twice",
            "dw * total / len(w)": "this is the gradient of the ELBO: each sample has the weight 1/S",
            "dw * total * w / w.sum(axis=1, keepdims=True)": "the softmax runs over the rows: the samples are axis 0",
            "dw * total * w / w.sum()": "the softmax runs over the whole batch: each row has its own",
        },
        "dnll": {"dlog_w": "the sign is lost: log_w contains -nll"},
        "dweighted_kl": {
            "dlog_w": "the sign is lost: log_w contains -weighted_kl",
            "-dlog_w * beta": "beta belongs one line later, to dkl: weighted_kl has it in it already",
        },
        "dkl": {
            "dweighted_kl[..., None] * np.ones_like(kl)": "beta is forgotten in the backward pass",
            "dweighted_kl[..., None] * beta": "one column is not the shape of kl: fill it up, one copy for each of the L",
            "dweighted_kl[..., None] * beta * np.ones_like(kl) / kl.shape[-1]": "weighted_kl sums over L, and is no mean",
        },
    },
    "17_coupling": {
        "dshift": {
            "dy * scale": "shift is added after the scaling: it is not scaled",
            "dy.sum(axis=0)": "each row has a shift of its own: nothing is summed",
        },
        "dscale": {
            "dy": "the factor x is missing from dscale",
            "dy * scale": "x times scale is differentiated with respect to the other factor: the factor that stays is x",
            "dy * x + dlog_det[:, None]": "log_det is made of log_scale, not of scale: dlog_det belongs one line later",
        },
        "dx": {
            "dy": "the scale is missing from dx",
            "dy * x": "x times scale is differentiated with respect to the other factor: the factor that stays is scale",
            "dy / scale": "this goes the way of the inverse map: the gradient is multiplied by the scale",
            "dy * log_scale": "x is multiplied by scale = exp(log_scale), not by log_scale",
        },
        "dlog_scale": {
            "dscale * scale": "log_scale reaches log_det too: that way is missing",
            "dlog_det[:, None] * np.ones_like(scale)": "log_scale reaches y too: that way is missing",
            "dscale + dlog_det[:, None]": "the slope of the exponential is missing: exp(u)' = exp(u)",
            "dscale * scale - dlog_det[:, None]": "the sign of the part through log_det is wrong: log_det grows with log_scale",
            "dscale * scale + dlog_det[:, None] / scale": "log_det is the sum of log_scale itself: its slope is 1",
            "dy * scale + dlog_det[:, None]": "the factor x is missing on the way through y",
        },
    },
    "18_adam_step": {
        "new_m": {
            "beta1 * m + grad": "this is momentum: Adam's average has the weight 1 - beta1 on the new gradient",
            "(1 - beta1) * m + beta1 * grad": "beta1 and 1 - beta1 are swapped in new_m",
            "beta2 * m + (1 - beta2) * grad": "beta2 stands where beta1 is meant in new_m",
            "beta1 * m + (1 - beta1) * grad**2": "the gradient is squared in new_m: only v averages squares",
            "beta1 * m + 1 - beta1 * grad": "brackets are missing around 1 - beta1",
        },
        "new_v": {
            "beta2 * v + (1 - beta2) * grad": "the gradient is not squared in new_v",
            "beta2 * v**2 + (1 - beta2) * grad**2": "v is squared in new_v: it is an average of squares already",
            "beta2 * v + 1 - beta2 * grad**2": "brackets are missing around 1 - beta2",
            "v + grad**2": "this is AdaGrad's sum: Adam forgets old squares",
            "beta1 * v + (1 - beta1) * grad**2": "beta1 stands where beta2 is meant in new_v",
            "(1 - beta2) * v + beta2 * grad**2": "beta2 and 1 - beta2 are swapped in new_v",
            "beta2 * v + (1 - beta2) * new_m**2": "the square is that of the gradient, not of its average",
        },
        "m_hat": {
            "new_m": "the bias correction of m is missing",
            "new_m / (1 - beta1)": "the correction of m lacks the power t: it has to fade with the steps",
            "new_m / (1 - beta1 ** (t - 1))": "steps count from t = 1 in the correction of m: the power is t",
            "new_m / (1 - beta1 * t)": "the correction of m has beta1 times t where beta1 to the power t is meant",
            "m / (1 - beta1**t)": "m_hat is made of the old average: new_m is meant",
            "new_m / 1 - beta1**t": "brackets are missing in m_hat: a / 1 - b is a - b",
            "new_m / (1 - beta2**t)": "the correction of m has beta2 where beta1 is meant",
            "new_m * (1 - beta1**t)": "the correction of m divides: the averages are too small at first",
        },
        "v_hat": {
            "new_v": "the bias correction of v is missing",
            "new_v / (1 - beta2)": "the correction of v lacks the power t: it has to fade with the steps",
            "new_v / (1 - beta1**t)": "the correction of v has beta1 where beta2 is meant",
            "v / (1 - beta2**t)": "v_hat is made of the old average: new_v is meant",
            "new_v / 1 - beta2**t": "brackets are missing in v_hat: a / 1 - b is a - b",
            "new_v / (1 - beta2 ** (t - 1))": "steps count from t = 1 in the correction of v: the power is t",
            "new_v / (1 - beta2 * t)": "the correction of v has beta2 times t where beta2 to the power t is meant",
            "new_v * (1 - beta2**t)": "the correction of v divides: the averages are too small at first",
        },
        "step": {
            "learning_rate * m_hat / np.sqrt(v_hat + epsilon)": "epsilon is inside of the root: it is added to the root",
            "learning_rate * m_hat / (v_hat + epsilon)": "the root of v_hat is missing: the step would have the wrong unit",
            "learning_rate * m_hat / np.sqrt(v_hat)": "epsilon is missing from the denominator",
            "learning_rate * new_m / (np.sqrt(new_v) + epsilon)": "the step is made of m and v without their corrections",
            "learning_rate * m_hat / (np.sqrt(new_v) + epsilon)": "the step has v without its correction: v_hat is meant",
            "learning_rate * new_m / (np.sqrt(v_hat) + epsilon)": "the step has m without its correction: m_hat is meant",
            "learning_rate * m_hat / np.sqrt(v_hat) + epsilon": "brackets are missing: epsilon is added to the root",
            "learning_rate * m_hat / np.sqrt(new_v) + epsilon": "v_hat is meant, and brackets are missing",
            "-learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)": "the sign is wrong: the last line subtracts the step",
            "m_hat / (np.sqrt(v_hat) + epsilon)": "the learning rate is missing",
            "learning_rate * grad / (np.sqrt(v_hat) + epsilon)": "the step follows the new gradient alone: this is RMSProp",
        },
    },
}  # fmt: skip


def named_mistake(exercise, name, value, known):
    """The sentence on the mistake that gives these numbers for this line, "" if none does; known: name -> right value."""
    for line, sentence in MISTAKES.get(exercise.file, {}).get(name, {}).items():
        try:
            with np.errstate(all="ignore"):
                wrong = np.asarray(eval(line, {"np": np, **known}))
        except (NameError, ValueError):  # the learner's file has not all of the names, or other shapes
            continue
        if fits(value, wrong, exercise.entrywise):
            return sentence
    return ""


def as_markdown():
    """All of them as a table."""
    rows = [
        f"| {file[:2]} | `{name} = {line}` | {sentence.replace('|', chr(92) + '|')} |"
        for file, names in MISTAKES.items()
        for name, lines in names.items()
        for line, sentence in lines.items()
    ]
    return "\n".join(["| exercise | the wrong line | what is said |", "|---|---|---|", *rows])
