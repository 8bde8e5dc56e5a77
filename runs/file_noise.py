"""The noise of files: which kind `aipo.noise` tells, how strong, and what restoring with it gives.

    python runs/file_noise.py CBSD68_FOLDER --out docs/results

Centre crops of the first pictures, 128 × 128, with noise of σ = 0.06, rounded to 8 bits. It is white; or
demosaicked (bilinear, RGGB); grain (a Gaussian blur of 0.9 pixels); compressed (JPEG of quality 75); enlarged
(twice, bicubic); stripes (an offset of every column, beside white noise of 0.018); impulses (5 % of the
pixels black or white); or light (σ² = 0.02² + 0.01 x). "Told" is how often the kind was told from the file
alone, and "σ" the median of the estimated over the true deviation of what noise added, with the largest error
of nine in ten pictures; impulses are not counted in σ. "aipo" is `aipo.reconstruct` with the estimated
likelihood. The truth chooses the strength of TV, NLM and BM3D (0.5, 0.75, 1, 1.5 or 2 times the usual) and
the side of the median (3 or 5); "best" is the best of these on average. Mean PSNR in dB. The script goes on
where it stopped.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import bm3d
import numpy as np
import torch
from common import add_line, ahead, crop, heading, mean, read
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from aipo.basics.quality import psnr
from aipo.flows.training.data import load_pictures
from aipo.noise import estimate_noise
from aipo.operators import Identity
from aipo.priors import FlowPrior, load_prior
from aipo.reconstruction.reconstruct import reconstruct

SIDE, SIGMA = 128, 0.06
STRENGTHS = (0.5, 0.75, 1.0, 1.5, 2.0)
RIVALS = ("median", "TV", "NLM", "BM3D")

Picture = np.ndarray
"""(H, W, 3), 0 and 1 being the ends of its range."""


def white(c: Picture, normal: Picture) -> Picture:
    return c + SIGMA * normal


def demosaicked(c: Picture, normal: Picture) -> Picture:
    mosaic, kernel = np.zeros(c.shape), np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    mosaic[::2, ::2, 0] = mosaic[::2, 1::2, 1] = mosaic[1::2, ::2, 1] = mosaic[1::2, 1::2, 2] = 1
    seen = (c + SIGMA * normal) * mosaic
    planes = [convolve(seen[..., k], kernel) / convolve(mosaic[..., k], kernel) for k in range(3)]
    return np.dstack(planes)


def grain(c: Picture, normal: Picture) -> Picture:
    blurred = gaussian_filter(normal, (0.9, 0.9, 0))
    return c + SIGMA * blurred / max(blurred.std(), 1e-12)


def compressed(c: Picture, normal: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(_bytes(white(c, normal))).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file)) / 255


def enlarged(c: Picture, normal: Picture) -> Picture:
    size = (c.shape[1] // 2, c.shape[0] // 2)
    small = np.asarray(Image.fromarray(_bytes(c)).resize(size, Image.Resampling.LANCZOS)) / 255
    noisy = Image.fromarray(_bytes(white(small, normal[: size[1], : size[0]])))
    return np.asarray(noisy.resize((c.shape[1], c.shape[0]), Image.Resampling.BICUBIC)) / 255


def stripes(c: Picture, normal: Picture) -> Picture:
    return c + 0.3 * SIGMA * normal + SIGMA * normal.mean(0) * len(normal) ** 0.5


def impulses(c: Picture, normal: Picture) -> Picture:
    found, drawn = c.copy(), normal[..., 0]
    found[drawn < -1.96], found[drawn > 1.96] = 0, 1
    return found


def light(c: Picture, normal: Picture) -> Picture:
    return c + np.sqrt(0.02**2 + 0.01 * c) * normal


# The model that a file's noise is told as, and how its noise is made of normal numbers.
KINDS: dict[str, tuple[str, Callable[[Picture, Picture], Picture]]] = {
    "white": ("White", white),
    "demosaicked": ("Stationary", demosaicked),
    "grain": ("Stationary", grain),
    "compressed": ("Stationary", compressed),
    "enlarged": ("Stationary", enlarged),
    "stripes": ("Striped", stripes),
    "impulses": ("impulses", impulses),
    "light": ("Light", light),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", help="folder of CBSD68")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS), help="only these")
    parser.add_argument("--restore", type=int, default=6, help="so many pictures are restored")
    parser.add_argument("--tell", type=int, default=60, help="the noise of so many pictures is told")
    parser.add_argument("--side", type=int, default=SIDE, help="of a crop")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prior, pictures = load_prior("photos"), load_pictures(arguments.folder)
    file = arguments.out / "file_noise.jsonl"
    done = {(row["step"], row["kind"], row["picture"]) for row in read(file)}
    for step, count in (("tell", arguments.tell), ("restore", arguments.restore)):
        for index, name in product(range(min(count, len(pictures))), tuple[str, ...](arguments.kinds)):
            if (step, name, index) in done:
                continue
            c = crop(pictures[index], arguments.side)[0].permute(1, 2, 0).double().numpy()
            n = _noisy(name, c, index)
            row = told(name, c, n, index) if step == "tell" else restored(c, n, prior)
            add_line({"step": step, "kind": name, "picture": index, **row}, file)
    write(arguments.out)


def told(name: str, c: Picture, n: Picture, index: int) -> dict:
    """What the file tells of its noise, and the deviation of what noise added."""
    found = estimate_noise(_image(n)[0])
    model = "impulses" if bool(found.impulses.any()) else type(found.model).__name__
    added = n - _round(KINDS[name][1](c, np.zeros(c.shape)))
    return {"model": model, "sigma": found.sigma, "true": float(added.std())}


def restored(c: Picture, n: Picture, prior: FlowPrior) -> dict:
    """PSNR in dB of the file, of aipo and of the rivals at every strength."""
    y, x = _image(n), _image(c)
    result = reconstruct(estimate_noise(y[0]).likelihood(Identity((3, *n.shape[:2])), y), prior)
    rows = {"input": float(psnr(y, x)), "aipo": float(psnr(result.image, x))}
    for name in RIVALS:
        rows[name] = max(float(psnr(_image(image), x)) for image in rival(name, n, float((n - c).std())))
    return rows


def rival(name: str, n: Picture, sigma: float) -> Iterator[Picture]:
    """A rival's pictures at every strength."""
    if name == "median":
        yield from (median_filter(n, (side, side, 1)) for side in (3, 5))
        return
    profile = bm3d.BM3DProfile()
    profile.num_threads = 1  # more threads add in another order each time
    for strength in STRENGTHS:
        if name == "TV":
            yield denoise_tv_chambolle(n, 1.5 * strength * sigma, channel_axis=-1)
        elif name == "NLM":
            h = 0.7 * strength * sigma
            yield denoise_nl_means(n, 5, 9, h, sigma=strength * sigma, fast_mode=True, channel_axis=-1)
        else:
            yield bm3d.bm3d_rgb(n, strength * sigma, profile)


