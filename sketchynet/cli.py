"""The ``sketchynet`` command: parses, builds, runs, prints."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sketchynet.cli_data import add_data_commands
from sketchynet.cli_embed import add_embed_command
from sketchynet.cli_results import add_results_commands, execution_of
from sketchynet.cli_track import add_track_commands
from sketchynet.errors import InputError
from sketchynet.version import __version__

STAGES = ("teacher", "student", "selector", "evaluate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; bad input prints one message and gives status 2."""
    # Read when torch is first imported. Threads that spin while they wait take the cores from whoever has work:
    # beside one other busy process, two spinning threads trained ten times slower than two sleeping ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except InputError as error:
        print(f"sketchynet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sketchynet: interrupted; train --resume RUN, or the same command again (data, embed), goes on where it was", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="sketchynet", description="Train, evaluate and compare efficient sketch retrieval networks."
    )
    top.add_argument("--version", action="version", version=f"sketchynet {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    train = _command(commands, "train", _train, "train teacher, SketchyNetV1 and SketchyNetV2, and evaluate them")
    train.add_argument("recipe", nargs="?", help="name of a built-in recipe (see `sketchynet recipes`) or a JSON file")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the recipe")
    train.add_argument("--output", type=Path, metavar="DIR", help="folder of this run (default: runs/RECIPE-DATE)")
    train.add_argument("--storage", metavar="PLACE", help="where checkpoints are kept: a folder or a URL, as s3://BUCKET/RUN (default: --output)")
    train.add_argument("--resume", metavar="RUN", help="go on with the run in that folder, or on that storage")
    train.add_argument(
        "--or-resume", action="store_true", help="if --output or --storage holds a run of this recipe, go on with it (queued jobs)"
    )
    train.add_argument("--stage", action="append", choices=STAGES, help="run this stage alone (may be repeated)")
    train.add_argument("--jobs", type=int, default=1, metavar="N", help="train N networks that do not need each other side by side, each in a process of its own (default: 1)")
    _execution(train)
    _places(train)
    _experiment(train)

    evaluate = _command(commands, "evaluate", _evaluate, "evaluate a finished run again")
    evaluate.add_argument("resume", metavar="RUN", help="folder of the run, or its storage")
    evaluate.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of its section evaluation")
    _places(evaluate)

    _command(commands, "flops", _flops, "parameters and FLOPs of the paper's networks at every canvas")

    compare = _command(commands, "compare", _compare, "table and accuracy–FLOPs plot of an experiment's runs")
    compare.add_argument("--output", type=Path, default=Path("comparison.png"), metavar="FILE", help="the plot")
    compare.add_argument("--export", type=Path, metavar="DIR", help="also write the summary JSON of every finished run")
    compare.add_argument("--import", dest="journal", type=Path, metavar="FILE", help="bring a reports.jsonl in first")
    _experiment(compare)

    recipes = _command(commands, "recipes", _recipes, "list the built-in recipes, or print one as JSON")
    recipes.add_argument("name", nargs="?")

    add_embed_command(commands, _command)
    add_track_commands(commands, _command)
    add_results_commands(commands, _command, _places, _execution)
    add_data_commands(commands, _command, _places)
    return top


def _command(commands, name, run, text):
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _execution(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, default=0, metavar="N", help="0: in this process; N: on Ray")
    command.add_argument("--actors", type=int, default=2, metavar="N", help="rollout actors on Ray (default 2)")
    command.add_argument("--actor-gpus", type=float, default=0.0, metavar="SHARE", help="share of a GPU for each of them")
    command.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="time for a cluster to grow to --workers (default 0)"
    )
    command.add_argument("--profile", action="store_true", help="trace some steps of every stage into RUN/profile")
    command.add_argument("--gpu", action="store_true", help="train on CUDA, one GPU a worker")
    command.add_argument("--threads", type=int, metavar="N", help="CPU threads of this process (with --workers 0; default: the cores), and of each of several --jobs (default: their share of the cores)")
    command.add_argument("--track", choices=("mlflow", "jsonl", "none"), default="mlflow", help="where records go")


def _places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, metavar="DIR", help="root of the data sets (or $SKETCHYNET_DATA)")
    command.add_argument("--weights", type=Path, metavar="DIR", help="backbone weights (or $SKETCHYNET_WEIGHTS)")
    command.add_argument("--cache", type=Path, metavar="DIR", help="prepared data (or $SKETCHYNET_CACHE)")


