from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import CHANGES

from sketchynet.cli import main
from sketchynet.config import Recipe, override
from sketchynet.data import LabelledSet
from sketchynet.errors import InputError
from sketchynet.models import Classifier
from sketchynet.ops import relational_huber
from sketchynet.raster import rasterize
from sketchynet.recipes import find_recipe
from sketchynet.sketch import Sketch, SketchBatch
from sketchynet.stages.batches import BatchPlan
from sketchynet.stages.folds import drawing_folds
from sketchynet.stages.recognition import (
    Recognition,
    RecognitionWorker,
    distillation_objective,
    label_objective,
)
from sketchynet.stages.run_folder import RunFolder
from sketchynet.stages.runtime import LocalRuntime, RolloutRequest
from sketchynet.stages.teacher import train_member

WORDS = ("circle", "zigzag", "star")


def _strokes(word: str, generator: np.random.Generator) -> np.ndarray:
    """(n, 2) in 0..255: one of three shapes that a small network tells apart."""
    turns = np.linspace(0, 2 * np.pi, 25)
    radius = {"circle": np.ones(25), "star": 0.35 + 0.65 * (np.arange(25) % 2)}.get(word)
    if radius is None:
        points = np.stack([np.linspace(0, 1, 9), np.arange(9) % 2], axis=1)
    else:
        points = 0.5 + 0.5 * np.stack([radius * np.cos(turns), radius * np.sin(turns)], axis=1)
    return (20 + 200 * points + generator.uniform(0, 30, points.shape)).astype(int)


