"""SVG drawings: geometry against its definition, erasers, hostile files, and the real Sketchy files against PNGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sketchy_truth import agreement

from sketchynet import InputError, SketchBatch, rasterize
from sketchynet.data import svg
from sketchynet.data.svg import FLATNESS, read_svg, read_svg_strokes
from sketchynet.sketch import DEFAULT_WIDTH

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="640" height="480">'


def save(folder: Path, body: str, head: str = HEAD) -> Path:
    path = folder / "drawing.svg"
    path.write_text(f"{head}{body}</svg>")
    return path


def stroke(data: str, attributes: str = 'stroke="#000" fill="none"') -> str:
    return f'<path d="{data}" {attributes}/>'


def test_lines_and_subpaths(tmp_path: Path) -> None:
    path = save(tmp_path, stroke("M10 10 L20 10 h5 v10 M 50,60 l 1 2 -3 4") + '<line x1="1" x2="5" y2="3" stroke="red"/>')
    drawing = read_svg_strokes(path)
    assert [s.tolist() for s in drawing.strokes] == [
        [[10, 10], [20, 10], [25, 10], [25, 20]],
        [[50, 60], [51, 62], [48, 66]],
        [[1, 0], [5, 3]],
    ]
    assert drawing.widths.tolist() == [1, 1, 1] and not drawing.erasers.any()


def test_shapes_closed_paths_and_dots(tmp_path: Path) -> None:
    body = (
        '<g stroke="black" fill="none"><polyline points="0,0 4,0 4,3"/><polygon points="0 0 4 0 4 3"/>'
        f'<rect x="1" y="2" width="3" height="4"/>{stroke("M7 7z", "")}{stroke("M1 1 L5 1 5 5 z l -1 -1", "")}'
        f'{stroke("M9 9", "")}</g>'
    )
    strokes = [s.tolist() for s in read_svg_strokes(save(tmp_path, body)).strokes]
    assert strokes[0] == [[0, 0], [4, 0], [4, 3]] and strokes[1] == [[0, 0], [4, 0], [4, 3], [0, 0]]
    assert strokes[2] == [[1, 2], [4, 2], [4, 6], [1, 6], [1, 2]]
    assert strokes[3] == [[7, 7], [7, 7]]
    assert strokes[4] == [[1, 1], [5, 1], [5, 5], [1, 1]] and strokes[5] == [[1, 1], [0, 0]]
    assert len(strokes) == 6  # a move alone draws nothing


def test_transforms_and_inherited_styles(tmp_path: Path) -> None:
    body = (
        '<g transform="translate(10 20) scale(2)" style="stroke:#123456;stroke-width:3;fill:none">'
        f'<g transform="rotate(90)">{stroke("M0 0 L1 0", "")}</g></g>'
        f'<g display="none">{stroke("M0 0 L99 99")}</g>{stroke("M0 0 L99 99", "stroke=&quot;none&quot; fill=&quot;red&quot;")}'
    ).replace("&quot;", '"')
    drawing = read_svg_strokes(save(tmp_path, body))
    assert len(drawing.strokes) == 1 and np.allclose(drawing.strokes[0], [[10, 20], [10, 22]])
    assert drawing.widths == pytest.approx([6])


def test_outlines_of_a_file_without_strokes(tmp_path: Path) -> None:
    drawing = read_svg_strokes(save(tmp_path, '<path d="M0 0 L4 0 L4 4 z" fill="black"/>'))
    assert [s.tolist() for s in drawing.strokes] == [[[0, 0], [4, 0], [4, 4], [0, 0]]]


numbers = st.floats(-200, 200, allow_nan=False).map(lambda value: round(value, 2))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(numbers, numbers), min_size=4, max_size=4))
def test_a_flattened_curve_stays_near_the_curve(tmp_path_factory: pytest.TempPathFactory, points: list) -> None:
    control = np.array(points)
    (x0, y0), *others = points
    data = f"M{x0} {y0} C" + " ".join(f"{x} {y}" for x, y in others)
    chain = read_svg_strokes(save(tmp_path_factory.mktemp("svg"), stroke(data))).strokes[0]
    t = np.linspace(0, 1, 400)[:, None]
    basis = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]
    curve = sum(b * p for b, p in zip(basis, control, strict=True))
    start, end = chain[:-1, None], chain[1:, None]
    along = end - start
    place = ((curve - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30)
    gaps = np.linalg.norm(start + np.clip(place, 0, 1)[..., None] * along - curve, axis=-1).min(axis=0)
    extent = float((control.max(axis=0) - control.min(axis=0)).max())
    assert gaps.max() <= FLATNESS * extent + 1e-6


def test_arcs_become_circles(tmp_path: Path) -> None:
    circle = read_svg_strokes(save(tmp_path, '<circle cx="50" cy="40" r="10" stroke="black"/>')).strokes[0]
    assert np.abs(np.hypot(circle[:, 0] - 50, circle[:, 1] - 40) - 10).max() < 20 * FLATNESS
    arc = read_svg_strokes(save(tmp_path, stroke("M0 0a5 5 0 0110 0"))).strokes[0]
    assert np.abs(np.hypot(arc[:, 0] - 5, arc[:, 1]) - 5).max() < 10 * FLATNESS and arc[-1] == pytest.approx([10, 0])


def test_white_strokes_erase(tmp_path: Path) -> None:
    body = stroke("M0 0 L100 0") + stroke("M50 -50 L50 50", 'stroke="#fff" stroke-width="20" fill="none"')
    sketch = read_svg(save(tmp_path, body), "x")
    assert sketch.erasers is not None and sketch.erasers.tolist() == [False, True]
    assert sketch.widths is not None and sketch.widths[0] == pytest.approx(DEFAULT_WIDTH)
    # 20 units of 100 across 0.92 of the frame, more by what the ink is thicker than 1 unit (0.0092): nothing.
    assert sketch.widths[1] == pytest.approx(20 * 0.92 / 100)
    # The ink alone decides the frame.
    assert sketch.points[0] == pytest.approx([0.04, 0.5]) and sketch.points[1] == pytest.approx([0.96, 0.5])
    ink = rasterize(SketchBatch.from_sketches([sketch]), 100)[0]
    assert ink[50, 20] > 0 and ink[48:52, 45:55].max() == 0 and ink[50, 80] > 0


def test_a_drawing_in_white_alone_is_ink(tmp_path: Path) -> None:
    sketch = read_svg(save(tmp_path, stroke("M0 0 L100 50", 'stroke="white"')))
    assert sketch.erasers is None and sketch.widths is None


BOMB = (
    '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<svg xmlns="http://www.w3.org/2000/svg"><text>&b;</text></svg>'
)
EXTERNAL = (
    '<!DOCTYPE svg [\n<!ENTITY secret SYSTEM "file:///etc/passwd">]>'
    '<svg xmlns="http://www.w3.org/2000/svg"><text>&secret;</text></svg>'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "line 1: declares the entity 'a'"),
        (EXTERNAL, "line 2: declares the entity 'secret'"),
        (f"{HEAD}<g>" * 1 + "</svg>", "broken XML .*line 1"),
        ("", "broken XML"),
        (f"{HEAD}</svg>", "the SVG has no strokes"),
        (f'{HEAD}<image xlink:href="http://example.org/x.png"/></svg>', "no strokes"),
        (f"{HEAD}\n{stroke('M0 0 L 5')}</svg>", "line 2: the data of a path"),
        (f"{HEAD}{stroke('L 5 5')}</svg>", "does not begin with M"),
        (f"{HEAD}{stroke('M0 0 L nan 3')}</svg>", "the data of a path"),
        (f"{HEAD}{stroke('M0 0 L 1e400 3')}</svg>", "not finite"),
        (f"{HEAD}{stroke('M0 0 L 1e12 3')}</svg>", "beyond"),
        (f'{HEAD}<polyline points="1 2 3" stroke="red"/></svg>', "points of a polyline"),
        (f'{HEAD}<g id="a">{stroke("M0 0L1 1")}</g><use xlink:href="#a"/></svg>', "a `use` element"),
        (f"{HEAD}{'<g>' * 200}{'</g>' * 200}</svg>", "nested more than 100 deep"),
        (f'{HEAD}<path d="M0 0 L5 5" stroke="black" transform="scale(1e300)"/></svg>', "beyond|not finite"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "drawing.svg"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"drawing\.svg.*({message})"):
        read_svg(path)


def test_absurd_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, stroke("M0 0" + " L1 1 2 2" * 50) * 3)
    monkeypatch.setattr(svg, "MAX_POINTS", 200)
    with pytest.raises(InputError, match="more than 200 points"):
        read_svg(path)
    monkeypatch.setattr(svg, "MAX_SEGMENTS", 250)
    with pytest.raises(InputError, match="line 1: more than 250 segments"):
        read_svg(path)
    monkeypatch.setattr(svg, "MAX_ELEMENTS", 2)
    with pytest.raises(InputError, match="more than 2 elements"):
        read_svg(path)
    monkeypatch.setattr(svg, "MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"at most 100 are read"):
        read_svg(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_svg(tmp_path / "nothing.svg")


def test_real_drawings_agree_with_their_pictures(data_root: Path) -> None:
    """84 elephants are there as SVG and as PNG, the PNG cropped and rescaled per drawing and axis."""
    pairs = [
        (path, png)
        for path in sorted((data_root / "sketchy_svg/sketches/elephant").glob("*.svg"))
        if (png := data_root / "sketchy_raster/sketches/elephant" / f"{path.stem}.png").is_file()
    ]
    assert len(pairs) == 84
    found = [agreement(path, png) for path, png in pairs]
    assert np.mean([a.iou for a in found]) >= 0.9 and min(a.iou for a in found) >= 0.8
    assert {a.shift for a in found} == {(0, 0)}
    # The pictures squeeze 640×480 into a square.
    assert np.allclose([a.scale[0] / a.scale[1] for a in found], 0.75, atol=0.02)


ERASED = ("n02503517_792-3", "n02503517_10036-8", "n02503517_8518-2", "n02503517_79-3")
"""Drawings in which much was erased."""


def test_real_erasers_matter(data_root: Path) -> None:
    gains = []
    for name in ERASED:
        files = (
            data_root / "sketchy_svg/sketches/elephant" / f"{name}.svg",
            data_root / "sketchy_raster/sketches/elephant" / f"{name}.png",
        )
        gains.append(agreement(*files).iou - agreement(*files, erasers=False).iou)
    assert min(gains) > 0.1
