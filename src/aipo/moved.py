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
    "aipo.reconstruct": "aipo.reconstruct is a function; use `from aipo import reconstruct`",
    "aipo.baselines": "aipo.baselines is now runs/rivals.py in the repository",
    "aipo.conventional": "aipo.conventional is now runs/conventional.py in the repository",
}


class Moved(MetaPathFinder, Loader):
    """Finds `aipo.OLD`, which no file has any more, and what lies in an old package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in GONE:
            raise ModuleNotFoundError(GONE[fullname], name=fullname)
        return ModuleSpec(fullname, self) if _new_name(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, _new_name(module.__name__)
        sys.modules[old] = import_module(new)
        _warn(f"{old} is now {new}; import that")


def _new_name(fullname: str) -> str:
    """The name that a module has now; empty if the name is no old one."""
    package, _, name = fullname.partition(".")
    old, dot, inside = name.partition(".")
    return f"aipo.{MOVED[old]}{dot}{inside}" if package == "aipo" and old in MOVED else ""


def _warn(message: str) -> None:
    """At the line that asks for the old name, which is neither of Python's import nor of aipo itself."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "aipo"):
        frame = frame.f_back
    where = frame.f_globals
    warnings.warn_explicit(
        message,
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        where.get("__name__"),
        where.setdefault("__warningregistry__", {}),
    )


def install() -> None:
    """Ask here first: an old package that is a new one would load what lies in it a second time."""
    if not any(isinstance(finder, Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, Moved())
