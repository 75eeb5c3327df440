"""What data set lies in a folder: every reader is asked, and the one with the most particular layout wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sketchynet.data.quickdraw import SUFFIXES, DrawingChunk, stream_drawings
from sketchynet.data.scan import files_below
from sketchynet.data.skips import Skips
from sketchynet.data.sources import FILE_SOURCES
from sketchynet.data.tu_berlin import find_tu_berlin, stream_tu_berlin
from sketchynet.errors import InputError


@dataclass(frozen=True)
class DrawingSource:
    """A data set of drawings with categories and without photos."""

    title: str
    find: Callable[[Path], Path | None]
    """The folder of the set, given that folder or the one that holds it; None where it is not there."""
    stream: Callable[[Path, Skips], Iterator[DrawingChunk]]
    """Its drawings, in bounded memory."""


def find_quickdraw(root: Path) -> Path | None:
    """`root` or its sub-folder `quickdraw`, where files of one of QuickDraw's formats lie."""
    for folder in (root, root / "quickdraw"):
        if folder.is_dir() and any(p.suffix.lower() in SUFFIXES and p.is_file() for p in folder.iterdir()):
            return folder
    return None


def quickdraw_files(root: Path, skips: Skips) -> list[Path]:
    """The QuickDraw files of a folder, by name."""
    return files_below(root, root, SUFFIXES, skips, deep=False)


def stream_quickdraw(root: Path, skips: Skips) -> Iterator[DrawingChunk]:
    """The drawings of all QuickDraw files of a folder, file after file."""
    for path in quickdraw_files(root, skips):
        with skips.catch():
            yield from stream_drawings(path, skips)


DRAWING_SOURCES: dict[str, DrawingSource] = {
    "tu_berlin": DrawingSource("TU-Berlin", find_tu_berlin, stream_tu_berlin),
    "quickdraw": DrawingSource("QuickDraw (.ndjson, .bin, sketch-rnn .npz)", find_quickdraw, stream_quickdraw),
}


@dataclass(frozen=True)
class Detected:
    """A data set that was found."""

    source: str
    """A name in FILE_SOURCES or DRAWING_SOURCES."""
    folder: Path

    @property
    def paired(self) -> bool:
        """Whether it has photos."""
        return self.source in FILE_SOURCES

    @property
    def title(self) -> str:
        return (FILE_SOURCES[self.source] if self.paired else DRAWING_SOURCES[self.source]).title


def detect(root: Path) -> Detected:
    """The data set in `root`. Raises InputError where there is none, or several lie below it."""
    found = detect_all(root)
    if len(found) > 1:
        raise InputError(f"{root}: holds several data sets; name one: {', '.join(str(d.folder) for d in found)}")
    return found[0]


def detect_all(root: Path) -> list[Detected]:
    """The data set in `root`, or all that lie in its sub-folders. Raises InputError where there is none."""
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise InputError(f"{root}: {kind}; give the folder of a data set")
    own = _in(root)
    found = [own] if own else [d for entry in sorted(root.iterdir()) if entry.is_dir() and (d := _in(entry))]
    if not found:
        raise InputError(
            f"{root}: no data set that is known; `sketchynet data list` shows the layouts. One's own data lies in photos/ "
            "and sketches/"
        )
    return found


def _in(folder: Path) -> Detected | None:
    finders = {name: source.find for name, source in FILE_SOURCES.items() if name != "folder"}
    finders |= {name: source.find for name, source in DRAWING_SOURCES.items()}
    finders["folder"] = FILE_SOURCES["folder"].find  # last: others may also have photos/ and sketches/
    for name, find in finders.items():
        found = find(folder)
        if found is not None and (found == folder or name == "tu_berlin" and found.parent == folder):
            return Detected(name, found)
    return None
