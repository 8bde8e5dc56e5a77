"""Gates 15 and 16: damage is refused and never silent, pickles never run, tensors are refused by name."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aipo.basics.errors import CheckpointError
from aipo.flows import Glow
from aipo.gaussian import LowRankGaussian
from aipo.io import tensors as checkpoints
from aipo.io.tensors import (
    CONFIG_NAME,
    TENSORS_NAME,
    load_config,
    load_folder,
    load_state,
    load_tensors,
    save_folder,
    save_tensors,
    write_atomic,
)
from aipo.priors import FlowPrior, load_prior

Files = dict[str, bytes]

CONFIG: dict[str, Any] = {
    "name": "tiny", "shape": [3, None, None], "bits": 3.25, "flag": True, "nested": {"κ": "ü", "steps": 8}
}  # fmt: skip
TENSORS = {
    "flow.weight": torch.linspace(-1, 1, 12).reshape(3, 4).half(),
    "flow.bias": torch.tensor([1.5, -2.5, 0.0]),
    "surrogate.count": torch.arange(5),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_folder(tmp_path / "prior", CONFIG, TENSORS)
    return tmp_path / "prior"


def read(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in (CONFIG_NAME, TENSORS_NAME)}


def write(folder: Path, files: Files) -> None:
    for name, data in files.items():
        overwrite_file(folder / name, data)


def overwrite_file(path: Path, data: bytes) -> None:
    path.unlink()  # a new file is not flushed to the disk, a shortened one is
    path.write_bytes(data)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def same_tensors(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def same_config(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Types count as well: JSON tells 1 from 1.0 and from true."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def test_a_folder_comes_back_as_it_was_saved(folder):
    config, tensors = load_folder(folder)
    assert same_tensors(tensors, TENSORS)
    assert same_config({k: v for k, v in config.items() if k != "sha256"}, CONFIG)
    assert same_config(load_config(folder), config)
    assert names(folder) == {CONFIG_NAME, TENSORS_NAME}


def test_saving_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    save_folder(tmp_path / "again", *load_folder(folder))
    assert read(tmp_path / "again") == read(folder)


def test_white_space_and_order_in_the_configuration_do_not_matter(folder):
    config = load_config(folder)
    (folder / CONFIG_NAME).write_text(json.dumps(dict(reversed(config.items())), separators=(",", ":")))
    assert same_config(load_config(folder), config)


# Gate 15: random damage.


def flip_bit(files: Files, rng: np.random.Generator) -> Files:
    name, data = pick_file(files, rng)
    at = rng.integers(len(data))
    data[at] ^= 1 << rng.integers(8)
    return files | {name: bytes(data)}


def truncate(files: Files, rng: np.random.Generator) -> Files:
    name, data = pick_file(files, rng)
    return files | {name: bytes(data[: rng.integers(len(data))])}


def delete_bytes(files: Files, rng: np.random.Generator) -> Files:
    name, data = pick_file(files, rng)
    at = rng.integers(len(data))
    del data[at : at + rng.integers(1, 9)]
    return files | {name: bytes(data)}


def insert_bytes(files: Files, rng: np.random.Generator) -> Files:
    name, data = pick_file(files, rng)
    at = rng.integers(len(data) + 1)
    data[at:at] = rng.bytes(rng.integers(1, 9))
    return files | {name: bytes(data)}


def overwrite(files: Files, rng: np.random.Generator) -> Files:
    """With structure that parsers take for their own."""
    name, data = pick_file(files, rng)
    at = rng.integers(len(data))
    piece = rng.choice(
        [b"{", b'"', b"[" * 3000, b"null", b"9" * 5000, b"\\ud800", b"NaN", b"\0" * 8, b"\xff" * 8]
    )
    data[at : at + len(piece)] = piece
    return files | {name: bytes(data)}


def swap(files: Files, rng: np.random.Generator) -> Files:
    """One file in the other's place, whole or from some byte on."""
    (a, b), at = rng.permutation(list(files)), rng.choice([0, 0, 8, 100])
    return files | {str(a): files[str(a)][:at] + files[str(b)][at:]}


