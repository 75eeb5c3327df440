"""The error that bad input raises."""

from __future__ import annotations


class InputError(ValueError):
    """Input that a user can mend: the message names the value, the place and the way out.

    The command line prints the message alone and exits with status 2; every other exception is a defect
    of the program and keeps its traceback.
    """


class NotFiniteError(InputError, FloatingPointError):
    """Embeddings that hold NaN or infinity; a training loop adds where it was and what to lower."""
