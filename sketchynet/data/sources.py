"""Where pairs come from, by name, and `load_pairs`, the one way to them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sketchynet.data import procedural
from sketchynet.data.cache import Prepared, Writer, cache_key, prepared_set
from sketchynet.data.listing import Listing
from sketchynet.data.pairs import PairedSet
from sketchynet.data.prepare import prepare_files
from sketchynet.data.qmul_v1 import list_qmul_v1
from sketchynet.data.splits import VALIDATION, carve_validation
from sketchynet.errors import InputError

logger = logging.getLogger("sketchynet.data")


@dataclass(frozen=True)
class FileSource:
    """A data set on disk: its reader, and the names of the options that the reader knows."""

    list_files: Callable[[Path, Mapping[str, Any]], Listing]
    options: tuple[str, ...]


FILE_SOURCES: dict[str, FileSource] = {
    "qmul_v1": FileSource(list_qmul_v1, ("extra_sketches", "fit_photos", "categories")),
}
"""Readers by name. A further reader is one entry here and one module beside `qmul_v1`."""

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
    cache_dir: Path | None = None,
    progress: bool = True,
) -> PairedSet:
    """The photos and drawings of a source, prepared once and then read from the cache.

    source: "procedural" or a name in FILE_SOURCES. root: the folder with real data (--data DIR), by default
    $SKETCHYNET_DATA; not needed for "procedural". size: side of the photos, pixels. validation: share of each
    category's training photos that becomes validation, chosen by `seed`; a source with a validation part of its
    own keeps that. options: of the source, see its reader. cache_dir: see `sketchynet.data.cache.cache_folder`.
    Raises InputError for an unknown source or option, a missing root, and whatever is wrong with the files.
    """
    options = dict(options or {})
    if size < 8:
        raise InputError(f"photo size {size}: expected at least 8 pixels")
    if source == "procedural":
        _check_options(source, options, tuple(PROCEDURAL_OPTIONS))
        pairs = _procedural(options, size, validation, cache_dir)
    elif source in FILE_SOURCES:
        reader = FILE_SOURCES[source]
        _check_options(source, options, reader.options)
        listing = reader.list_files(existing_root(source, root), options)
        pairs = prepare_files(listing, size, cache_dir=cache_dir, progress=progress)
        if not len(pairs.photo_indices(VALIDATION)):
            split = carve_validation(
                pairs.split, pairs.categories, pairs.content, pairs.photo_ids, fraction=validation, seed=seed
            )
            pairs = replace(pairs, split=split, split_hash="")
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


def _check_options(source: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise InputError(f"option {name!r} is unknown to {source}; it knows {', '.join(known)}")
