from __future__ import annotations

import errno

import pytest
import torch

from sketchynet import checkpoint
from sketchynet.errors import InputError


def _write(directory, **changes):
    given = {"network": {"w": torch.arange(3.0)}, "config": {"kind": "x"}, "metrics": {}, "state": {"epoch": 1}}
    checkpoint.write_checkpoint(directory, **(given | changes))


def test_state_returns_as_it_was_given(tmp_path) -> None:
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "best": None, "names": ["a", 1, 2.5], "pair": (1, True)}
    _write(tmp_path / "epoch-00001", state=state)
    found = checkpoint.read_state(tmp_path / "epoch-00001")
    assert found["names"] == ["a", 1, 2.5] and found["pair"] == (1, True) and found["best"] is None
    again = torch.optim.AdamW(network.parameters())
    again.load_state_dict(found["optimizer"])
    for number, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            assert torch.equal(again.state_dict()["state"][number][key], value)


def test_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch) -> None:
    _write(tmp_path / "epoch-00001")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(InputError, match="epoch-00002: the disk is full.*--resume"):
        _write(tmp_path / "epoch-00002")
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-00001"]


def test_newest_epoch_is_found_and_old_ones_pruned(tmp_path) -> None:
    for epoch in (1, 2, 10):
        _write(checkpoint.epoch_directory(tmp_path, epoch))
    (tmp_path / ".epoch-00011-abc").mkdir()
    _write(checkpoint.epoch_directory(tmp_path, 2, 30))
    newest, damaged = checkpoint.newest_whole(tmp_path)
    assert newest is not None and newest.name == "epoch-00010" and not damaged
    checkpoint.prune_epochs(tmp_path, keep=2)
    checkpoint.remove_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-00002-step-000030", "epoch-00010"]


def test_truncated_weights_are_named(tmp_path) -> None:
    _write(tmp_path / "final")
    file = tmp_path / "final" / "network.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match="network.safetensors is damaged"):
        checkpoint.read_network(tmp_path / "final")


def test_another_architecture_is_refused() -> None:
    network = torch.nn.Linear(2, 1)
    with pytest.raises(InputError, match="another architecture than Linear.*1 missing .first: bias"):
        checkpoint.load_into(network, {"weight": torch.zeros(1, 2)}, place="runs/x")
    with pytest.raises(InputError, match=r"weight is \(3, 2\) instead of \(1, 2\)"):
        checkpoint.load_into(network, {"weight": torch.zeros(3, 2), "bias": torch.zeros(1)}, place="runs/x")
