"""Normalizing flows: maps from images to latents and back, with exact log-determinants; a file per family."""

from aipo.flows.flow import Flow, Precision, check_precision
from aipo.flows.glow import Glow
from aipo.flows.multiscale import MultiScaleFlow
from aipo.flows.realnvp import RealNVP
from aipo.flows.tarflow import TarFlow

__all__ = ["Flow", "Glow", "MultiScaleFlow", "Precision", "RealNVP", "TarFlow", "check_precision"]
