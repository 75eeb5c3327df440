"""The summary of a finished run: what tables and paired bootstraps need of it, in one small JSON.

``summary.json`` is written beside ``evaluation.json`` when a run is evaluated; collected in one folder
(``docs/results``), such files are all that is needed to make every table again. Ranks and choices of the single
queries are packed (:mod:`sketchynet.results.packing`), so that 1,600 queries take some tens of kilobytes.

Shapes: n queries, K canvases.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from sketchynet import checkpoint
from sketchynet.config import Recipe, parse_recipe
from sketchynet.errors import InputError
from sketchynet.results.packing import pack, unpack
from sketchynet.stages.evaluate import Evaluation
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.task import Task
from sketchynet.tracking.compare import parent_artifacts
from sketchynet.tracking.environment import environment
from sketchynet.tracking.jsonl import JOURNAL_NAME, Row, read_journal, read_state

FORMAT = 1
SUMMARY_NAME = "summary.json"
MEMBERSHIP_NAME = "experiments.json"
BORROWED_NAME = "borrowed.json"
_SECTIONS = (
    "run", "recipe", "experiments", "data", "canvases", "canvas_counts", "systems", "differences", "validation",
    "categories", "ranks", "choices", "features",
)
INK_UNIT = 1000
"""The length of ink is kept in thousandths of a side of the frame."""
DEALT = "dealt"
"""A system that needs no evaluation of its own: V2's choices dealt out at random within each category."""


