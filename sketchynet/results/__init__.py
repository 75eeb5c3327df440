"""Results: one small JSON a finished run, pooled over seeds into the tables and figures of docs/results.md."""

from __future__ import annotations

from sketchynet.results.document import fill_document
from sketchynet.results.pooling import pooled_table
from sketchynet.results.summary import Summary, read_summaries, summarise_run, write_summary

__all__ = ["Summary", "fill_document", "pooled_table", "read_summaries", "summarise_run", "write_summary"]
