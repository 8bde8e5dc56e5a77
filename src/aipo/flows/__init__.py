"""Normalizing flows: one file per family, image -> latent with exact log-determinant and back."""

from aipo.flows.glow import Glow
from aipo.flows.multiscale import MultiScaleFlow
from aipo.flows.realnvp import RealNVP

__all__ = ["Glow", "MultiScaleFlow", "RealNVP"]
