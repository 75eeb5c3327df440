"""Tables that a person reads: of an evaluation, and of the paper's networks."""

from __future__ import annotations

from typing import Any

from sketchynet.flops import count_parameters, embedder_flops, selector_flops
from sketchynet.models import CANVASES, CanvasSelector, Embedder
from sketchynet.tables import aligned

_NAMES = {
    "full": "full network",
    "direct": "trained directly",
    "v1": "SketchyNetV1",
    "v2": "SketchyNetV2",
    "mixture": "  best mixture of fixed canvases",
    "shuffled": "  its choices shuffled",
    "dealt": "  its choices shuffled within each category",
    "rule": "  rule on strokes, points or ink",
    "exit": "  early exit where the answer is clear",
    "oracle": "  oracle",
}


def display_name(system: str) -> str:
    """A system's name for tables: ``v1@64`` becomes ``SketchyNetV1 at 64``."""
    network, _, canvas = system.partition("@")
    return _NAMES.get(network, network) + (f" at {canvas}" if canvas else "")


def evaluation_table(summary: dict[str, Any]) -> str:
    """The final table: network, parameters, GFLOPs a query, Acc@1/5/10 with 95 % intervals, mean canvas.

    With several categories the accuracies are over all queries, and Acc@1 of each category follows.
    """
    systems = {name: scopes for name, scopes in summary["systems"].items() if "[" not in name}
    first = next(iter(systems.values()))
    categories = [scope for scope in first if scope not in ("all", "details")]
    columns = ["network", "params", "GFLOPs", "Acc@1", "95 %", "Acc@5", "Acc@10", "canvas"]
    columns += [f"{c} Acc@1" for c in categories]
    rows = []
    for name, scopes in systems.items():
        f = scopes["all"]
        row = [display_name(name), f"{f['parameters'] / 1e6:.2f} M", f"{f['gflops']:.4g}", _percent(f["acc1"])]
        row += [f"{_percent(f['acc1_low'])}–{_percent(f['acc1_high'])}", _percent(f["acc5"]), _percent(f["acc10"])]
        row.append(f"{f['mean_canvas']:.0f}")
        rows.append(row + [_percent(scopes[c]["acc1"]) for c in categories])
    lines = [aligned(columns, rows, right=columns[1:])]
    shown = [f"v1@{summary['canvases'][-1]}", "v2"]
    grey = {name: systems[name]["details"].get("gflops_grey") for name in shown if name in systems}
    if None not in grey.values():
        named = ", ".join(f"{display_name(name)} {value:.4g}" for name, value in grey.items())
        lines += ["", f"GFLOPs with the first layer folded to one channel: {named}"]
    if summary["differences"]:
        lines += ["", "differences of Acc@1 on the same queries, points with 95 % interval"]
        for pair, value in summary["differences"].items():
            a, b = pair.split(" - ")
            interval = f"{100 * value['value']:+.2f}  [{100 * value['low']:+.2f}, {100 * value['high']:+.2f}]"
            lines.append(f"  {display_name(a).strip()} − {display_name(b).strip()}: {interval}")
    leaks = summary["leaks"]
    if leaks:
        lines += ["", "note: the official split repeats pictures across its parts: " + _listed(leaks)]
    return "\n".join(lines)


def paper_table(steps: int = 64) -> str:
    """Parameters and GFLOPs of the paper's networks and of SqueezeNet 1.1 at every canvas of the paper.

    Args:
        steps: points that the selector reads.
    """
    selector = CanvasSelector()
    networks = [Embedder(name) for name in ("vgg16", "squeezenet1_1", "mobilenet_v2")]
    rows = []
    for network in networks:
        costs = {size: embedder_flops(network, size) for size in CANVASES}
        rows.append([network.config["backbone"], *_cost_cells(count_parameters(network), costs)])
    student, choice = networks[-1], selector_flops(selector, steps)
    rows.append([f"selector, {steps} points", *_cost_cells(count_parameters(selector), dict.fromkeys(CANVASES, choice))])
    costs = {size: embedder_flops(student, size) + choice for size in CANVASES}
    rows.append(["SketchyNetV2", *_cost_cells(count_parameters(student) + count_parameters(selector), costs)])
    costs = {size: embedder_flops(student, size, grey=True) + choice for size in CANVASES}
    rows.append(["  first layer folded", *_cost_cells(count_parameters(student) + count_parameters(selector), costs)])
    columns = ["network", "parameters", "", *(f"{size}×{size}" for size in CANVASES)]
    note = (
        "GFLOPs a query by canvas; a multiply-add counts two (convention of the paper). Folded: a grey canvas needs one\n"
        "channel of the first layer, which the paper's convention does not count on.\n"
        "The paper prints the parameters of SketchyNetV2 as 2.27 M: the same number, cut off."
    )
    return aligned(columns, rows, right=columns[1:]) + f"\n{note}"


def _cost_cells(parameters: int, flops: dict[int, int]) -> list[str]:
    return [f"{parameters:,}", f"{parameters / 1e6:.2f} M", *(_gflops(value / 1e9) for value in flops.values())]


def _gflops(value: float) -> str:
    """As the paper prints them: 40.18 and 0.833."""
    return f"{value:.2f} G" if value >= 10 else f"{value:.3f} G"


def _listed(leaks: list[list[str]]) -> str:
    return ", ".join(" = ".join(pair) for pair in leaks)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
