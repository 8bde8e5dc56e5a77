"""Firm ground: what was mended, measured before and after.

    python runs/ground.py measure LABEL [--only NAME ...]     # with either version of aipo on the path
    python runs/ground.py write                               # docs/results/ground.md

The same script measures an older checkout (`PYTHONPATH=OLD/src python runs/ground.py measure before`) and
this one (`… measure after`), on one machine, one thread, with what both offer. A figure that a version cannot
give is the error that it ends in. Every figure goes to docs/results/ground.jsonl as soon as it is measured,
and the newest one of a label counts. Everything here runs with the package alone, on photographs that come
with scikit-image. `quality.py`, `first_light.py` and `tasks.py` measure the pictures of the tables, and
`typical.py` those that a prior was not trained on.
"""

import argparse
import importlib
import json
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import aipo
from aipo import likelihoods as noise
from aipo import operators as op

FILE = Path(__file__).parent.parent / "docs" / "results" / "ground.jsonl"
SHAPE = (3, 48, 48)


def module(*names: str) -> Any:
    """The first of these modules that this version has."""
    for name in names:
        try:
            return importlib.import_module(f"aipo.{name}")
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(" or ".join(names))


def photograph(rows: slice, columns: slice, name: str = "astronaut") -> torch.Tensor:
    """A crop of a photograph that comes with scikit-image, (1, 3, H, W)."""
    from skimage import data

    return torch.from_numpy(getattr(data, name)()[rows, columns] / 255.0).permute(2, 0, 1)[None].float()


def crops() -> torch.Tensor:
    """Four pictures of 48 × 48, (4, 3, 48, 48)."""
    places = [("astronaut", 20, 190), ("coffee", 150, 200), ("chelsea", 100, 180), ("rocket", 300, 300)]
    return torch.cat([photograph(slice(r, r + 48), slice(c, c + 48), name) for name, r, c in places])


def psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean over pictures, dB."""
    errors = ((image.clamp(0, 1) - truth) ** 2).flatten(1).mean(1)
    return float(-10 * torch.log10(errors).mean())


def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    x = crops()
    return x, x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def import_seconds() -> dict:
    """`import aipo` beside `import torch`, the least of five."""
    script = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import aipo; "
        "print(b - a, time.perf_counter() - b)"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(5)]
    pairs = [[float(value) for value in run.stdout.split()] for run in runs]
    return {"torch, s": min(p[0] for p in pairs), "aipo, s more": min(p[1] for p in pairs)}


def spellings() -> dict:
    """One noisy photograph spelled in several ways: dB, and the largest difference of a value."""
    (x, y), prior = noisy(), aipo.load_prior("photos")
    everything, sigma = torch.ones(SHAPE, dtype=torch.bool), torch.full_like(y, 0.1)
    spelled = {
        "Gaussian(Identity)": noise.Gaussian(op.Identity(SHAPE), y, 0.1),
        "Mask, all true": noise.Gaussian(op.Mask(everything), y.flatten(1), 0.1),
        "Heteroscedastic, one σ": noise.Heteroscedastic(op.Identity(SHAPE), y, sigma),
        "Composition(Identity)": noise.Gaussian(op.Composition(op.Identity(SHAPE)), y, 0.1),
        "Stack(Identity)": noise.Gaussian(op.Stack(op.Identity(SHAPE)), y.flatten(1), 0.1),
        "Downsampling by 1": noise.Gaussian(op.Downsampling(SHAPE, 1), y, 0.1),
        "Coloured, flat": noise.Coloured(op.Identity(SHAPE), y, torch.full(SHAPE[1:], 0.01)),
    }
    found: dict[str, Any] = {}
    images = []
    for name, likelihood in spelled.items():
        images.append(aipo.reconstruct(likelihood, prior).image)
        found[f"{name}, dB"] = psnr(images[-1], x)
    found["largest difference"] = max(float((image - images[0]).abs().max()) for image in images)
    known = everything.clone()
    known[:, 24, 24] = False
    lost = aipo.reconstruct(noise.Gaussian(op.Mask(known), y[:, known], 0.1), prior).image
    found["one pixel lost, dB less"] = psnr(images[0], x) - psnr(lost, x)
    return found


def foreign() -> dict:
    """Sensing under a density of another package that is the very same: dB less."""
    prior, x = aipo.load_prior("photos"), crops()[:2, :, 8:40, 8:40]
    likelihood = noise.measure(
        op.GaussianSensing((3, 32, 32), 768, seed=0), x, 0.01, torch.Generator().manual_seed(0)
    )
    kind = module("priors.foreign", "foreign").Foreign
    same = kind(prior.log_prob, surrogate=prior.surrogate)
    own, other = (aipo.reconstruct(likelihood, p).image for p in (prior, same))
    return {"dB less": psnr(own, x) - psnr(other, x)}


class Surrogate:
    """The Gaussian itself as prior, whose posterior is known."""

    def __init__(self, surrogate: Any) -> None:
        self.surrogate = surrogate

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """½ (x − μ)ᵀ Σ⁻¹ (x − μ), (B,)."""
        return module("gaussian.surrogate", "surrogates").energy(self.surrogate, x)


def hole() -> dict:
    """What 90 % intervals hold in a hole of 42 × 42 × 3 = 5,292 entries, the Gaussian itself as prior."""
    surrogate = aipo.load_prior("photos").surrogate
    shape, operator = (3, 64, 64), op.block_mask((3, 64, 64), 42)
    draws = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    x = surrogate.mean_like(draws) + surrogate.factor(draws)
    likelihood = noise.measure(operator, x, 0.02, torch.Generator().manual_seed(1))
    started = time.perf_counter()
    drawn = aipo.sample(likelihood, Surrogate(surrogate))
    lower, upper = drawn.interval(0.9)
    inside = ((lower < x) & (x < upper))[:, ~operator.mask]
    return {"inside, %": 100 * float(inside.float().mean()), "s": time.perf_counter() - started}


def memory() -> dict:
    """Peak of a path of 4 × 32 steps of Adam on 256 × 256 × 3, above what the same process has before it."""
    solvers = module("path.solvers.descent", "solvers")
    options = aipo.PathOptions(
        (2.0, 1.0, 0.5, 0.25), solver=solvers.Adam(0.007), evaluations=32, metric="data"
    )
    shape = (3, 256, 256)
    likelihood = noise.measure(op.Identity(shape), torch.rand(1, *shape), 0.1)
    prior = Surrogate(aipo.load_prior("photos").surrogate)
    aipo.reconstruct(likelihood, prior, "sure", replace(options, evaluations=1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    aipo.reconstruct(likelihood, prior, "sure", options)
    return {"MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def caches() -> dict:
    """A Wiener filter of faces64's surrogate, every image with a σ of its own, after the first call."""
    surrogate = aipo.load_prior("faces64").surrogate
    found = {}
    for count in (16, 17, 32):
        v, levels = torch.rand(count, 3, 64, 64), torch.linspace(0.01, 0.02, count)
        surrogate.wiener(v, levels)  # pyright: ignore[reportCallIssue]
        started = time.perf_counter()
        surrogate.wiener(v, levels)  # pyright: ignore[reportCallIssue]
        found[f"{count} images, s"] = time.perf_counter() - started
    return found


def certificate() -> dict:
    """The smallest curvature on a path, and what is said of it."""
    prior, x = aipo.load_prior("photos"), photograph(slice(20, 36), slice(190, 206))
    likelihood = noise.measure(op.Identity((3, 16, 16)), x, 0.1, torch.Generator().manual_seed(0))
    found = aipo.reconstruct(likelihood, prior, 1.0).certificate
    products = getattr(found, "products", None)
    return {
        "smallest": float(found.curvature.min()),
        "products": 12 if products is None else int(products.max()),
        "verdict": found.verdict[0].remedy,
    }


def seeds() -> dict:
    """Whether another seed gives another chain, and whether chains are compared."""
    prior, x = aipo.load_prior("photos"), photograph(slice(20, 36), slice(190, 206))
    likelihood = noise.measure(op.Identity((3, 16, 16)), x, 0.1, torch.Generator().manual_seed(0))
    first, second, several = ({"seed": 0}, {"seed": 1}, {"chains": 4})
    one, two, four = (
        aipo.sample(likelihood, prior, options=aipo.LangevinOptions(60, 20, **own))
        for own in (first, second, several)
    )
    return {"differ": not torch.equal(one.mean, two.mean), "R̂ of four short chains": float(four.rhat.max())}


