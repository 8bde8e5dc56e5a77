"""`import aipo` is cheap: what is slow to import loads where it is used (runs/ground.py measures it)."""

import subprocess
import sys

import pytest

# Each of these costs tenths of a second, and none is needed before the first restoration.
HEAVY = ("scipy", "skimage", "matplotlib", "PIL", "jsonargparse", "deepinv", "torchvision", "pandas")


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The packages that `import aipo` loads and `import torch` does not."""
    script = (
        "import sys, torch; before = {name.split('.')[0] for name in sys.modules}; import aipo; "
        "print(*({name.split('.')[0] for name in sys.modules} - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_itself_is_loaded(loaded):
    assert "aipo" in loaded


@pytest.mark.parametrize("package", HEAVY)
def test_no_heavy_package_is(loaded, package):
    assert package not in loaded
