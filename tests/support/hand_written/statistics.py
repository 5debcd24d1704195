"""Scores of likelihoods, as statisticians write them."""

import numpy as np
from scipy.special import betaln, digamma, gammaln, log_ndtr, xlogy
from scipy.stats import norm

from hand_written import Scalar, normal, right, wrong
from hand_written.losses import softmax

X = normal(20, 3, seed=11)
SIGNS = np.where(normal(20, seed=12) > 0, 1.0, -1.0)
COUNTS = np.random.default_rng(13).poisson(2.0, 20).astype(float)


# --------------------------------------------------------------------------------------------------------- scores

OFFSET = np.log(np.linspace(1, 3, 20))


def poisson(w):
    eta = X @ w + OFFSET
    return np.sum(COUNTS * eta - np.exp(eta) - gammaln(COUNTS + 1))


@right
def poisson_score():
    """Counts with an exposure."""
    w = 0.3 * normal(3)
    return Scalar(poisson, w, X.T @ (COUNTS - np.exp(X @ w + OFFSET)))


@wrong
def poisson_score_without_its_exposure():
    """The exposure is in the loss only."""
    w = 0.3 * normal(3)
    return Scalar(poisson, w, X.T @ (COUNTS - np.exp(X @ w)))


def negative_binomial(params):
    mu, r = np.exp(X @ params[:-1]), np.exp(-params[-1])  # r = 1/alpha
    ll = gammaln(COUNTS + r) - gammaln(r) - gammaln(COUNTS + 1) + r * np.log(r / (r + mu)) + COUNTS * np.log(mu / (r + mu))
    return ll.sum()


def negative_binomial_score(params, gammas=True):
    mu, r = np.exp(X @ params[:-1]), np.exp(-params[-1])
    dr = np.log(r / (r + mu)) + 1 - (r + COUNTS) / (r + mu)
    if gammas:
        dr = dr + digamma(COUNTS + r) - digamma(r)
    return np.append(X.T @ (r * (COUNTS - mu) / (r + mu)), -r * dr.sum())


PARAMS = np.array([0.3, -0.2, 0.1, -0.5])


@right
def negative_binomial_counts():
    """gammaln and digamma, the dispersion as a logarithm."""
    return Scalar(negative_binomial, PARAMS, negative_binomial_score(PARAMS))


@wrong
def negative_binomial_without_digamma():
    """The dispersion's derivative leaves out the gamma functions."""
    return Scalar(negative_binomial, PARAMS, negative_binomial_score(PARAMS, gammas=False))


@right
def probit():
    """SciPy's log_ndtr, which takes no complex numbers here."""
    w = normal(3)
    z = SIGNS * (X @ w)
    ratio = np.exp(norm.logpdf(z) - log_ndtr(z))
    return Scalar(lambda w: -log_ndtr(SIGNS * (X @ w)).sum(), w, -(X.T @ (SIGNS * ratio)))


@wrong
def probit_with_the_density_alone():
    """φ in place of φ/Φ."""
    w = normal(3)
    return Scalar(lambda w: -log_ndtr(SIGNS * (X @ w)).sum(), w, -(X.T @ (SIGNS * norm.pdf(SIGNS * (X @ w)))))


Y = normal(20, seed=15)


def gauss(p):
    return -norm.logpdf(Y, loc=p[0], scale=np.exp(p[1])).sum()


@right
def normal_likelihood():
    """scipy.stats.norm.logpdf in its mean and log-scale."""
    p = np.array([0.3, -0.2])
    z = (Y - p[0]) / np.exp(p[1])
    return Scalar(gauss, p, np.array([-z.sum() / np.exp(p[1]), (1 - z**2).sum()]))


@wrong
def normal_likelihood_in_sigma():
    """The derivative with respect to σ, where the parameter is its logarithm."""
    p = np.array([0.3, -0.2])
    z = (Y - p[0]) / np.exp(p[1])
    return Scalar(gauss, p, np.array([-z.sum() / np.exp(p[1]), (1 - z**2).sum() / np.exp(p[1])]))


def student(p):
    """Location, log-scale and log-degrees of freedom."""
    nu, z = np.exp(p[2]), (Y - p[0]) / np.exp(p[1])
    one = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(np.pi * nu) - p[1] - (nu + 1) / 2 * np.log1p(z * z / nu)
    return -one.sum()


def student_grad(p, chain=True):
    nu, s = np.exp(p[2]), np.exp(p[1])
    z = (Y - p[0]) / s
    weight = (nu + 1) / (nu + z * z)
    dnu = 0.5 * (digamma((nu + 1) / 2) - digamma(nu / 2) - 1 / nu - np.log1p(z * z / nu) + weight * z * z / nu)
    return -np.array([(weight * z).sum() / s, (weight * z * z - 1).sum(), dnu.sum() * (nu if chain else 1)])


STUDENT = np.array([0.1, -0.3, 1.2])


