"""QuickDraw files as a stream of chunks: `.ndjson` raw and simplified, `.bin`, and sketch-rnn's `.npz`.

Published layouts, one file a category::

    sheep.ndjson    one JSON object a line: "word", "key_id", "recognized", "countrycode", "timestamp" and
                    "drawing", a list of strokes [[x, …], [y, …]] (simplified: whole numbers from 0 to 255) or
                    [[x, …], [y, …], [t, …]] (raw: pixels of the artist's screen, milliseconds)
    sheep.bin       one record a drawing, little-endian: uint64 key_id, 2 characters of country code, uint8
                    recognized, uint32 timestamp, uint16 number of strokes; a stroke is its uint16 number of
                    points n, then n bytes x, then n bytes y
    sheep.npz       object arrays train, valid, test; each member int16 (N, 3), stroke-3: Δx, Δy, 1 where the pen
                    lifts

Drawings come in chunks of a few MiB of the file, so that memory does not grow with its length, each fitted into
the unit frame. Everything but a bare loop over the strokes is done by whole-chunk operations.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from sketchynet._arrays import Bools, Ints
from sketchynet.data.restricted import read_array_lists
from sketchynet.data.skips import Skips
from sketchynet.errors import InputError
from sketchynet.sketch import SketchBatch, fit_each_to_frame

BLOCK_BYTES = 1 << 21
"""So much of a file makes one chunk: about 5,000 simplified drawings."""
MAX_RECORD_BYTES = 1 << 26
"""A line or a binary record that is longer is an error."""
MAX_POINTS = 1_000_000
"""A drawing with more points is an error."""
MAX_COORDINATE = 1e9
"""So is one with a coordinate beyond ± this, or not finite."""
NPZ_DRAWINGS = 4096
"""Drawings of a sketch-rnn archive in a chunk."""
SUFFIXES = (".ndjson", ".bin", ".npz")
PARTS = {"train": 0, "valid": 1, "test": 2}
"""Members of a sketch-rnn archive and the split that each stands for."""

_HEADER = struct.Struct("<Q2sBIH")
_PREFIX = re.compile(r"^(full_(binary|simplified|raw)_|sketchrnn_)|\.full$")
_SHAPE = "a drawing is a list of strokes, each [[x, …], [y, …]] or [[x, …], [y, …], [t, …]]"


@dataclass(frozen=True, eq=False)
class DrawingChunk:
    """B drawings of one file in the order of the file, B >= 1."""

    sketches: SketchBatch
    """Fitted into the unit frame; `ids` are the key ids, or FILE:NUMBER where the format has none."""

    labels: tuple[str, ...]
    """B category names: the "word" of ndjson, else the name of the file."""

    numbers: Ints
    """int64 (B,): line of the file, or number of the record or array, from 1; bad ones leave a gap."""

    recognized: Bools
    """bool (B,): whether Google's network recognised it; true where the format does not say."""

    part: str = ""
    """"train", "valid" or "test" in sketch-rnn archives."""

    def select(self, indices: Ints) -> DrawingChunk:
        """The drawings at `indices` (M,), in that order."""
        labels = tuple(self.labels[b] for b in indices)
        return DrawingChunk(
            self.sketches.select(indices), labels, self.numbers[indices], self.recognized[indices], self.part
        )


def stream_drawings(path: Path, skips: Skips | None = None, *, block: int = BLOCK_BYTES) -> Iterator[DrawingChunk]:
    """The drawings of a QuickDraw file, chunk after chunk; memory stays near ten times `block` bytes.

    skips: what takes the faults; by default the first one is raised. An `.npz` is unpacked as a whole, 4,096
    drawings make a chunk. Raises InputError, naming the file and the line, record or array, for broken JSON, a
    truncated record, a drawing without strokes, of another shape, too long or not finite.
    """
    skips = Skips() if skips is None else skips
    suffix = path.suffix.lower()
    if suffix == ".ndjson":
        return stream_ndjson(path, skips, block=block)
    if suffix == ".bin":
        return stream_bin(path, skips, block=block)
    if suffix == ".npz":
        return stream_npz(path, skips)
    raise InputError(f"{path}: not a QuickDraw file; expected one of {', '.join(SUFFIXES)}")


