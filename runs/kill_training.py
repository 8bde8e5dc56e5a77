"""Training killed at random moments: are the final weights those of a training that was never killed?

    python runs/kill_training.py --out docs/results

`aipo train` runs on crops of scikit-image's astronaut and writes a checkpoint every twenty of 4,000 steps.
SIGKILL kills it twenty times, each time at a random moment after its first step and before 6 % of the time of
an uninterrupted run are over. After each death the last checkpoint must load. In the end the weights must
have the hash of the uninterrupted run.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from skimage import data

from aipo.flows.training.loop import CHECKPOINT_NAME
from aipo.io.tensors import load_tensors

KILLS, SHARE = 20, 0.06
OPTIONS = {"crop": 16, "holdout": 4, "flow.any_size": "true", "flow.levels": 2, "flow.steps": 2}
OPTIONS |= {"flow.hidden": 16, "training.steps": 4000, "training.batch": 4, "training.validate_every": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = crops(folder / "pictures")
        seconds = train(pictures, folder / "whole")
        steps = killed(pictures, folder / "killed", SHARE * seconds)
        train(pictures, folder / "killed")
        hashes = [digest(folder / run / "model.safetensors") for run in ("whole", "killed")]
    result = {
        "kills": len(steps),
        "seconds": round(seconds),
        "steps_after_each": steps,
        "identical": hashes[0] == hashes[1],
    }
    print(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "kill_training.json").write_text(json.dumps(result) + "\n")
    sys.exit(0 if result["identical"] else 1)


def crops(folder: Path) -> Path:
    folder.mkdir()
    picture = data.astronaut()
    for index in range(20):
        top, left = 40 * (index // 5), 80 * (index % 5)
        Image.fromarray(picture[top : top + 64, left : left + 64]).save(folder / f"{index:02}.png")
    return folder


def command(pictures: Path, out: Path) -> subprocess.Popen:
    line = [sys.executable, "-m", "aipo.cli", "train", str(pictures), "--out", str(out)]
    line += [f"--{name}={value}" for name, value in OPTIONS.items()]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def train(pictures: Path, out: Path) -> float:
    """To the end; the seconds from the first progress bar on."""
    process = command(pictures, out)
    wait_for_progress(process)
    started = time.perf_counter()
    _, written = process.communicate()  # which is read, as a full pipe would stop it
    if process.returncode != 0:
        raise SystemExit(written)
    return time.perf_counter() - started


def wait_for_progress(process: subprocess.Popen) -> None:
    """Until pictures are read and the bar of the training is there."""
    written = ""
    while "training" not in written:
        character = process.stderr.read(1) if process.stderr else ""
        if not character:
            raise SystemExit(written)
        written += character


def killed(pictures: Path, out: Path, longest: float) -> list[int]:
    """The step of the checkpoint that each death leaves, 0 before the first."""
    moments, steps = random.Random(0), []
    while len(steps) < KILLS:
        process = command(pictures, out)
        wait_for_progress(process)
        time.sleep(moments.uniform(0, longest))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            raise SystemExit(f"training ended before it was killed {KILLS} times; use a quieter machine")
        checkpoint = out / "training" / CHECKPOINT_NAME
        steps.append(load_tensors(checkpoint)[1]["step"] if checkpoint.exists() else 0)
    return steps


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