@dataclass(frozen=True)
class Summary:
    """A summary as it was read, with the outcomes of its queries unpacked when they are asked for."""

    values: Mapping[str, Any]
    """The JSON's content."""
    place: str
    """Where it was read, for messages."""

    @property
    def run_id(self) -> str:
        """Id of the run: that of its journal, which is also a tag of its MLflow run."""
        return str(self.values["run"]["id"])

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe; InputError where it is one of an incompatible version."""
        return parse_recipe(self.values["recipe"], place=self.place)

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def canvases(self) -> tuple[int, ...]:
        return tuple(self.values["canvases"])

    @cached_property
    def ranks(self) -> dict[str, np.ndarray]:
        """int64 (n, canvases) of every network."""
        return {name: self._unpacked("ranks", name) for name in self.values["ranks"]}

    def choices(self, system: str) -> np.ndarray:
        """int64 (n,): index of the canvas that ``v2``, ``v2[PRICE]``, ``rule`` or ``exit`` took."""
        return self._unpacked("choices", system)

    def features(self) -> dict[str, np.ndarray]:
        """float64 (n,): strokes, points and ink (sides of the frame) of every query."""
        found = {name: self._unpacked("features", name).astype(np.float64) for name in self.values["features"]}
        return found | {"ink": found["ink"] / INK_UNIT}

    def scope(self, name: str) -> np.ndarray:
        """bool (n,): the queries of a category, or with ``all`` every one."""
        categories = self.values["categories"]
        of_query = unpack(categories["of_query"], place=f"{self.place}: categories")
        if name == "all":
            return np.ones(len(of_query), dtype=bool)
        return of_query == categories["names"].index(name)

    def figures(self, system: str, scope: str = "all") -> Mapping[str, float]:
        """Acc@q with intervals, MRR, GFLOPs, mean canvas and parameters of a system."""
        return self.values["systems"][system][scope]

    def hits(self, system: str, q: int = 1) -> np.ndarray:
        """float64 (n,): probability that a system puts the truth of each query among its first q.

        Raises:
            InputError: the run has no such system.
        """
        if system == DEALT:
            return self._dealt_hits(q)
        if system not in self.values["systems"]:
            known = ", ".join(self.values["systems"])
            raise InputError(f"{self.place}: no system {system!r} was evaluated; there are {known}")
        network, _, size = system.partition("@")
        if network == "full":
            return (self.ranks["full"][:, 0] <= q).astype(np.float64)
        if network in ("direct", "v1"):
            return (self.ranks[network][:, self.canvases.index(int(size))] <= q).astype(np.float64)
        found = (self.ranks["v1"] <= q).astype(np.float64)
        if system in self.values["choices"]:
            return found[np.arange(len(found)), self.choices(system)]
        if system == "oracle":  # the cheapest canvas with rank 1, or the cheapest of all
            return found[np.arange(len(found)), (self.ranks["v1"] == 1).argmax(axis=1)]
        shares = self.values["systems"][system]["details"]["shares"]
        return found @ np.array([shares[str(size)] for size in self.canvases])

    def _dealt_hits(self, q: int) -> np.ndarray:
        """As :meth:`hits`, of V2's choices dealt out within each category: the expectation over all permutations.

        Where V2 is no better, its choices know one category from another and nothing more.
        """
        found = (self.ranks["v1"] <= q).astype(np.float64)
        choices = self.choices("v2")
        dealt = np.empty(len(found))
        for name in self.values["categories"]["names"] or ["all"]:
            members = self.scope(name)
            shares = np.bincount(choices[members], minlength=len(self.canvases)) / members.sum()
            dealt[members] = found[members] @ shares
        return dealt

    def _unpacked(self, section: str, name: str) -> np.ndarray:
        return unpack(self.values[section][name], place=f"{self.place}: {section}.{name}")


def summarise_run(task: Task, evaluation: Evaluation, folder: RunFolder) -> dict[str, Any]:
    """The summary of an evaluated run; takes id, commits, hardware and times from its journal where it has one."""
    rows = read_journal(folder.root) if (folder.root / JOURNAL_NAME).exists() else []
    starts = [row["tags"] for row in rows if row["kind"] == "run_start"]
    here = environment()
    found = evaluation.summary
    names = [name for name in task.scopes(evaluation.sketches) if name != "all"]
    of_query = np.zeros(len(evaluation.sketches), dtype=np.int64)
    for number, name in enumerate(names):
        of_query[task.scopes(evaluation.sketches)[name]] = number
    queries = json.dumps([query["sketch"] for query in found["queries"]])
    features = {k: pack(v * INK_UNIT // 1 if k == "ink" else v) for k, v in evaluation.features.items()}
    return {
        "format": FORMAT,
        "run": {
            "id": _run_id(folder),
            "mlflow": read_state(folder.root).get("mlflow", {}).get("runs", {}).get("") if rows else None,
            "name": folder.root.resolve().name,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
            "commits": list(dict.fromkeys([*(tags["git_commit"] for tags in starts), here["git_commit"]])),
            "hardware": {k: v for k, v in (starts or [here])[-1].items() if k in here and k != "git_commit"},
            "seconds": stage_seconds(rows),
            "borrowed": _read_json(folder.root / BORROWED_NAME, {}),
        },
        "recipe": task.recipe.model_dump(mode="json"),
        "experiments": read_membership(folder),
        "data": {
            "split_hash": found["split_hash"],
            "queries": found["queries_count"],
            "queries_hash": sha256(queries.encode()).hexdigest()[:16],
            "gallery_count": found["gallery_count"],
            "leaks": found["leaks"],
        },
        "canvases": found["canvases"],
        "canvas_counts": found["canvas_counts"],
        "systems": found["systems"],
        "differences": found["differences"],
        "validation": _validation(folder),
        "categories": {"names": names, "of_query": pack(of_query)},
        "ranks": {name: pack(values) for name, values in evaluation.ranks.items()},
        "choices": {
            s.name: pack(s.choices) for s in evaluation.systems if s.network in ("v2", "rule", "exit") and s.choices is not None
        },
        "features": features,
    }


def _run_id(folder: RunFolder) -> str:
    journal = read_state(folder.root).get("journal")
    if journal is not None:
        return str(journal)
    if (folder.root / SUMMARY_NAME).exists():
        return read_summary(folder.root / SUMMARY_NAME).run_id
    return uuid.uuid4().hex


def stage_seconds(rows: Iterable[Row]) -> dict[str, float]:
    """Seconds that every stage was under way, by its journal; time between an interruption and a resume not counted."""
    seconds: dict[str, float] = {}
    stage: str | None = None
    before = 0.0
    for row in rows:
        if row["kind"] == "run_start":
            stage = None
        elif stage is not None:
            seconds[stage] = seconds.get(stage, 0.0) + row["time"] - before
        before = row["time"]
        if row["kind"] == "stage_start":
            stage = row["stage"]
        elif row["kind"] in ("stage_end", "run_end"):
            stage = None
    return {name: round(value, 1) for name, value in seconds.items()}


def _validation(folder: RunFolder) -> dict[str, dict[str, float]]:
    """Validation figures of every trained network, with its search head if it has one; of the picked policy those that it was
    picked by, which may be of the folds' drawings."""
    found = {}
    for final in sorted(folder.kept.glob("*/final")):
        headed = folder.search(final.parent.name)
        metrics = checkpoint.read_checkpoint_json(headed if headed.exists() else final, "metrics")
        metrics = metrics.get("picked", metrics)
        found[final.parent.name] = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    return found


