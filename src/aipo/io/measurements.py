"""Measurement files: a measurement and all that restoring it needs, in safetensors and JSON, no pickle."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aipo import likelihoods
from aipo.basics.errors import InputError
from aipo.io.files import reason
from aipo.io.instruments import described, made
from aipo.io.tensors import load_tensors, save_tensors
from aipo.likelihoods import Likelihood

FORMAT = "aipo measurement 1"
LONGEST_TASK = 100

NOISE = {
    kind.__name__: kind
    for kind in (
        likelihoods.Clipped,
        likelihoods.Coloured,
        likelihoods.Gamma,
        likelihoods.Gaussian,
        likelihoods.Heteroscedastic,
        likelihoods.Laplace,
        likelihoods.LogGamma,
        likelihoods.Logistic,
        likelihoods.OneBit,
        likelihoods.Poisson,
        likelihoods.PoissonGaussian,
        likelihoods.Quantised,
        likelihoods.Rician,
        likelihoods.StudentT,
    )
}


def save_measurement(path: str | Path, task: str, likelihood: Likelihood) -> None:
    """Write a measurement; the file keeps the seed of a sensing matrix instead of the matrix.

    Raises:
        InputError: numbers alone do not describe the operator or the noise model, or the place cannot be
            written to.
    """
    noise = type(likelihood).__name__
    if noise not in NOISE:
        raise InputError(f"{noise} noise cannot be written to a file; keep the likelihood in Python")
    tensors, numbers = described(likelihood.operator)
    parameters: dict[str, Any] = {}
    for name in (*likelihood.per_image, *likelihood.shared):
        value = getattr(likelihood, name)
        if isinstance(value, Tensor):
            tensors[name] = value.clone()
        else:
            parameters[name] = value
    metadata = {"format": FORMAT, "task": task, "noise": noise, "parameters": parameters, **numbers}
    try:
        save_tensors(Path(path), tensors | {"y": likelihood.y}, metadata)
    except OSError as error:
        raise InputError(f"cannot write {path}: {reason(error)}; give a writable place") from error


def load_measurement(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[str, Likelihood]:
    """Read the task and the likelihood of a measurement file, which may hold a batch of measurements.

    A checksum tells that the file is whole, not that it makes sense: sizes are compared before anything is
    built, and every number is bounded.

    Args:
        dtype: of the values and of the noise's parameters; priors are evaluated in float32.

    Raises:
        InputError: it is not a measurement file, its content cannot be, or this machine draws another sensing
            matrix from the seed.
        CheckpointError: the file is damaged.
    """
    tensors, metadata = load_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a measurement file; make one with aipo measure")
    try:
        return _read(tensors, metadata, dtype)
    except KeyError as error:
        raise InputError(f"{path} is incomplete (it has no {error}); measure again") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError, AttributeError) as error:
        told = str(error) if isinstance(error, InputError) else repr(error)[:200]
        raise InputError(f"{path} cannot be used: {told}; measure again") from error


def load_each(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[str, list[Likelihood]]:
    """As `load_measurement`, but every measurement of the batch as a batch of one, in their order."""
    task, likelihood = load_measurement(path, dtype)
    return task, [likelihood.select(torch.tensor([index])) for index in range(len(likelihood))]


def _read(tensors: dict[str, Tensor], metadata: dict[str, Any], dtype: torch.dtype) -> tuple[str, Likelihood]:
    task, noise, parameters = metadata["task"], metadata["noise"], metadata["parameters"]
    if not isinstance(task, str) or len(task) > LONGEST_TASK:
        raise InputError(f"its task is no text of at most {LONGEST_TASK} letters")
    if noise not in NOISE:
        raise InputError(f"it has {str(noise)[:50]} noise, which this version does not know; update aipo")
    kind = NOISE[noise]
    names = ("y", *kind.shared, *kind.per_image)
    given: dict[str, Any] = {name: _given(name, parameters, tensors, dtype) for name in names}
    y = given["y"]
    if not isinstance(y, Tensor) or y.ndim < 2:
        raise InputError("its y is no batch of measurements")
    return task, kind(made(tensors, metadata, y.shape[1:]), *given.values())


def _given(name: str, parameters: Any, tensors: dict[str, Tensor], dtype: torch.dtype) -> float | Tensor:
    """A parameter of the noise, or y: finite numbers, in one precision."""
    if name in tensors:
        tensor = tensors[name]
        if not tensor.is_floating_point():
            raise InputError(f"its {name} is {tensor.dtype}, not floating-point numbers")
        tensor = tensor.to(dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"its {name} has values that are NaN or infinite")
        return tensor
    value = parameters[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"its {name} is {str(value)[:50]}, no finite number")
    return value
