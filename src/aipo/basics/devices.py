"""Where tensors are: a device that the user named, checked before anything is computed."""

import torch

from aipo.basics.errors import InputError


def usable(name: str) -> torch.device:
    """The device of that name.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", …

    Raises:
        InputError: this machine, or this build of PyTorch, has none.
    """
    try:
        one = torch.ones(1, device=name)
        one.item()  # which a device without numbers, such as "meta", cannot answer
        return one.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"device = {name!r} cannot be used here ({reason}); use cpu") from error
