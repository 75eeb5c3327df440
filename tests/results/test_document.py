from __future__ import annotations

from pathlib import Path

import pytest
from summaries import make_summary, member

from sketchynet.cli import main
from sketchynet.errors import InputError
from sketchynet.results.document import fill_document
from sketchynet.results.summary import read_summaries, write_summary

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ("table tiny", "claims tiny", "canvases tiny", "plot tiny", "overview tiny tiny", "experiment claim", "experiment claim tiny", "runs", "table absent", "overview tiny absent")


def _document(folder: Path, *places: str) -> Path:
    path = folder / "docs" / "results.md"
    path.parent.mkdir(exist_ok=True)
    parts = [f"<!-- results: {place} -->\nfaded\n<!-- /results -->" for place in places]
    path.write_text("# Results\n\nProse – kept.\n\n" + "\n\nmore prose\n".join(parts) + "\n\nend\n", encoding="utf-8")
    return path


def test_marked_places_are_filled_and_prose_is_kept(tmp_path: Path) -> None:
    runs = [make_summary(seed, experiments=(member(),)) for seed in (0, 1)]
    document = _document(tmp_path, *KINDS)
    text = fill_document(document, runs, images=None)
    assert text.startswith("# Results\n\nProse – kept.\n\n<!-- results: table tiny -->\n\n3 test queries")
    assert text.endswith("<!-- /results -->\n\nend\n") and text.count("more prose") == len(KINDS) - 1 and "faded" not in text
    assert "![tiny: accuracy over FLOPs](images/results/tiny.png)" in text
    assert "*No finished run of `absent` yet.*" in text
    assert "| `tiny0000000000000000000000000000` | tiny | 0 |" in text
    document.write_text(text, encoding="utf-8")
    assert fill_document(document, runs, images=None) == text  # filling again changes nothing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n<!-- results: tabel tiny -->\n<!-- /results -->\n", "line 2: no place `tabel tiny`; there are table RECIPE"),
        ("<!-- results: table tiny -->\n", "the place of line 1 is not closed"),
        ("<!-- results: runs -->\n<!-- results: runs -->\n", "line 2: the place of line 1 is not closed"),
        ("a\n<!-- /results -->\n", "line 2: `<!-- /results -->` without"),
        ("<!-- results table tiny -->\n<!-- /results -->\n", "line 1: `<!-- results table tiny -->` is no mark"),
    ],
)
def test_a_wrong_mark_is_named_and_nothing_is_written(tmp_path: Path, text: str, message: str) -> None:
    document = tmp_path / "results.md"
    document.write_text(text)
    with pytest.raises(InputError, match=message):
        fill_document(document, [make_summary(0)], images=tmp_path)
    assert document.read_text() == text and [p.name for p in tmp_path.iterdir()] == ["results.md"]


def test_the_command_fills_checks_and_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write_summary(make_summary(seed), tmp_path / "summaries")
    document = _document(tmp_path, "table tiny", "plot tiny")
    command = ["results", str(tmp_path / "summaries"), "--out", str(document)]
    assert main([*command, "--check"]) == 1 and "is outdated: run `sketchynet results" in capsys.readouterr().out
    assert main(command) == 0 and (document.parent / "images" / "results" / "tiny.png").stat().st_size > 1000
    assert main([*command, "--check"]) == 0
    document.write_text(document.read_text().replace("50.00", "51.00"))
    assert main([*command, "--check"]) == 1
    assert main(["results", str(tmp_path / "summaries"), "--export", str(tmp_path / "copy")]) == 0
    assert "## tiny" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == ["tiny-s0-tiny0000.json", "tiny-s1-tiny1000.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results", "/nowhere"], "/nowhere: there is no such file or folder"),
        (["results", "--check"], "name it with --out"),
        (["experiment", "list", "distilation"], "did you mean 'distillation'"),
        (["experiment", "run", "rivals", "--only", "magic"], "no configuration 'magic'; there are: relations"),
        (["experiment", "run", "rivals", "--recipe", "demmo"], "did you mean 'demo'"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_experiments_are_listed_with_their_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "list"]) == 0
    listed = capsys.readouterr().out
    for name in ("distillation", "relations", "rivals", "canvases", "resolution", "prices", "policies", "students"):
        assert name in listed
    assert main(["experiment", "list", "relations"]) == 0
    assert "without sketch–positive\n    student.distillation.relations=[0, 1, 1]" in capsys.readouterr().out


def test_the_committed_document_is_what_its_summaries_give() -> None:
    document, folder = ROOT / "docs" / "results.md", ROOT / "docs" / "results"
    summaries = read_summaries([folder] if folder.exists() else [])
    text = document.read_text(encoding="utf-8")
    assert "<!-- results: " in text
    assert fill_document(document, summaries, images=None) == text, (
        "run `sketchynet results docs/results --out docs/results.md` and commit what it writes"
    )
    for line in text.split("\n"):
        if line.startswith("![") and "](images/results/" in line:
            assert (document.parent / line.rpartition("](")[2].removesuffix(")")).exists(), line
