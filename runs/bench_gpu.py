"""What a gradient costs on a GPU: recorded and not, in float32, TF32 and bfloat16, beside the matrix peak.

    python runs/bench_gpu.py --out docs/results

The flow is the Glow of bench_gradient.py (3 × 64 × 64, 3 levels × 8 steps, hidden width 128, random weights),
and the gradient is that of −log p over the picture. "Trained" is the flow before `freeze()`, by automatic
differentiation. "Frozen" is its inference form, one launch after the other. "Recorded" is the same form as a
CUDA graph, which is what `reconstruct` uses. PyTorch by itself uses TF32 for the convolutions of float32;
here TF32 is shown for comparison only. Times are milliseconds per picture, the median of twenty, taken in
turn. "Of peak" divides the operations of the convolutions, forward and backward, by the time of the fastest
form. It states this rate as a share of the rate that a product of two 8,192 × 8,192 matrices of that
precision reached in the same run. "Error" is the relative error of the gradient against float64, under the
prior faces64 at six of its own samples with noise of 0.1.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from bench_gradient import HIDDEN, LEVELS, STEPS, shapes
from common import heading
from torch import Tensor, nn

from aipo.flows import Flow, Glow, graphs, inference
from aipo.flows.graphs import Evaluation, Evaluations
from aipo.priors import load_prior

SIZE, BATCHES, ROUNDS = 64, (1, 16, 256), 20
# As PyTorch's matrix products and convolutions, and as a flow's networks, have them.
PRECISIONS = {"float32": "float32", "TF32": "float32", "bfloat16": "bfloat16"}
FORMS = ("trained", "frozen", "recorded")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    out = parser.parse_args().out
    name = torch.cuda.get_device_name()
    found = {"machine": f"{name}, PyTorch {torch.__version__}", "precisions": {}}
    for precision in PRECISIONS:
        with computing(precision):
            row = {"peak": peak(precision), "error": error(precision), "batches": {}}
            for batch in BATCHES:
                row["batches"][str(batch)] = measure(PRECISIONS[precision], batch)
                print(precision, batch, row["batches"][str(batch)], flush=True)
        found["precisions"][precision] = row
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench_gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    write(found, out / "bench_gpu.md")


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Float32's products with all of their bits, or as TF32."""
    wanted = "tf32" if precision == "TF32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = wanted  # type: ignore[attr-defined]
    torch.backends.cudnn.conv.fp32_precision = wanted  # type: ignore[attr-defined]
    if precision != "TF32":
        yield
        return
    with (
        patch.object(inference, "single_precision", nullcontext),
        patch.object(graphs, "single_precision", nullcontext),
    ):
        yield


def peak(precision: str) -> float:
    """Operations a second of a large matrix product."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * 8192**3 / timed({"product": lambda: a @ b})["product"]


def error(precision: str) -> float:
    x = load_prior("faces64").sample(6, seed=0)
    x = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).cuda()
    near = load_prior("faces64", PRECISIONS[precision]).flow.cuda()  # type: ignore[arg-type]
    exact = load_prior("faces64").flow.double().cuda()
    found, wanted = gradient(near, x).double(), gradient(exact, x.double())
    return float(((found - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)).mean())


def measure(precision: str, batch: int) -> dict[str, float]:
    """Seconds of a batch's gradient in every form, and operations of its convolutions."""
    torch.manual_seed(0)
    trained = Glow((3, SIZE, SIZE), LEVELS, STEPS, HIDDEN)
    with torch.no_grad():
        for module in trained.modules():
            if isinstance(module, nn.Conv2d):  # the last ones start at zero
                module.weight.add_(0.02 * torch.randn_like(module.weight))
    frozen, recorded = (trained.freeze(precision).cuda() for _ in range(2))  # type: ignore[arg-type]
    frozen.memory = recorded.memory = 2**36
    frozen._recorded, recorded._recorded = Never(), Always()
    trained = trained.cuda().requires_grad_(False)
    x = torch.rand(batch, 3, SIZE, SIZE, device="cuda")

    def by_hand() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            return gradient(trained, x)

    forms = {"trained": by_hand, "frozen": lambda: gradient(frozen, x)}
    seconds = timed(forms | {"recorded": lambda: gradient(recorded, x)})
    return seconds | {"operations": 2 * STEPS * sum(count for _, count in shapes(SIZE, batch))}


class Never(Evaluations):
    def of(self, *_) -> None:
        return None


class Always(Evaluations):
    """Recorded at once, whatever its size."""

    kept: Evaluation | None = None

    def of(self, h: Tensor, name: str, direction: inference.Direction, size: float) -> Evaluation:
        self.kept = self.kept or Evaluation(h, direction)
        return self.kept


def gradient(flow: Flow, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(-flow.log_prob(x).sum(), x)[0]


def timed(runs: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Median seconds of each, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 3):
        for name, run in runs.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            if turn >= 3:
                seconds[name].append(begin.elapsed_time(end) / 1e3)
    return {name: statistics.median(values) for name, values in seconds.items()}


def write(found: dict, file: Path) -> None:
    lines = [*heading("What a gradient costs on a GPU", __doc__), f"Measured on: {found['machine']}.", ""]
    lines += ["| precision | batch | " + " | ".join(FORMS) + " | frozen ÷ recorded | of peak | error |"]
    lines += ["|---" * (len(FORMS) + 5) + "|"]
    for precision, row in found["precisions"].items():
        for batch, seconds in row["batches"].items():
            cells = [precision, batch, *(f"{1e3 * seconds[form] / int(batch):.3f}" for form in FORMS)]
            rate = seconds["operations"] / min(seconds[form] for form in FORMS)
            cells += [f"{seconds['frozen'] / seconds['recorded']:.2f}", f"{100 * rate / row['peak']:.1f} %"]
            lines.append("| " + " | ".join([*cells, f"{row['error']:.1e}"]) + " |")
    peaks = ", ".join(f"{name} {row['peak'] / 1e12:.0f}" for name, row in found["precisions"].items())
    lines += ["", f"Rates of the matrix product, 10¹² operations a second: {peaks}."]
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
