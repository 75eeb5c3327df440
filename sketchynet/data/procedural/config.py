"""Settings of the procedural set."""

from __future__ import annotations

from dataclasses import dataclass

from sketchynet.errors import InputError

# Every random stream has its own number, so that photos and drawings never share random values.
CHAIR_STREAM, PHOTO_STREAM, SKETCH_STREAM, DETAIL_STREAM = 1, 2, 3, 4


@dataclass(frozen=True)
class ProceduralConfig:
    """What the procedural chairs and their drawings are like. Raises InputError for values out of range."""

    family_size: int = 4
    """Consecutive photos that form a family."""
    distinct: float = 0.4
    """Share of families whose members are unrelated; the members of the others share their coarse shape."""
    detail: tuple[float, float] = (0.0, 1.0)
    """Range of the drawings' level of detail: 0 is a bare outline, 1 has every slat."""
    wobble: float = 1.0
    """Unsteadiness of the hand; 0 draws exact lines."""
    distortion: float = 1.0
    """Errors of proportion and perspective; 0 has none."""
    viewpoint: float = 3.0
    """Standard deviation, in degrees, of the angle between a drawing's viewpoint and the photo's."""
    missed: float = 0.06
    """Probability that a detail is left out although the level of detail asks for it."""
    background: float = 0.35
    """Share of photos with a wall and a floor instead of a plain white ground."""

    def __post_init__(self) -> None:
        if self.family_size < 1:
            raise InputError(f"ProceduralConfig.family_size is {self.family_size}: give at least 1")
        for name in ("distinct", "missed", "background"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(
                    f"ProceduralConfig.{name} is {getattr(self, name)}: give a share from 0 to 1"
                )
        for name in ("wobble", "distortion", "viewpoint"):
            if not 0.0 <= getattr(self, name) <= 20.0:
                raise InputError(
                    f"ProceduralConfig.{name} is {getattr(self, name)}: give a number from 0 to 20"
                )
        if len(self.detail) != 2 or not 0.0 <= self.detail[0] <= self.detail[1] <= 1.0:
            raise InputError(
                f"ProceduralConfig.detail is {self.detail}: give (low, high) with 0 <= low <= high <= 1"
            )
