"""Files that hold tensors: safetensors and JSON only, written whole or not at all, verified when read.

safetensors carries no checksum, so the config.json of a prior folder keeps the SHA-256 of the tensor file
and of itself. Nothing here ever unpickles.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aipo.basics.errors import CheckpointError

CONFIG_NAME = "config.json"
TENSORS_NAME = "model.safetensors"


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
        CheckpointError: it is not such a file, or it is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            stored = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if stored["sha256"] != _content_digest(tensors, stored["json"]):
            raise ValueError("its content does not match its checksum")
        return tensors, json.loads(stored["json"])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a readable tensor file of aipo ({error}); write it again"
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
        config = json.loads(path.read_bytes())
        stated = config["sha256"][CONFIG_NAME]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a readable prior configuration ({error}); restore it"
        ) from error
    if stated != _config_digest(config):
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
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != config["sha256"][TENSORS_NAME]:
            raise CheckpointError(
                f"{path} does not match the checksum in {CONFIG_NAME}; restore the original file"
            )
        with safe_open(path, "pt") as file:
            return config, {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a readable tensor file ({error}); restore it") from error


def load_state(module: torch.nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load tensors into a module; every name and shape must fit.

    Raises:
        CheckpointError: it names the missing, extra or misshapen tensors.
    """
    state = module.state_dict()
    missing, extra = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    shapes = [name for name in state.keys() & tensors.keys() if state[name].shape != tensors[name].shape]
    for problem, names in (("misses", missing), ("has unexpected", extra), ("has misshapen", sorted(shapes))):
        if names:
            raise CheckpointError(
                f"{origin} {problem} tensors {', '.join(names[:5])}; it belongs to another flow"
            )
    module.load_state_dict(tensors)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _content_digest(tensors: dict[str, Tensor], text: str) -> str:
    return hashlib.sha256(save(tensors) + text.encode()).hexdigest()


def _config_digest(config: dict[str, Any]) -> str:
    """SHA-256 of everything except the digest itself, in a canonical form that ignores white space."""
    sums = {name: digest for name, digest in config["sha256"].items() if name != CONFIG_NAME}
    return hashlib.sha256(json.dumps({**config, "sha256": sums}, sort_keys=True).encode()).hexdigest()