def edit_json(files: Files, rng: np.random.Generator) -> Files:
    """Another value, a missing or an additional key, anywhere in the configuration."""
    config = json.loads(files[CONFIG_NAME])
    inside = config
    while True:
        key = rng.choice(
            np.array(list(inside) if isinstance(inside, dict) else range(len(inside)), dtype=object)
        )
        if not isinstance(inside[key], dict | list) or rng.random() < 0.3:
            break
        inside = inside[key]
    odd = [None, True, 0, 1, 1.0, 8.0, -1, 1e308, "", "tiny", "0" * 64, [], {}, [3], float("nan"), {"a": {}}]
    if rng.random() < 0.2:
        inside.pop(key)
    else:
        inside[key] = odd[rng.integers(len(odd))]
    return files | {CONFIG_NAME: json.dumps(config, indent=2).encode()}


def pick_file(files: Files, rng: np.random.Generator) -> tuple[str, bytearray]:
    name = str(rng.choice(sorted(files)))
    return name, bytearray(files[name])


MUTATIONS = [flip_bit, truncate, delete_bytes, insert_bytes, overwrite, swap, edit_json]


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_damage_is_refused_or_changes_nothing(mutate, folder):
    """Gate 15 with 7 × 1500 mutations; any other exception fails the test."""
    rng = np.random.default_rng(MUTATIONS.index(mutate))
    original, (config, tensors), refused = read(folder), load_folder(folder), 0
    for _ in range(1500):
        write(folder, mutate(original, rng))
        try:
            found_config, found_tensors = load_folder(folder)
        except CheckpointError as error:
            refused += 1
            assert str(folder) in str(error)
        else:
            assert same_config(found_config, config) and same_tensors(found_tensors, tensors)
    assert refused > 1200, "the mutations hardly damage anything"


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_damaged_prior_is_refused(mutate, tmp_path):
    torch.manual_seed(0)
    surrogate = LowRankGaussian.fit(torch.rand(20, 1, 4, 4), rank=2)
    card = {"flow": {"family": "glow", "shape": [1, 4, 4], "levels": 1, "steps": 1, "hidden": 2}}
    prior = FlowPrior(Glow((1, 4, 4), 1, 1, 2), surrogate, card | {"surrogate": "low-rank"})
    prior.save(tmp_path)
    x = torch.rand(2, 1, 4, 4)
    original, energy = read(tmp_path), load_prior(tmp_path).energy(x)
    rng = np.random.default_rng(1)
    for _ in range(25):
        write(tmp_path, mutate(original, rng))
        try:
            assert torch.equal(load_prior(tmp_path).energy(x), energy)
        except CheckpointError:
            continue


@pytest.mark.parametrize("name", [CONFIG_NAME, TENSORS_NAME])
def test_a_missing_file_or_a_folder_in_its_place_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_folder(folder)
    (folder / name).mkdir()
    with pytest.raises(CheckpointError, match=name):
        load_folder(folder)


@pytest.mark.parametrize(
    "text", ["[]", "null", '"x"', "{}", '{"sha256": []}', '{"sha256": {"config.json": 1}}']
)
def test_json_that_is_no_configuration_is_refused(folder, text):
    (folder / CONFIG_NAME).write_text(text)
    with pytest.raises(CheckpointError, match=CONFIG_NAME):
        load_folder(folder)


# Gate 16: pickles.


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(marker: Path) -> bytes:
    data = pickle.dumps(Touch(marker))
    pickle.loads(data)
    assert marker.exists(), "the payload works"
    marker.unlink()
    return data


@pytest.mark.parametrize("name", [CONFIG_NAME, TENSORS_NAME])
@pytest.mark.parametrize("torch_format", [False, True])
def test_a_pickle_never_runs(folder, tmp_path, name, torch_format):
    marker = tmp_path / "ran"
    data = pickled(marker)
    if torch_format:
        torch.save({"weight": Touch(marker)}, tmp_path / "evil.pt")
        data = (tmp_path / "evil.pt").read_bytes()
    (folder / name).write_bytes(data)
    for load in (load_folder, load_prior, lambda folder: load_tensors(folder / name)):
        with pytest.raises(CheckpointError):
            load(folder)
    assert not marker.exists()


