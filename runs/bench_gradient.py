"""What a gradient costs: aipo beside normflows, FrEIA and nflows, and beside the convolutions alone.

    python runs/bench_gradient.py [--threads 1] --out docs/results

Four packages run a Glow of 3 levels × 8 steps with hidden width 128: actnorm, 1 × 1 convolution, and affine
coupling with a network of 3 × 3, 1 × 1 and 3 × 3 convolutions. The weights are random, and constant as for
inference. Everything runs in one process and takes turns. The fastest time of each counts, and ratios are
ratios of these times. "x" is the gradient of −log p over the picture, "z" is that of −log p(G(z)) over the
latent, and "sample" is one pass from latent to picture. "aipo, trained" is the same flow before `freeze()`,
by automatic differentiation. "Floor" is the time of the networks' convolutions, forward and backward, at the
best rate that any of their shapes reached in the same run. Memory is the growth of a process's peak over one
x gradient, in a process of its own (Linux).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import log, pi
from pathlib import Path
from typing import Any

import torch
from common import heading
from torch import Tensor, nn

from aipo.flows import Glow
from aipo.flows.frozen import Convolution

LEVELS, STEPS, HIDDEN = 3, 8, 128
CASES = [(32, 1), (32, 4), (32, 32), (64, 1), (64, 4), (64, 32)]
# Side of a picture whose activations do not fit: they are recomputed.
PHOTOGRAPH = 2048
# Batches of 32 take seconds in the slower packages.
ROUNDS = {1: 20, 4: 10, 32: 4}


def network(inputs: int, outputs: int) -> nn.Sequential:
    """The coupling network, for the packages that ask for one."""
    return nn.Sequential(
        nn.Conv2d(inputs, HIDDEN, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(HIDDEN, HIDDEN, 1),
        nn.ReLU(),
        nn.Conv2d(HIDDEN, outputs, 3, padding=1),
    )


@dataclass(frozen=True)
class Package:
    """A flow in one package: log p of pictures, and pictures of `count` new latents."""

    model: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


def trained(size: int) -> Package:
    flow = Glow((3, size, size), LEVELS, STEPS, HIDDEN)
    return Package(flow, flow.log_prob, lambda count: flow.inverse(torch.randn(count, 3, size, size)))


def frozen(size: int) -> Package:
    flow = Glow((3, size, size), LEVELS, STEPS, HIDDEN).freeze()
    return Package(flow, flow.log_prob, lambda count: flow.inverse(torch.randn(count, 3, size, size)))


def normflows(size: int) -> Package:
    import normflows as nf

    bases, flows, merges = [], [], []
    for i in range(LEVELS):
        channels = 12 * 2 ** (LEVELS - 1 - i)
        blocks = [nf.flows.GlowBlock(channels, HIDDEN, split_mode="channel") for _ in range(STEPS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        side = size >> (LEVELS - i)
        if i > 0:
            merges.append(nf.flows.Merge())
        shape = (channels if i == 0 else channels // 2, side, side)
        bases.append(nf.distributions.DiagGaussian(shape))
    model: Any = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Package(model, lambda x: model.log_prob(x, None), lambda count: model.sample(count)[0])


def freia(size: int) -> Package:
    import FrEIA.framework as fr
    import FrEIA.modules as fm

    nodes: list[Any] = [fr.InputNode(3, size, size)]
    ends: list[Any] = []
    for level in range(LEVELS):
        nodes.append(fr.Node(nodes[-1], fm.IRevNetDownsampling, {}))
        for _ in range(STEPS):
            block = {"subnet_constructor": network, "permute_soft": True}
            nodes.append(fr.Node(nodes[-1], fm.AllInOneBlock, block))
        if level < LEVELS - 1:
            split: Any = fr.Node(nodes[-1], fm.Split, {})
            nodes.append(split)
            ends.append(fr.OutputNode(split.out1))
            nodes.append(fr.Node(split.out0, fm.Reshape, {"output_dims": split.output_dims[0]}))
    ends.append(fr.OutputNode(nodes[-1]))
    model = fr.GraphINN([*nodes, *ends])

    def log_prob(x: Tensor) -> Tensor:
        latents, log_det = model(x)
        squares = torch.stack([(z * z).flatten(1).sum(1) for z in latents]).sum(0)
        return log_det - 0.5 * squares - 0.5 * log(2 * pi) * x[0].numel()

    shapes = [tuple(node.input_dims[0]) for node in ends]

    def sample(count: int) -> Tensor:
        return model([torch.randn(count, *shape) for shape in shapes], rev=True)[0]

    return Package(model, log_prob, sample)


def nflows(size: int) -> Package:
    from nflows import transforms as tr
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    whole = tr.MultiscaleCompositeTransform(num_transforms=LEVELS)
    shape: Any = (3, size, size)
    for _ in range(LEVELS):
        channels, side = 4 * shape[0], shape[1] // 2
        parts: list[nn.Module] = [tr.SqueezeTransform()]
        for _ in range(STEPS):
            mask = torch.arange(channels) >= channels // 2
            parts += [
                tr.ActNorm(channels),
                tr.OneByOneConvolution(channels),
                tr.AffineCouplingTransform(mask.float(), lambda i, o: Contextless(network(i, o))),
            ]
        shape = whole.add_transform(tr.CompositeTransform(parts), (channels, side, side))
    model = Flow(whole, StandardNormal((3 * size * size,)))
    return Package(model, model.log_prob, model.sample)


class Contextless(nn.Module):
    """nflows hands its networks a context."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context=None) -> Tensor:
        return self.inner(x)


