"""Measurement files: a measurement with everything needed to restore it, safetensors and JSON, no pickle."""

from pathlib import Path

from aipo.checkpoints import load_tensors, save_tensors
from aipo.errors import InputError
from aipo.likelihoods import Gaussian
from aipo.operators import GaussianSensing, Identity, LinearOperator, Mask

FORMAT = "aipo measurement 1"


def save_measurement(path: str | Path, task: str, likelihood: Gaussian) -> None:
    """Write a measurement; a sensing matrix is kept as its seed."""
    operator = likelihood.operator
    tensors = {"y": likelihood.y, "sigma": likelihood.sigma.clone()}
    metadata = {"format": FORMAT, "task": task, "operator": type(operator).__name__, "shape": operator.shape}
    if isinstance(operator, Mask):
        tensors["mask"] = operator.mask
    if isinstance(operator, GaussianSensing):
        metadata |= {
            "measurements": operator.measurements,
            "seed": operator.seed,
            "fingerprint": operator.fingerprint(),
        }
    save_tensors(Path(path), tensors, metadata)


def load_measurement(path: str | Path) -> tuple[str, Gaussian]:
    """Task and likelihood of a measurement file.

    Raises:
        InputError: not a measurement file, or its sensing matrix comes out differently on this machine.
        CheckpointError: damaged.
    """
    tensors, metadata = load_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a measurement file; make one with aipo measure")
    try:
        operator = _operator(tensors, metadata, path)
        return metadata["task"], Gaussian(operator, tensors["y"], tensors["sigma"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is incomplete ({error!r}); measure again") from error


def _operator(tensors, metadata, path) -> LinearOperator:
    shape = tuple(metadata["shape"])
    kind = metadata["operator"]
    if kind == "Identity":
        return Identity(shape)
    if kind == "Mask":
        return Mask(tensors["mask"])
    if kind != "GaussianSensing":
        raise InputError(f"{path} was measured by {kind}, which this version does not know; update aipo")
    sensing = GaussianSensing(shape, metadata["measurements"], metadata["seed"])
    if sensing.fingerprint() != metadata["fingerprint"]:
        raise InputError(
            f"seed {metadata['seed']} of {path} gives another matrix with this NumPy; restore it with the "
            "version that measured it"
        )
    return sensing