def read_membership(folder: RunFolder) -> list[dict[str, Any]]:
    """The experiments that a run is part of (see :func:`add_membership`)."""
    return _read_json(folder.root / MEMBERSHIP_NAME, [])


def _read_json(path: Path, otherwise: Any) -> Any:
    """What a file of the run's folder holds, or ``otherwise`` where there is none."""
    try:
        return json.loads(path.read_text()) if path.exists() else otherwise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it and run the command again") from error


def add_membership(folder: RunFolder, member: Mapping[str, Any]) -> None:
    """Notes that a run is part of an experiment, in its summary too where it has one already.

    Args:
        member: ``experiment``, ``base`` (name of the recipe that variants are made from), ``variant``, its
            ``position`` in the set, the name of the ``reference`` variant, and what is compared with it
            (``compare``: ``largest``, ``same`` or ``v2``).
    """
    same = ("experiment", "base", "variant")
    others = [m for m in read_membership(folder) if any(m[key] != member[key] for key in same)]
    members = [*others, dict(member)]
    if members != read_membership(folder):
        checkpoint.write_json(folder.root / MEMBERSHIP_NAME, members)
    path = folder.root / SUMMARY_NAME
    if path.exists() and (summary := read_summary(path)).values["experiments"] != members:
        checkpoint.write_json(path, {**summary.values, "experiments": members})


def read_summary(path: Path) -> Summary:
    """Reads one summary.

    Raises:
        InputError: the file cannot be read, is not JSON, or is no summary of this version; names it.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a summary of a run ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{path}: not a summary of format {FORMAT} (found {found}); evaluate the run again with "
                         "`sketchynet evaluate RUN`")
    missing = [section for section in _SECTIONS if section not in values]
    if missing:
        raise InputError(f"{path}: the summary lacks {', '.join(missing)}; evaluate the run again")
    return Summary(values, str(path))


def read_summaries(places: Iterable[Path]) -> list[Summary]:
    """Summaries of run folders, of folders of exported summaries, and of single files; each run once.

    Raises:
        InputError: a place holds no summary.
    """
    found: dict[str, Summary] = {}
    for place in places:
        if not place.exists():
            raise InputError(f"{place}: there is no such file or folder")
        if (place / SUMMARY_NAME).exists():
            paths = [place / SUMMARY_NAME]
        else:
            paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if (place / "recipe.json").exists() and paths != [place / SUMMARY_NAME]:
            raise InputError(f"{place}: the run is not evaluated; `sketchynet train --resume {place}` goes on with it, "
                             f"`sketchynet evaluate {place}` evaluates it again")
        for path in paths:
            summary = read_summary(path)
            known = found.get(summary.run_id)
            found[summary.run_id] = summary if known is None else _united(known, summary)
    return list(found.values())


def export_experiment(experiment: str, uri: str | None, folder: Path) -> str:
    """Writes the summaries of an MLflow experiment's finished runs into a folder; says how many, and which had none."""
    written, without = 0, []
    for name, path in parent_artifacts(experiment, uri, SUMMARY_NAME):
        if path is None:
            without.append(name)
        else:
            write_summary(read_summary(path), folder)
            written += 1
    text = f"exported: {written} finished run{'s' if written != 1 else ''} to {folder}"
    if without:
        text += f"; without a summary: {', '.join(without)} (`sketchynet evaluate RUN` writes one into the run's folder)"
    return text


def write_summary(summary: Summary, folder: Path) -> Path:
    """Writes a summary into a folder of exported ones, by recipe, seed and id; experiments noted there are kept."""
    name = re.sub(r"[^0-9A-Za-z._-]+", "-", summary.recipe.name).strip("-")[:80]
    path = folder / f"{name}-s{summary.seed}-{summary.run_id[:8]}.json"
    if path.exists():
        summary = _united(read_summary(path), summary)
    checkpoint.write_json(path, dict(summary.values))
    return path


def _united(known: Summary, newer: Summary) -> Summary:
    """The newer summary of a run, part of the experiments of both."""
    members = [*newer.values["experiments"]]
    listed = {(m["experiment"], m["base"], m["variant"]) for m in members}
    members += [m for m in known.values["experiments"] if (m["experiment"], m["base"], m["variant"]) not in listed]
    return Summary({**newer.values, "experiments": members}, newer.place)