PACKAGES: dict[str, Callable[[int], Package]] = {
    "aipo": frozen,
    "aipo, trained": trained,
    "normflows": normflows,
    "FrEIA": freia,
    "nflows": nflows,
}


def ready(name: str, size: int) -> Package:
    """Constant weights, whatever a first batch sets being set."""
    torch.manual_seed(0)
    package = PACKAGES[name](size)
    with torch.no_grad():
        package.log_prob(torch.rand(1, 3, size, size))
    package.model.eval().requires_grad_(False)
    return package


def x_gradient(package: Package, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(-package.log_prob(x).sum(), x)[0]


def z_gradient(package: Package, z: Tensor) -> Tensor:
    z = z.detach().requires_grad_(True)
    return torch.autograd.grad(-package.model.generate(z)[1].sum(), z)[0]  # type: ignore[operator]


def sampled(package: Package, x: Tensor) -> Tensor:
    with torch.no_grad():
        return package.sample(len(x))


def fastest(runs: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Seconds of each at its fastest; they take turns."""
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def measure(size: int, batch: int) -> dict[str, dict[str, float]]:
    packages = {name: ready(name, size) for name in PACKAGES}
    x = torch.rand(batch, 3, size, size)
    tasks: dict[str, dict[str, Callable[[], Tensor]]] = {
        "x": {name: partial(x_gradient, package, x) for name, package in packages.items()},
        "z": {name: partial(z_gradient, packages[name], x - 0.5) for name in ("aipo", "aipo, trained")},
        "sample": {name: partial(sampled, package, x) for name, package in packages.items()},
    }
    convolutions = shapes(size, batch)
    tasks["convolution"] = {str(i): run for i, (run, _) in enumerate(convolutions)}
    found = {task: fastest(runs, ROUNDS[batch]) for task, runs in tasks.items()}
    each = list(found.pop("convolution").values())
    flops = [count for _, count in convolutions]
    rate = max(count / seconds for count, seconds in zip(flops, each, strict=True))
    found["floor"] = {"seconds": 2 * STEPS * sum(flops) / rate, "rate": rate, "flop": 2 * STEPS * sum(flops)}
    return found


def shapes(size: int, batch: int) -> list[tuple[Callable[[], Tensor], float]]:
    """The convolutions of one step of each level, as oneDNN runs them, and their operations."""
    found = []
    for level in range(LEVELS):
        channels, side = 12 * 2**level, size >> (level + 1)
        for inputs, outputs, k in ((channels // 2, HIDDEN, 3), (HIDDEN, HIDDEN, 1), (HIDDEN, channels, 3)):
            layer = Convolution(torch.randn(outputs, inputs, k, k), torch.randn(outputs))
            h = torch.randn(batch, inputs, side, side).contiguous(memory_format=torch.channels_last)
            found.append((partial(layer, h), 2.0 * batch * side**2 * inputs * outputs * k**2))
    return found


def peak(name: str, size: int, batch: int) -> float:
    """MiB by which one x gradient raises the peak of a fresh process."""
    command = [sys.executable, __file__, "--peak", name, str(size), str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(name: str, size: int, batch: int) -> None:
    package = ready(name, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew from here
    before = high_water()
    x_gradient(package, torch.rand(batch, 3, size, size))
    print(high_water() - before)


def high_water() -> float:
    """MiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def machine() -> str:
    """The processor, the instructions that PyTorch uses of it, and PyTorch's version (Linux)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return f"{processor}, {torch.backends.cpu.get_cpu_capability()}, PyTorch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak[0], int(arguments.peak[1]), int(arguments.peak[2]))
        return
    rows = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for size, batch in CASES:
            row = {"threads": threads, "size": size, "batch": batch, **measure(size, batch)}
            if threads == arguments.threads[0]:  # memory hardly depends on threads
                row["peak"] = {name: peak(name, size, batch) for name in PACKAGES}
            rows.append(row)
            shown = {name: f"{1e3 * value:.1f}" for name, value in row["x"].items()}
            print(threads, size, batch, shown, f"floor {1e3 * row['floor']['seconds']:.1f}", flush=True)
    rows[0] |= {"photograph": peak("aipo", PHOTOGRAPH, 1), "machine": machine()}
    file = Path(arguments.out) / "bench_gradient.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=1) + "\n")
    write(rows, file.with_suffix(".md"))


def write(rows: list[dict], file: Path) -> None:
    lines = heading("What a gradient costs", __doc__)
    lines += [f"Measured on: {rows[0].get('machine', 'a machine that was not recorded')}.", ""]
    others = [name for name in PACKAGES if not name.startswith("aipo")]
    lines += ["x gradient, milliseconds:", ""]
    lines += [
        "| threads | size | batch | " + " | ".join(PACKAGES) + " | floor | fastest other ÷ aipo | ÷ floor |"
    ]
    lines += ["|---" * (6 + len(PACKAGES)) + "|"]
    for row in rows:
        own, floor = row["x"]["aipo"], row["floor"]["seconds"]
        cells = [f"{1e3 * row['x'][name]:.1f}" for name in PACKAGES]
        ratios = [f"{min(row['x'][name] for name in others) / own:.2f}", f"{own / floor:.2f}"]
        head = [str(row["threads"]), f"3 × {row['size']} × {row['size']}", str(row["batch"])]
        lines.append("| " + " | ".join([*head, *cells, f"{1e3 * floor:.1f}", *ratios]) + " |")
    lines += ["", "Targets, for 3 × 64 × 64, batch 4, one thread: 1.9 at least, 1.8 at most."]
    for task, title in (("z", "z gradient"), ("sample", "Sampling")):
        lines += ["", f"{title}, milliseconds:", ""]
        lines += ["| threads | size | batch | " + " | ".join(rows[0][task]) + " |"]
        lines += ["|---" * (3 + len(rows[0][task])) + "|"]
        for row in rows:
            cells = [f"{1e3 * value:.1f}" for value in row[task].values()]
            head = [str(row["threads"]), f"3 × {row['size']} × {row['size']}", str(row["batch"])]
            lines.append("| " + " | ".join([*head, *cells]) + " |")
    lines += ["", "Peak memory of an x gradient, MiB:", "", "| size | batch | " + " | ".join(PACKAGES) + " |"]
    lines += ["|---" * (2 + len(PACKAGES)) + "|"]
    for row in rows:
        if "peak" in row:
            cells = [f"{value:.0f}" for value in row["peak"].values()]
            head = [f"3 × {row['size']} × {row['size']}", str(row["batch"])]
            lines.append("| " + " | ".join([*head, *cells]) + " |")
    lines += ["", f"One picture of 3 × {PHOTOGRAPH} × {PHOTOGRAPH}, aipo: {rows[0]['photograph']:.0f} MiB "]
    lines[-1] += "more than before (target for the process: 4,096 at most)."
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
