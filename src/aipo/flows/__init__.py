"""Normalizing flows: maps from images to latents and back, with exact log-determinants; a file per family."""

from aipo.flows.conditional import ConditionalFlow, posterior_mean
from aipo.flows.flow import Flow, Precision, check_precision
from aipo.flows.glow import Glow
from aipo.flows.multiscale import MultiScaleFlow
from aipo.flows.realnvp import RealNVP
from aipo.flows.tarflow import TarFlow

__all__ = [
    "ConditionalFlow",
    "Flow",
    "Glow",
    "MultiScaleFlow",
    "Precision",
    "RealNVP",
    "TarFlow",
    "check_precision",
    "posterior_mean",
]
