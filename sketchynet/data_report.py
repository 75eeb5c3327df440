"""What the data commands print."""

from __future__ import annotations

from sketchynet.data import SPLIT_NAMES, LabelledSet, PairedSet
from sketchynet.data.info import QUANTILES, Info
from sketchynet.tables import aligned

MANY = 12
"""With more categories than this, only their spread is printed."""
LISTED = 20
"""So many faults and ids are printed; the rest is counted."""


def info_text(info: Info) -> str:
    """The report of `sketchynet data info` on one data set."""
    blocks = [f"{info.source}: {info.title}\n{info.folder}", _parts(info), _quantiles(info)]
    if info.split_hash:
        blocks.append(f"split {info.split_hash} ({info.split_note})")
    blocks += [_unpaired(info), _published(info), "\n".join(f"note: {note}" for note in info.notes)]
    if info.skips.count:
        faults = [f"{info.skips.count:,} faults; training stops at the first unless bad input is skipped"]
        blocks.append("\n".join([*faults, *_first(info.skips.messages, info.skips.count)]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def prepared_text(pairs: PairedSet | LabelledSet) -> str:
    """What a prepared set holds."""
    if isinstance(pairs, LabelledSet):
        counts = ", ".join(f"{len(pairs.sketch_indices(number))} {split}" for number, split in enumerate(SPLIT_NAMES))
        head = f"{pairs.name}: split {pairs.split_hash}"
        lines = [head, f"  {len(pairs.category_names)} categories, {len(pairs.sketches)} drawings: {counts}"]
        return "\n".join([*lines, *(f"  note: {note}" for note in pairs.notes)])
    lines = [f"{pairs.name}: split {pairs.split_hash}"]
    for number, split in enumerate(SPLIT_NAMES):
        photos, sketches = len(pairs.photo_indices(number)), len(pairs.sketch_indices(number))
        lines.append(f"  {split:<11}{photos:>7} photos {sketches:>7} sketches")
    lines += [f"  note: {note}" for note in pairs.notes]
    return "\n".join(lines)


def _parts(info: Info) -> str:
    categories = sorted({category for category, *_ in info.parts})
    splits = [split for split in ("all", *SPLIT_NAMES) if any(row[1] == split for row in info.parts)]
    paired = any(photos for *_, photos, _ in info.parts)
    rows = [
        [category, split, f"{photos:,}", f"{drawings:,}"]
        for category, split, photos, drawings in info.parts
        if len(categories) <= MANY
    ]
    if len(categories) != 1 or len(categories) > MANY:
        for split in splits:
            of_split = [row for row in info.parts if row[1] == split]
            photos, drawings = sum(row[2] for row in of_split), sum(row[3] for row in of_split)
            rows.append([f"{len(categories)} categories", split, f"{photos:,}", f"{drawings:,}"])
    columns = ["category", "split", "photos", "drawings"]
    if not paired:
        columns, rows = [*columns[:2], columns[3]], [[*row[:2], row[3]] for row in rows]
    text = aligned(columns, rows, right=("photos", "drawings"))
    if len(categories) > MANY:
        each = sorted(sum(row[3] for row in info.parts if row[0] == category) for category in categories)
        text += f"\ndrawings a category: {each[0]:,} to {each[-1]:,}, median {each[len(each) // 2]:,}"
    return text


def _quantiles(info: Info) -> str:
    if not info.drawings_read:
        return ""
    names = ["min", *(f"{q:.0%}" for q in QUANTILES[1:-1]), "max"]
    rows = [
        ["strokes", *(f"{value:,}" for value in info.strokes.quantiles())],
        ["points", *(f"{value:,}" for value in info.points.quantiles())],
    ]
    total = info.counts.get("drawings", 0)
    of = f"of {info.drawings_read:,} drawings" + ("" if info.drawings_read == total else f", out of {total:,}")
    return aligned([of, *names], rows, right=names)


def _unpaired(info: Info) -> str:
    lines = []
    for what, ids in info.unpaired.items():
        lines.append(f"{what}: {len(ids):,}" + (f" ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})" if ids else ""))
    return "\n".join(lines)


def _published(info: Info) -> str:
    rows = []
    for what, published in info.published.items():
        here = info.counts.get(what, 0)
        judgement = "agrees" if here == published else f"{here / published:.1%} of it"
        rows.append([what, f"{here:,}", f"{published:,}", judgement])
    return aligned(["", "here", "published", "judgement"], rows, right=("here", "published")) if rows else ""


def _first(messages: list[str], count: int) -> list[str]:
    more = count - min(LISTED, len(messages))
    return [*(f"  {message}" for message in messages[:LISTED]), *([f"  and {more:,} more"] if more else [])]
