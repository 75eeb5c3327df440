"""Parameters of procedural chairs: families share a coarse shape, siblings differ in fine detail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from sketchynet.data.procedural.config import CHAIR_STREAM, ProceduralConfig

Generator = np.random.Generator

BACKS = ("frame", "hoop", "panel")
CRESTS = ("straight", "arch", "dip", "yoke")
PANEL_SHAPES = ("square", "rounded", "oval", "arch", "shield", "tulip", "barrel")
SEATS = ("square", "round", "bell")
LEGS = (
    "straight",
    "splayed",
    "turned",
    "sabre",
    "cabriole",
    "sled",
    "cantilever",
    "star",
    "disc",
    "cross",
    "block",
)
ARMS = ("none", "post", "swoop", "loop", "slab")
INFILLS = {
    "frame": ("slats", "spindles", "rails", "cross", "lattice", "splat", *6 * ("weave",)),
    "hoop": ("spindles", "splat", *2 * ("weave",)),
    "panel": ("plain", "buttons", "channels", "ribs", "inset", "cutout", "holes", *7 * ("weave",)),
}
"""Half of the backs are woven: the direction of a weave's lines is what shows on large canvases only."""
COUNTS = {
    "slats": (3, 7),
    "spindles": (5, 11),
    "rails": (3, 7),
    "cross": (1, 3),
    "lattice": (3, 8),
    "splat": (0, 2),
    "plain": (0, 0),
    "buttons": (2, 5),
    "channels": (4, 10),
    "ribs": (4, 9),
    "inset": (1, 3),
    "cutout": (0, 0),
    "holes": (2, 5),
    "weave": (0, 5),
}
"""Fewest and most repetitions of each infill; for a weave, the number of its pattern."""
CUTOUTS = ("circle", "heart", "diamond", "slot", "keyhole", "cross")
EMBLEMS = ("none", "none", "circle", "heart", "diamond", "cross", "slot")
ALIKE = {
    "h": ("h", "sides", "box"),
    "sides": ("h", "sides"),
    "box": ("h", "box", "ladder"),
    "ladder": ("box", "ladder"),
}
"""Stretchers that siblings may exchange."""
STRETCHERS = ("none", "h", "box", "sides", "front", "ladder", "x")
EMBLEM_INFILLS = ("plain", "channels", "inset", "cutout")
"""Panel backs with room for an emblem."""
FOUR_LEGS = ("straight", "splayed", "turned", "sabre", "cabriole")

WOOD = (
    (176, 122, 72),
    (140, 88, 48),
    (208, 168, 112),
    (98, 60, 38),
    (66, 46, 36),
    (222, 196, 150),
    (160, 70, 44),
)
PAINT = (
    (232, 230, 224),
    (44, 44, 48),
    (178, 52, 44),
    (96, 148, 92),
    (72, 116, 160),
    (226, 178, 60),
    (150, 190, 60),
)
METAL = ((150, 154, 160), (70, 72, 78), (196, 198, 202), (34, 34, 38))
FABRIC = (
    (196, 186, 168),
    (120, 128, 132),
    (64, 84, 120),
    (150, 58, 56),
    (92, 122, 96),
    (214, 170, 90),
    (60, 56, 58),
    (176, 140, 120),
    (120, 150, 170),
    (222, 216, 206),
    (170, 96, 130),
)


@dataclass(frozen=True)
class Chair:
    """One chair. Lengths are in units of a usual seat's width, angles in radians."""

    # Coarse shape, shared by a family.
    width: float
    depth: float
    seat_height: float
    back_height: float
    back_width: float
    """Of the back at the seat, as a share of `width`."""
    flare: float
    """How much wider the back is at its top, as a share."""
    rake: float
    """Backward lean of the back, length per height."""
    bow: float
    """How far the back's sides come forward."""
    taper: float
    """How much wider the seat is in front than behind, as a share."""
    seat: str
    seat_thickness: float
    back: str
    crest: str
    crest_height: float
    panel: str
    lift: float
    """Gap between the seat and a panel back, as a share of the back's height."""
    legs: str
    leg_radius: float
    splay: float
    arms: str
    arm_height: float
    azimuth: float
    elevation: float
    # Fine detail, in which siblings differ.
    infill: str
    count: int
    infill_low: float
    """Where the infill begins, as a share of the back's height."""
    cutout: str
    emblem: str
    """A small carving at the top of the back."""
    stretchers: str
    stretcher_height: float
    cushion: str
    apron: str
    rings: int
    finials: bool
    feet: bool
    grooves: int
    # Look of the photo only.
    wood: tuple[int, int, int]
    fabric: tuple[int, int, int]
    upholstered: bool
    metal_legs: bool
    pattern: int

    def fine(self) -> tuple[object, ...]:
        """What tells siblings apart, as far as it shows."""
        carved = self.back == "frame" or (self.back == "panel" and self.infill in EMBLEM_INFILLS)
        return (
            self.infill,
            self.count,
            self.cutout if self.infill in ("splat", "cutout") else "",
            self.emblem if carved else "",
            self.stretchers if self.legs in FOUR_LEGS else "",
            self.cushion,
        )