def _noisy(name: str, c: Picture, index: int) -> Picture:
    return _round(KINDS[name][1](c, _draw(c.shape, index)))


def _draw(shape: tuple[int, ...], seed: int) -> Picture:
    return np.random.default_rng(seed).normal(size=shape)


def _bytes(picture: Picture) -> np.ndarray:
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _round(picture: Picture) -> Picture:
    return _bytes(picture) / 255


def _image(picture: Picture) -> torch.Tensor:
    """(1, C, H, W), float32."""
    return torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None].float()


def write(out: Path) -> None:
    rows = read(out / "file_noise.jsonl")
    lines = heading("The noise of files", __doc__)
    lines += [
        "| kind | told | σ (worst of nine in ten) | pictures | input | median | TV | NLM | BM3D | aipo |"
    ]
    lines[-1] += " ahead of best by | worse than input |"
    lines += ["|---" * 12 + "|"]
    for name, (model, _) in KINDS.items():
        tell, restore = (
            [r for r in rows if (r["step"], r["kind"]) == (step, name)] for step in ("tell", "restore")
        )
        if not tell:
            continue
        ratio = np.array([row["sigma"] / max(row["true"], 1e-3) for row in tell])
        worst = np.quantile(np.abs(ratio - 1), 0.9)
        cells = [name, f"{sum(row['model'] == model for row in tell)} of {len(tell)}"]
        cells.append("–" if name == "impulses" else f"{np.median(ratio):.2f} ({100 * worst:.0f} %)")
        cells += compared(restore) if len(restore) > 1 else [str(len(restore)), *_single(restore), "–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    (out / "file_noise.md").write_text("\n".join(lines) + "\n")


def compared(restore: list[dict]) -> list[str]:
    """Cells on the pictures that were restored, two or more."""
    quality = {way: [row[way] for row in restore] for way in ("input", *RIVALS, "aipo")}
    best = max(RIVALS, key=lambda way: mean(quality[way]))
    lower = sum(a < b for a, b in zip(quality["aipo"], quality["input"], strict=True))
    means = [f"{mean(quality[way]):.2f}" for way in quality]
    return [str(len(restore)), *means, ahead(quality["aipo"], quality[best]), str(lower)]


def _single(restore: list[dict]) -> list[str]:
    """The cells of one picture, or of none."""
    ways = ("input", *RIVALS, "aipo")
    return [f"{restore[0][way]:.2f}" if restore else "–" for way in ways]


if __name__ == "__main__":
    main()
