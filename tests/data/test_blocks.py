"""An interrupted preparation goes on where it was, one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import layouts
import numpy as np
import pytest

from sketchynet import InputError, Sketch
from sketchynet.data import blocks, prepare
from sketchynet.data.folder import list_folder
from sketchynet.data.listing import Listing, SketchFile
from sketchynet.data.prepare import prepare_files
from sketchynet.data.skips import Skips


def many(folder: Path, count: int) -> Path:
    for k in range(count):
        layouts.photo(folder / "photos" / f"p{k:03d}.png", k, (16, 16))
        layouts.svg(folder / "sketches" / f"p{k:03d}.svg")
    return folder


calls: list[str] = []


def counted(file: SketchFile) -> Sketch:
    calls.append(file.id)
    return Sketch.from_strokes([np.array([[0.1, 0.2], [0.3, 0.4]])], id=file.id)


def counted_until_p040(file: SketchFile) -> Sketch:
    if file.id == "p040":
        raise KeyboardInterrupt
    return counted(file)


counted_until_p040.__qualname__ = counted.__qualname__  # the same reader, interrupted


def listing(root: Path, read=counted) -> Listing:
    found = list_folder(root, {}, Skips())
    return Listing("folder", found.photos, found.sketches, read_sketch=read)


def test_interrupted_work_is_not_done_again(tmp_path: Path) -> None:
    root, cache = many(tmp_path / "data", 60), tmp_path / "cache"
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        prepare_files(listing(root, counted_until_p040), 16, cache_dir=cache, progress=False, workers=1)
    (cache / ".folder-0123.abc").mkdir()  # as a killed process leaves it
    assert sorted(os.listdir(cache)) == [".folder-0123.abc", ".folder.blocks"] and calls == [f"p{k:03d}" for k in range(40)]
    pairs = prepare_files(listing(root), 16, cache_dir=cache, progress=False, workers=1)
    assert len(pairs.sketches) == 60 and calls[40:] == [f"p{k:03d}" for k in range(32, 60)]
    assert len(os.listdir(cache)) == 1 and not os.listdir(cache)[0].startswith(".")


def test_a_mended_file_costs_its_block_alone(tmp_path: Path) -> None:
    root, cache = many(tmp_path / "data", 60), tmp_path / "cache"
    good = (root / "photos/p050.png").read_bytes()
    (root / "photos/p050.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"p050\.png: the image cannot be read"):
        prepare_files(listing(root), 16, cache_dir=cache, progress=False, workers=1)
    assert len(list((cache / ".folder.blocks").glob("photos-*.npz"))) == 3
    (root / "photos/p050.png").write_bytes(good)
    assert len(prepare_files(listing(root), 16, cache_dir=cache, progress=False, workers=1).photos) == 60


def test_a_damaged_block_is_made_anew(tmp_path: Path) -> None:
    root, cache = many(tmp_path / "data", 20), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        prepare_files(
            listing(root, lambda file: (_ for _ in ()).throw(KeyboardInterrupt)),
            16,
            cache_dir=cache,
            progress=False,
            workers=1,
        )
    for path in (cache / ".folder.blocks").glob("photos-*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    pairs = prepare_files(listing(root), 16, cache_dir=cache, progress=False, workers=1)
    assert pairs.photos.shape == (20, 16, 16, 3) and pairs.photos.std() > 10


def hold(folder: Path, ready, release) -> None:
    with blocks.block_folder(folder, "folder"):
        ready.set()
        release.wait(30)


def test_one_process_at_a_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, release))
    other.start()
    try:
        assert ready.wait(30)
        with caplog.at_level("INFO", logger="sketchynet.data"):
            timer = time.monotonic()
            signal.signal(signal.SIGALRM, lambda *_: release.set())
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with blocks.block_folder(tmp_path, "folder") as mine:
                assert time.monotonic() - timer > 0.3 and mine.is_dir()
        assert "another process prepares this set" in caplog.text
    finally:
        release.set()
        other.join(30)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_a_preparation_in_several_processes(tmp_path: Path) -> None:
    """The signal reaches the workers too, as it does from a terminal."""
    root = many(tmp_path / "data", 200)
    for k in range(200):  # vectorised: slow enough to be interrupted
        (root / "sketches" / f"p{k:03d}.svg").unlink()
        layouts.picture(root / "sketches" / f"p{k:03d}.png")
    start = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from sketchynet.cli import main;"
        " sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", start, "data", "prepare", str(root), "--size", "16", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--cache", str(tmp_path / "cache")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 100
        while not list((tmp_path / "cache").glob(".folder.blocks/drawings-*.npz")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in error and "Traceback" not in error
    done = len(list((tmp_path / "cache").glob(".folder.blocks/drawings-*.npz")))
    assert 0 < done * prepare._BLOCK < 200
