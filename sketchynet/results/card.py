"""The model card of a finished run: what was trained on what, how good it is, and what it is not for."""

from __future__ import annotations

from sketchynet.results.pooling import pool, pooled_table
from sketchynet.results.summary import Summary
from sketchynet.stages.copies import PhotoCopies

_READS = {
    "points": "the points of the strokes in their order",
    "statistics": "statistics of the strokes",
    "both": "the points of the strokes in their order and statistics of them",
    "ink": "statistics of the strokes and a map of how much ink lies where",
}


def model_card(summary: Summary) -> str:
    """Markdown: the networks, their data, the test table with intervals, how to use them, and their limits.

    Every figure is the summary's own; what a summary does not know (licences, people) is not claimed.
    """
    recipe, run = summary.recipe, summary.values["run"]
    recognises = recipe.recognition is not None
    task = "recognition of sketched categories" if recognises else "retrieval of photos by sketches"
    student, teacher = recipe.student, recipe.teacher
    canvases = " / ".join(map(str, summary.canvases))
    sizes = " / ".join(map(str, sorted(set(student.gallery_sizes))))
    times = PhotoCopies.of(recipe).count
    stored = f", each stored {times} times" if times > 1 else ""
    photos = "" if recognises else f", and for photos of {sizes}{stored}"
    if student.gallery == "full":
        photos = f", beside the full network for photos of {student.photo_size}{stored} (its weights are in the same file)"
    selects = "v2" in summary.values["systems"]
    policy = f" A policy that reads {_READS[recipe.selector.reads]} picks the canvas of each sketch." if selects else ""
    count = "one" if teacher.members == 1 else str(teacher.members)
    taught = f"distilled from {count} {teacher.network.backbone} at {teacher.canvas} pixels"
    origin = taught if student.distillation.ranking_share < 1.0 else "trained without a teacher"
    hardware = run["hardware"]
    device = hardware["gpu"] if hardware["gpu"] != "none" else f"{hardware['cpu_count']} CPU cores"
    use = "" if recognises else "\n`sketchynet embed FOLDER PHOTOS --out GALLERY` embeds a photo collection with it."
    order = "\nWhere drawings were pictures, the order of their strokes was made by the vectoriser." if selects else ""
    return f"""# SketchyNet: {recipe.name}, seed {summary.seed}

For {task}: one {student.network.backbone} for sketches on a canvas of {canvases} pixels{photos}, {origin}.{policy} The method
is that of "Sketch Down the FLOPs" (CVPR 2025). Recipe: {recipe.description or recipe.name}.

## Data

Source `{recipe.data.source}`. Choices were made without the test split, which was read afterwards. The licence of the data is that of its publishers.

## On the test split

{pooled_table(pool([summary]))}

FLOPs in the paper's convention: a multiply-add counts two, the policy's own are included. Intervals are bootstrapped over
the queries of this one seed: another seed differs by more than they say.

## Use

The folder is laid out as a run: `recipe.json`, `student/{'search' if recipe.search.head else 'final'}`{", `selector/final`" if selects else ""}. Weights are safetensors; nothing in it
executes code.{use}

## Limits

Sketches unlike those of `{recipe.data.source}` were not tried. Small canvases lose fine detail: see the table.{order}

## Origin

Run `{summary.run_id}`, {run['date']}, commit {', '.join(commit[:7] for commit in run['commits'])}, {device}, torch {hardware['torch']}.
"""
