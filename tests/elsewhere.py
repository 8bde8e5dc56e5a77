"""A second device that every machine has: tensors that say they are on "meta", with values on the CPU.

Inside `elsewhere()` code that mixes tensors of two devices, or reads values where they are not, fails as it
would on a GPU. It says nothing of a GPU's kernels, speed or rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
_AUTOCAST = torch.autocast
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
_INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)


class There(Tensor):
    """A tensor of the other device, and where its values are."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            values.stride(),
            values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(DEVICE),
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("numpy() of a tensor on another device; copy it to the CPU first")


@contextmanager
def elsewhere() -> Iterator[str]:
    """The other device exists here; its name for `device=` and `.to`."""
    tensor, as_tensor = _constant(torch.tensor), _constant(torch.as_tensor)
    with _Factories(), patch.multiple(torch, autocast=_autocast, tensor=tensor, as_tensor=as_tensor):
        yield DEVICE


def _autocast(device: str, *args: Any, **kwargs: Any) -> Any:
    """ "meta" has no mixed precision, and nothing here asks for it."""
    return nullcontext() if device == DEVICE else _AUTOCAST(device, *args, **kwargs)


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` or `torch.as_tensor`, which dispatch nothing."""

    def made(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        if _named(kwargs) != DEVICE:
            return make(data, *args, **kwargs)
        if isinstance(data, Tensor):
            return data.to(DEVICE, kwargs.get("dtype"))
        return make(data, *args, **{**kwargs, "device": "cpu"}).to(DEVICE)

    return made


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    target = _named(kwargs)
    if not there and target is None:
        return func(*args, **kwargs)
    _check(func, tensors, there, kwargs)
    if func.overloadpacket is torch.ops.aten.copy_:
        target = args[0].device.type
    lands = bool(there) if target is None else target == DEVICE
    if "device" in kwargs and kwargs["device"] is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(tensor.values): tensor for tensor in there}

    def unwrap(leaf: Any) -> Any:
        return leaf.values if isinstance(leaf, There) else leaf

    def wrap(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and lands):
            return leaf
        return known[id(leaf)] if id(leaf) in known else There(leaf)  # of operations in place

    return tree_map(wrap, func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs)))


def _check(func: Any, tensors: list[Tensor], there: list[There], kwargs: dict[str, Any]) -> None:
    if kwargs.get("generator") is not None and (there or _named(kwargs) == DEVICE):
        raise RuntimeError(f"{func}: a generator of the CPU cannot fill a tensor of another device")
    if there and func.overloadpacket not in _COPIES + _INDEXING:
        here = [tuple(t.shape) for t in tensors if not isinstance(t, There) and t.ndim > 0]
        if here:
            shapes = [tuple(t.shape) for t in there]
            raise RuntimeError(f"{func}: tensors {shapes} are on {DEVICE}, {here} on the CPU")


def _named(kwargs: dict[str, Any]) -> str | None:
    device = kwargs.get("device")
    return None if device is None else torch.device(device).type
