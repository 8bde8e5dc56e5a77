"""Modules of earlier versions under their old names: importing one gives the new one, with a warning."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "allocator": "flows.allocator",
    "arrays": "basics.arrays",
    "blending": "selection.mixture",
    "branches": "reconstruction.branches",
    "certificate": "reconstruction.certificate",
    "checkpoints": "io.tensors",
    "components": "selection.components",
    "control": "path.step_control",
    "curvature": "path.solvers.curvature",
    "data": "flows.training.data",
    "defaults": "selection.defaults",
    "demo": "cli.demo",
    "derivatives": "basics.derivatives",
    "devices": "basics.devices",
    "distributed": "flows.training.distributed",
    "errors": "basics.errors",
    "evaluation": "cli.record",
    "fitting": "priors.fit",
    "following": "reconstruction.follow",
    "foreign": "priors.foreign",
    "images": "io.images",
    "langevin": "posterior.langevin",
    "laplace": "posterior.laplace",
    "latents": "path.latents",
    "lbfgs": "path.solvers.lbfgs",
    "measurements": "io.measurements",
    "measuring": "cli.measure",
    "metrics": "basics.quality",
    "minimise": "path.solvers.minimise",
    "muon": "flows.training.muon",
    "newton": "path.solvers.newton",
    "objective": "path.objective",
    "predictors": "path.predictors",
    "problem": "path.problem",
    "report": "cli.report",
    "restoring": "cli.restore",
    "sampling": "posterior.chain",
    "scales": "path.metric",
    "schedules": "path.schedules",
    "solvers": "path.solvers",
    "starts": "path.starts",
    "state": "path.state",
    "surrogates": "gaussian",
    "testing": "operators.check",
    "training": "flows.training.loop",
}


# What is no module any more, and what to write instead.
GONE = {
    "reconstruct": "aipo.reconstruct is a function; use `from aipo import reconstruct`",
    "baselines": "aipo.baselines is now runs/rivals.py in the repository",
    "conventional": "aipo.conventional is now runs/conventional.py in the repository",
}


class Moved(MetaPathFinder, Loader):
    """Finds `aipo.OLD`, which no file has any more."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package == "aipo" and name in GONE:
            raise ModuleNotFoundError(GONE[name], name=fullname)
        return ModuleSpec(fullname, self) if package == "aipo" and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new = f"aipo.{MOVED[module.__name__.removeprefix('aipo.')]}"
        warnings.warn(f"{module.__name__} is now {new}; import that", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(new)


def install() -> None:
    """Ask here last, after everything that finds modules which are there."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.append(Moved())
