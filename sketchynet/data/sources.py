"""Where pairs come from, by name, and `load_pairs`, the one way to them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sketchynet.data import procedural
from sketchynet.data.cache import Prepared, Writer, cache_key, prepared_set
from sketchynet.data.folder import find_folder, list_folder
from sketchynet.data.fscoco import find_fscoco, list_fscoco
from sketchynet.data.listing import Listing
from sketchynet.data.pairs import PairedSet
from sketchynet.data.prepare import prepare_files
from sketchynet.data.qmul_v1 import find_qmul_v1, find_shoe_extra, list_qmul_v1, list_shoe_extra
from sketchynet.data.qmul_v2 import find_qmul_v2, list_qmul_v2
from sketchynet.data.sketchy import find_sketchy, list_sketchy
from sketchynet.data.skips import Skips
from sketchynet.data.splits import TEST, VALIDATION, carve_validation
from sketchynet.errors import InputError

logger = logging.getLogger("sketchynet.data")


@dataclass(frozen=True)
class FileSource:
    """A data set of photos and drawings on disk."""

    title: str
    """The name by which it is known."""
    find: Callable[[Path], Path | None]
    """The folder of the set, given that folder or the one that holds it; None where it is not there."""
    list_files: Callable[[Path, Mapping[str, Any], Skips], Listing]
    """Its reader."""
    options: tuple[str, ...]
    """Names of the options that the reader knows."""
    test_share: float | None = None
    """Share of each category's photos that is tested on where the files do not say; option `test`."""


FILE_SOURCES: dict[str, FileSource] = {
    "qmul_v1": FileSource(
        "QMUL Shoe-V1 and Chair-V1", find_qmul_v1, list_qmul_v1, ("extra_sketches", "fit_photos", "categories")
    ),
    "qmul_v1_shoe_extra": FileSource("three more drawings of each Shoe-V1 train photo", find_shoe_extra, list_shoe_extra, ()),
    "qmul_v2": FileSource("QMUL ShoeV2 or ChairV2", find_qmul_v2, list_qmul_v2, ("fit_photos",)),
    "sketchy": FileSource("Sketchy", find_sketchy, list_sketchy, ("leave_out",), test_share=0.1),
    "fscoco": FileSource("FS-COCO", find_fscoco, list_fscoco, ("split",)),
    "folder": FileSource("a folder of photos and drawings", find_folder, list_folder, ("fit_photos",), test_share=0.2),
}
"""Readers by name, in the order in which a folder is tried. A further reader is one entry here and one module
beside `qmul_v1`."""

PROCEDURAL_OPTIONS = {"train": 640, "validation": None, "test": 160, "sketches": 3, "seed": 0}
"""Options of the procedural set: photos of each part, drawings a photo, seed of the set. Without `validation`
the share given to `load_pairs`, of `train`, is drawn besides: the set has no end, so train loses nothing."""


def load_pairs(
    source: str,
    *,
    root: Path | None = None,
    size: int,
    validation: float,
    seed: int,
    options: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    cache_dir: Path | None = None,
    progress: bool = True,
    workers: int | None = None,
) -> PairedSet:
    """The photos and drawings of a source, prepared once and then read from the cache.

    source: "procedural" or a name in FILE_SOURCES. root: the folder with real data (--data DIR), by default
    $SKETCHYNET_DATA; not needed for "procedural". size: side of the photos, pixels. validation: share of each
    category's training photos that becomes validation, chosen by `seed`; a source with a validation part of its
    own keeps that. options: of the source, see its reader. skip_bad: leave out bad files, counted and listed in the
    notes, instead of raising at the first. cache_dir: see `sketchynet.data.cache.cache_folder`. workers: processes
    that read files, by default one a usable core.
    Raises InputError for an unknown source or option, a missing root, and whatever is wrong with the files.
    """
    options = dict(options or {})
    if size < 8:
        raise InputError(f"photo size {size}: expected at least 8 pixels")
    if source == "procedural":
        check_options(source, options, tuple(PROCEDURAL_OPTIONS))
        pairs = _procedural(options, size, validation, cache_dir)
    elif source in FILE_SOURCES:
        check_options(source, options, options_of(source))
        skips = Skips(allowed=skip_bad)
        listing = list_source(source, find_source(source, existing_root(source, root)), options, skips)
        pairs = prepare_files(
            listing, size, cache_dir=cache_dir, progress=progress, workers=workers, skips=skips
        )
        pairs = split_pairs(pairs, validation=validation, test=test_share(source, options), seed=seed)
    else:
        known = ", ".join(("procedural", *FILE_SOURCES))
        raise InputError(f"data source {source!r} is not known; use one of {known}")
    logger.info(
        "%s: %d photos, %d drawings, split %s",
        source,
        len(pairs.photo_ids),
        len(pairs.sketches),
        pairs.split_hash,
    )
    for note in pairs.notes:
        logger.info("%s: %s", source, note)
    return pairs


