"""The commands ``sketchynet data …``: parse, call, print."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sketchynet.errors import InputError

Register = Callable[..., argparse.ArgumentParser]


def add_data_commands(commands: Any, command: Register, places: Callable[[argparse.ArgumentParser], None]) -> None:
    """Adds ``data`` and what belongs to it to the command line."""
    data = commands.add_parser(
        "data", help="look at, prepare and convert data sets", description="Look at, prepare and convert data sets."
    )
    actions = data.add_subparsers(required=True, metavar="ACTION")
    command(actions, "list", _list, "list the data sets that are read, with their layouts")

    info = command(actions, "info", _info, "detect a data set and count what is in it, against what was published")
    _folder(info)
    info.add_argument("--sample", type=int, metavar="N", help="drawings read for strokes and points (0: all)")

    prepare = command(actions, "prepare", _prepare, "decode photos and read drawings into the cache, in parallel")
    prepare.add_argument("what", metavar="RECIPE|DIR", help="a recipe (its data is prepared), or a folder with a data set")
    prepare.add_argument("--size", type=int, default=256, metavar="N", help="side of the photos of a DIR (default 256)")
    prepare.add_argument("--workers", type=int, metavar="N", help="processes for a DIR (default: one a core)")
    _option(prepare)
    _skip_bad(prepare)
    places(prepare)

    show = command(actions, "show", _show, "draw a contact sheet of pairs")
    _folder(show)
    show.add_argument("--output", type=Path, default=Path("pairs.png"), metavar="FILE", help="PNG (default pairs.png)")
    show.add_argument("--count", type=int, default=20, metavar="N", help="pairs on the sheet (default 20)")
    show.add_argument("--seed", type=int, default=0, metavar="N", help="which pairs (default 0)")
    _skip_bad(show)

    convert = command(actions, "convert", _convert, "write a data set as a folder of photos and drawings")
    _folder(convert)
    convert.add_argument("target", type=Path, metavar="TARGET", help="folder to write; must not exist")
    _skip_bad(convert)

    flatten = command(actions, "flatten", _flatten, "write drawings with categories in flat form, for very large sets")
    flatten.add_argument("folder", type=Path, metavar="DIR", help="folder of the data set")
    flatten.add_argument("target", type=Path, metavar="TARGET", help="folder to write; must not exist")
    flatten.add_argument("--recognized", action="store_true", help="only what Google's network recognised (QuickDraw)")
    flatten.add_argument("--limit", type=int, metavar="N", help="at most so many drawings of each file (QuickDraw)")
    _skip_bad(flatten)


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="folder of the data set")
    _option(command)


def _option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the reader (see `data list`)"
    )


def _skip_bad(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--skip-bad", action="store_true", help="leave out bad files, counted and listed, instead of stopping"
    )


def _options(assignments: list[str], source: str) -> dict[str, Any]:
    from sketchynet.data.sources import FILE_SOURCES, check_options, options_of

    values = _parsed(assignments)
    check_options(source, values, options_of(source) if source in FILE_SOURCES else ())
    return values


def _parsed(assignments: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--option {assignment}: expected KEY=VALUE, for example fit_photos=true")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values


def _list(options: argparse.Namespace) -> None:
    import importlib

    from sketchynet.data.detection import DRAWING_SOURCES
    from sketchynet.data.sources import FILE_SOURCES, options_of

    for name, source in (FILE_SOURCES | DRAWING_SOURCES).items():
        known = options_of(name) if name in FILE_SOURCES else ()
        print(f"{name}: {source.title}" + (f"  (options: {', '.join(known)})" if known else ""))
        module = importlib.import_module(source.find.__module__)
        if name != "qmul_v1_shoe_extra":  # told by qmul_v1
            layout = importlib.import_module("sketchynet.data.quickdraw") if name == "quickdraw" else module
            print("\n" + "\n".join(f"    {line}".rstrip() for line in (layout.__doc__ or "").splitlines()) + "\n")


def _info(options: argparse.Namespace) -> None:
    from sketchynet.data.detection import detect_all
    from sketchynet.data.info import describe
    from sketchynet.data_report import info_text

    for found in detect_all(options.folder):
        values = _options(options.option, found.source)
        print(info_text(describe(found, options=values, sample=options.sample)))


def _prepare(options: argparse.Namespace) -> None:
    from sketchynet.recipes import RECIPES

    if options.what in RECIPES or options.what.endswith(".json"):
        _prepare_recipe(options)
    else:
        _prepare_folder(options)


def _prepare_recipe(options: argparse.Namespace) -> None:
    from sketchynet.config import override
    from sketchynet.data_report import prepared_text
    from sketchynet.recipes import find_recipe
    from sketchynet.stages.run_folder import RunFolder
    from sketchynet.stages.train import Places

    changes = [f"data.options.{assignment}" for assignment in options.option]
    recipe = override(find_recipe(options.what), [*changes, *(["data.skip_bad=true"] if options.skip_bad else [])])
    places = Places(RunFolder(Path()), options.data, options.cache, options.weights)
    print(prepared_text(places.load(recipe, progress=True)))


def _prepare_folder(options: argparse.Namespace) -> None:
    from sketchynet.config import DataConfig
    from sketchynet.data.detection import detect
    from sketchynet.data.labelled_sources import load_labelled
    from sketchynet.data.sources import load_pairs
    from sketchynet.data_report import prepared_text

    found = detect(Path(options.what))
    data = DataConfig(source=found.source)
    split = {"validation": data.validation, "seed": data.seed, "skip_bad": options.skip_bad, "cache_dir": options.cache}
    if found.paired:
        values = _options(options.option, found.source)
        pairs = load_pairs(
            found.source, root=found.folder, size=options.size, options=values, workers=options.workers, **split
        )
        print(prepared_text(pairs))
    else:
        print(prepared_text(load_labelled(found.source, root=found.folder, options=_parsed(options.option), **split)))


def _show(options: argparse.Namespace) -> None:
    from sketchynet.data.detection import detect
    from sketchynet.data.show import contact_sheet
    from sketchynet.data.skips import Skips

    found = detect(options.folder)
    skips = Skips(allowed=options.skip_bad)
    values = _options(options.option, found.source)
    shown = contact_sheet(
        found, options.output, count=options.count, seed=options.seed, options=values, skips=skips
    )
    print(f"{options.output}: {shown} of {found.title}")
    for note in skips.notes():
        print(f"  {note}")


def _convert(options: argparse.Namespace) -> None:
    from sketchynet.data.convert import convert
    from sketchynet.data.detection import detect
    from sketchynet.data.skips import Skips

    found = detect(options.folder)
    skips = Skips(allowed=options.skip_bad)
    counted = convert(found, options.target, options=_options(options.option, found.source), skips=skips)
    print(f"{options.target}: " + ", ".join(f"{number:,} {name}" for name, number in counted.items()))
    for note in skips.notes():
        print(f"  {note}")


def _flatten(options: argparse.Namespace) -> None:
    from sketchynet.data.detection import detect
    from sketchynet.data.labelled_sources import flatten, streams_of
    from sketchynet.data.skips import Skips

    found = detect(options.folder)
    if found.paired:
        raise InputError(f"{found.folder}: {found.title} has photos; the flat form is for drawings with categories")
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: give at least 1")
    skips = Skips(allowed=options.skip_bad)
    streams = streams_of(found.source, found.folder, skips)
    flat = flatten(
        streams,
        options.target,
        name=found.source,
        recognized=options.recognized,
        limit=options.limit,
        skips=skips,
    )
    shards = f"{flat.num_shards:,} shard{'s' if flat.num_shards > 1 else ''}"
    print(f"{options.target}: {len(flat):,} drawings, {len(flat.categories):,} categories, {shards}")
    for note in flat.notes:
        print(f"  {note}")
