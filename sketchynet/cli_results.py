"""The ``sketchynet results`` and ``sketchynet experiment`` commands: parse, call, print."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchynet.errors import InputError

if TYPE_CHECKING:
    from sketchynet.pipeline import Execution


def add_results_commands(commands, command, places, execution) -> None:
    """Adds the commands; ``command``, ``places`` and ``execution`` are the command line's own helpers."""
    results = command(
        commands, "results", _results, "pool finished runs over their seeds: tables, and a document's marked places"
    )
    results.add_argument(
        "places", nargs="*", type=Path, metavar="PLACE", default=[Path("docs/results")],
        help="folders of exported summaries, or of finished runs (default: docs/results)",
    )
    results.add_argument("--out", type=Path, metavar="FILE", help="fill the marked places of this Markdown file")
    results.add_argument("--check", action="store_true", help="with --out: change nothing, status 1 if FILE is outdated")
    results.add_argument("--export", type=Path, metavar="DIR", help="also copy the summaries into this folder")

    experiment = command(commands, "experiment", _usage, "run the claims as named sets of recipes")
    actions = experiment.add_subparsers(required=True, metavar="ACTION")
    listing = command(actions, "list", _list, "list the experiments, or the configurations of one")
    listing.add_argument("name", nargs="?", help="show what the configurations of this one change")
    listing.add_argument("--recipe", default="qmul_v1", help="recipe that is varied (default: qmul_v1), or a JSON file")
    run = command(actions, "run", _run, "train and evaluate an experiment's configurations; what is finished is skipped")
    run.add_argument("name", help="name of the experiment")
    run.add_argument("--recipe", default="qmul_v1", help="recipe that is varied (default: qmul_v1), or a JSON file")
    run.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="seeds (default: 0)")
    run.add_argument("--only", nargs="+", metavar="CONFIGURATION", help="these configurations alone")
    run.add_argument("--output", type=Path, default=Path("runs/experiments"), metavar="DIR", help="folder of the runs (default: runs/experiments)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="train N runs side by side, each in a process of its own (default: 1)")
    run.add_argument("--borrow", type=Path, nargs="+", default=[], metavar="RUN", help="take over equal stages of these runs too")
    execution(run)
    places(run)
    run.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: sqlite:///mlflow.db)")


def execution_of(options: argparse.Namespace, *, experiment: str, **others: Any) -> Execution:
    """How the options say that a pipeline runs; sets the CPU threads of this process."""
    from sketchynet.pipeline import Execution

    for name in ("jobs", "threads"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise InputError(f"--{name} {given}: give at least 1")
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    return Execution(
        workers=options.workers,
        actors=options.actors,
        actor_gpus=options.actor_gpus,
        gpu=options.gpu,
        wait=options.wait,
        profile=options.profile,
        track=options.track,
        tracking_uri=options.tracking_uri,
        experiment=experiment,
        threads=options.threads or max(1, (os.cpu_count() or 1) // options.jobs),
        **others,
    )


def _usage(options: argparse.Namespace) -> None:
    raise AssertionError("argparse asks for an action")


def _results(options: argparse.Namespace) -> int:
    from sketchynet.results.document import fill_document, write_document
    from sketchynet.results.pooling import by_recipe, pool, pooled_table
    from sketchynet.results.summary import read_summaries, write_summary

    if options.check and options.out is None:
        raise InputError("--check compares a document: name it with --out FILE")
    summaries = read_summaries(options.places)
    if options.export is not None:
        written = {write_summary(summary, options.export) for summary in summaries}
        print(f"exported: {len(written)} summaries to {options.export}")
    if options.out is None:
        if not summaries:
            raise InputError(f"no summary in {', '.join(map(str, options.places))}; finished runs have one")
        for name, runs in by_recipe(summaries).items():
            print(f"## {name}\n\n{pooled_table(pool(runs))}\n")
        return 0
    images = None if options.check else options.out.parent / "images" / "results"
    text = fill_document(options.out, summaries, images=images)
    if not options.check:
        write_document(options.out, text)
        print(f"{options.out}: filled from {len(summaries)} runs")
        return 0
    if text == options.out.read_text(encoding="utf-8"):
        print(f"{options.out} is what {len(summaries)} runs give")
        return 0
    print(f"{options.out} is outdated: run `sketchynet results {' '.join(map(str, options.places))} --out {options.out}`")
    return 1


def _list(options: argparse.Namespace) -> None:
    from sketchynet.recipes import find_recipe
    from sketchynet.recipes.experiments import EXPERIMENTS, find_experiment

    base = find_recipe(options.recipe)
    if options.name is None:
        for name in EXPERIMENTS:
            experiment = find_experiment(name, base)
            count = len(experiment.variants)
            print(f"{name:<14}{count:>2} configuration{'s' if count != 1 else ' '}  {experiment.question}")
        return
    experiment = find_experiment(options.name, base)
    print(f"{experiment.question}\nreference: {experiment.reference}\n")
    for variant in experiment.variants:
        print(f"{variant.name}\n    " + "\n    ".join(variant.changes or ("the recipe as it is",)))


def _run(options: argparse.Namespace) -> None:
    from sketchynet.experiments import run_experiment
    from sketchynet.recipes import find_recipe
    from sketchynet.recipes.experiments import find_experiment

    experiment = find_experiment(options.name, find_recipe(options.recipe)).only(options.only)
    execution = execution_of(options, experiment=experiment.name)
    print(
        run_experiment(
            experiment,
            options.seeds,
            options.output,
            execution,
            jobs=options.jobs,
            threads=execution.threads,
            borrow=options.borrow,
            data=options.data,
            cache=options.cache,
            weights=options.weights,
        )
    )