def mosaic() -> dict:
    """How well the closed form solves a mosaic of 64 × 64: relative residual of its linear system."""
    prior, shape = aipo.load_prior("photos"), (3, 64, 64)
    operator = op.mosaic(shape)
    x = photograph(slice(20, 84), slice(190, 254)).double()
    closed = module("gaussian", "posterior").posterior(operator, prior.surrogate)
    y, alpha = operator(x), torch.tensor([4e-4], dtype=torch.float64)
    mean = prior.surrogate.mean_like(x)
    rest = closed.mode(y, alpha) - mean
    right = operator.adjoint(y - operator(mean.expand(x.shape)))
    left = operator.adjoint(operator(rest)) + 4e-4 * prior.surrogate.precision(rest)
    return {"relative residual": float((left - right).norm() / right.norm())}


def blur() -> dict:
    """A blur of 40 × 40 × 3 under a low-rank Gaussian, prepared and solved; 64 × 64: 17 times as much."""
    kind = module("gaussian.low_rank", "surrogates").LowRankGaussian
    surrogate = kind.fit(torch.rand(60, 3, 40, 40), 20)
    operator = op.Blur((3, 40, 40), op.gaussian_kernel(1.5))
    started = time.perf_counter()
    closed = module("gaussian", "posterior").posterior(operator, surrogate)
    closed.mode(torch.rand(1, 3, 40, 40), torch.tensor([1e-4]))
    return {"s": time.perf_counter() - started}


def power_iterations() -> dict:
    started = time.perf_counter()
    value = op.Radon((3, 64, 64), torch.arange(0.0, 180, 6)).norm_squared
    return {"‖A‖² of tomography": value, "s": time.perf_counter() - started}


def python_types() -> dict:
    """What a user is told who gives arrays, double precision, other axes, or bytes."""
    prior, values = aipo.load_prior("photos"), torch.rand(1, 3, 16, 16)
    shape = (3, 16, 16)
    tries: dict[str, Callable[[], Any]] = {
        "float64": lambda: noise.Gaussian(op.Identity(shape), values.double(), 0.1),
        "NumPy": lambda: noise.Gaussian(op.Identity(shape), values.numpy(), 0.1),  # type: ignore[arg-type]
        "channels last": lambda: noise.Gaussian(op.Identity((16, 16, 3)), values.movedim(1, 3), 0.1),
        "0 to 255": lambda: noise.Gaussian(op.Identity(shape), 255 * values, 25.0),
    }
    return {name: told(lambda make=make: aipo.reconstruct(make(), prior)) for name, make in tries.items()}


def pickles() -> dict:
    prior, x = aipo.load_prior("photos"), photograph(slice(20, 36), slice(190, 206))
    likelihood = noise.measure(op.Identity((3, 16, 16)), x, 0.1, torch.Generator().manual_seed(0))
    result = aipo.reconstruct(likelihood, prior, 1.0)
    return {
        "prior": told(lambda: pickle.loads(pickle.dumps(prior)).energy(x)),
        "result": told(lambda: pickle.loads(pickle.dumps(result)).image),
        "torch.func.grad": told(lambda: torch.func.grad(lambda v: prior.energy(v).sum())(x)),
    }


def unused_options() -> dict:
    """What happens to options that the weight does not use."""
    prior, x = aipo.load_prior("photos"), photograph(slice(20, 36), slice(190, 206))
    likelihood = noise.measure(op.Identity((3, 16, 16)), x, 0.1, torch.Generator().manual_seed(0))
    path, chain = aipo.PathOptions((0.5, 1.0), evaluations=4), aipo.LangevinOptions(20, 5)
    spent = aipo.reconstruct(likelihood, prior, "discrepancy", path).evaluations
    return {
        "mean with path options": told(lambda: aipo.reconstruct(likelihood, prior, "mean", path)),
        "auto with a chain": told(lambda: aipo.reconstruct(likelihood, prior, chain=chain)),
        "evaluations of discrepancy, 10 allowed": int(spent.max()),
    }


