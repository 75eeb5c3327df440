"""Where a pipeline keeps what it makes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sketchynet.errors import InputError
from sketchynet.storage import can_reach, is_local, storage_place

TEACHER_EMBEDDINGS = "teacher-embeddings"
"""Name of the stage that asks the finished full network about all training examples."""

SEARCH = "search"
"""Folder, in that of a stage, of its network with the search head."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one pipeline run; every stage has a folder of its own with ``final`` in it when done."""

    root: Path
    """Records, figures and pictures: the driver's, on its own machine."""
    storage: Path | None = None
    """Recipe and checkpoints, where they are not in ``root``: a folder that all machines share, or a URL."""

    @property
    def kept(self) -> Path:
        """Where recipe and checkpoints lie: all that a resume needs."""
        return self.root if self.storage is None else self.storage

    @property
    def recipe(self) -> Path:
        """The recipe, as JSON; ``--resume`` reads it back."""
        return self.kept / "recipe.json"

    @property
    def pointer(self) -> Path:
        """Says, in ``root``, where the storage is."""
        return self.root / "storage.json"

    @property
    def evaluation(self) -> Path:
        """The figures of the test split, as JSON."""
        return self.root / "evaluation.json"

    @property
    def pictures(self) -> Path:
        """Plots and sheets."""
        return self.root / "pictures"

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.kept / name

    def final(self, name: str) -> Path:
        """The finished checkpoint of a stage."""
        return self.kept / name / "final"

    def search(self, name: str) -> Path:
        """The finished network of a stage with its search head."""
        return self.kept / name / SEARCH

    def result(self, name: str) -> Path:
        """What a finished stage leaves: its final checkpoint, or the full network's answers themselves."""
        return self.teacher_embeddings if name == TEACHER_EMBEDDINGS else self.final(name)

    @staticmethod
    def teacher(member: int) -> str:
        """Name of the stage that trains a member of the full network."""
        return f"teacher-{member}"

    @property
    def teacher_embeddings(self) -> Path:
        """What the full network said of all training examples."""
        return self.kept / TEACHER_EMBEDDINGS

    def keep(self, path: Path) -> None:
        """Copies a file of ``root`` to the storage, where that is another place."""
        if self.storage is not None:
            target = self.storage / path.relative_to(self.root).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    @property
    def fold_answers(self) -> Path:
        """What the students of the folds answered to the drawings that they were not fitted on."""
        return self.kept / "selector" / "fold-answers"

    def candidate(self, number: int) -> Path:
        """The policy trained for the cost weight of that number."""
        return self.kept / "selector" / f"candidate-{number}"


def new_run(root: Path, storage: str | None) -> RunFolder:
    """A run with records in ``root`` and, where ``storage`` names another place, its checkpoints there.

    Raises:
        InputError: the storage cannot be reached.
    """
    if storage is None:
        return RunFolder(root)
    folder = RunFolder(root, storage_place(storage))
    can_reach(folder.recipe, f"--storage {storage}")
    return folder


def existing_run(name: str, output: Path | None) -> RunFolder:
    """The run that ``--resume`` names: its folder, or the storage that its checkpoints lie on.

    Args:
        output: where records and pictures go; by default the folder, or for a URL ``runs/`` and its last part.

    Raises:
        InputError: there is no run; says where it was looked for.
    """
    place = storage_place(name)
    if not is_local(place):
        folder = RunFolder(output or Path("runs") / place.name, place)
    else:
        folder = RunFolder(output or place, place if output is not None else None)
        pointer = RunFolder(place).pointer
        if pointer.exists():
            storage = json.loads(pointer.read_text())["storage"]
            folder = RunFolder(output or place, storage_place(storage))
    if not can_reach(folder.recipe, f"--resume {name}"):
        raise InputError(f"--resume {name}: there is no run (no {folder.recipe})")
    return folder
