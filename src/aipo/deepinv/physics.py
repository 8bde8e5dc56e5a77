"""deepinv's physics as operators: y = sensor(noise(A x)) → A."""

from typing import Any

import torch
from torch import Tensor

from aipo.basics.arrays import Images, Measurements
from aipo.basics.errors import InputError
from aipo.deepinv.loading import load
from aipo.operators import Identity, LinearOperator, Mask, Operator

dinv = load()


class Instrument(Operator):
    """A of a physics on pictures (B, C, H, W); the measurement is a vector of the entries that are measured.

    Args:
        physics: a physics of deepinv.
        shape: (C, H, W).
        measured: which entries of the flattened measurement are kept, (m,) bool.
    """

    def __init__(self, physics: Any, shape: tuple[int, int, int], measured: Tensor):
        self.shape = shape
        self.measurement_shape = (int(measured.sum()),)
        self._index = measured.nonzero().squeeze(1)
        self._single = physics.clone()
        self.device = _device(physics)
        self._double = _in_double(physics, shape)

    def forward(self, x: Images) -> Measurements:
        """A x, in double precision if the physics supports it."""
        if x.dtype == torch.float64 and self._double is not None:
            values = flat(applied(self._double, x))
        else:
            values = flat(applied(self._single, x.float())).to(x.dtype)
        return values[:, self._index.to(x.device)]


class LinearInstrument(Instrument, LinearOperator):
    """A linear physics. Differentiation of A gives the adjoint, because not every A_adjoint is a true one."""

    def adjoint(self, y: Measurements) -> Images:
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.shape).requires_grad_()
            return torch.autograd.grad(self.forward(x), x, y)[0]


def operator_and_values(physics: Any, y: Any, shape: tuple[int, int, int] | None) -> tuple[Operator, Tensor]:
    """The operator of a physics, and y in the shape that it measures, (B, *measurement_shape).

    Entries that are zero both in y and for a random picture are not measured. deepinv writes zeros where a
    mask hides an entry.

    Raises:
        InputError: the physics is not for pictures, its parameters differ from image to image, or it has a
            sensor model.
    """
    values = flat(y)
    shape = shape or _picture_shape(physics, y)
    each = _probed(physics, values, shape)
    if not _alike(each):
        raise InputError(
            f"{type(physics).__name__} has other parameters for each image of the batch; pass images one by "
            "one, or use aipo.deepinv.Reconstructor, which does"
        )
    _check_sensor(physics, values)
    if isinstance(physics, dinv.physics.Denoising):
        return Identity(shape), y
    measured = (each[0] != 0) | (values != 0).any(0)
    if isinstance(physics, dinv.physics.Inpainting) and bool((flat(physics.mask)[0][measured] == 1).all()):
        return Mask(measured.reshape(shape)), values[:, measured]
    kind = LinearInstrument if isinstance(physics, dinv.physics.LinearPhysics) else Instrument
    return kind(physics, shape, measured), values[:, measured]


def alike(physics: Any, y: Any, shape: tuple[int, int, int] | None) -> list[tuple[Any, Any]]:
    """Pairs of physics and measurements that belong together: the whole batch, or one pair per image."""
    if isinstance(y, dinv.utils.TensorList):
        return [(physics, y)]
    if _alike(_probed(physics, flat(y), shape or _picture_shape(physics, y))):
        return [(physics, y)]
    return [(_of_image(physics, i, len(y)), y[i : i + 1]) for i in range(len(y))]


def _probed(physics: Any, values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The measurement of one random picture with the parameters of each image, like `values` (B, m)."""
    probe = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(values)
    each = flat(_tried(physics, probe.expand(len(values), *shape)))
    if each.shape != values.shape:
        raise InputError(
            f"y has {values.shape[1]} values per image, but {type(physics).__name__} measures "
            f"{each.shape[1]} of a picture {tuple(shape)}; give the physics that measured it"
        )
    return each


def _alike(each: Tensor) -> bool:
    return bool((each - each[:1]).abs().max() <= 1e-4 * each.abs().max())


def _of_image(physics: Any, index: int, count: int) -> Any:
    """The physics of one image of a batch, with its own entry of every parameter (count, ...)."""
    part = physics.clone()
    for module in part.modules():
        for name, value in list(module.named_buffers(recurse=False)):
            if value.ndim > 0 and len(value) == count:
                setattr(module, name, value[index : index + 1])
    return part


def applied(physics: Any, x: Images) -> Any:
    """A x without noise; phase retrieval and MRI take complex pictures, MRI as two channels."""
    if isinstance(physics, dinv.physics.PhaseRetrieval):
        return physics.A(x + 0j)
    if isinstance(physics, dinv.physics.mri.MRIMixin) and x.shape[1] == 1:
        return physics.A(torch.cat((x, torch.zeros_like(x)), 1))
    return physics.A(x)


def flat(y: Any) -> Tensor:
    """A measurement as (B, m) real numbers; the parts of deepinv's lists follow one another."""
    if isinstance(y, dinv.utils.TensorList):
        return torch.cat([flat(part) for part in y], 1)
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)


def _picture_shape(physics: Any, y: Any) -> tuple[int, int, int]:
    try:
        shape = tuple(physics.A_adjoint(y).shape[1:])
    except (AttributeError, TypeError, RuntimeError, ValueError, NotImplementedError):
        shape = tuple(getattr(physics, "img_size", ()))
    if len(shape) != 3:
        raise InputError(
            f"{type(physics).__name__} does not tell the picture's shape; pass shape=(C, H, W)"
            if not shape
            else f"{type(physics).__name__} measures {shape}; aipo restores pictures (C, H, W)"
        )
    return (shape[0], shape[1], shape[2])


def _tried(physics: Any, x: Images) -> Any:
    try:
        with torch.no_grad():
            return applied(physics, x)
    except (AttributeError, TypeError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{type(physics).__name__} cannot measure pictures {tuple(x.shape)} ({error}); give a physics "
            "with all its parameters, of pictures (B, C, H, W)"
        ) from error


def _check_sensor(physics: Any, values: Tensor) -> None:
    probe = torch.linspace(-1, 2, 101).to(values)
    try:
        unchanged = torch.equal(physics.sensor(probe), probe)
    except (AttributeError, RuntimeError):
        unchanged = False
    if not unchanged:
        raise InputError(
            f"{type(physics).__name__} has a sensor model, whose density is not known; take the operator "
            "of a physics without one, and aipo.likelihoods.Clipped or Quantised"
        )


def _device(physics: Any) -> torch.device:
    return next((buffer.device for buffer in physics.buffers()), torch.device("cpu"))


def _in_double(physics: Any, shape: tuple[int, int, int]) -> Any | None:
    """A copy in double precision, or None if the physics does not work in it."""
    try:
        copy = physics.clone().double()
        with torch.no_grad():
            blank = torch.zeros(1, *shape, dtype=torch.float64, device=_device(physics))
            values = flat(applied(copy, blank))
    except (RuntimeError, TypeError):
        return None
    return copy if values.dtype == torch.float64 else None
