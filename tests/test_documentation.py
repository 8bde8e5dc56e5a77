"""The examples of the documentation run as they stand, with few evaluations at each weight."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import aipo
from aipo import likelihoods
from aipo.posterior import chain as sampling
from aipo.selection.defaults import path_to_minima

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def restored(monkeypatch) -> list:
    """(likelihood, reconstruction) of every example that has run."""
    found, whole = [], aipo.reconstruct

    def quick(likelihood, prior, weight="auto"):
        if weight == "mean":
            return whole(likelihood, prior, weight)
        options = replace(path_to_minima(likelihood.operator, prior), evaluations=2)
        found.append((likelihood, whole(likelihood, prior, options=options)))
        return found[-1][1]

    monkeypatch.setattr(aipo, "reconstruct", quick)
    monkeypatch.setattr(sampling, "LangevinOptions", lambda: aipo.LangevinOptions(60, 20))
    return found


def run(page: str) -> dict:
    scope: dict = {}
    for index, code in enumerate(examples(page)):
        exec(compile(code, f"{page}, example {index}", "exec"), scope)
    return scope


def test_every_operator_of_the_page_restores(restored):
    """Each answer is finite and nearer to the truth than to grey, whatever was measured."""
    x = run("operators.md")["x"]
    assert len(restored) == 19
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
        gaussian = name in ("Gaussian", "Heteroscedastic", "Coloured", "Correlated")
        assert result.criterion == ("sure" if gaussian else "discrepancy"), name
        if name != "OneBit":
            error, before = ((v - x).square().mean() for v in (result.image, likelihood.y))
            assert error < before, name


def test_every_task_of_the_page_restores(restored):
    scope = run("tasks.md")
    assert list(scope["results"]) == list(scope["tasks"]) and len(restored) == len(scope["tasks"])
    x = scope["x"]
    for task, result in scope["results"].items():
        assert torch.isfinite(result.image).all(), task
        error = (result.image - x).square().mean()
        # Two evaluations a weight find no lost signs; one bit tells little.
        assert task in ("lost signs", "one-bit sensing") or error < 0.5 * (x - x.mean()).square().mean(), task


def test_every_noise_model_goes_with_every_operator():
    """Energy, gradient and the Gaussian near it are finite; nothing assumes the other's shape."""
    scope = run_without_results("tasks.md")
    x = scope["x"]
    makes = {type(scope["measured"](*of)).__name__: of[1] for of in scope["tasks"].values()}
    del makes["Heteroscedastic"]  # its σ has the measurement's shape
    for operator, _ in scope["tasks"].values():
        for name, make in makes.items():
            if name == "Coloured" and operator.measurement_shape[-2:] != (16, 16):
                continue  # its spectrum has the measurement's shape
            positive = name in ("Rician", "Poisson", "PoissonGaussian")
            if positive and bool((operator(x) <= 0).any()):
                continue  # counts and magnitudes of negative numbers do not exist
            likelihood = scope["measured"](operator, make)
            place = x.clone().requires_grad_()
            energy = likelihood(place)
            gradient = torch.autograd.grad(energy.sum(), place)[0]
            assert torch.isfinite(energy).all() and torch.isfinite(gradient).all(), name
            misfit = float(likelihood.misfit(x))
            # Signs and clipped values far from their threshold are certain; one that is not weighs all.
            rare = name in ("OneBit", "Clipped")
            assert (0 <= misfit < torch.inf) if rare else (0.2 < misfit < 5), (name, type(operator).__name__)
            assert torch.isfinite(likelihood.gaussian().y).all()


def run_without_results(page: str) -> dict:
    scope: dict = {}
    exec(examples(page)[0].rsplit("results = ", 1)[0], scope)
    return scope


def test_the_page_on_uncertainty_runs(restored):
    scope = run("uncertainty.md")
    x, drawn = scope["x"], scope["drawn"]
    inside = ((scope["lower"] < x) & (x < scope["upper"])).float().mean()
    assert 0.5 < float(inside) < 1  # of a short chain
    assert drawn.images.shape == (8, *x.shape)
    assert (drawn.mean - x).square().mean() < 0.5 * 0.1**2


def test_the_page_on_deepinv_runs(restored):
    scope = run("deepinv.md")
    x = scope["x"]
    for image in (scope["result"].image, scope["restored"]):
        assert (image - x[: len(image)]).square().mean() < 0.5 * (x - x.mean()).square().mean()
    assert torch.isfinite(scope["mean"]).all() and torch.isfinite(scope["variance"]).all()


PAGES = [*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), ROOT / "runs" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_script_and_every_table_is_listed():
    index = (ROOT / "runs" / "README.md").read_text()
    scripts = {path.stem for path in (ROOT / "runs").glob("*.py")} - {"common"}
    tables = {path.name for path in (DOCS / "results").glob("*.md")}
    assert {name for name in scripts if f"({name}.py)" not in index} == set()
    assert {name for name in tables if f"results/{name})" not in index} == set()
