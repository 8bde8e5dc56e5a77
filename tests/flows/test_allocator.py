"""Freed memory is kept: no page of a second activation is touched for the first time."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from aipo.flows import Glow
if {flow}:
    Glow((1, 4, 4), levels=1, steps=1, hidden=4)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**22)
before = faults()
for _ in range(8):
    torch.ones(2**22)
print(faults() - before)
"""


def faults(flow: bool) -> int:
    script = SCRIPT.format(flow=flow)
    return int(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    )


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to keep memory")
def test_a_flow_makes_the_process_keep_freed_memory():
    pages = 8 * 2**24 // 4096
    assert faults(flow=True) < 0.25 * pages  # where the heap grew first, one block more is new
