"""What a command leaves behind: a table, summary.json, pictures side by side, and a plot of the path."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import torch

from aipo.basics.arrays import Images
from aipo.basics.errors import InputError
from aipo.basics.quality import psnr
from aipo.cli.outputs import PANEL, PATH
from aipo.cli.record import Record, View, as_it_is, explanation
from aipo.io.files import printable, write_bytes
from aipo.io.images import hstack, write_image
from aipo.io.picture import Picture, write_picture
from aipo.io.tensors import write_atomic
from aipo.likelihoods import Likelihood
from aipo.operators import LinearOperator
from aipo.reconstruction.result import Reconstruction

_COLUMNS = (
    ("task", "task", "{}"),
    ("image", "image", "{}"),
    ("psnr_before", "before dB", "{:.2f}"),
    ("psnr_start", "start dB", "{:.2f}"),
    ("psnr_after", "after dB", "{:.2f}"),
    ("data_energy", "data nats", "{:.0f}"),
    ("prior_energy", "prior nats", "{:.0f}"),
    ("sigma", "sigma", "{:.3g}"),
    ("weight", "weight", "{:.3g}"),
    ("evaluations", "evaluations", "{}"),
    ("seconds", "seconds", "{:.1f}"),
    ("status", "status", "{}"),
    ("remaining", "nats left", "{:.0f}"),
    ("untypical", "sd off", "{:.1f}"),
    ("rhat", "R-hat", "{:.3f}"),
    ("effective", "eff. draws", "{:.0f}"),
)


def prepare_folder(out: str | Path) -> Path:
    """Make the output folder and prove that it can be written to, before anything is computed.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # without a name, so several processes can try at once
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another --out") from error
    return folder


def table(records: Sequence[Record]) -> str:
    """The records as aligned columns of text, and below them each plan and each remark once.

    An unknown value is "-". A column that knows no value is left out.
    """
    known = [column for column in _COLUMNS if any(_cell(record, column) != "-" for record in records)]
    rows = [[title for _, title, _ in known]]
    rows += [[_cell(record, column) for column in known] for record in records]
    widths = [max(len(row[i]) for row in rows) for i in range(len(known))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    said: dict[str, list[str]] = {}
    for record in records:
        for sentence in (record.plan, *record.remarks):
            said.setdefault(printable(sentence), []).append(printable(f"{record.task} {record.image}"))
    lines += ["", *(f"{_few(names)}: {sentence}" for sentence, names in said.items())]
    return "\n".join(line.rstrip() for line in lines)


def _cell(record: Record, column: tuple[str, str, str]) -> str:
    key, _, form = column
    value = getattr(record, key)
    return "-" if value is None else printable(form.format(value))


def _few(names: Sequence[str]) -> str:
    """The first name, and how many others there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def write_summary(folder: Path, records: Sequence[Record]) -> None:
    """summary.txt for people, summary.json with the same numbers for programs."""
    write_atomic(folder / "summary.txt", (table(records) + "\n").encode())
    data = json.dumps([asdict(record) for record in records], indent=2, allow_nan=False)
    write_atomic(folder / "summary.json", (data + "\n").encode())


def write_pictures(
    folder: Path,
    name: str,
    likelihood: Likelihood,
    result: Reconstruction,
    truth: Images | None,
    view: View = as_it_is,
    picture: Picture | None = None,
) -> None:
    """NAME.png, the restoration; NAME-panel.png, side by side; NAME-path.png, a plot of the path.

    Args:
        picture: the one that was restored, if it came from a file; the restoration is written in its kind,
            as NAME.tif if it is a TIFF.
    """
    restored = view(result.image)[0]
    if picture is None:
        write_image(folder / f"{name}.png", restored)
    else:
        write_picture(folder / (name + picture.suffix), picture, restored)
    panel = [view(measurement_picture(likelihood))[0], restored]
    if truth is not None:
        panel.insert(0, truth[0])
    write_image(folder / (name + PANEL), hstack([image.clamp(0, 1).cpu() for image in panel]))
    plot_path(folder / (name + PATH), result, truth, view)


def measurement_picture(likelihood: Likelihood) -> Images:
    """A picture of what was measured: A⁺y, stretched to the visible range if brightness was not measured."""
    image = explanation(likelihood)
    if not _measures_brightness(likelihood.operator.linear):
        low, high = torch.quantile(image.flatten().float(), torch.tensor([0.01, 0.99], device=image.device))
        image = (image - low) / (high - low)
    return image


def _measures_brightness(operator: LinearOperator) -> bool:
    """Whether AᵀA leaves a white picture bright; compressed sensing makes noise of both signs of it."""
    back = operator.adjoint(operator.forward(torch.ones(1, *operator.shape, device=operator.device)))
    dark = back < -0.01 * back.max()
    return float(dark.float().mean()) < 0.1


def plot_path(file: Path, result: Reconstruction, truth: Images | None, view: View = as_it_is) -> None:
    """Objective, PSNR (where the truth is known) and the criterion against λ, or in turn at one λ."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # only here: it is slow to import
    from matplotlib.ticker import LogLocator, NullFormatter

    states = [state for state in result.path if float(state.weight[0]) > 0]
    weights = [float(state.weight[0]) for state in states]
    curves = [("objective F, nats", [float(state.objective[0]) for state in states])]
    if truth is not None:
        curves.append(("PSNR, dB", [float(psnr(view(state.x[:1]), truth)[0]) for state in states]))
    values = np.array([float(value[0]) for value in result.values[-len(states) :]])
    if np.isfinite(values).any():
        curves.append((f"criterion ({result.criterion})", list(values)))
    figure, axes = pyplot.subplots(1, len(curves), figsize=(4 * len(curves), 3.2), squeeze=False)
    for axis, (label, curve) in zip(axes[0], curves, strict=True):
        axis.set_title(label)
        if len(set(weights)) == 1:
            axis.plot(range(len(states)), curve, "o-", markersize=4)
            axis.set(xlabel=f"state, all at λ = {weights[0]:g}", xticks=range(len(states)))
            continue
        axis.plot(weights, curve, "o-", markersize=4)
        axis.axvline(float(result.weight[0]), color="0.6", linestyle="--", linewidth=1)
        axis.set(xscale="log", xlabel="weight λ")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    figure.tight_layout()
    plot = BytesIO()
    figure.savefig(plot, dpi=110, format="png", metadata={"Software": "aipo"})
    pyplot.close(figure)
    write_bytes(file, plot.getvalue())