def write_words(folder: Path, drawings: int) -> None:
    """QuickDraw files of the three shapes."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number, word in enumerate(WORDS):
        lines = []
        for n in range(drawings):
            drawing = [_strokes(word, generator).T.tolist()]
            lines.append(json.dumps({"word": word, "key_id": str(100 * number + n), "drawing": drawing}))
        (folder / f"{word}.ndjson").write_text("\n".join(lines))


@lru_cache(maxsize=1)
def labelled() -> LabelledSet:
    """24 drawings of three shapes, in memory."""
    generator = np.random.default_rng(1)
    sketches = [
        Sketch.from_strokes([_strokes(word, generator)], id=f"{word}-{n}", fit=True)
        for word in WORDS
        for n in range(8)
    ]
    split = np.tile([0, 0, 0, 0, 0, 1, 2, 2], 3)
    return LabelledSet("shapes", SketchBatch.from_sketches(sketches), np.repeat([0, 1, 2], 8), WORDS, split)


def recipe(*changes: str) -> Recipe:
    """The recipe for QuickDraw at test size."""
    kept = [c for c in CHANGES if not c.startswith("data.")]
    small = [
        *("teacher.network.backbone=mobile_small", "teacher.network.weights=null"),
        *("student.network.backbone=vgg_tiny", "student.network.weights=null", "student.canvases_per_step=null"),
        *("teacher.optimization.precision=float32", "student.optimization.precision=float32"),
        *("selector.folds=2", "selector.fold_epochs=null", "recognition.views=2", "recognition.dropout=0"),
    ]
    return override(find_recipe("quickdraw"), [*small, *kept, *changes])


def test_folds_hold_the_same_share_of_every_category() -> None:
    data = labelled()
    folds = drawing_folds(data, recipe("selector.folds=2").selector, seed=0)
    assert folds.judges == ("fold-0", "fold-1") and folds.student.tolist() == data.sketch_indices(0).tolist()
    assert sorted(np.concatenate(folds.rewarded)) == data.sketch_indices(0).tolist()
    for fitted, rewarded in zip(folds.fitted, folds.rewarded, strict=True):
        assert not set(fitted) & set(rewarded)
        assert set(np.bincount(data.labels[rewarded])) <= {2, 3}
    held = drawing_folds(data, recipe("selector.folds=0", "selector.holdout=0.4").selector, seed=0)
    assert held.judges == ("student",) and np.bincount(data.labels[held.rewarded[0]]).tolist() == [2, 2, 2]
    assert not set(held.student) & set(held.rewarded[0])


def test_parts_of_workers_make_the_batch_of_one_process() -> None:
    data = labelled()
    task = Recognition(recipe(), data)
    examples = task.teacher_examples(data.sketch_indices(0), seed=3)
    (batch, *_) = examples.epoch(1)
    plan = BatchPlan(batch, (16, 32))
    whole = examples.compose(plan, epoch=1, rows=np.arange(len(batch)))
    parts = [examples.compose(plan, epoch=1, rows=rows) for rows in np.array_split(np.arange(len(batch)), 2)]
    for k in range(2):
        assert torch.equal(whole[k], torch.cat([part[k] for part in parts]))
    assert sorted(np.concatenate(examples.epoch(1))) == data.sketch_indices(0).tolist()
    assert not torch.equal(whole[0], examples.compose(plan, epoch=2, rows=np.arange(len(batch)))[0])


def test_objective_is_the_stated_mixture() -> None:
    """λ·CE + (1−λ)·(T²·KL + scale·L_RKD), every term averaged over the canvases."""
    settings = recipe(
        "student.distillation.ranking_share=0.3",
        "student.distillation.scale=2.0",
        "student.distillation.normalize=true",
        "recognition.temperature=3.0",
        "recognition.logits_weight=0.7",
        "recognition.label_smoothing=0.2",
    )
    generator = torch.Generator().manual_seed(0)
    teacher = {
        "logits": torch.randn(2, 24, 3, generator=generator),
        "embeddings": torch.randn(2, 24, 6, generator=generator),
    }
    sketches, labels = np.array([0, 9, 17, 18]), torch.tensor([0, 1, 2, 2])
    logits = torch.randn(2, 4, 3, generator=generator)
    embeddings = torch.randn(2, 4, 5, generator=generator)
    loss, figures = distillation_objective(settings, teacher)(logits, embeddings, labels, sketches, 1)
    entropy = sum(float(F.cross_entropy(row, labels, label_smoothing=0.2)) for row in logits) / 2
    wanted = (teacher["logits"][1, sketches] / 3.0).softmax(dim=1)
    divergence = 0.0
    for row in logits:
        found = (row / 3.0).softmax(dim=1)
        divergence += 9.0 * float((wanted * (wanted.log() - found.log())).sum(dim=1).mean()) / 2
    place = teacher["embeddings"][1, sketches]
    relational = sum(
        float(relational_huber(place, place, row, embeddings[-1], content=torch.arange(4), normalize=True))
        for row in embeddings
    ) / 2
    assert figures["loss_labels"] == pytest.approx(entropy, rel=1e-5)
    assert figures["loss_logits"] == pytest.approx(0.7 * divergence, rel=1e-4)
    assert figures["loss_relational"] == pytest.approx(2.0 * relational, rel=1e-4)
    assert float(loss) == pytest.approx(0.3 * entropy + 0.7 * (0.7 * divergence + 2.0 * relational), rel=1e-4)
    assert float(label_objective(settings.recognition)(logits, embeddings, labels, sketches, 0)[0]) == pytest.approx(
        entropy, rel=1e-5
    )


def test_the_full_network_is_asked_about_the_views_that_students_see(tmp_path: Path) -> None:
    data = labelled()
    settings = recipe("teacher.optimization.epochs=1", "teacher.members=1")
    task, folder, train = Recognition(settings, data), RunFolder(tmp_path), data.sketch_indices(0)
    train_member(0, task, LocalRuntime(), folder, sketches=train, weights=None)
    task.store_teacher(LocalRuntime(), folder)
    from sketchynet.checkpoint import read_network
    from sketchynet.stages.networks import read_embedder

    stored = read_network(folder.teacher_embeddings)
    assert stored["logits"].shape == (2, 24, 3)
    assert stored["logits"][:, data.split != 0].isnan().all() and stored["logits"][:, train].isfinite().all()
    member = read_embedder(folder.final("teacher-0"))
    assert isinstance(member, Classifier)
    examples = task.student_examples(train, folder, distilled=True, seed=500, device=torch.device("cpu"))
    for epoch in (0, 1, 3):
        (canvas,) = examples.compose(BatchPlan(train[:5], (32,)), epoch=epoch, rows=np.arange(5))
        with torch.no_grad():
            logits, embeddings = member.classify(canvas)
        torch.testing.assert_close(stored["logits"][epoch % 2, train[:5]].float(), logits, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(stored["embeddings"][epoch % 2, train[:5]].float(), embeddings, atol=2e-3, rtol=2e-3)


def test_outcomes_are_the_naive_rank_and_margin() -> None:
    data = labelled()
    torch.manual_seed(0)
    judges = [Classifier("mobile_small", classes=3, canvases=(16, 32)).eval() for _ in range(2)]
    for judge in judges:
        torch.nn.init.normal_(judge.head.weight)
    train = data.sketch_indices(0)
    worker = RecognitionWorker(data, judges, (train[::2], train[1::2]), recipe("selector.margin=0.25"))
    request = RolloutRequest(train[[3, 0, 8]], np.zeros(3, int), np.array([1, 0, 1]))
    found = worker(request)
    for row, (sketch, canvas, judge) in enumerate(zip(request.sketches, (32, 16, 32), (1, 0, 0), strict=True)):
        drawn = torch.from_numpy(rasterize(data.sketches.select(np.array([sketch])), canvas))
        with torch.no_grad():
            shares = judges[judge].classify(drawn)[0][0].softmax(dim=0).tolist()
        first, second = sorted(shares, reverse=True)[:2]
        assert found.clearness[row] == pytest.approx(first - second, abs=1e-4)
        own = shares.pop(data.labels[sketch])
        assert found.ranks[row] == 1 + sum(share >= own for share in shares)
        assert found.triplets[row] == pytest.approx(max(0.0, 0.25 + max(shares) - own), abs=1e-4)
    with pytest.raises(ValueError, match="no student that may judge"):
        worker(RolloutRequest(data.sketch_indices(2)[:1], np.zeros(1, int), np.zeros(1, int)))


def test_ranking_losses_do_not_belong_to_recognition() -> None:
    with pytest.raises(InputError, match=r"student\.ranking is about photos"):
        recipe("student.ranking.margin=0.5")


def test_the_whole_pipeline_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_words(tmp_path / "data" / "quickdraw", 16)
    file, run = tmp_path / "small.json", tmp_path / "run"
    changes = ("selector.picked_on=folds", "teacher.optimization.epochs=6", "student.optimization.epochs=12", "student.optimization.learning_rate=0.003")
    file.write_text(recipe(*changes).model_dump_json())
    places = ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--track", "jsonl"]
    stopped = ["train", str(file), "--output", str(run), *places]
    assert main([*stopped, "--stage", "teacher"]) == 0
    assert main(["train", "--resume", str(run), *places]) == 0
    summary = json.loads((run / "evaluation.json").read_text())
    assert summary["task"] == "recognition" and summary["gallery_count"] == 3 and summary["queries_count"] == 12
    assert {"full", "direct@16", "v1@16", "v1@32", "v2", "mixture", "shuffled", "rule", "exit", "oracle"} <= set(summary["systems"])
    assert summary["systems"]["v1@32"]["all"]["acc1"] > 0.5  # a third by chance
    assert summary["queries"][0]["category"] in WORDS
    names = {p.name for p in (run / "pictures").iterdir()}
    # A sheet of failures only where there are some.
    assert names - {"failures.png"} == {
        "accuracy_flops.png", "canvases.png", "recognition.png", "by_canvas.png", "training.png"
    }
    assert "SketchyNetV2" in capsys.readouterr().out
