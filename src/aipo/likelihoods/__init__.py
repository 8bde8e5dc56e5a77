"""Data energies D(x) = −log p(y | x), in nats per image with every constant: a class for each noise."""

from aipo.likelihoods.correlated import Correlated
from aipo.likelihoods.intervals import Clipped, OneBit, Quantised
from aipo.likelihoods.learnt import FlowNoise
from aipo.likelihoods.likelihood import Gaussian, Likelihood, measure
from aipo.likelihoods.pointwise import Laplace, Logistic, Pointwise, Poisson, PoissonGaussian, StudentT
from aipo.likelihoods.speckle import Gamma, LogGamma, Rician
from aipo.likelihoods.uneven import Coloured, Heteroscedastic

__all__ = [
    "Clipped",
    "Coloured",
    "Correlated",
    "FlowNoise",
    "Gamma",
    "Gaussian",
    "Heteroscedastic",
    "Laplace",
    "Likelihood",
    "LogGamma",
    "Logistic",
    "OneBit",
    "Pointwise",
    "Poisson",
    "PoissonGaussian",
    "Quantised",
    "Rician",
    "StudentT",
    "measure",
]
