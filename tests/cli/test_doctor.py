"""`aipo doctor`: says what there is, and finds what is broken."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from aipo.cli import doctor
from aipo.cli.main import main
from aipo.io.tensors import load_folder, save_folder
from aipo.priors import FlowPrior, bundled_priors


@pytest.fixture
def one(tmp_path, monkeypatch):
    """The smallest bundled prior alone, in a folder where it may be damaged."""
    folder = tmp_path / "fashion28"
    shutil.copytree(bundled_priors()["fashion28"], folder)
    monkeypatch.setattr(doctor, "bundled_priors", lambda: {"fashion28": folder})
    return folder


def test_a_sound_installation(capsys):
    """With every prior that ships."""
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = {line[: lines[0].index("0.1.0")].strip() for line in lines}
    assert {"aipo", "Python", "torch", "numpy", "device cpu", "CPU kernels"} <= starts
    for name, folder in bundled_priors().items():
        digest = json.loads((folder / "config.json").read_text())["sha256"]["model.safetensors"]
        (line,) = [line for line in lines if line.startswith(f"prior {name} ")]
        assert digest[:12] in line and "bits per dimension" in line
    assert lines[-1] == "all is well"


def damaged(folder) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def missing(folder) -> None:
    (folder / "model.safetensors").unlink()


def another(folder) -> None:
    """Sound files of another density, under right checksums."""
    card, tensors = load_folder(folder)
    changed = {name: t + 0.3 if name.endswith("log_scale") else t for name, t in tensors.items()}
    save_folder(folder, card, changed)


def boasting(folder) -> None:
    card, tensors = load_folder(folder)
    save_folder(folder, card | {"validation_bits_per_dim": 0.5}, tensors)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (damaged, "checksum"), (missing, "model.safetensors"), (another, "bits per dimension"),
        (boasting, "its card says 0.500"),
    ],
)  # fmt: skip
def test_a_broken_prior_is_one_sentence(one, caplog, capsys, harm, sentence):
    harm(one)
    assert main(["doctor"]) == 1
    (failure,) = [record.getMessage() for record in caplog.records if record.name == "aipo"]
    assert "prior fashion28" in failure and sentence in failure
    assert capsys.readouterr().out.splitlines()[-1] == "1 of the checks failed"


def test_a_flow_that_does_not_lead_back_is_found(one, monkeypatch):
    monkeypatch.setattr(FlowPrior, "encode", lambda prior, x: prior.flow(x)[0] + 0.05)
    (failure,) = doctor.unsound_priors(print)
    assert "latents" in failure


def test_a_kernel_that_computes_wrongly_is_found(monkeypatch):
    conv2d = torch.nn.functional.conv2d
    assert doctor.wrong_numbers() == []
    monkeypatch.setattr(
        torch.nn.functional, "conv2d",
        lambda x, *rest, **named: conv2d(x, *rest, **named) * (1.001 if x.dtype == torch.float32 else 1.0),
    )  # fmt: skip
    (failure,) = doctor.wrong_numbers()
    assert "convolutions" in failure


def test_an_installation_without_priors_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "bundled_priors", dict)
    assert len(doctor.unsound_priors(print)) == 1


def test_a_reader_that_leaves_gets_no_traceback():
    command = f"{sys.executable} -m aipo.cli priors"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} | head -c 0"], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
