"""The copies in which a gallery stores its photos: as they are, and moved a little to each side.

A drawing lies elsewhere in its frame than what it shows does in the photo, and some copy fits better than the photo. To embed
a query costs what it cost without them; a gallery of so many copies is embedded, kept and searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from sketchynet.augment import move_photo
from sketchynet.config import Recipe

_STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Left, right, up, down."""


@dataclass(frozen=True)
class PhotoCopies:
    """Which copies there are; without arguments, each photo once.

    Args:
        shift: share of the side by which photos are moved; 0 for none.
        border: what a moved photo shows beyond its edge, ``replicate`` or ``white``.
    """

    shift: float = 0.0
    border: str = "replicate"

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Those of a recipe's gallery."""
        return cls(recipe.search.copy_shift, recipe.augmentation.photo.border)

    @property
    def count(self) -> int:
        """Copies of every photo, itself included."""
        return 1 + len(_STEPS) if self.shift else 1

    def moved(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Of photos uint8 (n, S, S, 3), the copies moved to the left, right, top and bottom, likewise."""
        if not self.shift or not len(images):
            return [images] * (self.count - 1)
        shifts = [self.shift * np.array(step) for step in _STEPS]
        photos = images.numpy()
        return [
            torch.from_numpy(np.stack([move_photo(photo, np.eye(2), shift, self.border) for photo in photos])) for shift in shifts
        ]


ONCE = PhotoCopies()
"""Every photo as it is."""
