"""Measurement files: what was measured comes back exactly, anything else is refused by name."""

import numpy as np
import pytest
import torch
from closed_form import OPERATORS, SHAPE
from safetensors.torch import save_file

from aipo.checkpoints import load_tensors, save_tensors
from aipo.errors import AipoError, CheckpointError, InputError
from aipo.likelihoods import Gaussian, measure
from aipo.measurements import load_measurement, save_measurement
from aipo.operators import Identity, LinearOperator

operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def saved(path, operator: LinearOperator) -> Gaussian:
    generator = torch.Generator().manual_seed(0)
    likelihood = measure(
        operator, torch.rand(2, *SHAPE, generator=generator), torch.tensor([0.1, 0.2]), generator
    )
    save_measurement(path, "a task", likelihood)
    return likelihood


@operators
def test_a_measurement_comes_back_as_it_was_saved(tmp_path, operator):
    likelihood = saved(tmp_path / "file", operator)
    task, found = load_measurement(str(tmp_path / "file"))
    assert task == "a task"
    assert torch.equal(found.y, likelihood.y)
    assert torch.equal(found.sigma, likelihood.sigma)
    assert type(found.operator) is type(operator)
    x = torch.rand(2, *SHAPE)
    assert torch.equal(found.operator(x), operator(x))
    assert torch.equal(found(x), likelihood(x))


def test_a_common_noise_level_is_saved_for_every_image(tmp_path):
    save_measurement(tmp_path / "file", "denoise", Gaussian(Identity(SHAPE), torch.zeros(3, *SHAPE), 0.25))
    assert load_measurement(tmp_path / "file")[1].sigma.tolist() == [0.25] * 3


def test_a_sensing_matrix_is_kept_as_its_seed(tmp_path):
    saved(tmp_path / "file", OPERATORS["sensing"])
    tensors, _ = load_tensors(tmp_path / "file")
    assert set(tensors) == {"y", "sigma"}


@operators
def test_a_file_cut_short_is_refused(tmp_path, operator):
    path = tmp_path / "file"
    saved(path, operator)
    data = path.read_bytes()
    for length in range(len(data)):
        path.unlink()
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            load_measurement(path)


@operators
def test_random_damage_never_raises_another_error(tmp_path, operator):
    path = tmp_path / "file"
    saved(path, operator)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(600):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        path.unlink()  # a new file is not flushed to the disk, a shortened one is
        path.write_bytes(damaged)
        try:
            load_measurement(path)
        except AipoError:
            continue


@pytest.mark.parametrize(
    "metadata", [None, {}, {"format": "pt"}, {"json": "{}"}, {"json": "[]"}, {"json": "1"}]
)
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "file"
    save_file({"y": torch.zeros(1, 2)}, path, metadata)
    with pytest.raises(AipoError, match=str(path)):
        load_measurement(path)


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CheckpointError, match=str(path)):
            load_measurement(path)


def rewrite(path, change: dict, drop: tuple[str, ...] = ()) -> None:
    """Save the same file with some of its metadata and tensors changed."""
    tensors, metadata = load_tensors(path)
    fields = {**metadata, **change}
    kept = {name: tensor for name, tensor in tensors.items() if name not in drop}
    save_tensors(path, kept, {name: value for name, value in fields.items() if name not in drop})


@pytest.mark.parametrize("change", [{"fingerprint": "0" * 64}, {"seed": 4}])
def test_another_sensing_matrix_is_refused(tmp_path, change):
    path = tmp_path / "file"
    saved(path, OPERATORS["sensing"])
    rewrite(path, change)
    with pytest.raises(InputError, match="another matrix"):
        load_measurement(path)


@operators
@pytest.mark.parametrize("field", ["operator", "shape", "task", "y", "sigma"])
def test_an_incomplete_file_is_refused_by_field(tmp_path, operator, field):
    path = tmp_path / "file"
    saved(path, operator)
    rewrite(path, {}, drop=(field,))
    with pytest.raises(InputError, match=field):
        load_measurement(path)


@pytest.mark.parametrize(
    ("operator", "change"),
    [
        ("denoising", {"operator": "Telescope"}),
        ("denoising", {"shape": [2, 3]}),
        ("denoising", {"shape": [2, 3, 5]}),
        ("denoising", {"shape": "abc"}),
        ("denoising", {"shape": None}),
        ("sensing", {"measurements": 8}),
        ("sensing", {"measurements": 10**9}),
        ("sensing", {"measurements": "9"}),
        ("sensing", {"seed": -1}),
        ("sensing", {"seed": "x"}),
    ],
)
def test_values_that_fit_nothing_are_refused(tmp_path, operator, change):
    path = tmp_path / "file"
    saved(path, OPERATORS[operator])
    rewrite(path, change)
    with pytest.raises(InputError):
        load_measurement(path)


def test_a_mask_of_another_size_is_refused(tmp_path):
    path = tmp_path / "file"
    saved(path, OPERATORS["inpainting"])
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors | {"mask": torch.ones(2, 3, 5, dtype=torch.bool)}, metadata)
    with pytest.raises(InputError, match="Mask"):
        load_measurement(path)