@right
def student_likelihood():
    """Student's t with gammaln and digamma."""
    return Scalar(student, STUDENT, student_grad(STUDENT))


@wrong
def student_likelihood_without_the_chain():
    """The derivative with respect to ν, where the parameter is its logarithm."""
    return Scalar(student, STUDENT, student_grad(STUDENT, chain=False))


@right
def beta_likelihood():
    """betaln and digamma."""
    y, p = np.linspace(0.1, 0.9, 7), np.array([1.5, 2.5])

    def f(p):
        return np.sum((p[0] - 1) * np.log(y) + (p[1] - 1) * np.log1p(-y) - betaln(p[0], p[1]))

    both = digamma(p.sum())
    return Scalar(f, p, np.array([np.sum(np.log(y) - digamma(p[0]) + both), np.sum(np.log1p(-y) - digamma(p[1]) + both)]))


def cox(w):
    """The partial likelihood; rows are sorted by the time of their event."""
    eta = X @ w
    return -(eta - np.log(np.cumsum(np.exp(eta)[::-1])[::-1])).sum()


def cox_grad(w, reverse=True):
    turn = slice(None, None, -1) if reverse else slice(None)
    e = np.exp(X @ w)
    at_risk = np.cumsum((X * e[:, None])[turn], axis=0)[turn] / np.cumsum(e[turn])[turn][:, None]
    return -(X - at_risk).sum(axis=0)


@right
def survival_score():
    """Cox's partial likelihood, cumulative sums from the end."""
    return Scalar(cox, normal(3), cox_grad(normal(3)))


@wrong
def survival_score_from_the_wrong_end():
    """The risk sets are summed from the beginning."""
    return Scalar(cox, normal(3), cox_grad(normal(3), reverse=False))


def autoregression(p):
    """A conditional likelihood of an AR(1) series: coefficient and log-variance."""
    r = Y[1:] - p[0] * Y[:-1]
    return 0.5 * np.sum(r**2 * np.exp(-p[1]) + p[1])


@right
def autoregressive_score():
    """AR(1)."""
    p = np.array([0.4, 0.1])
    r = Y[1:] - p[0] * Y[:-1]
    return Scalar(autoregression, p, np.array([-np.sum(r * Y[:-1]) * np.exp(-0.1), 0.5 * np.sum(1 - r**2 * np.exp(-0.1))]))


@wrong
def autoregressive_score_shifted():
    """The lagged series is not lagged in the gradient."""
    p = np.array([0.4, 0.1])
    r = Y[1:] - p[0] * Y[:-1]
    return Scalar(autoregression, p, np.array([-np.sum(r * Y[1:]) * np.exp(-0.1), 0.5 * np.sum(1 - r**2 * np.exp(-0.1))]))


@right
def hidden_markov_model():
    """The forward algorithm's log-likelihood in the emission scores, and the posterior as its gradient."""
    A, start, scores = softmax(normal(3, 3, seed=2)), np.full(3, 1 / 3), normal(5, 3)

    def f(scores):
        alpha = start * np.exp(scores[0])
        total = 0.0
        for t in range(1, len(scores)):
            total = total + np.log(alpha.sum())
            alpha = (alpha / alpha.sum()) @ A * np.exp(scores[t])
        return total + np.log(alpha.sum())

    alphas, betas = [start * np.exp(scores[0])], [np.ones(3)]
    for t in range(1, 5):
        alphas.append(alphas[-1] @ A * np.exp(scores[t]))
        betas.insert(0, A @ (np.exp(scores[5 - t]) * betas[0]))
    posterior = np.array(alphas) * np.array(betas)
    return Scalar(f, scores, posterior / posterior.sum(axis=1, keepdims=True))


@right
def matrix_factorisation():
    """Ratings with missing ones, theta a dict of both factors."""
    return factorisation(masked=True)


@wrong
def matrix_factorisation_without_its_mask():
    """The gradient counts missing ratings as zeros."""
    return factorisation(masked=False)


def factorisation(masked):
    R, seen = normal(5, 4, seed=3), np.random.default_rng(4).random((5, 4)) < 0.6
    theta = {"U": normal(5, 2), "V": normal(4, 2, seed=1)}

    def f(theta):
        E = np.where(seen, theta["U"] @ theta["V"].T - R, 0)
        return 0.5 * (E**2).sum() + 0.01 * sum((v**2).sum() for v in theta.values())

    U, V = theta.values()
    E = U @ V.T - np.where(seen, R, 0)
    if masked:
        E = np.where(seen, E, 0)
    return Scalar(f, theta, {"U": E @ V + 0.02 * U, "V": E.T @ U + 0.02 * V})


@right
def entropy_of_a_table():
    """Σ x log x by xlogy, one entry tiny."""
    x = np.array([0.3, 0.5, 1e-6, 0.2])
    return Scalar(lambda x: xlogy(x, x).sum(), x, np.log(x) + 1)
