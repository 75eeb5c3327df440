"""Where checkpoints are kept: a folder, or any file system that fsspec knows; and who may write there.

A place is a ``pathlib.Path`` or, for a URL such as ``s3://bucket/run``, a ``UPath``, which has the methods of one.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from sketchynet.errors import InputError

__all__ = ["can_reach", "download", "is_local", "remove_tree", "run_lock", "storage_place", "upload"]

_log = logging.getLogger(__name__)
_LOCK = "lock.json"
_BEAT_SECONDS = 10.0
_DEAD_SECONDS = 60.0


def storage_place(text: str) -> Path:
    """The folder or URL that ``text`` names; ``file://`` is a folder.

    Raises:
        InputError: no file system of that kind is known, or the package that serves it is missing.
    """
    if "://" not in text:
        return Path(text)
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    try:
        from upath import UPath  # half a second to import, and needed for URLs alone

        place = UPath(text)
        _ = place.fs  # the package that serves it is imported here
    except ImportError as error:
        raise InputError(f"storage {text}: {error} (pip install it on every machine)") from None
    except (ValueError, OSError) as error:
        raise InputError(f"storage {text}: {error}; give a folder or a URL that fsspec knows, as s3://BUCKET/RUN") from None
    return cast(Path, place)


def is_local(place: Path) -> bool:
    """Whether a place is a folder of this machine's own file system (a mounted one, such as NFS, included)."""
    return isinstance(place, Path)


def can_reach(path: Path, option: str) -> bool:
    """Whether a file is there.

    Raises:
        InputError: its storage does not answer or refuses; names ``option``, which asked for it.
    """
    try:
        return path.exists()
    except Exception as error:  # noqa: BLE001 (stores have exceptions of their own)
        raise InputError(
            f"{option}: {type(error).__name__}: {error}; check the address and your rights to it"
        ) from None


def _remote(place: Path) -> Any:
    """A place that is an UPath, with its file system ``fs`` and its ``path`` there."""
    return place


def remove_tree(place: Path) -> None:
    """Removes a directory and all that is in it."""
    if is_local(place):
        shutil.rmtree(place)
    else:
        _remote(place).fs.rm(_remote(place).path, recursive=True)


def upload(folder: Path, place: Path, *, last: str) -> None:
    """Copies the files of a local folder to a URL, ``last`` after all others; takes them back where one fails."""
    target = _remote(place)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: (file.name == last, file.name)):
            target.fs.put_file(str(file), (target / file.name).path)
    except Exception as error:  # stores have exceptions of their own
        with suppress(Exception):
            target.fs.rm(target.path, recursive=True)
        raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error


def download(place: Path, folder: Path) -> None:
    """Copies the files of a directory on a URL to a local folder, which is made."""
    folder.mkdir(parents=True)
    for file in place.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


@contextmanager
def run_lock(place: Path) -> Iterator[None]:
    """Holds the place for this process, so that two runs never write to one.

    The lock is a file with owner, host and process. Its holder renews it every ten seconds; one that has not been
    renewed for a minute, or whose process on this host is gone, is taken over with a warning.

    Raises:
        InputError: another run holds the place (says who and what to do), or it cannot be written.
    """
    path = place / _LOCK
    entry = _entry()
    try:
        place.mkdir(parents=True, exist_ok=True)
        while not _created(path, entry):
            holder = _holder(path)
            if holder is not None and not _is_gone(holder):
                raise InputError(
                    f"{place} is in use by another run: {holder['owner']} on {holder['host']}, process "
                    f"{holder['process']}, since {_clock(holder['since'])} (last sign of life {_clock(holder['seen'])}). "
                    f"Wait for it, stop it, or give another place; if it died, its lock is void "
                    f"{_DEAD_SECONDS:.0f} seconds after its last sign of life, or remove {path}"
                )
            if holder is not None:
                _log.warning(
                    "taking over %s from a run that ended without a word (process %s on %s)",
                    place, holder["process"], holder["host"],
                )
                path.unlink(missing_ok=True)
    except InputError:
        raise
    except Exception as error:
        if is_local(place) and not isinstance(error, OSError):
            raise
        raise InputError(
            f"{place} cannot be written ({type(error).__name__}: {error}); check the address and your rights, or give another place"
        ) from error
    stop = threading.Event()
    beat = threading.Thread(target=_renew, args=(path, entry, stop), name="run-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        holder = _holder(path)
        if holder is not None and holder["token"] == entry["token"]:
            path.unlink(missing_ok=True)


def _entry() -> dict[str, Any]:
    now = time.time()
    return {
        "owner": _owner(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "namespace": _namespace(),
        "started": _start_of(os.getpid()),
        "token": secrets.token_hex(8),
        "since": now,
        "seen": now,
    }


def _owner() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _namespace() -> str | None:
    """Within which process numbers mean something: containers of one host have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _start_of(process: int) -> str | None:
    """When a process of this host started, in the kernel's ticks; numbers of processes are used again."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _created(path: Path, entry: dict[str, Any]) -> bool:
    """Writes the lock if there is none."""
    text = json.dumps(entry)
    try:
        if is_local(path):
            with path.open("x") as file:
                try:
                    file.write(text)
                    file.flush()
                except OSError:
                    path.unlink()
                    raise
        else:
            if path.exists():
                return False
            _remote(path).fs.pipe_file(_remote(path).path, text.encode(), mode="create")
    except FileExistsError:
        return False
    holder = _holder(path)  # a store that cannot create exclusively keeps the last of two
    return holder is not None and holder["token"] == entry["token"]


def _holder(path: Path) -> dict[str, Any] | None:
    """What the lock says; None where there is none any more. A lock cut short counts as just written."""
    try:
        holder = json.loads(path.read_text())
        return holder | {"seen": path.stat().st_mtime} if is_local(path) else holder
    except FileNotFoundError:
        return None
    except ValueError:
        now = time.time()
        unknown = dict.fromkeys(("host", "process", "namespace", "started", "token"), "?")
        return unknown | {"owner": "someone", "since": now, "seen": now}


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname() and holder["started"] and holder["namespace"] == _namespace():
        return _start_of(holder["process"]) != holder["started"]
    return time.time() - holder["seen"] > _DEAD_SECONDS


def _renew(path: Path, entry: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(_BEAT_SECONDS):
        try:
            holder = _holder(path)
            if holder is None or holder["token"] != entry["token"]:
                _log.error("the lock %s was taken away: another run may write to the same place", path)
                return
            if is_local(path):
                os.utime(path)  # needs no room on a full disk
            else:
                path.write_text(json.dumps(entry | {"seen": time.time()}))
        except Exception as error:  # noqa: BLE001 (stores have exceptions of their own; the next beat tries again)
            _log.warning("the lock %s could not be renewed: %s", path, error)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