def test_a_pickle_with_a_matching_checksum_never_runs(folder, tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    data = pickled(marker)
    monkeypatch.setattr(checkpoints, "save", lambda *arguments: data)
    save_folder(folder, CONFIG, TENSORS)
    assert (folder / TENSORS_NAME).read_bytes() == data
    with pytest.raises(CheckpointError, match=TENSORS_NAME):
        load_folder(folder)
    assert not marker.exists()


# Gate 16: tensors that do not fit.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "somewhere misses tensors weight"),
        ({"intruder": torch.zeros(1)}, "somewhere has unexpected tensors intruder"),
        ({"weight": torch.zeros(3, 2)}, "somewhere has misshapen tensors weight"),
        ({"bias": torch.zeros(2, 1)}, "somewhere has misshapen tensors bias"),
        ({"bias": torch.zeros(2).int()}, "somewhere has other than floating-point tensors bias"),
        ({"bias": torch.zeros(2, dtype=torch.complex64)}, "somewhere has other than floating-point"),
        (
            {"bias": torch.tensor([0.0, torch.nan])},
            "somewhere has NaN or infinite values in its tensors bias",
        ),
        ({"bias": torch.tensor([0.0, 1e300]).double()}, "somewhere has NaN or infinite values"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(change, message):
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    tensors = {
        k: v
        for k, v in ({k: torch.ones_like(v) for k, v in before.items()} | change).items()
        if v is not None
    }
    with pytest.raises(CheckpointError, match=message):
        load_state(module, tensors, "somewhere")
    assert same_tensors(dict(module.state_dict()), before)


def test_tensors_that_fit_are_loaded():
    module = nn.Linear(3, 2)
    load_state(module, {"weight": torch.full((2, 3), 2.0), "bias": torch.full((2,), 3.0)}, "somewhere")
    assert module(torch.ones(1, 3)).tolist() == [[9.0, 9.0]]


# Writing.


def test_a_file_of_tensors_comes_back_as_it_was_saved(tmp_path):
    transposed = {"t": torch.arange(6.0).reshape(2, 3).T.requires_grad_(True)}
    save_tensors(tmp_path / "file", transposed, {"a": [1, None, "ü"]})
    tensors, metadata = load_tensors(tmp_path / "file")
    assert torch.equal(tensors["t"], transposed["t"]) and not tensors["t"].requires_grad
    assert metadata == {"a": [1, None, "ü"]}


def test_no_bit_of_a_file_of_tensors_can_change_unnoticed(tmp_path):
    path = tmp_path / "file"
    save_tensors(path, {"t": torch.arange(6.0)}, {"a": 1})
    original, silent = path.read_bytes(), 0
    for bit in range(8 * len(original)):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        overwrite_file(path, bytes(damaged))
        try:
            tensors, metadata = load_tensors(path)
        except CheckpointError:
            continue
        silent += not (same_tensors(tensors, {"t": torch.arange(6.0)}) and same_config(metadata, {"a": 1}))
    assert silent == 0


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"a"', "[" * 100_000, "9" * 5000, "{", ""])
def test_metadata_that_is_no_table_is_refused_though_its_checksum_is_right(tmp_path, text):
    path, tensors = tmp_path / "file", {"t": torch.arange(6.0)}
    digest = checkpoints._content_digest(tensors, text)
    path.write_bytes(checkpoints.save(tensors, {"json": text, "sha256": digest}))
    with pytest.raises(CheckpointError, match=str(path)):
        load_tensors(path)


def test_what_is_no_regular_file_is_refused_unopened(tmp_path):
    """A pipe without a writer would wait for ever; a device would never end."""
    path = tmp_path / "file"
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="pipe"):
        load_tensors(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="device"):
        load_tensors(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(CheckpointError, match=str(path)):
        load_tensors(path)


@pytest.mark.parametrize(
    "shape", [[1 << 62, 4], [-1], [1.5], ["a"], [[1]], None, [0, 1 << 62], [1 << 40]], ids=str
)
@pytest.mark.parametrize("kind", ["F32", "F4", "F8_E4M3", "C64", "odd", None])
def test_headers_that_promise_other_tensors_are_refused(tmp_path, shape, kind):
    header = {"t": {"dtype": kind, "shape": shape, "data_offsets": [0, 16]}}
    data = json.dumps(header).encode()
    path = tmp_path / "file"
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(16))
    with pytest.raises(CheckpointError, match=str(path)):
        load_tensors(path)


def test_write_atomic_writes_and_replaces(tmp_path):
    for data in (b"first", b"second", b""):
        write_atomic(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
        assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("step", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    def fail(*arguments):
        raise error

    write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


def test_a_folder_whose_writing_is_interrupted_is_refused(folder, monkeypatch):
    """New tensors beside the old configuration must not pass for either."""

    def fail(source: Path, target: Path):
        if Path(target).name == CONFIG_NAME:
            raise OSError("interrupted")
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="interrupted"):
        save_folder(folder, CONFIG, {"flow.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="checksum"):
        load_folder(folder)
