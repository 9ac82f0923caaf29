"""`doctor`: whether the farm is well, and if not, what is wrong and how to mend it. Nothing is changed.

Each check is a generator of findings over one `Patient`; later checks use what earlier ones found out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from libdeadline.errors import Trouble

from .layout import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from libdeadline.command import Run
    from libdeadline.records import Record

OK, NOTE, WRONG = "OK", "NOTE", "WRONG"  # a note is worth knowing and needs no mending


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says of one thing."""

    check: str
    subject: str  # what was looked at
    status: str
    text: str
    remedy: str | None = None

    def record(self) -> Record:
        from libdeadline.records import Resource

        data = {"check": self.check, "text": self.text} | ({"remedy": self.remedy} if self.remedy else {})
        return Resource.of(resource="check", id=self.subject, status=self.status, data=data)

    def line(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.status.lower():6}{self.subject}: {self.text}{remedy}\n"


@dataclass
class Patient:
    """A farm's folder, and what is known of it so far."""

    folder: Folder
    option: str  # what makes a dl-farm command mean this farm
    has_settings: bool = False  # config.json can be used
    has_keys: bool = False
    is_up: bool = False  # its supervisord answers
    processes: list[dict[str, Any]] = field(default_factory=list)
    answering: set[str] = field(default_factory=set)  # servers that answered a signed request

    @property
    def up(self) -> str:
        return f"dl-farm up{self.option}"

    @property
    def restart(self) -> str:
        return f"dl-farm down{self.option} && {self.up}"


def examine(folder: Folder, option: str, run: Run) -> Iterator[Finding]:
    """What all checks say, in the order in which one would ask.

    Raises: nothing that a check met: that is a finding as well.
    """
    from . import health_alive, health_at_rest

    patient = Patient(folder, option)
    checks: list[Callable[[Patient], Iterator[Finding]]] = [*health_at_rest.CHECKS, *health_alive.CHECKS]
    for done, check in enumerate(checks):
        name = check.__name__
        run.progress.update(message=f"checking {name}", done_count=done, total_count=len(checks))
        try:
            yield from check(patient)
        except Trouble as trouble:
            yield Finding(name, name, WRONG, trouble.message)
        except OSError as error:
            where = f"'{error.filename}': " if error.filename else ""
            yield Finding(name, name, WRONG, f"cannot be checked: {where}{error.strerror or error}")


def size_text(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def tail(path: str, most: int = 300) -> str:
    """The last line of a log that says something."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 65536))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return "it left no log"
    return next((line[:most] for line in reversed(lines) if line), "it says nothing")
