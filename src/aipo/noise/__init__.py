"""The noise of a file: which kind it is, how strong, and the likelihood that follows."""

from aipo.noise.estimate import Noise, estimate_noise

__all__ = ["Noise", "estimate_noise"]
