"""The table and picture of README: runs `aipo demo` and keeps what it shows.

    python runs/demo.py

The script writes docs/results/demo.txt, docs/results/demo.json and docs/images/demo.png. The picture has one
row per task with the truth, the measurement and the restoration. For compressed sensing the measurement is
shown as Aᵀ(AAᵀ)⁻¹y.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from aipo.cli import demo
from aipo.cli.main import main as aipo

DOCS = Path(__file__).parent.parent / "docs"


def main() -> int:
    with tempfile.TemporaryDirectory() as out:
        status = aipo(["demo", "--out", out])
        (DOCS / "results").mkdir(exist_ok=True)
        for suffix in ("txt", "json"):
            shutil.copy(Path(out) / f"summary.{suffix}", DOCS / "results" / f"demo.{suffix}")
        stack([Path(out) / f"{task.name}-panel.png" for task in demo.TASKS]).save(
            DOCS / "images" / "demo.png"
        )
        shutil.copy(Path(out) / "denoise-path.png", DOCS / "images" / "denoise-path.png")
    return status


def stack(files: list[Path], gap: int = 4) -> Image.Image:
    """The panels below each other, all as wide as the widest."""
    panels = [Image.open(file).convert("RGB") for file in files]
    width = max(panel.width for panel in panels)
    sized = [
        panel.resize((width, round(panel.height * width / panel.width)), Image.Resampling.NEAREST)
        for panel in panels
    ]
    sheet = Image.new("RGB", (width, sum(panel.height + gap for panel in sized) - gap), "white")
    top = 0
    for panel in sized:
        sheet.paste(panel, (0, top))
        top += panel.height + gap
    return sheet


if __name__ == "__main__":
    sys.exit(main())
