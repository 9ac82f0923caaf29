"""What all views share: the options, the input, and where text goes."""

from __future__ import annotations

from typing import Any

from libdeadline import command, times
from libdeadline.records import Resource
from libdeadline.stream import Input


class View:
    """One run of dl-show: its options, its input, and where text goes."""

    def __init__(self, args: command.Arguments, run: command.Run) -> None:
        self.args, self.run = args, run
        form = args.choice("--output", ("auto", "verbose", "json"))
        self.json = form == "json" or (form == "auto" and not is_terminal())
        self.input = Input(0)

    def print(self, text: str = "") -> None:
        """A line of output."""
        self.run.print(text + "\n")

    def yaml(self, document: Any) -> None:
        """A YAML document, and an empty line."""
        from libdeadline import yaml_text

        self.run.print(yaml_text.dump(document) + "\n")

    def counted(self, name: str) -> int:
        """What the tool before counted under `name`, once the input is read."""
        return int(self.input.end.get(name) or 0) if self.input.end else 0

    def resources(self) -> list[dict[str, Any]]:
        """The answers of the service in all resource records, with datetimes."""
        return [times.moments(row.data) for row in self.input if isinstance(row, Resource)]


def is_terminal() -> bool:
    import os

    return os.isatty(1)