def _procedural(
    options: Mapping[str, Any], size: int, validation: float, cache_dir: Path | None
) -> PairedSet:
    values = {**PROCEDURAL_OPTIONS, **options}
    if values["validation"] is None:
        values["validation"] = round(validation * values["train"]) if isinstance(values["train"], int) else 0
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(
                f"option {name}={value!r} of the procedural set: expected a whole number of at least 0"
            )

    def build(writer: Writer) -> Prepared:
        logger.info("drawing the procedural set")
        drawn = procedural.procedural_pairs(
            values["train"], values["validation"], values["test"], values["sketches"], size, values["seed"]
        )
        writer.photos(drawn.photos, len(drawn.photos), size)
        return Prepared(
            photo_ids=drawn.photo_ids,
            categories=drawn.categories,
            category_names=drawn.category_names,
            content=drawn.content,
            split=drawn.split,
            sketches=drawn.sketches,
            sketch_photo=drawn.sketch_photo,
            notes=drawn.notes,
        )

    code = Path(procedural.__file__).parent
    return prepared_set("procedural", cache_key({**values, "size": size}, [code]), build, cache_dir)


def options_of(source: str) -> tuple[str, ...]:
    """Names of the options of a source of files."""
    reader = FILE_SOURCES[source]
    return (*reader.options, *(() if reader.test_share is None else ("test",)))


def find_source(source: str, root: Path) -> Path:
    """The folder of a source below or at `root`. InputError where there is none."""
    found = FILE_SOURCES[source].find(root)
    if found is None:
        raise InputError(
            f"{root}: {FILE_SOURCES[source].title} is not there, neither in it nor in {source}/ below it; see "
            "`sketchynet data list` for the layout. Pass --data DIR or set SKETCHYNET_DATA to the folder that holds it"
        )
    return found


def list_source(source: str, folder: Path, options: Mapping[str, Any], skips: Skips) -> Listing:
    """The files of a source in its folder (`find_source`)."""
    return FILE_SOURCES[source].list_files(folder, {k: v for k, v in options.items() if k != "test"}, skips)


def test_share(source: str, options: Mapping[str, Any]) -> float | None:
    """Share of the photos that is tested on where the files do not say. InputError for one outside (0, 1)."""
    share = options.get("test", FILE_SOURCES[source].test_share)
    if share is not None and (not isinstance(share, int | float) or not 0.0 < share < 1.0):
        raise InputError(f"option test={share!r} of {source}: the share of photos to test on, for example 0.2")
    return share


def split_pairs(pairs: PairedSet, *, validation: float, test: float | None, seed: int) -> PairedSet:
    """The set with a test part, where it has none and `test` is given, and a validation part, where it has none."""
    split, notes = pairs.split, pairs.notes
    carve = partial(
        carve_validation,
        categories=pairs.categories,
        content=pairs.content,
        photo_ids=pairs.photo_ids,
        seed=seed,
    )
    if test is not None and not (split == TEST).any():
        split = carve(split, fraction=test, part=TEST)
        notes = (*notes, f"the test part, {test:.0%} of the photos of every category, was chosen here by seed {seed}")
    if not (split == VALIDATION).any():
        split = carve(split, fraction=validation)
    return pairs if split is pairs.split else replace(pairs, split=split, notes=notes, split_hash="")


def existing_root(source: str, root: Path | None) -> Path:
    """The folder with real data: `root`, else $SKETCHYNET_DATA. InputError where it is missing."""
    named = os.environ.get("SKETCHYNET_DATA")
    if root is None and not named:
        raise InputError(
            f"{source} needs its files: pass --data DIR or set SKETCHYNET_DATA to the folder that holds {source}/"
        )
    folder = Path(root if root is not None else str(named))
    if not folder.is_dir():
        origin = "" if root is not None else " (from SKETCHYNET_DATA)"
        raise InputError(
            f"{folder}{origin}: there is no such folder; looked there for {source}/. "
            f"Pass --data DIR or set SKETCHYNET_DATA to the folder that holds {source}/"
        )
    return folder


def check_options(source: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """InputError for an option that the source does not know."""
    for name in options:
        if name not in known:
            raise InputError(f"option {name!r} is unknown to {source}; it knows {', '.join(known) or 'none'}")
