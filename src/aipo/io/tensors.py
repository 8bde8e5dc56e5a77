"""Files that hold tensors: safetensors and JSON only, written whole or not at all, verified when read.

safetensors carries no checksum, so the config.json of a prior folder keeps the SHA-256 of the tensor file
and of itself. A checksum tells that a file is whole, not that its author meant well: what is read is looked
at again by those who use it. Nothing here ever unpickles.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from aipo.basics.errors import CheckpointError
from aipo.io.regular import check_regular, read_regular

CONFIG_NAME = "config.json"
TENSORS_NAME = "model.safetensors"
# Bytes of the largest files that are read: a configuration, and tensors.
LARGEST_CONFIG, LARGEST_TENSORS = 2**24, 2**32

# What reading a damaged or malicious file may raise: safetensors meets types that PyTorch has not, JSON may
# be nested too deeply, and memory may end.
_DAMAGE = (
    OSError,
    SafetensorError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,  # also RecursionError
    MemoryError,
    OverflowError,
)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a crash sees the old content or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write one safetensors file with JSON metadata and a checksum of both."""
    contiguous = _contiguous(tensors)
    text = json.dumps(metadata)
    write_atomic(path, save(contiguous, {"json": text, "sha256": _content_digest(contiguous, text)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and metadata of a file that `save_tensors` wrote.

    Raises:
        CheckpointError: it is not such a file, it is damaged, or it is larger than `LARGEST_TENSORS`.
    """
    try:
        check_regular(path, LARGEST_TENSORS)
        with safe_open(path, "pt") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if stored["sha256"] != _content_digest(tensors, stored["json"]):
            raise ValueError("its content does not match its checksum")
        metadata = json.loads(stored["json"])
        if not isinstance(metadata, dict):
            raise ValueError(f"its metadata is a {type(metadata).__name__}")
        return tensors, metadata
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is not a readable tensor file of aipo ({_told(error)}); write it again"
        ) from error


def save_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a prior folder: model.safetensors and config.json, with the checksums of both."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save(_contiguous(tensors))
    config = {**config, "sha256": {TENSORS_NAME: hashlib.sha256(data).hexdigest()}}
    config["sha256"][CONFIG_NAME] = _config_digest(config)
    write_atomic(folder / TENSORS_NAME, data)
    write_atomic(folder / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())


def load_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a prior folder and verify its own checksum.

    Raises:
        CheckpointError: the file is missing, damaged or changed by hand.
    """
    path = folder / CONFIG_NAME
    try:
        config = json.loads(read_regular(path, LARGEST_CONFIG))
        fits = config["sha256"][CONFIG_NAME] == _config_digest(config)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is not a readable prior configuration ({_told(error)}); restore it"
        ) from error
    if not fits:
        raise CheckpointError(f"{path} does not match its own checksum; restore the original file")
    return config


def load_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the configuration and tensors of a prior folder and verify their checksums.

    Raises:
        CheckpointError: a file is missing, damaged or changed.
    """
    config = load_config(folder)
    path = folder / TENSORS_NAME
    try:
        data = read_regular(path, LARGEST_TENSORS)
        if hashlib.sha256(data).hexdigest() != config["sha256"][TENSORS_NAME]:
            raise CheckpointError(
                f"{path} does not match the checksum in {CONFIG_NAME}; restore the original file"
            )
        return config, load(data)
    except CheckpointError:
        raise
    except _DAMAGE as error:
        raise CheckpointError(f"{path} is not a readable tensor file ({_told(error)}); restore it") from error


def check_state(module: torch.nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Refuse tensors that do not fit a module, which may be on the meta device.

    Raises:
        CheckpointError: it names the tensors that are missing, extra, misshapen, of another type or not
            finite in the module's precision.
    """
    state = module.state_dict()
    common = sorted(state.keys() & tensors.keys())
    shaped = [name for name in common if state[name].shape == tensors[name].shape]
    typed = [name for name in shaped if alike(tensors[name], state[name])]
    finite = [name for name in typed if _finite(tensors[name].to(state[name].dtype))]
    for problem, names in (
        ("misses", state.keys() - tensors.keys()),
        ("has unexpected", tensors.keys() - state.keys()),
        ("has misshapen", set(common) - set(shaped)),
        ("has other than floating-point", set(shaped) - set(typed)),
        ("has NaN or infinite values in its", set(typed) - set(finite)),
    ):
        if names:
            raise CheckpointError(
                f"{origin} {problem} tensors {', '.join(sorted(names)[:5])}; it belongs to another flow, or "
                "is damaged"
            )


def load_state(module: torch.nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load tensors into a module; every name and shape must fit, as `check_state` says.

    Raises:
        CheckpointError: it names the tensors that do not fit.
    """
    check_state(module, tensors, origin)
    module.load_state_dict(tensors)


def alike(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether a stored tensor is of the wanted type; real numbers may have another precision."""
    return tensor.dtype == wanted.dtype or (tensor.is_floating_point() and wanted.is_floating_point())


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _told(error: BaseException) -> str:
    """The text of an error on one line; files can put anything there."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200].rstrip(".") or type(error).__name__


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _content_digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(save(tensors))
    digest.update(text.encode())
    return digest.hexdigest()


def _config_digest(config: dict[str, Any]) -> str:
    """SHA-256 of everything except the digest itself, in a canonical form that ignores white space."""
    sums = {name: digest for name, digest in config["sha256"].items() if name != CONFIG_NAME}
    return hashlib.sha256(json.dumps({**config, "sha256": sums}, sort_keys=True).encode()).hexdigest()
