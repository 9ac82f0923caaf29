"""The supervisor that keeps this process alive: which one it is, and going when it goes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from .folder import is_alive, process_name

PR_SET_PDEATHSIG = 1  # prctl(2)


def supervisor() -> dict[str, int] | None:
    """The supervisord that started this process; None when it was started by hand."""
    return process_name(os.getppid()) if os.environ.get("SUPERVISOR_ENABLED") else None


def is_gone(enrolment: dict[str, Any]) -> bool:
    """Whether the supervisor of an enrolment has ended."""
    return enrolment["supervisor"] is not None and not is_alive(enrolment["supervisor"])


def end_with_supervisor() -> None:
    """Get SIGTERM when the supervisor dies: one that is killed tells nobody, and its daemons would stay."""
    if not os.environ.get("SUPERVISOR_ENABLED") or sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
