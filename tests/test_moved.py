"""Modules of earlier versions still import under their old names, and each says once where it is now."""

import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch

import aipo
from aipo.moved import GONE, MOVED, Moved
from aipo.operators import Identity

every_old_name = pytest.mark.parametrize("name", MOVED)


@pytest.fixture(autouse=True)
def nothing_old_was_imported():
    for name in [name for name in sys.modules if name.startswith("aipo.") and name.split(".")[1] in MOVED]:
        del sys.modules[name]
    for name in MOVED:
        aipo.__dict__.pop(name, None)


@every_old_name
def test_an_old_module_is_the_new_one_and_says_so_once(name):
    new = f"aipo.{MOVED[name]}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = [import_module(f"aipo.{name}"), getattr(aipo, name), import_module(f"aipo.{name}")]
    assert all(module is import_module(new) for module in found)
    assert found[0].__name__ == new and sys.modules[new] is found[0]
    (warning,) = said
    sentence = str(warning.message)
    assert warning.category is DeprecationWarning
    assert sentence.startswith(f"aipo.{name} ") and sentence.count(new) == 1
    assert "\n" not in sentence and ". " not in sentence


@every_old_name
def test_an_old_module_is_an_attribute_of_the_package(name):
    with pytest.warns(DeprecationWarning, match=f"aipo.{MOVED[name]}"):
        found = getattr(aipo, name)
    assert found is import_module(f"aipo.{MOVED[name]}")


ASKING = {
    "import": "import aipo.solvers",
    "from": "from aipo import solvers",
    "from within": "from aipo.solvers import solver",
    "attribute": "import aipo; aipo.solvers",
    "import_module": "import importlib; importlib.import_module('aipo.solvers')",
}


@pytest.mark.parametrize("asked", ASKING.values(), ids=ASKING)
def test_the_warning_names_the_line_that_asks(asked):
    with pytest.warns(DeprecationWarning) as said:
        exec(compile("\n" + asked, "users.py", "exec"), {"__name__": "users"})
    assert [(warning.filename, warning.lineno) for warning in said] == [("users.py", 2)]


def test_a_script_that_uses_an_old_name_is_told_without_any_switch():
    """Python shows a DeprecationWarning only if it belongs to the main program."""
    script = "import aipo\naipo.errors\nfrom aipo.solvers import lbfgs"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("DeprecationWarning") == 2
    assert "<string>:2" in done.stderr and "<string>:3" in done.stderr


INSIDE = ["solvers.lbfgs", "solvers.solver", "surrogates.low_rank", "surrogates.stationary"]


@pytest.mark.parametrize("name", INSIDE)
def test_what_lies_in_an_old_package_is_loaded_once(name):
    """Or its classes would exist twice, and those of one would not be those of the other."""
    package, inside = name.split(".")
    with pytest.warns(DeprecationWarning) as said:
        found = import_module(f"aipo.{name}")
    assert str(said[-1].message) == f"aipo.{name} is now aipo.{MOVED[package]}.{inside}; import that"
    assert found is import_module(f"aipo.{MOVED[package]}.{inside}")
    assert sys.modules[f"aipo.{name}"] is found and found.__name__ == f"aipo.{MOVED[package]}.{inside}"
    assert getattr(import_module(f"aipo.{MOVED[package]}"), inside) is found


def test_what_never_was_in_an_old_package_is_unknown():
    with pytest.warns(DeprecationWarning), pytest.raises(ModuleNotFoundError, match="nothing"):
        import_module("aipo.solvers.nothing")


@pytest.mark.parametrize("name", GONE)
def test_what_is_no_module_any_more_says_what_to_write(name):
    with pytest.raises(ModuleNotFoundError, match=GONE[name].split(" is ")[0]):
        import_module(name)
    assert Moved().find_spec(name.removeprefix("aipo."), None) is None, "a user's own may have that name"


def test_no_old_name_hides_a_new_one():
    package = Path(aipo.__file__).parent
    present = {path.stem for path in package.iterdir()} | set(aipo.__all__)
    assert not set(MOVED) & present


def test_old_names_of_functions_and_classes_work():
    with pytest.warns(DeprecationWarning):
        aipo.testing.check_operator(Identity((1, 3, 4)))
        prior = aipo.foreign.Foreign(lambda x: -x.square().flatten(1).sum(1))
    assert aipo.foreign.Foreign is aipo.priors.Foreign
    assert float(prior.energy(torch.ones(1, 1, 2, 2))) == 4


def test_errors_of_old_names_are_the_new_ones():
    """Who caught `aipo.errors.InputError` still catches what is raised."""
    with pytest.warns(DeprecationWarning):
        from aipo.errors import InputError  # pyright: ignore[reportMissingImports]
    with pytest.raises(InputError):
        Identity((1, 0, 4))


@pytest.mark.parametrize("name", ["nothing", "basics.nothing", "path.errors"])
def test_other_names_are_unknown(name):
    with pytest.raises(ModuleNotFoundError, match=name):
        import_module(f"aipo.{name}")


def test_other_attributes_are_unknown():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = aipo.nothing
    with pytest.raises(ImportError, match="nothing"):
        from aipo import nothing  # noqa: F401
