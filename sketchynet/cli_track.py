"""The commands ``sketchynet track …``: parse, call, print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_track_commands(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds ``track`` and what belongs to it to the command line."""
    text = "send the records of a run to MLflow after the fact, and register its networks there"
    actions = commands.add_parser("track", help=text, description=text[0].upper() + text[1:] + ".").add_subparsers(
        required=True, metavar="ACTION"
    )
    push = command(actions, "push", _push, "send what a run's journal holds and MLflow does not; nothing is sent twice")
    push.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, or its reports.jsonl")
    push.add_argument("--experiment", metavar="NAME", help="MLflow experiment (default: where the run was tracked)")
    push.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: where the run was tracked)")
    status = command(actions, "status", _status, "how much of a run's journal MLflow holds")
    status.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, or its reports.jsonl")
    register = command(actions, "register", _register, "make a finished run a version of an MLflow registered model, with its card")
    register.add_argument("folder", type=Path, metavar="RUN", help="folder of a finished run")
    register.add_argument("--name", help="of the model (default: the recipe's name)")
    register.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: where the run was tracked)")


def _push(options: argparse.Namespace) -> None:
    from sketchynet.tracking import push

    print(push(options.folder, options.experiment, options.tracking_uri))


def _status(options: argparse.Namespace) -> None:
    from sketchynet.tracking import delivery_status

    print(delivery_status(options.folder))


def _register(options: argparse.Namespace) -> None:
    from sketchynet import checkpoint
    from sketchynet.results.card import model_card
    from sketchynet.results.summary import SUMMARY_NAME, read_summary
    from sketchynet.stages.run_folder import existing_run
    from sketchynet.stages.search_head import searched
    from sketchynet.tracking import register_model

    run = existing_run(str(options.folder), None)
    summary = read_summary(run.root / SUMMARY_NAME)
    finals = {"student": searched(summary.recipe, run, "student"), "selector": run.final("selector")}
    parts = {f"{name}/{final.name}": final for name, final in finals.items() if checkpoint.is_complete(final)}
    tags = {"recipe": summary.recipe.name, "seed": str(summary.seed), "run": summary.run_id}
    print(
        register_model(
            run.root,
            options.name or summary.recipe.name,
            model_card(summary),
            {"recipe.json": run.recipe, SUMMARY_NAME: run.root / SUMMARY_NAME, **parts},
            tags=tags,
            uri=options.tracking_uri,
        )
    )
