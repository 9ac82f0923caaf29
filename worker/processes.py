"""The processes that a session has started, wherever they went."""

from __future__ import annotations

import os
import signal


def of_session(session_id: str) -> list[int]:
    """The processes of a session that this user may see, found by the variable that each of them inherits.

    A dl-session that was killed leaves its action behind: a process group of its own that nobody waits for.
    """
    mark = f"DEADLINE_SESSION_ID={session_id}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue
    return found


def kill_session(session_id: str) -> int:
    """End every process of a session at once; how many there were."""
    count = 0
    for _ in range(5):  # a process may fork between the look and the blow
        pids = of_session(session_id)
        if not pids:
            break
        count += len(pids)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
    return count
