"""A Gaussian for pictures of one size with texture: outlines in components, the rest in a spectrum."""

from typing import Any

import torch
from torch import Tensor, nn

from aipo.basics.arrays import Images, PerImage, rowwise
from aipo.basics.errors import InputError
from aipo.gaussian.low_rank import Components, LowRankGaussian
from aipo.gaussian.stationary import StationaryGaussian, colour_matrices, filter_colours


class LowRankStationary(Components):
    """N(μ, W Wᵀ + S) for images of one shape, S stationary and periodic: outlines in W, texture in S.

    Args:
        mean: (C, H, W).
        loadings: W, (n, r).
        colours: orthogonal (C, C); its rows are the colour directions in which S is diagonal.
        power: eigenvalues of S for each colour direction in `rfft2` order, (C, H, W//2 + 1).
    """

    textured = True

    colours: Tensor
    power: Tensor

    def __init__(self, mean: Tensor, loadings: Tensor, colours: Tensor, power: Tensor):
        channels, height, width = mean.shape
        shapes = (tuple(loadings.shape[:1]), tuple(colours.shape), tuple(power.shape))
        if shapes != ((mean.numel(),), (channels, channels), (channels, height, width // 2 + 1)):
            raise InputError(
                f"mean {tuple(mean.shape)}, loadings {tuple(loadings.shape)}, colours {tuple(colours.shape)} "
                f"and power {tuple(power.shape)} do not fit; they are (C, H, W), (n, r), (C, C) and "
                "(C, H, W//2 + 1) with n = C·H·W"
            )
        super().__init__(mean, loadings)
        self.register_buffer("colours", colours)
        self.register_buffer("power", power)
        self._cores: dict[float, tuple[Tensor, Tensor]] = {}
        self._copies: dict[torch.dtype, Tensor] = {}
        self.register_load_state_dict_post_hook(_forget)

    @classmethod
    def fit(cls, images: Images, rank: int) -> "LowRankStationary":
        """Principal components of the images (N > rank), and the average spectrum of what they leave."""
        return cls.around(LowRankGaussian.fit(images, rank), images)

    @classmethod
    def around(cls, principal: LowRankGaussian, images: Images) -> "LowRankStationary":
        """The principal components of the images at hand, and the average spectrum of what they leave."""
        mean = images.double().mean(0)
        directions = torch.linalg.qr(principal.loadings.double())[0]
        flat = (images.double() - mean).flatten(1)
        rest = (flat - (flat @ directions) @ directions.T).reshape(images.shape)
        texture = StationaryGaussian.fit(rest)
        return cls(mean.float(), principal.loadings, texture.colours, texture.power(images))

    def factor(self, u: Tensor) -> Images:
        rank = self.loadings.shape[1]
        smooth = rowwise(u[:, :rank], self._loadings(u.dtype).T).unflatten(1, self.mean.shape)
        noise = u[:, rank:].unflatten(1, self.mean.shape)
        return smooth + filter_colours(self.colours, self.power.to(u).sqrt(), noise)

    def factor_adjoint(self, v: Images) -> Tensor:
        texture = filter_colours(self.colours, self.power.to(v).sqrt(), v)
        return torch.cat((rowwise(v.flatten(1), self._loadings(v.dtype)), texture.flatten(1)), 1)

    def covariance(self, v: Images) -> Images:
        """Σ v."""
        return self.factor(self.factor_adjoint(v))

    def precision(self, v: Images) -> Images:
        return self._inverse(v, 0.0)

    def log_det(self) -> Tensor:
        """log det Σ, in float64."""
        logs, width = self.power.double().log().sum((0, 1)), self.mean.shape[2]
        twice = 2 * logs.sum() - logs[0] - (logs[-1] if width % 2 == 0 else 0)  # half a spectrum is stored
        return twice - torch.linalg.slogdet(self._core(0.0)[0]).logabsdet

    def wiener(self, v: Images, noise: PerImage) -> Images:
        """Σ (Σ + noise)⁻¹ v: what a picture of this density keeps under white noise of that variance."""
        kept = torch.empty_like(v)
        for level in noise.unique().tolist():
            chosen = noise == level
            kept[chosen] = v[chosen] - level * self._inverse(v[chosen], level)
        return kept

    def averaged_inverse(self, like: Images, noise: float) -> Tensor:
        """The mean of (Σ + noise)⁻¹ over all places, as matrices between the colours at each frequency.

        Moved to every place (H·W of them) and averaged, a matrix becomes a filter. (H, W//2 + 1, C, C) in
        `rfft2` order, float64.
        """
        core, whitened = self._core(noise)
        columns = (whitened @ torch.linalg.cholesky(core)).T.unflatten(1, self.mean.shape)
        spectra = torch.fft.rfft2(columns)
        taken = torch.einsum("rihw,rjhw->hwij", spectra, spectra.conj()).real / self.mean[0].numel()
        return colour_matrices(self.colours, 1 / (self.power.double() + noise)) - taken

    def _inverse(self, v: Images, noise: float) -> Images:
        """(W Wᵀ + S + noise)⁻¹ v by Woodbury's identity, in float64."""
        core, whitened = self._core(noise)
        exact = v.double()
        alone = filter_colours(self.colours, 1 / (self.power.double() + noise), exact)
        inner = rowwise(rowwise(exact.flatten(1), whitened), core)
        return (alone - rowwise(inner, whitened.T).unflatten(1, self.mean.shape)).to(v.dtype)

    def _core(self, noise: float) -> tuple[Tensor, Tensor]:
        """With V = (S + noise)⁻¹ W: the inverse of I + WᵀV, and V. The last few are kept."""
        kept = self._cores.get(noise)
        if kept is None:
            w = self._loadings(torch.float64)
            columns = w.T.unflatten(1, self.mean.shape)
            filtered = filter_colours(self.colours, 1 / (self.power.double() + noise), columns).flatten(1).T
            eye = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
            if len(self._cores) >= 16:
                self._cores.clear()
            factor = torch.linalg.cholesky(eye + w.T @ filtered)
            kept = self._cores[noise] = torch.cholesky_inverse(factor), filtered.contiguous()
        return kept

    def _loadings(self, dtype: torch.dtype) -> Tensor:
        """W in a precision; converting it at every product would cost as much as the product."""
        if dtype not in self._copies:
            self._copies[dtype] = self.loadings.to(dtype)
        return self._copies[dtype]

    def _forget(self) -> None:
        self._cores.clear()
        self._copies.clear()

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._forget()
        return self

    def __getstate__(self):
        return {**vars(self), "_cores": {}, "_copies": {}}


def _forget(surrogate: nn.Module, _: Any) -> None:
    """Drop what was made of the tensors that have just been replaced."""
    assert isinstance(surrogate, LowRankStationary)
    surrogate._forget()
