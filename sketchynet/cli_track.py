"""The commands ``sketchynet track …``: parse, call, print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_track_commands(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds ``track`` and what belongs to it to the command line."""
    text = "send the records of a run to MLflow after the fact"
    actions = commands.add_parser("track", help=text, description=text[0].upper() + text[1:] + ".").add_subparsers(
        required=True, metavar="ACTION"
    )
    push = command(actions, "push", _push, "send what a run's journal holds and MLflow does not; nothing is sent twice")
    push.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, or its reports.jsonl")
    push.add_argument("--experiment", metavar="NAME", help="MLflow experiment (default: where the run was tracked)")
    push.add_argument("--tracking-uri", metavar="URI", help="MLflow store (default: where the run was tracked)")
    status = command(actions, "status", _status, "how much of a run's journal MLflow holds")
    status.add_argument("folder", type=Path, metavar="RUN", help="folder of the run, or its reports.jsonl")


def _push(options: argparse.Namespace) -> None:
    from sketchynet.tracking import push

    print(push(options.folder, options.experiment, options.tracking_uri))


def _status(options: argparse.Namespace) -> None:
    from sketchynet.tracking import delivery_status

    print(delivery_status(options.folder))