def _experiment(command: argparse.ArgumentParser) -> None:
    command.add_argument("--experiment", default="sketchynet", help="MLflow experiment (default: sketchynet)")
    command.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: sqlite:///mlflow.db)")


def _train(options: argparse.Namespace) -> None:
    from sketchynet.config import load_recipe, override
    from sketchynet.pipeline import run_pipeline
    from sketchynet.recipes import find_recipe
    from sketchynet.stages.run_folder import existing_run, new_run
    from sketchynet.stages.train import Places

    if options.resume is not None:
        if options.recipe or options.set or options.storage:
            raise InputError("--resume goes on with the run's own recipe: give neither RECIPE, --set nor --storage")
        folder = existing_run(options.resume, options.output)
        recipe = load_recipe(folder.recipe)
    elif options.recipe is None:
        raise InputError("give a RECIPE (see `sketchynet recipes`) or --resume RUN")
    else:
        recipe = override(find_recipe(options.recipe), options.set)
        root = options.output or Path("runs") / time.strftime(f"{recipe.name}-%Y%m%d-%H%M%S")
        folder = new_run(root, options.storage)
        held, option = folder.recipe.exists(), "--storage" if options.storage else "--output"
        if held and not options.or_resume:
            raise InputError(f"{folder.kept} holds a run already: --resume {folder.kept}, or give another {option}")
        if held and load_recipe(folder.recipe) != recipe:
            raise InputError(f"{folder.kept} holds a run of another recipe: see its recipe.json, or give another {option}")
    stages = tuple(s for s in STAGES if s in (options.stage or STAGES))
    execution = execution_of(options, experiment=options.experiment, stages=stages, jobs=options.jobs)
    if execution.jobs > 1 and execution.workers:
        raise InputError(
            f"--jobs {execution.jobs} trains networks beside each other in processes of this machine, "
            f"--workers {execution.workers} each of them on Ray: give one"
        )
    places = Places(folder, options.data, options.cache, options.weights)
    summary = run_pipeline(recipe, places, execution)
    _conclude(folder, summary, execution)


def _conclude(folder, summary, execution) -> None:
    from sketchynet.report import evaluation_table

    if summary is not None:
        print(f"\n{evaluation_table(summary)}\n")
        print(f"pictures and figures: {folder.root}")
    else:
        print(f"done: {', '.join(execution.stages)}; the run is in {folder.root}")
    if execution.track == "mlflow":
        store = execution.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
        print(f"look further: mlflow ui --backend-store-uri {store}")
        print(f"compare runs: sketchynet compare --experiment {execution.experiment}")
    elif execution.track == "jsonl":
        print(f"bring it into MLflow: sketchynet compare --import {folder.root / 'reports.jsonl'}")


def _evaluate(options: argparse.Namespace) -> None:
    from sketchynet.config import load_recipe, override
    from sketchynet.pipeline import Execution, run_pipeline
    from sketchynet.stages.run_folder import existing_run
    from sketchynet.stages.train import Places

    folder = existing_run(options.resume, None)
    for change in options.set:
        if not change.startswith("evaluation."):
            raise InputError(f"--set {change}: only fields of evaluation can change in a trained run, such as evaluation.grey_stem=true")
    recipe = override(load_recipe(folder.recipe), options.set)
    execution = Execution(track="none", stages=("evaluate",))
    summary = run_pipeline(recipe, Places(folder, options.data, options.cache, options.weights), execution)
    _conclude(folder, summary, execution)


def _flops(options: argparse.Namespace) -> None:
    from sketchynet.report import paper_table

    print(paper_table())


def _compare(options: argparse.Namespace) -> None:
    from sketchynet.tracking import compare, import_journal

    if options.journal is not None:
        print(import_journal(options.journal, options.experiment, options.tracking_uri))
    print(compare(options.experiment, options.tracking_uri, options.output))
    if options.export is not None:
        from sketchynet.results.summary import export_experiment

        print(export_experiment(options.experiment, options.tracking_uri, options.export))


def _recipes(options: argparse.Namespace) -> None:
    from sketchynet.recipes import RECIPES, find_recipe
    from sketchynet.tables import aligned

    if options.name is not None:
        print(find_recipe(options.name).model_dump_json(indent=2))
        return
    print(aligned(["recipe", "what it trains"], [[name, build().description] for name, build in RECIPES.items()]))


if __name__ == "__main__":
    sys.exit(main())
