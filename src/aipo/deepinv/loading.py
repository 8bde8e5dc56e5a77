"""Importing deepinv, also beside a PyTorch for which its torchvision was not built.

The Python part of torchvision registers shapes for operators of its compiled part. If the compiled part does
not load (a CPU build of PyTorch beside the usual wheel), the import fails on the first of these operators.
deepinv calls none of them, so they are declared, without code, and the import is tried again.
"""

import importlib
import re
import sys
from types import ModuleType

import torch

from aipo.basics.errors import InputError

# The declarations are kept alive, because PyTorch drops an operator with the library that defined it.
_declared: list[torch.library.Library] = []


def load() -> ModuleType:
    """Import the deepinv package.

    Raises:
        InputError: the package is not installed.
    """
    for _ in range(100):  # one missing operator each time; torchvision has about a dozen
        try:
            return importlib.import_module("deepinv")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            _declare(missing.group(1))
        except ModuleNotFoundError as error:
            raise InputError(f"the package {error.name} is missing; pip install 'aipo[deepinv]'") from error
    raise InputError("torchvision does not fit this PyTorch; install the pair that belongs together")


def _declare(name: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(f"{name}() -> ()")
    _declared.append(library)
    # The next import would take the half-made modules of a failed import for complete ones.
    for module in [m for m in sys.modules if m.split(".")[0] in ("torchvision", "deepinv", "torchmetrics")]:
        del sys.modules[module]
