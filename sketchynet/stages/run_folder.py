"""Where a pipeline keeps what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one pipeline run; every stage has a folder of its own with ``final`` in it when done."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The recipe, as JSON; ``--resume`` reads it back."""
        return self.root / "recipe.json"

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
        return self.root / name

    def final(self, name: str) -> Path:
        """The finished checkpoint of a stage."""
        return self.root / name / "final"

    def teacher(self, member: int) -> str:
        """Name of the stage that trains a member of the full network."""
        return f"teacher-{member}"

    @property
    def teacher_embeddings(self) -> Path:
        """What the full network said of all training examples."""
        return self.root / "teacher-embeddings"

    def candidate(self, number: int) -> Path:
        """The policy trained for the cost weight of that number."""
        return self.root / "selector" / f"candidate-{number}"
