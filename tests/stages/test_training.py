"""The training loop: accumulation, precision, checkpoints inside an epoch, damaged ones, shares too small."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from networks import Stop, student_stage
from safetensors.torch import load_file

from sketchynet import checkpoint
from sketchynet.errors import InputError
from sketchynet.stages.runtime import LocalRuntime, Report
from sketchynet.stages.steps import check_shares
from sketchynet.stages.training import TrainingStage, train_network


def train(stage: TrainingStage, folder: Path, *, stop: int | None = None) -> list[Report]:
    """Trains; with ``stop``, ends when so many steps have been taken."""
    reports: list[Report] = []
    stage.examples.stop = stop
    with pytest.raises(Stop) if stop is not None else nullcontext():
        train_network(stage, LocalRuntime(listener=reports.append), folder)
    return reports


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "network.safetensors")


def assert_same_bits(found: Path, wanted: Path) -> None:
    expected = weights(wanted)
    for name, value in weights(found).items():
        assert value.equal(expected[name]), name


@pytest.mark.parametrize("norm", ["frozen", "private"])
def test_a_step_in_parts_is_the_whole_step(tmp_path: Path, norm: str) -> None:
    """All negatives and relations are kept: with frozen norms the losses and weights are those of the whole batch.

    With private norms a part has statistics of its own; they are counted once.
    """
    runs = {}
    for parts in (1, 2, 5):
        changes = (f"student.network.norm={norm}", f"student.optimization.accumulate={parts}")
        stage, watched = student_stage(*changes, dtype=torch.float64)
        train(stage, tmp_path / str(parts))
        runs[parts] = watched.losses, weights(tmp_path / str(parts))
    losses, whole = runs[1]
    for parts in (2, 5):
        found, trained = runs[parts]
        if norm == "frozen":
            assert found == pytest.approx(losses, rel=0, abs=1e-10)
            for name, value in whole.items():
                torch.testing.assert_close(trained[name], value, rtol=0, atol=1e-8)
        else:
            assert found != pytest.approx(losses, rel=0, abs=1e-10)
            counts = [name for name in whole if name.endswith("num_batches_tracked")]
            assert counts and all(trained[n].equal(whole[n] * parts) for n in counts)


def test_private_norms_in_parts_equal_plain_accumulation_of_the_gradient(tmp_path: Path) -> None:
    """One step of the caching against autograd over all parts at once."""
    from sketchynet.stages.batches import BatchPlan, Prefetched
    from sketchynet.stages.steps import Step

    def gradients(cached: bool) -> dict[str, torch.Tensor | None]:
        stage, watched = student_stage(
            "student.network.norm=private", "student.optimization.gradient_clip=null", dtype=torch.float64
        )
        torch.manual_seed(0)
        network = stage.build().train()
        plan = BatchPlan(stage.examples.epoch(0)[0], *stage.plan(0, 0))
        ((_, parts),) = Prefetched(
            [plan], lambda p, rows: watched.compose(p, epoch=0, rows=rows), rank=0, world_size=1, parts=3
        )
        if cached:
            step = Step(network, watched.outputs, stage.optimization, LocalRuntime())
            step(parts, lambda outputs: watched.loss(outputs, plan, 0), (0,))
        else:
            embedded = [watched.outputs(network, part, torch.device("cpu")) for part in parts]
            loss, _ = watched.loss([torch.cat(rows) for rows in zip(*embedded, strict=True)], plan, 0)
            loss.backward()
        return {name: p.grad for name, p in network.named_parameters()}

    found = gradients(True)
    for name, gradient in gradients(False).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_and_resumes_bit_for_bit(tmp_path: Path, precision: str) -> None:
    changes = (
        f"student.optimization.precision={precision}",
        "student.optimization.epochs=3",
        "student.optimization.checkpoint_every=1",
        "student.optimization.averaging=0.9",
        "student.network.norm=private",
    )
    stage, full = student_stage(*changes)
    train(stage, tmp_path / "alone")
    stage, exact = student_stage(*changes, "student.optimization.precision=float32")
    train(stage, tmp_path / "exact")
    assert full.losses != exact.losses and full.losses == pytest.approx(exact.losses, rel=0.1)
    for steps in (1, 2, 1):
        stage, watched = student_stage(*changes)
        train(stage, tmp_path / "killed", stop=steps)
        assert len(watched.losses) == steps  # every run went on where the one before was stopped
    if precision == "float16":
        newest, _ = checkpoint.newest_whole(tmp_path / "killed")
        assert newest is not None  # overflows have halved the first scale of 65536, and these steps were left out
        assert checkpoint.read_state(newest)["scaler"]["scale"] in (16384.0, 32768.0)
    stage, watched = student_stage(*changes)
    reports = train(stage, tmp_path / "killed")
    assert watched.losses == full.losses[4:]
    assert_same_bits(tmp_path / "killed", tmp_path / "alone")
    assert {r.step: r.metrics["loss"] for r in reports if r.kind == "metrics"}[3] == sum(full.losses[4:]) / 2


def test_damaged_checkpoint_is_said_and_the_one_before_is_used(tmp_path: Path) -> None:
    changes = ("student.optimization.epochs=4",)
    stage, _ = student_stage(*changes)
    train(stage, tmp_path / "alone")
    stage, _ = student_stage(*changes)
    train(stage, tmp_path / "run", stop=7)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["epoch-00002", "epoch-00003"]
    file = tmp_path / "run" / "epoch-00003" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1  # one bit, which safetensors alone would not notice
    file.write_bytes(content)
    stage, watched = student_stage(*changes)
    reports = train(stage, tmp_path / "run")
    (notice,) = [r.payload["text"] for r in reports if r.kind == "notice"]
    assert "epoch-00003/state.safetensors is damaged" in notice and notice.endswith("epoch-00002")
    assert len(watched.losses) == 4
    assert_same_bits(tmp_path / "run", tmp_path / "alone")


def test_all_checkpoints_damaged_is_an_error(tmp_path: Path) -> None:
    stage, _ = student_stage("student.optimization.epochs=4")
    train(stage, tmp_path, stop=5)
    for file in tmp_path.glob("epoch-*/network.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    stage, _ = student_stage("student.optimization.epochs=4")
    with pytest.raises(InputError, match="every checkpoint is damaged.*bytes instead of.*trains this stage from its start"):
        train(stage, tmp_path)


def test_disk_full_at_a_checkpoint_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("student.optimization.epochs=4",)
    stage, _ = student_stage(*changes)
    train(stage, tmp_path / "alone")
    original, calls = checkpoint.save_file, []

    def full(tensors: dict, path: Path) -> None:
        calls.append(path)
        if len(calls) == 6:  # the state of the third checkpoint, of which a half is written
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    stage, _ = student_stage(*changes)
    with pytest.raises(InputError, match="epoch-00003: the disk is full; nothing of it was kept"):
        train(stage, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["epoch-00001", "epoch-00002"]
    monkeypatch.undo()
    stage, watched = student_stage(*changes)
    train(stage, tmp_path / "run")
    assert len(watched.losses) == 4
    assert_same_bits(tmp_path / "run", tmp_path / "alone")


@pytest.mark.parametrize(
    ("norm", "workers", "accumulate", "fits"),
    [("frozen", 6, 1, True), ("private", 5, 1, True), ("private", 6, 1, False), ("frozen", 6, 2, False)],
)
def test_shares_that_are_too_small_are_refused(norm: str, workers: int, accumulate: int, fits: bool) -> None:
    stage, _ = student_stage(f"student.optimization.accumulate={accumulate}")
    batches = stage.examples.epoch(0)
    assert sorted(map(len, batches)) == [11, 12]
    if fits:
        check_shares("student", batches, norm, stage.optimization, workers)
        return
    with pytest.raises(InputError, match="student: 6 workers.*smallest has 11 examples.*Use fewer --workers"):
        check_shares("student", batches, norm, stage.optimization, workers)


def test_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    stage, watched = student_stage()
    watched.examples._objective = lambda *_: (torch.tensor(float("nan"), requires_grad=True), {})
    with pytest.raises(InputError, match="student: the loss is nan in epoch 1, step 1; lower optimization.learning_rate"):
        train(stage, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch's compiler imports
def test_compiled_network_trains_as_the_plain_one(tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        stage, watched = student_stage(
            "student.network.norm=private", f"student.optimization.compile={str(compiled).lower()}"
        )
        train(stage, tmp_path / str(compiled))
        losses[compiled] = watched.losses
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    assert weights(tmp_path / "True").keys() == weights(tmp_path / "False").keys()
