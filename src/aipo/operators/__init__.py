"""Forward operators f of y = f(x) + e: what the instrument does to a picture."""

from aipo.operators.check import check_operator
from aipo.operators.combined import Composition, Stack
from aipo.operators.entries import Identity, Mask, block_mask, mosaic, random_mask
from aipo.operators.filters import Blur, Downsampling, Filter, Grey, gaussian_kernel, motion_kernel
from aipo.operators.nonlinear import Curve, Magnitude, gamma_curve, haze
from aipo.operators.operator import LinearOperator, Operator
from aipo.operators.scanners import FourierMask, Radon, cartesian_mask
from aipo.operators.sensing import FourierSensing, GaussianSensing
from aipo.operators.spelling import simplest

__all__ = [
    "Blur",
    "Composition",
    "Curve",
    "Downsampling",
    "Filter",
    "FourierMask",
    "FourierSensing",
    "GaussianSensing",
    "Grey",
    "Identity",
    "LinearOperator",
    "Magnitude",
    "Mask",
    "Operator",
    "Radon",
    "Stack",
    "block_mask",
    "cartesian_mask",
    "check_operator",
    "gamma_curve",
    "gaussian_kernel",
    "haze",
    "mosaic",
    "motion_kernel",
    "random_mask",
    "simplest",
]
