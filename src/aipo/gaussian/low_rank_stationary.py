"""A Gaussian for pictures of one size with texture: outlines in components, the rest in a spectrum."""

import torch
from torch import Tensor

from aipo.basics.arrays import Images, PerImage, expand, rowwise
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

    @classmethod
    def fit(cls, images: Images, rank: int) -> "LowRankStationary":
        """Principal components of images (N, C, H, W), N > rank; the average spectrum of what they leave."""
        return cls.around(LowRankGaussian.fit(images, rank), images)

    @classmethod
    def around(cls, principal: LowRankGaussian, images: Images) -> "LowRankStationary":
        """Principal components that are known, and the average spectrum of what they leave of the images."""
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

    def texture(self, like: Images) -> Tensor:
        """Eigenvalues of S, (C, H, W//2 + 1), in float64."""
        return self.power.double()

    def inverse_rest(self, v: Images, noise: PerImage) -> Images:
        """(S + noise)⁻¹ v."""
        return filter_colours(self.colours, 1 / (self.power.to(v) + expand(noise, v)), v)

    def log_det(self) -> Tensor:
        """log det Σ, in float64."""
        logs, width = self.power.double().log().sum((0, 1)), self.mean.shape[2]
        twice = 2 * logs.sum() - logs[0] - (logs[-1] if width % 2 == 0 else 0)  # half a spectrum is stored
        return twice + torch.linalg.slogdet(self._inner(0.0)).logabsdet

    def averaged_inverse(self, like: Images, noise: float) -> Tensor:
        """The mean of (Σ + noise)⁻¹ over all places, as matrices between the colours at each frequency.

        Moved to every place (H·W of them) and averaged, a matrix becomes a filter. (H, W//2 + 1, C, C) in
        `rfft2` order, float64.
        """
        columns = self.components(like)
        levels = torch.full((len(columns),), noise, dtype=columns.dtype, device=columns.device)
        spectra = torch.fft.rfft2(self.inverse_rest(columns, levels))
        (core,) = self._cores.serve([noise], self._core)
        taken = torch.einsum("rs,rihw,sjhw->hwij", core.to(spectra), spectra, spectra.conj()).real
        return colour_matrices(self.colours, 1 / (self.texture(like) + noise)) - taken / self.mean[0].numel()