def category_of(path: Path) -> str:
    """The category that a file's name tells: `full_binary_sheep.bin` and `sketchrnn_sheep.full.npz` hold sheep."""
    return _PREFIX.sub("", _PREFIX.sub("", path.stem))


def stream_ndjson(path: Path, skips: Skips, *, block: int = BLOCK_BYTES) -> Iterator[DrawingChunk]:
    """Chunks of an `.ndjson` file, see `stream_drawings`. Empty lines are passed over."""
    first = 1
    for lines in _lines(path, block, skips):
        chunk = parse_lines(lines, path, skips, first=first)
        if chunk is not None:
            yield chunk
        first += len(lines)


def parse_lines(lines: list[bytes], path: Path, skips: Skips, *, first: int = 1) -> DrawingChunk | None:
    """The drawings in lines of ndjson; `first` is the number of the first line. None where there are none."""
    faults: dict[int, str] = {}
    gathered = _gather(lines, path, first, faults)
    try:
        x, y = _numbers(gathered.x), _numbers(gathered.y)
    except (TypeError, OverflowError):
        gathered = _gather(_without_text(lines, first, faults), path, first, faults)
        x, y = _numbers(gathered.x), _numbers(gathered.y)
    for number in sorted(faults):
        skips.add(f"{path}, line {number}: {faults[number]}; mend the line or leave it out")
    return _chunk(x, y, gathered, path, skips, "line")


class _Gathered:
    """The strokes of a chunk as plain lists: extending a list copies nothing but references."""

    def __init__(self) -> None:
        self.x: list[Any] = []
        self.y: list[Any] = []
        self.lengths: list[int] = []
        """Points of each stroke."""
        self.counts: list[int] = []
        """Strokes of each drawing."""
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.numbers: list[int] = []
        self.recognized: list[bool] = []


def _gather(lines: list[bytes], path: Path, first: int, faults: dict[int, str]) -> _Gathered:
    """Everything but the conversion to numbers; what is wrong goes to `faults`, by line, and is left out."""
    result = _Gathered()
    x, y, lengths = result.x, result.y, result.lengths
    category = category_of(path)
    loads = orjson.loads
    for number, line in enumerate(lines, first):
        if not line or line.isspace() or number in faults:
            continue
        points, strokes = len(x), len(lengths)
        try:
            record = loads(line)
            for xs, ys, *times in record["drawing"]:
                count = len(xs)
                if type(xs) is not list or type(ys) is not list or count != len(ys):
                    raise TypeError
                if times and (len(times) > 1 or len(times[0]) != count):
                    raise TypeError
                if count:
                    x += xs
                    y += ys
                    lengths.append(count)
            name = record.get("key_id") or f"{path.name}:{number}"
            label = record.get("word", category)
            if type(name) is not str or type(label) is not str:
                fault = '"key_id" and "word" have to be text'
            elif len(lengths) == strokes:
                fault = "the drawing has no strokes"
            elif len(x) - points > MAX_POINTS:
                fault = f"the drawing has {len(x) - points:,} points, more than {MAX_POINTS:,}"
            else:
                result.counts.append(len(lengths) - strokes)
                result.ids.append(name)
                result.labels.append(label)
                result.numbers.append(number)
                result.recognized.append(record.get("recognized", True) is not False)
                continue
        except orjson.JSONDecodeError as error:
            fault = f"broken JSON ({error})"
        except (KeyError, ValueError, TypeError, AttributeError, IndexError):
            fault = _SHAPE
        faults[number] = fault
        del x[points:], y[points:], lengths[strokes:]
    return result


def _numbers(values: list[Any]) -> np.ndarray:
    """uint8 where all are whole numbers up to 255, else float64; several times faster than np.array."""
    try:
        return np.frombuffer(bytes(values), np.uint8)
    except (ValueError, TypeError):
        return np.frombuffer(array("d", values), np.float64)


def _without_text(lines: list[bytes], first: int, faults: dict[int, str]) -> list[bytes]:
    """The lines, with those that hold something else than numbers among their coordinates told and emptied."""
    for number, line in enumerate(lines, first):
        if line and not line.isspace() and number not in faults:
            try:
                for stroke in orjson.loads(line)["drawing"]:
                    _numbers(stroke[0]), _numbers(stroke[1])
            except (TypeError, OverflowError) as error:
                faults[number] = f"a coordinate is no number ({error})"
    return lines


