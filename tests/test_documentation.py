"""The examples of the documentation run as they stand, with few evaluations at each weight."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import aipo
from aipo import likelihoods
from aipo.defaults import automatic

DOCS = Path(__file__).parent.parent / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def restored(monkeypatch) -> list:
    """(likelihood, reconstruction) of every example that has run."""
    found, whole = [], aipo.reconstruct

    def quick(likelihood, prior):
        options = replace(automatic(likelihood.operator, prior), evaluations=2)
        found.append((likelihood, whole(likelihood, prior, options=options)))
        return found[-1][1]

    monkeypatch.setattr(aipo, "reconstruct", quick)
    return found


def run(page: str) -> dict:
    scope: dict = {}
    for index, code in enumerate(examples(page)):
        exec(compile(code, f"{page}, example {index}", "exec"), scope)
    return scope


def test_every_operator_of_the_page_restores(restored):
    """Each answer is finite and nearer to the truth than to grey, whatever was measured."""
    x = run("operators.md")["x"]
    assert len(restored) == 18
    for likelihood, result in restored:
        name = type(likelihood.operator).__name__
        assert torch.isfinite(result.image).all(), name
        error = (result.image - x).square().mean()
        # Differences leave the mean of every row open, and two evaluations a weight find no lost signs.
        assert name in ("Differences", "Magnitude") or error < 0.5 * (x - x.mean()).square().mean(), name


def test_every_noise_model_of_the_page_restores(restored):
    x = run("likelihoods.md")["x"]
    assert {type(likelihood).__name__ for likelihood, _ in restored} == {
        name for name in likelihoods.__all__ if name not in ("Likelihood", "Pointwise", "measure")
    }
    for likelihood, result in restored:
        name = type(likelihood).__name__
        assert torch.isfinite(result.image).all(), name
        assert name == "Gaussian" or result.criterion == "discrepancy", name
        if name != "OneBit":
            error, before = ((v - x).square().mean() for v in (result.image, likelihood.y))
            assert error < before, name
