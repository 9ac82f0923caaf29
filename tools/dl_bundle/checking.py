"""Checking a job template with openjd-model in a process beside this one, because its import takes half a second.

What was found valid once is remembered by the hash of its text, together with the version of the model.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble

MEMORY = "~/.deadline/cache/dl_bundle_checked"  # one line for each template found valid, the latest last
REMEMBERED = 500
KEY_CHARACTERS = 32


class Check:
    """A check under way. `wait` gives its result; `close` ends it in any case."""

    def __init__(self, text: str, data: Any, path: str) -> None:
        self.path = path
        self._pid = 0
        self._results = -1
        self._key = _key(text)
        if self._key in _remembered():
            return
        if not hasattr(os, "fork"):
            self._judge(_problem(data))
            return
        results, write = os.pipe()
        stops = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                try:
                    os.close(results)
                    _answer(data, write, stops)
                finally:
                    os._exit(statuses.SOFTWARE)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
        os.close(write)
        self._results = results

    def wait(self) -> None:
        """Wait until the template was judged.

        Raises: Trouble 65 saying what is wrong with it, 75 where the check itself was killed.
        """
        if not self._pid:
            return
        answer = b""
        while block := os.read(self._results, 1 << 16):
            answer += block
        self.close()
        if not answer.endswith(b"\n"):
            raise Trouble(f"the check of job template '{self.path}' was ended: run again", statuses.TRY_AGAIN)
        self._judge(answer.decode("utf-8", "replace").strip())

    def _judge(self, problem: str) -> None:
        if problem:
            raise Trouble(f"job template '{self.path}' is not valid: {problem}", statuses.DATA, path=self.path)
        _remember(self._key)

    def close(self) -> None:
        """End the check, whatever it is at."""
        if self._pid:
            os.close(self._results)
            try:
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(self._pid, 0)
            self._pid = 0


def _answer(data: Any, write: int, stops: set[signal.Signals]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
    # No copy of the parent's output may live on here, or its reader would not see it end.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    data = memoryview((_problem(data) + "\n").encode())
    while data:
        data = data[os.write(write, data) :]
    os._exit(0)


def _problem(data: Any) -> str:
    """What is wrong with a template in one line, or nothing."""
    from openjd.model import DecodeValidationError, decode_job_template
    from openjd.model.v2023_09 import ExtensionName

    try:
        decode_job_template(template=data, supported_extensions=[each.value for each in ExtensionName])
    except (DecodeValidationError, ValueError, NotImplementedError, RecursionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if len(lines) > 1 and "validation error" in lines[0]:
            lines = lines[1:]
        return " ".join(lines)[:1000] or type(error).__name__
    return ""


def _key(text: str) -> str:
    """XXH3 128 of the text and of which model judges it."""
    from importlib.util import find_spec

    from xxhash import xxh3_128_hexdigest

    spec = find_spec("openjd")
    model = ""
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            status = os.stat(os.path.join(folder, "model", "_version.py"))
            model = f"{folder} {status.st_mtime_ns} {status.st_size}"
        except OSError:
            continue
    return xxh3_128_hexdigest(f"{model}\0{text}".encode("utf-8", "surrogatepass"))


def _remembered() -> list[str]:
    try:
        with open(os.path.expanduser(MEMORY), encoding="ascii") as file:
            return [line for line in file.read().split("\n") if len(line) == KEY_CHARACTERS]
    except (OSError, ValueError):
        return []


def _remember(key: str) -> None:
    """Losing this, or two processes at once, costs a check only."""
    path = os.path.expanduser(MEMORY)
    keys = [*(each for each in _remembered() if each != key), key][-REMEMBERED:]
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="ascii") as file:
            file.write("\n".join(keys) + "\n")
        os.replace(temporary, path)
    except OSError:
        pass
