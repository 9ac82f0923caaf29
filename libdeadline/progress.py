"""Progress of long work, shown on standard error as a bar or as records."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any

from .records import Progress, encode

INTERVAL_S = 0.1  # between two reports
SMOOTHING_S = 3.0  # time constant of the smoothed rate
SURE_S = 1.0  # of work, before which nothing can be said of the time that is left


class Meter:
    """Counts what a tool has done and shows it now and then.

    Units: bytes; counts are of files, objects or tasks. Totals may grow while the stream comes in;
    what is shown never exceeds them.
    """

    def __init__(self, tool: str, mode: str, descriptor: int = 2) -> None:
        """`mode` is bar, json or none."""
        self.tool, self.mode, self.descriptor = tool, mode, descriptor
        self.fields: dict[str, Any] = {}
        self._shown = 0.0
        self._rates = [0.0, 0.0]  # of bytes moved, and of what the time that is left is told by
        self._before = [0, 0]
        self._rate_time = monotonic()
        self._began: float | None = None  # with anything
        self._bar_width = 0

    def update(self, **fields: Any) -> None:
        """Set fields of the progress record (done_bytes, total_bytes, done_count, total_count, message, ...)."""
        self.fields.update(fields)
        if self.mode != "none" and monotonic() - self._shown >= INTERVAL_S:
            self.show()

    def add(self, **amounts: int) -> None:
        """Add to numeric fields of the progress record."""
        fields = self.fields
        for name, amount in amounts.items():
            fields[name] = fields.get(name, 0) + amount
        if self.mode != "none" and monotonic() - self._shown >= INTERVAL_S:
            self.show()

    def show(self) -> None:
        """Report now."""
        now = monotonic()
        self._shown = now
        fields = dict(self.fields)
        for done, total in (("done_bytes", "total_bytes"), ("done_count", "total_count")):
            if total in fields and done in fields:
                fields[done] = min(fields[done], fields[total])
        if "done_bytes" in fields:
            rate, pace = self._smoothed(now, fields)
            fields["bytes_per_s"] = round(rate, 1)
            unit = "bytes" if fields.get("total_bytes") else "count"
            left = fields.get(f"total_{unit}", 0) - fields.get(f"done_{unit}", 0)
            if left > 0 and pace > 1 and self._began is not None and now - self._began >= SURE_S:
                fields["eta_s"] = round(left / pace, 1)
        if self.mode == "json":
            self._write(encode(Progress.of(tool=self.tool, **fields)))
        elif self.mode == "bar":
            text = self._bar(fields)
            self._write(b"\r" + text.encode() + b" " * (self._bar_width - len(text)))
            self._bar_width = len(text)

    def _smoothed(self, now: float, fields: dict[str, Any]) -> list[float]:
        """Bytes moved a second, and bytes (without any: files) done a second, what needed no transfer included."""
        done = fields["done_bytes"] if fields.get("total_bytes") else fields.get("done_count", 0)
        passed = now - self._rate_time
        if self._began is None and done:
            self._began = self._rate_time
        if passed > 0:
            # At first, the mean so far: a rate that rose from nothing would tell of hours that are left.
            weight = passed / max(min(SMOOTHING_S, now - (self._began or now)), passed)
            for at, amount in enumerate((fields["done_bytes"] - fields.get("skipped_bytes", 0), done)):
                self._rates[at] += weight * (max(amount - self._before[at], 0) / passed - self._rates[at])
                self._before[at] = amount
            self._rate_time = now
        return self._rates

    def rest(self) -> None:
        """Tell of nothing more until there is something again."""
        if self.fields and self.mode == "json":
            self.fields = {}
            self.show()
        self.fields = {}
        self.clear()

    def clear(self) -> None:
        """Take the bar off the terminal, so that a line can be printed."""
        if self._bar_width:
            self._write(b"\r" + b" " * self._bar_width + b"\r")
            self._bar_width = 0

    def finish(self) -> None:
        """Report the last figures, if any report was made, and leave the terminal clean."""
        if self.fields and self.mode == "json":
            self.show()
        self.clear()

    def _write(self, data: bytes) -> None:
        try:
            os.write(self.descriptor, data)
        except OSError:
            self.mode = "none"  # nobody looks any more; the work goes on

    def _bar(self, fields: dict[str, Any]) -> str:
        parts = [f"{self.tool}:"]
        if fields.get("message"):
            parts.append(str(fields["message"]))
        done, total = fields.get("done_bytes"), fields.get("total_bytes")
        if not total:
            done, total = fields.get("done_count"), fields.get("total_count")
        if total:
            share = (done or 0) / total
            parts.append(f"[{'#' * int(20 * share):20}] {int(100 * share):3} %")
        if fields.get("done_count") or fields.get("total_count"):
            of = f"/{fields['total_count']}" if "total_count" in fields else ""
            parts.append(f"{fields.get('done_count', 0)}{of}")
        if fields.get("done_bytes") or fields.get("total_bytes"):
            parts.append(f"{size_text(fields.get('done_bytes', 0))}  {size_text(fields.get('bytes_per_s', 0))}/s")
        if fields.get("skipped_bytes"):
            parts.append(f"{size_text(fields['skipped_bytes'])} skipped")
        if "eta_s" in fields:
            parts.append(f"{duration_text(fields['eta_s'])} left")
        try:
            columns = os.get_terminal_size(self.descriptor).columns
        except OSError:
            columns = 0
        return "  ".join(parts)[: columns - 1 if columns else 100]  # some terminals don't know their size


def size_text(size: float) -> str:
    """Bytes for a person, in decimal units with at most two decimals: 999 B, 1.0 KB, 12.35 MB."""
    value, units = float(size), ["B", "KB", "MB", "GB", "TB", "PB"]
    while round(value, 2) >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{int(value)} B" if units[0] == "B" else f"{round(value, 2)} {units[0]}"


def duration_text(seconds: float) -> str:
    """Seconds for a person: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
