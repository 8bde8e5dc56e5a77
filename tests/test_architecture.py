"""Rooms import downwards, no circle runs through modules, numerics and model do not meet, files are short."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import aipo

ROOT = Path(aipo.__file__).parent

# From the ground up; a room imports only itself and rooms above its own line in this list.
ROOMS = [
    "basics",
    "operators",
    "likelihoods",
    "gaussian",
    "noise",
    "io",
    "bulk",
    "flows",
    "flows.training",
    "priors",
    "path.solvers",
    "path",
    "posterior",
    "selection",
    "reconstruction",
    "cli",
    "deepinv",
    "",  # aipo itself: the public names
]
# They see energies as callables, and know neither pictures nor instruments nor priors.
NUMERICS = {f"path.{name}" for name in ("problem", "predictors", "step_control", "state", "trace", "options")}
NUMERICS |= {"path.schedules", "posterior.langevin", "posterior.laplace", "reconstruction.certificate"}
MODEL_ROOMS = ("operators", "likelihoods", "gaussian", "noise", "flows", "flows.training", "priors")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def room(name: str) -> str:
    """The innermost room that a module lies in."""
    inside = [own for own in ROOMS if own and (name == own or name.startswith(own + "."))]
    return max(inside, key=len, default="")


def is_numerics(name: str) -> bool:
    return name in NUMERICS or room(name) == "path.solvers"


def imported(name: str) -> set[str]:
    """The package's modules that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import; name the module in full"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {member for member in members if member.removeprefix("aipo.") in MODULES}
            found |= modules | ({str(node.module)} if members - modules else set())
    inside = {target.removeprefix("aipo.") for target in found if target.startswith("aipo.")}
    return inside | ({""} if "aipo" in found else set())


def test_imports_are_found():
    assert imported("reconstruction.reconstruct") >= {"reconstruction.follow", "selection.plans"}
    assert imported("priors.library") >= {"io.tensors", "flows", "gaussian"}
    assert imported("") >= {"flows", "operators", "reconstruction.reconstruct"}


def test_every_module_lies_in_a_room():
    outside = {name for name in MODULES if room(name) == "" and name not in ("", "moved")}
    assert not outside
    assert {room(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_rooms_import_downwards(name):
    own = ROOMS.index(room(name))
    assert not {target for target in imported(name) if ROOMS.index(room(target)) > own}


def test_no_circle_runs_through_the_modules():
    graph = {name: imported(name) & set(MODULES) - {name} for name in MODULES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", [name for name in MODULES if is_numerics(name)])
def test_numerics_know_no_model(name):
    assert not {target for target in imported(name) if room(target) in MODEL_ROOMS}


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in MODEL_ROOMS])
def test_the_model_knows_no_numerics(name):
    assert not {target for target in imported(name) if is_numerics(target)}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_importing_a_module_gives_that_module(name):
    """No function that a package exports shadows a module of the package."""
    found = import_module(f"aipo.{name}".rstrip("."))
    parent, _, own = f"aipo.{name}".rstrip(".").rpartition(".")
    assert isinstance(found, ModuleType)
    assert not parent or getattr(import_module(parent), own) is found


@pytest.mark.parametrize("name", MODULES)
def test_files_fit_in_the_head(name):
    assert len(MODULES[name].read_text().splitlines()) <= 330
