"""Views of a picture under which a flow answers a little differently, so that their mean is a better answer.

A flow of squeezed scales knows where the 2 × 2 blocks of its grid lie, and a picture does not. The mean of
what it restores of a few shifted pictures is less of the grid's and more of the picture's.

Source: Coifman & Donoho 1995, Translation-invariant de-noising (cycle spinning).
"""

from dataclasses import dataclass

import torch.nn.functional as F

from aipo.basics.arrays import Images


@dataclass(frozen=True)
class View:
    """A picture moved by so many pixels, reflected at the border that opens, or mirrored left to right."""

    down: int = 0
    right: int = 0
    mirrored: bool = False

    @property
    def reach(self) -> int:
        """How many pixels are reflected; a picture must have more."""
        return max(self.down, self.right)

    def of(self, x: Images) -> Images:
        """The view of pictures (B, C, H, W), (B, C, H + down, W + right)."""
        moved = F.pad(x, (self.right, 0, self.down, 0), mode="reflect") if self.down or self.right else x
        return moved.flip(-1) if self.mirrored else moved

    def back(self, seen: Images) -> Images:
        """The pictures of a view."""
        moved = seen.flip(-1) if self.mirrored else seen
        return moved[:, :, self.down :, self.right :]


PLAIN = View()

# The first two differ by an odd number in both directions, which is worth most (dev/LOG.md).
SHIFTS = (PLAIN, View(3, 3), View(1, 2), View(2, 1))

MIRRORED = (PLAIN, View(mirrored=True))