def stream_bin(path: Path, skips: Skips, *, block: int = BLOCK_BYTES) -> Iterator[DrawingChunk]:
    """Chunks of a `.bin` file, see `stream_drawings`; what follows a damaged record cannot be found any more."""
    label = category_of(path)
    data, start, number = b"", 0, 1
    with _opened(path) as file:
        while True:
            read = file.read(block)
            data += read
            gathered, starts, end, fault = _walk(data, number, label)
            x, y = _bytes_at(data, np.array(starts, np.int64), np.array(gathered.lengths, np.int64))
            chunk = _chunk(x, y, gathered, path, skips, "record")
            if chunk is not None:
                yield chunk
            number += len(gathered.ids)
            data, start = data[end:], start + end
            if not fault and not read and data:
                fault = f"the file ends within it, {len(data)} bytes after its beginning"
            if not fault and len(data) > MAX_RECORD_BYTES:
                fault = f"it is longer than {MAX_RECORD_BYTES:,} bytes"
            if fault:
                skips.add(
                    f"{path}, record {number} at byte {start}: {fault}; fetch the file again: nothing after this "
                    "place can be read"
                )
                return
            if not read:
                return


def _walk(data: bytes, number: int, label: str) -> tuple[_Gathered, list[int], int, str]:
    """The whole records in `data`: drawings without their coordinates, where in `data` the x of each stroke start,
    where the first incomplete record starts, and what is wrong there, if it is."""
    result, starts = _Gathered(), list[int]()
    lengths = result.lengths
    size, place = len(data), 0
    while place + _HEADER.size <= size:
        key, _, recognized, _, strokes = _HEADER.unpack_from(data, place)
        if recognized > 1 or strokes == 0:
            what = "no stroke" if strokes == 0 else f"{recognized} where 0 or 1 tells whether it was recognized"
            return result, starts, place, f"it has {what}"
        mark, position = len(lengths), place + _HEADER.size
        for _ in range(strokes):
            if position + 2 > size:
                break
            count = data[position] | data[position + 1] << 8
            if count == 0:
                del starts[mark:], lengths[mark:]
                return result, starts, place, "it has a stroke without a point"
            starts.append(position + 2)
            lengths.append(count)
            position += 2 + 2 * count
        if len(lengths) - mark < strokes or position > size:
            del starts[mark:], lengths[mark:]
            break
        place = position
        result.counts.append(strokes)
        result.ids.append(str(key))
        result.labels.append(label)
        result.numbers.append(number + len(result.numbers))
        result.recognized.append(recognized == 1)
    return result, starts, place, ""