def told(action: Callable[[], Any]) -> str:
    """ "works", or the error's kind and its first line."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    return "works"


def speckle() -> dict:
    """Chains of a dark value beside bright ones under speckle: spread of the dark one beside quadrature's."""
    kind, shape, count = aipo.priors.Gaussian, (1, 1, 4), 100
    prior = kind(torch.full(shape, 0.5).double(), 0.04 * torch.eye(4).double())
    dark = torch.linspace(0.02, 0.04, count, dtype=torch.float64)
    y = torch.stack((dark, 0.6 + dark, 0.9 + dark, 1.1 + dark), 1).reshape(count, *shape)
    options = aipo.LangevinOptions(1600, 300)
    spread = aipo.sample(noise.Gamma(op.Identity(shape), y, 20.0), prior, options=options).std[:, 0, 0, 0]
    grid = torch.linspace(1e-4, 0.5, 5001, dtype=torch.float64)
    single = noise.Gamma(op.Identity((1, 1, 1)), dark.reshape(-1, 1, 1, 1), 20.0)
    energy = torch.stack([single(x.expand(count, 1, 1, 1)) + 12.5 * (x - 0.5) ** 2 for x in grid], 1)
    weights = torch.softmax(-energy, 1)
    mean = (weights * grid).sum(1, keepdim=True)
    exact = (weights * (grid - mean) ** 2).sum(1).sqrt()
    return {"spread, times the exact one": float((spread / exact).log().mean().exp())}


def progress() -> dict:
    """What the bar of a noisy photograph expects, times what it takes, after a tenth of the evaluations."""
    (_, y), prior = noisy(), aipo.load_prior("photos")
    seen: list[tuple[int, int]] = []
    likelihood = noise.Gaussian(op.Identity(SHAPE), y[:1], 0.1)
    aipo.reconstruct(likelihood, prior, progress=lambda done, expected: seen.append((done, expected)))
    whole = seen[-1][0]
    foreseen = next(expected for done, expected in seen if done >= 0.1 * whole)
    return {"steps of the bar": len(seen), "expected, times what it takes": foreseen / whole}


FIGURES: tuple[Callable[[], dict], ...] = (
    import_seconds,
    spellings,
    foreign,
    hole,
    memory,
    caches,
    certificate,
    seeds,
    mosaic,
    blur,
    power_iterations,
    python_types,
    pickles,
    unused_options,
    speckle,
    progress,
)


def measure(label: str, only: list[str]) -> None:
    """Each figure in a process of its own, so that none finds the memory or the caches of another."""
    for figure in FIGURES:
        if not only or figure.__name__ in only:
            command = [sys.executable, __file__, "one", figure.__name__]
            done = subprocess.run(command, capture_output=True, text=True)
            last = done.stderr.strip().splitlines()[-1:] or ["no output"]
            found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": last[0]}
            row = {"figure": figure.__name__, "label": label, "found": found}
            with open(FILE, "a") as stream:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(row, flush=True)


def write() -> None:
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    newest = {(row["figure"], row["label"]): row["found"] for row in rows}
    text = (__doc__ or "").strip().split("\n\n", 2)[2].replace("\n", " ")
    lines = ["# Firm ground", "", text, "", "| figure | | before | after |", "|---|---|---|---|"]
    for figure in FIGURES:
        before, after = (newest.get((figure.__name__, label), {}) for label in ("before", "after"))
        for name in {**after, **before}:
            cells = [shown(found.get(name, found.get("error", "–"))) for found in (before, after)]
            lines.append(f"| {figure.__name__.replace('_', ' ')} | {name} | {' | '.join(cells)} |")
    FILE.with_suffix(".md").write_text("\n".join(lines) + "\n")


def shown(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 10
        else (f"{value:.1f}" if isinstance(value, float) else str(value).replace("|", "/"))
    )


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("action", choices=["measure", "one", "write"])
    parser.add_argument("label", nargs="?", default="after")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.action == "write":
        write()
    elif arguments.action == "one":
        figure = next(figure for figure in FIGURES if figure.__name__ == arguments.label)
        print(json.dumps(figure(), ensure_ascii=False))
    else:
        measure(arguments.label, arguments.only)


if __name__ == "__main__":
    main()
