"""Bad input: one clear error, or, where the user asked for it, a counted and listed skip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sketchynet.errors import InputError

LISTED = 1000
"""So many messages are kept; beyond them only the count goes on."""


class Skips:
    """Takes every fault of the input. Without `allowed` the first one is raised; with it they are collected."""

    def __init__(self, allowed: bool = False) -> None:
        self.allowed = allowed
        self.count = 0
        """Faults so far, all of them."""
        self.messages: list[str] = []
        """Their messages, up to LISTED."""

    def add(self, fault: InputError | str) -> None:
        """Counts and lists a fault, or raises it."""
        error = fault if isinstance(fault, InputError) else InputError(fault)
        if not self.allowed:
            raise error
        self.count += 1
        if len(self.messages) < LISTED:
            self.messages.append(str(error))

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Faults raised inside are added."""
        try:
            yield
        except InputError as error:
            self.add(error)

    def notes(self) -> tuple[str, ...]:
        """One line that counts, and one a skip."""
        if not self.count:
            return ()
        more = self.count - len(self.messages)
        head = f"{self.count:,} skipped because of bad input" + (f", the first {LISTED:,} listed" if more else "")
        return (head, *(f"skipped: {message}" for message in self.messages))
