"""Work of a long preparation, kept block by block so that an interrupted one goes on where it was.

Beside the prepared sets lies, while one is being made, `.NAME.blocks/` with one file a block of some dozen
photos or drawings, named by a hash of everything it depends on. Whoever prepares a set of that name again, under
whatever options, takes the blocks that still fit. One process at a time works in the folder, by a lock that the
system drops with the process; with the set complete the folder is gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

logger = logging.getLogger("sketchynet.data")

Arrays = dict[str, np.ndarray]


@contextmanager
def block_folder(parent: Path, name: str) -> Iterator[Path]:
    """The locked folder of blocks of the sets `name`; removed at the end unless an error leaves the block."""
    folder = parent / f".{name}.blocks"
    with _locked(folder):
        for left in parent.glob(f".{name}-*"):  # of a process that was killed: whoever fills one holds the lock
            shutil.rmtree(left, ignore_errors=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lock"
        try:
            file = path.open("w")
        except FileNotFoundError:
            continue  # the process before us has just removed the folder
        with file:
            _wait(file, folder)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _wait(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("another process prepares this set (%s); waiting for it", folder)
        fcntl.flock(file, fcntl.LOCK_EX)


def block_path(folder: Path, kind: str, parts: Mapping[str, Any]) -> Path:
    """Where the block of this content lies: `<kind>-<hash>.npz`."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
    return folder / f"{kind}-{digest}.npz"


def write_block(path: Path, arrays: Arrays) -> None:
    """Writes a block whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_block(path: Path) -> Arrays | None:
    """The arrays of a block; None where it is not there, or was damaged by a crash of the machine."""
    try:
        # Opened here: numpy leaves a file open in which it finds no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        path.unlink(missing_ok=True)
        return None
