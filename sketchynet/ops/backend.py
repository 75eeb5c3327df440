"""Which implementation of an operator runs."""

from __future__ import annotations

from sketchynet.errors import InputError

BACKENDS = ("auto", "eager", "triton")


def choose_backend(backend: str) -> str:
    """Resolve `backend` to the implementation that runs; an unavailable explicit choice raises InputError."""
    if backend == "triton":
        raise InputError("backend 'triton' is not part of this build: choose 'auto' or 'eager'")
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown: choose one of {', '.join(BACKENDS)}")
    return "eager"