def _bytes_at(data: bytes, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N,) x and y of strokes whose x begin at `starts`; their y follow at once."""
    bytes_ = np.frombuffer(data, np.uint8)
    before = np.concatenate([[0], np.cumsum(lengths)])
    index = np.arange(before[-1]) + np.repeat(starts - before[:-1], lengths)
    return bytes_[index], bytes_[index + np.repeat(lengths, lengths)]


def stream_npz(path: Path, skips: Skips) -> Iterator[DrawingChunk]:
    """Chunks of a sketch-rnn archive, see `stream_drawings`; a chunk holds drawings of one part."""
    members = read_array_lists(path)
    if not members or not set(members) <= set(PARTS):
        raise InputError(f"{path}: holds {', '.join(members) or 'nothing'}; expected {', '.join(PARTS)}")
    label = category_of(path)
    for part in PARTS:
        arrays = members.get(part, [])
        for start in range(0, len(arrays), NPZ_DRAWINGS):
            good, gathered = [], _Gathered()
            for number, rows in enumerate(arrays[start : start + NPZ_DRAWINGS], start + 1):
                if rows.ndim != 2 or rows.shape[1] != 3 or not 0 < len(rows) <= MAX_POINTS:
                    fault = f"it has the shape {rows.shape}, expected (N, 3), N from 1 to {MAX_POINTS:,}"
                elif not (np.abs(rows[:, :2].astype(np.float64)) <= MAX_COORDINATE).all():
                    fault = f"a step is not finite or beyond ±{MAX_COORDINATE:.0e}"
                elif not ((rows[:, 2] == 0) | (rows[:, 2] == 1)).all():
                    fault = "its third column is not 0 (down) or 1 (lifted) everywhere"
                else:
                    good.append(rows)
                    gathered.numbers.append(number)
                    continue
                skips.add(f"{path}, {part} drawing {number}: {fault}; leave it out")
            if good:
                x, y = _integrate(good, gathered)
                gathered.ids = [f"{path.name}:{part}:{number}" for number in gathered.numbers]
                gathered.labels = [label] * len(good)
                gathered.recognized = [True] * len(good)
                chunk = _chunk(x, y, gathered, path, skips, f"{part} drawing", part)
                if chunk is not None:
                    yield chunk


def _integrate(arrays: list[np.ndarray], gathered: _Gathered) -> tuple[np.ndarray, np.ndarray]:
    """float64 (N,) x and y of stroke-3 arrays; lengths and counts of their strokes go into `gathered`."""
    rows = np.concatenate(arrays)
    ends = np.cumsum([len(part) for part in arrays])
    lifted = rows[:, 2] == 1
    lifted[ends - 1] = True
    stops = np.flatnonzero(lifted) + 1
    gathered.lengths = np.diff(stops, prepend=0).tolist()
    gathered.counts = np.diff(np.searchsorted(stops, ends, side="right"), prepend=0).tolist()
    # The sum runs on from drawing to drawing: where each comes to lie makes no difference to its fitted form.
    total = np.cumsum(rows[:, :2], axis=0, dtype=np.float64)
    return total[:, 0].copy(), total[:, 1].copy()


def _chunk(
    x: np.ndarray, y: np.ndarray, gathered: _Gathered, path: Path, skips: Skips, unit: str, part: str = ""
) -> DrawingChunk | None:
    """Fits the drawings; those with coordinates out of range go to `skips`. None where no drawing is left."""
    if not gathered.counts:
        return None
    stroke_offsets, sketch_offsets = _offsets(gathered.lengths), _offsets(gathered.counts)
    point_offsets = stroke_offsets[sketch_offsets]
    kept = np.ones(len(gathered.counts), bool)
    if x.dtype != np.uint8 or y.dtype != np.uint8:
        # Not `>`: a NaN has to fail too.
        outside = ~((np.abs(x) <= MAX_COORDINATE) & (np.abs(y) <= MAX_COORDINATE))
        kept = ~np.logical_or.reduceat(outside, point_offsets[:-1])
        for b in np.flatnonzero(~kept):
            skips.add(
                f"{path}, {unit} {gathered.numbers[b]}: a coordinate is not finite or beyond ±{MAX_COORDINATE:.0e}; "
                "mend or leave out the drawing"
            )
        x, y = np.where(outside, 0, x), np.where(outside, 0, y)
    points, _ = fit_each_to_frame(x, y, point_offsets)
    sketches = SketchBatch(points, stroke_offsets, sketch_offsets, tuple(gathered.ids))
    chunk = DrawingChunk(
        sketches,
        tuple(gathered.labels),
        np.array(gathered.numbers, np.int64),
        np.array(gathered.recognized, bool),
        part,
    )
    if kept.all():
        return chunk
    return chunk.select(np.flatnonzero(kept)) if kept.any() else None


def _offsets(counts: list[int]) -> Ints:
    result = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=result[1:])
    return result


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); correct the path or its permissions") from error


def _lines(path: Path, block: int, skips: Skips) -> Iterator[list[bytes]]:
    """The lines of a file in lists of about `block` bytes."""
    number, rest = 1, b""
    with _opened(path) as file:
        while data := file.read(block):
            *lines, rest = (rest + data).split(b"\n")
            if len(data) < block:  # the end of the file
                lines.append(rest)
                rest = b""
            yield lines
            number += len(lines)
            if len(rest) > MAX_RECORD_BYTES:
                skips.add(
                    f"{path}, line {number}: longer than {MAX_RECORD_BYTES:,} bytes; is this an .ndjson file? It has "
                    "one JSON object a line; nothing from here on is read"
                )
                return
    if rest:
        yield [rest]
