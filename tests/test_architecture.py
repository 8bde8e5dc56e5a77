"""Imports point downwards only, numerics and model meet in `objective`, and files stay short."""

import ast
from pathlib import Path

import pytest

import aipo

ROOT = Path(aipo.__file__).parent

# Every module of the package; each one imports modules of the layers above its own line, never of its own.
LAYERS = [
    {"allocator", "arrays", "errors"},
    {
        "devices",
        "flows.frozen",
        "solvers",
        "derivatives",
        "operators.operator",
        "surrogates.form",
        "checkpoints",
        "muon",
        "deepinv.loading",
    },
    {
        "surrogates.low_rank",
        "surrogates.stationary",
        "distributed",
        "flows.layers",
        "flows.inference",
        "images",
        "metrics",
        "operators.entries",
        "operators.sensing",
        "operators.filters",
        "operators.scanners",
        "operators.combined",
        "operators.nonlinear",
    },
    {"flows.flow", "flows.graphs", "operators", "surrogates.textured"},
    {"likelihoods.likelihood", "surrogates"},
    {"posterior.form"},
    {
        "likelihoods.pointwise",
        "likelihoods.uneven",
        "posterior.filtered",
        "posterior.mixed",
    },
    {"likelihoods.intervals", "likelihoods.learnt", "likelihoods.speckle", "posterior.masked"},
    {
        "curvature",
        "lbfgs",
        "newton",
        "minimise",
        "likelihoods",
        "posterior",
        "testing",
        "flows.multiscale",
        "flows.tarflow",
        "data",
        "baselines",
    },
    {
        "starts",
        "problem",
        "control",
        "selection",
        "components",
        "measurements",
        "measuring",
        "flows.glow",
        "flows.realnvp",
    },
    {"scales", "predictors", "state", "blending", "flows", "langevin", "laplace"},
    {"schedules", "priors", "loss"},
    {"path", "training"},
    {"certificate", "foreign"},
    {"objective"},
    {"latents", "defaults", "sampling", "final_steps"},
    {"reconstruction", "fitting", "conventional"},
    {"following"},
    {"reconstruct"},
    {"deepinv.physics", "deepinv.noise"},
    {"deepinv.models"},
    {"deepinv"},
    {"branches", "evaluation"},
    {"report"},
    {"demo", "restoring"},
    {"cli", "__init__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
NUMERICS = {
    "solvers",
    "lbfgs",
    "newton",
    "minimise",
    "problem",
    "control",
    "state",
    "predictors",
    "schedules",
    "path",
}
NUMERICS |= {"langevin", "laplace", "schedules", "path", "derivatives", "curvature", "certificate"}
PACKAGES = ("flows", "operators", "likelihoods", "posterior", "surrogates")
MODEL = {"priors"} | {name for name in LEVEL if name.startswith(PACKAGES)}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


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
    return inside | ({"__init__"} if "aipo" in found else set())


def test_imports_are_found():
    assert imported("reconstruct") >= {"following", "priors", "selection", "errors"}
    assert imported("priors") >= {"checkpoints", "flows", "surrogates"}
    assert imported("__init__") >= {"flows", "operators", "reconstruct"}


def test_every_module_has_its_place():
    assert set(MODULES) == set(LEVEL)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards(name):
    upwards = {target for target in imported(name) if LEVEL[target] >= LEVEL[name]}
    assert not upwards


@pytest.mark.parametrize("name", sorted(NUMERICS))
def test_numerics_know_no_model(name):
    assert not imported(name) & MODEL


@pytest.mark.parametrize("name", sorted(MODEL))
def test_the_model_knows_no_numerics(name):
    assert not imported(name) & NUMERICS


@pytest.mark.parametrize("name", MODULES)
def test_files_fit_in_the_head(name):
    assert len(MODULES[name].read_text().splitlines()) <= 330
