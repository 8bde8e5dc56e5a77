"""Training killed at random moments: are the final weights those of a training that was never killed?

    python runs/kill_training.py --out docs/results

`aipo train` on crops of scikit-image's astronaut, a checkpoint every twenty of 4,000 steps, killed by SIGKILL
twenty times, 0.2 to 12 seconds after it has begun to load pictures. After each death the last checkpoint must
load; in the end the weights must have the hash of an uninterrupted run.
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

from aipo.checkpoints import load_tensors
from aipo.training import CHECKPOINT_NAME

KILLS = 20
OPTIONS = {"crop": 16, "holdout": 4, "flow.any_size": "true", "flow.levels": 2, "flow.steps": 2}
OPTIONS |= {"flow.hidden": 16, "training.steps": 4000, "training.batch": 4, "training.validate_every": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = crops(folder / "pictures")
        train(pictures, folder / "whole")
        steps = killed(pictures, folder / "killed")
        train(pictures, folder / "killed")
        hashes = [digest(folder / run / "model.safetensors") for run in ("whole", "killed")]
    result = {"kills": len(steps), "steps_after_each": steps, "identical": hashes[0] == hashes[1]}
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


def train(pictures: Path, out: Path) -> None:
    """To the end; what it writes is read, as a full pipe would stop it."""
    process = command(pictures, out)
    _, written = process.communicate()
    if process.returncode != 0:
        raise SystemExit(written)


def killed(pictures: Path, out: Path) -> list[int]:
    """The step of the checkpoint that each death leaves, 0 before the first."""
    moments, steps = random.Random(0), []
    while len(steps) < KILLS:
        process = command(pictures, out)
        assert process.stderr is not None
        process.stderr.read(1)  # the first progress bar
        time.sleep(moments.uniform(0.2, 12.0))
        process.kill()
        process.stderr.close()
        if process.wait() == 0:
            raise SystemExit("training ended before it could be killed twenty times; give it more steps")
        checkpoint = out / "training" / CHECKPOINT_NAME
        steps.append(load_tensors(checkpoint)[1]["step"] if checkpoint.exists() else 0)
    return steps


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
