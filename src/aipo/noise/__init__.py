"""The noise of a file: which kind it is, how strong, and the likelihood that follows."""

from aipo.noise.estimate import Noise, estimate_noise
from aipo.noise.named import NoiseOptions, flat_noise, named_noise

__all__ = ["Noise", "NoiseOptions", "estimate_noise", "flat_noise", "named_noise"]
