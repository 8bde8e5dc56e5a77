"""Measurement files: a measurement and all that restoring it needs, in safetensors and JSON, no pickle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aipo import likelihoods
from aipo.basics.errors import InputError
from aipo.io.tensors import load_tensors, save_tensors
from aipo.likelihoods import Likelihood
from aipo.operators import (
    Blur,
    Composition,
    Downsampling,
    Filter,
    FourierMask,
    FourierSensing,
    GaussianSensing,
    Grey,
    Identity,
    LinearOperator,
    Magnitude,
    Mask,
    Operator,
    Radon,
    Stack,
)

FORMAT = "aipo measurement 1"

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


# Operators that are made of others, each made from its parts.
_COMBINED: dict[str, Callable[..., Operator]] = {
    "Composition": Composition,
    "Stack": Stack,
    "Magnitude": Magnitude,
}


def save_measurement(path: str | Path, task: str, likelihood: Likelihood) -> None:
    """Write a measurement; the file keeps the seed of a sensing matrix instead of the matrix.

    Raises:
        InputError: numbers alone do not describe the operator or the noise model.
    """
    noise = type(likelihood).__name__
    if noise not in NOISE:
        raise InputError(f"{noise} noise cannot be written to a file; keep the likelihood in Python")
    tensors, numbers = _described(likelihood.operator)
    parameters: dict[str, Any] = {}
    for name in (*likelihood.per_image, *likelihood.shared):
        value = getattr(likelihood, name)
        if isinstance(value, Tensor):
            tensors[name] = value.clone()
        else:
            parameters[name] = value
    metadata = {"format": FORMAT, "task": task, "noise": noise, "parameters": parameters, **numbers}
    save_tensors(Path(path), tensors | {"y": likelihood.y}, metadata)


def load_measurement(path: str | Path) -> tuple[str, Likelihood]:
    """Read the task and the likelihood of a measurement file.

    Raises:
        InputError: it is not a measurement file, or this machine draws another sensing matrix from the seed.
        CheckpointError: the file is damaged.
    """
    tensors, metadata = load_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a measurement file; make one with aipo measure")
    try:
        operator = _operator(tensors, metadata, path)
        noise = metadata["noise"]
        if noise not in NOISE:
            raise InputError(f"{path} has {noise} noise, which this version does not know; update aipo")
        kind = NOISE[noise]
        given = {**metadata["parameters"], **tensors}
        return metadata["task"], kind(
            operator, *(given[name] for name in ("y", *kind.shared, *kind.per_image))
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is incomplete ({error!r}); measure again") from error


def _described(operator: Operator) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the numbers that a file keeps of an operator and, inside, of its parts."""
    kind = type(operator).__name__
    if kind not in _OPERATORS and kind not in _COMBINED:
        raise InputError(f"a measurement of {kind} cannot be written to a file; keep it in Python")
    parts = [_described(part) for part in _parts(operator)]
    tensors = {f"{i}.{name}": value for i, part in enumerate(parts) for name, value in part[0].items()}
    numbers = {"operator": kind, "shape": operator.shape, **_numbers(operator)}
    if parts:
        numbers["parts"] = [part[1] for part in parts]
    return tensors | _tensors(operator), numbers


def _parts(operator: Operator) -> tuple[Operator, ...]:
    if isinstance(operator, Composition | Stack):
        return tuple(operator.operators)
    return (operator.linear,) if isinstance(operator, Magnitude) else ()


def _tensors(operator: Operator) -> dict[str, Tensor]:
    """The tensors that a file keeps of an operator."""
    if isinstance(operator, Mask | FourierMask):
        return {"mask": operator.mask}
    if isinstance(operator, Blur):
        return {"kernel": operator.kernel}
    if isinstance(operator, Filter):
        return {"transfer": torch.view_as_real(operator.transfer.to(torch.complex128))}
    return {"degrees": operator.degrees} if isinstance(operator, Radon) else {}


def _numbers(operator: Operator) -> dict[str, Any]:
    """The numbers that a file keeps of an operator."""
    if isinstance(operator, GaussianSensing):
        return {
            "measurements": operator.measurements,
            "seed": operator.seed,
            "fingerprint": operator.fingerprint(),
        }
    if isinstance(operator, FourierSensing):
        return {"measurements": operator.measurements, "seed": operator.seed}
    if isinstance(operator, Downsampling):
        return {"factor": operator.factor}
    return {"weights": operator.weights} if isinstance(operator, Grey) else {}


# How each operator is made from its shape, tensors and numbers.
_OPERATORS: dict[str, Callable[[tuple[int, int, int], dict, dict], LinearOperator]] = {
    "Identity": lambda shape, tensors, numbers: Identity(shape),
    "Mask": lambda shape, tensors, numbers: Mask(tensors["mask"]),
    "GaussianSensing": lambda shape, tensors, numbers: GaussianSensing(
        shape, numbers["measurements"], numbers["seed"]
    ),
    "FourierSensing": lambda shape, tensors, numbers: FourierSensing(
        shape, numbers["measurements"], numbers["seed"]
    ),
    "Blur": lambda shape, tensors, numbers: Blur(shape, tensors["kernel"]),
    "Filter": lambda shape, tensors, numbers: Filter(shape, torch.view_as_complex(tensors["transfer"])),
    "Downsampling": lambda shape, tensors, numbers: Downsampling(shape, numbers["factor"]),
    "Grey": lambda shape, tensors, numbers: Grey(shape, tuple(numbers["weights"])),
    "FourierMask": lambda shape, tensors, numbers: FourierMask(shape, tensors["mask"]),
    "Radon": lambda shape, tensors, numbers: Radon(shape, tensors["degrees"]),
}


def _operator(tensors: dict[str, Tensor], metadata: dict[str, Any], path: str | Path) -> Operator:
    kind = metadata["operator"]
    if kind in _COMBINED:
        return _COMBINED[kind](
            *(_operator(_inside(tensors, i), part, path) for i, part in enumerate(metadata["parts"]))
        )
    if kind not in _OPERATORS:
        raise InputError(f"{path} was measured by {kind}, which this version does not know; update aipo")
    operator = _OPERATORS[kind](tuple(metadata["shape"]), tensors, metadata)
    if isinstance(operator, GaussianSensing) and operator.fingerprint() != metadata["fingerprint"]:
        raise InputError(
            f"seed {metadata['seed']} of {path} gives another matrix with this NumPy; restore it with the "
            "version that measured it"
        )
    return operator


def _inside(tensors: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """The tensors of one part, under the names that the part itself uses."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
