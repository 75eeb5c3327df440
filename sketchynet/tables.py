"""Aligned text tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """A table with a rule below its head; the columns named in ``right`` are set to the right."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(columns), "  ".join("─" * width for width in widths), *(line(row) for row in rows)])
