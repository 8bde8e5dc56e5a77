"""The examples of the documentation run as they stand, with few evaluations at each weight."""

import re
from dataclasses import replace
from pathlib import Path

import torch

import aipo
from aipo.defaults import automatic

DOCS = Path(__file__).parent.parent / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_every_operator_of_the_page_restores(monkeypatch):
    """Each answer is finite and nearer to the truth than to grey, whatever was measured."""
    found, whole = [], aipo.reconstruct

    def quick(likelihood, prior):
        options = replace(automatic(likelihood.operator, prior), evaluations=2)
        found.append((likelihood.operator, whole(likelihood, prior, options=options)))
        return found[-1][1]

    monkeypatch.setattr(aipo, "reconstruct", quick)
    scope: dict = {}
    for index, code in enumerate(examples("operators.md")):
        exec(compile(code, f"operators.md, example {index}", "exec"), scope)
    assert len(found) == 15
    x = scope["x"]
    for operator, restored in found:
        name = type(operator).__name__
        assert torch.isfinite(restored.image).all(), name
        error = (restored.image - x).square().mean()
        # Differences leave the mean of every row open.
        assert name == "Differences" or error < 0.5 * (x - x.mean()).square().mean(), name
