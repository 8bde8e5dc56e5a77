"""Does a GPU restore as a CPU does? The same measurements on both.

    python runs/devices.py PHOTOS_FOLDER FASHION_IDX FACES_TAR --device cpu --out docs/results

Run the script once on each machine, with the same --out. The page has the cells that two devices have
measured. Six pictures per prior and the three tasks of cost.py run with all defaults; the measurements are
made on the CPU. PSNR is in dB. "Median" and "largest" describe the sizes of the six differences (gate: 0.05
at most). "Seconds" are for all six pictures at once and include the recording of CUDA graphs. The seconds of
the CPU are for one thread.
"""

import statistics
import time
from pathlib import Path

import common
import torch
from common import add_line, heading, image_shape, load, load_faces, mean, read, settings

from aipo.basics.quality import psnr
from aipo.likelihoods import measure
from aipo.priors import load_prior
from aipo.reconstruction.reconstruct import reconstruct

COUNT = 6


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("faces")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    file = Path(arguments.out) / "devices.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    done = {(row["device"], row["prior"], row["task"]) for row in read(file)}
    for name, x in {"faces64": load_faces(arguments.faces, COUNT), **load(arguments, COUNT)}.items():
        prior = load_prior(name).to(arguments.device)
        for task, (operator, sigma) in settings(image_shape(x)).items():
            if (where, name, task) in done:
                continue
            likelihood = measure(operator, x, sigma, torch.Generator().manual_seed(0)).to(arguments.device)
            started = time.perf_counter()
            found = reconstruct(likelihood, prior)
            row = {"device": where, "prior": name, "task": task, "psnr": psnr(found.image.cpu(), x).tolist()}
            row |= {"seconds": time.perf_counter() - started, "evaluations": found.evaluations.tolist()}
            print(row, flush=True)
            add_line(row, file)
    write(read(file), file.with_suffix(".md"))


def write(rows: list[dict], file: Path) -> None:
    devices = list(dict.fromkeys(row["device"] for row in rows))
    if len(devices) < 2:
        return
    cpu, gpu = sorted(devices, key=lambda name: name != "CPU")[:2]
    lines = [*heading("A GPU beside a CPU", __doc__), f"GPU: {gpu}.", ""]
    lines += ["| prior | task | CPU | GPU | median | largest | seconds, CPU | GPU |", "|---" * 8 + "|"]
    found = {(row["device"], row["prior"], row["task"]): row for row in rows}
    for (device, name, task), here in found.items():
        if device == cpu and (gpu, name, task) in found:
            there = found[gpu, name, task]
            apart = [abs(a - b) for a, b in zip(here["psnr"], there["psnr"], strict=True)]
            cells = [name, task, f"{mean(here['psnr']):.2f}", f"{mean(there['psnr']):.2f}"]
            cells += [f"{statistics.median(apart):.3f}", f"{max(apart):.3f}"]
            cells += [f"{row['seconds']:.1f}" for row in (here, there)]
            lines.append("| " + " | ".join(cells) + " |")
    file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