def _pick(rng: Generator, values: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    if weights is None:
        return values[int(rng.integers(len(values)))]
    total = np.cumsum(weights)
    return values[int(np.searchsorted(total, rng.random() * total[-1], side="right"))]


def _count(rng: Generator, infill: str) -> int:
    low, high = COUNTS[infill]
    return int(rng.integers(low, high + 1))


def _look(rng: Generator) -> dict[str, object]:
    palette = WOOD if rng.random() < 0.6 else PAINT
    wood = np.array(palette[int(rng.integers(len(palette)))]) + rng.integers(-12, 13, 3)
    fabric = np.array(FABRIC[int(rng.integers(len(FABRIC)))]) + rng.integers(-14, 15, 3)
    return {
        "wood": tuple(int(c) for c in np.clip(wood, 20, 240)),
        "fabric": tuple(int(c) for c in np.clip(fabric, 20, 240)),
        "metal_legs": bool(rng.random() < 0.3),
        "pattern": int(rng.integers(4)),
    }


def _fresh(rng: Generator) -> Chair:
    """A chair with every parameter drawn anew."""
    back = _pick(rng, BACKS, (0.42, 0.16, 0.42))
    soft = back == "panel" and rng.random() < 0.7
    legs = _pick(rng, LEGS, (18, 14, 12, 8, 6, 9, 7, 11, 6, 6, 9 if soft else 0))
    if back == "hoop":
        legs = _pick(rng, ("splayed", "turned", "star"), (5, 4, 1))
    arms = _pick(rng, ARMS, (46, 18, 14, 12, 26 if soft else 2))
    if legs == "block":
        arms = _pick(rng, ("none", "slab"), (1, 4))
    seat = _pick(rng, SEATS, (0.55, 0.22, 0.23))
    tall = rng.random() < 0.12 and legs in (*FOUR_LEGS, "star", "disc") and arms == "none"
    low = legs == "block"
    wide = arms == "slab"
    infill = _pick(rng, INFILLS[back])
    thickness = rng.uniform(0.22, 0.34) if low else rng.uniform(0.12, 0.2) if soft else rng.uniform(0.05, 0.1)
    return Chair(
        width=rng.uniform(1.0, 1.9) if low else rng.uniform(0.9, 1.25) if wide else rng.uniform(0.86, 1.08),
        depth=rng.uniform(0.85, 1.05) * (0.85 if tall else 1.0),
        seat_height=rng.uniform(1.25, 1.6)
        if tall
        else rng.uniform(0.45, 0.62)
        if low
        else rng.uniform(0.82, 0.98),
        back_height=rng.uniform(0.35, 0.8)
        if tall
        else rng.uniform(0.58, 0.78)
        if rng.random() < 0.45
        else rng.uniform(0.95, 1.3),
        back_width=rng.uniform(0.84, 1.0),
        flare=rng.uniform(-0.14, 0.16),
        rake=rng.uniform(0.08, 0.28),
        bow=rng.uniform(0.0, 0.14) + (0.2 if seat == "round" else 0.0),
        taper=rng.uniform(0.0, 0.16),
        seat=seat,
        seat_thickness=thickness,
        back=back,
        crest=_pick(rng, CRESTS),
        crest_height=rng.uniform(0.09, 0.22),
        panel=_pick(rng, PANEL_SHAPES),
        lift=rng.uniform(0.12, 0.3) if rng.random() < 0.45 and not low else 0.0,
        legs=legs,
        leg_radius=rng.uniform(0.028, 0.06),
        splay=rng.uniform(0.0, 0.06) if legs in ("straight", "cabriole") else rng.uniform(0.06, 0.2),
        arms=arms,
        arm_height=rng.uniform(0.34, 0.5),
        azimuth=float(rng.choice([-1.0, 1.0])) * rng.uniform(0.38, 0.66),
        elevation=rng.uniform(0.24, 0.36),
        infill=infill,
        count=_count(rng, infill),
        infill_low=rng.choice([0.0, 0.14, 0.26, 0.4]),
        cutout=_pick(rng, CUTOUTS),
        emblem=_pick(rng, EMBLEMS),
        stretchers=_pick(rng, STRETCHERS),
        stretcher_height=rng.uniform(0.22, 0.5),
        cushion=_pick(rng, ("none", "pad", "piped", "buttoned"), (5, 3, 2, 2)),
        apron=_pick(rng, ("none", "plain", "arched", "scalloped"), (4, 2, 2, 1)),
        rings=int(rng.integers(0, 4)),
        finials=bool(rng.random() < 0.3),
        feet=bool(rng.random() < 0.4),
        grooves=int(rng.choice([0, 0, 0, 2, 3, 4, 5, 6])),
        upholstered=soft,
        **_look(rng),  # type: ignore[arg-type]  # a mapping of mixed types cannot be checked field by field
    )


def _other_count(rng: Generator, base: Chair, low: int, high: int) -> int:
    if base.infill == "weave":
        return int(rng.integers(low, high + 1))
    return int(np.clip(base.count + rng.choice([-2, -1, 1, 2]), low, high))


def _sibling(rng: Generator, base: Chair) -> Chair:
    """`base` with one or two other fine details and, half of the time, another look.

    The changes keep much the same mass of ink: one slat more, another cut-out, not another kind of back.
    """
    low, high = COUNTS[base.infill]
    weights = {
        "count": 8.0 if base.infill == "weave" else 4.0 * (high > low),
        "cutout": 2.5 * (base.infill in ("splat", "cutout")),
        "emblem": 1.5,
        "stretchers": 0.6 * (base.legs in FOUR_LEGS),
        "cushion": 1.0 * (base.cushion != "none"),
        "apron": 0.5 * (base.apron != "none"),
        "rings": 0.5,
        "grooves": 0.8 * (base.grooves > 0),
    }
    changes: dict[str, object] = {}
    for _ in range(int(rng.integers(1, 3))):
        name = _pick(rng, tuple(weights), tuple(weights.values()))
        changes[name] = {
            "count": lambda: _other_count(rng, base, low, high),
            "cutout": lambda: _pick(rng, CUTOUTS),
            "emblem": lambda: _pick(rng, EMBLEMS[2:]),
            "stretchers": lambda: _pick(rng, ALIKE.get(base.stretchers, (base.stretchers,))),
            "cushion": lambda: _pick(rng, ("pad", "piped", "buttoned")),
            "apron": lambda: _pick(rng, ("plain", "arched", "scalloped")),
            "rings": lambda: int(rng.integers(0, 4)),
            "grooves": lambda: int(rng.integers(2, 7)),
        }[name]()
    for name in ("width", "seat_height", "back_height", "crest_height", "stretcher_height"):
        changes[name] = getattr(base, name) * (1.0 + rng.normal(0.0, 0.004))
    if rng.random() < 0.5:
        changes.update(_look(rng))
    return replace(base, azimuth=base.azimuth + rng.normal(0.0, 0.01), **changes)  # type: ignore[arg-type]  # as above


@lru_cache(maxsize=512)
def family(config: ProceduralConfig, seed: int, number: int) -> tuple[Chair, ...]:
    """The `family_size` chairs of family `number`.

    With probability `config.distinct` they are unrelated; otherwise they are siblings, no two of which
    agree in all their fine detail as long as the family is small.
    """
    rng = np.random.default_rng([seed, CHAIR_STREAM, number])
    if rng.random() < config.distinct:
        return tuple(_fresh(rng) for _ in range(config.family_size))
    members = [_fresh(rng)]
    while len(members) < config.family_size:
        for _ in range(24):  # fine detail is finite: a large family that has used it up repeats it
            sibling = _sibling(rng, members[0])
            if all(sibling.fine() != member.fine() for member in members):
                break
        members.append(sibling)
    return tuple(members)


def chair(config: ProceduralConfig, seed: int, index: int) -> Chair:
    """Chair `index` of the unlimited row that `seed` stands for."""
    return family(config, seed, index // config.family_size)[index % config.family_size]
