"""The worker as data for supervisord: one duty, one program.

supervisord ─┬─ dl-worker-enroll       once at start: identity, fleet role, STARTED
             ├─ dl-worker-credentials  keeps role files fresh
             ├─ dl-worker-schedule ──▶ dl-session (its own session leader, outlives the scheduler)
             ├─ dl-worker-logs         ships what sessions and the others wrote
             └─ dl-worker-watch        notices of the host; asks for a drain by SIGTERM to dl-worker-schedule
"""

from __future__ import annotations

import os
from typing import NamedTuple

GROUP_PRIORITY = 900  # supervisord stops high numbers first: workers before the servers they report to


class Program(NamedTuple):
    """One section: the command, its place in the start order, and how it is stopped."""

    command: str
    priority: int
    stop_wait_s: int  # longest that supervisord waits before SIGKILL
    once: bool = False


PROGRAMS = (
    Program("dl-worker-enroll", 10, 5, once=True),
    Program("dl-worker-credentials", 20, 5),
    Program("dl-worker-logs", 30, 20),  # it ships what the drain wrote, so it ends after the sessions
    Program("dl-worker-schedule", 40, 15),  # drains: 4 s for the sessions, then the last reports
    Program("dl-worker-watch", 50, 5),
)


def programs(name: str, state_dir: str, environment: dict[str, str], command_dir: str) -> str:
    """The ini text that keeps one worker alive: a program section for each duty and the group `name` of them.

    `environment` needs DEADLINE_WORKER_FARM_ID, DEADLINE_WORKER_FLEET_ID, a region, endpoints where they are not
    AWS's own, and whatever the bootstrap credentials come from; none of the credentials reach a job.
    `state_dir` is the worker's folder; `command_dir` holds the dl-* commands and comes first on PATH.
    """
    path = environment.get("PATH") or os.environ.get("PATH", os.defpath)
    variables = {**environment, "DL_WORKER_DIR": state_dir, "PATH": f"{command_dir}{os.pathsep}{path}"}
    text = ",".join(f"{key}={_quoted(value)}" for key, value in sorted(variables.items()))
    log_dir = os.path.join(state_dir, "log")
    os.makedirs(log_dir, mode=0o700, exist_ok=True)  # supervisord refuses a configuration whose log folder is missing
    sections = [
        "\n".join(
            [
                f"[program:{_section(name, program)}]",
                f"command={_word(os.path.join(command_dir, program.command))}",
                f"directory={_escaped(state_dir)}",
                f"environment={text}",
                f"priority={program.priority}",
                "autostart=true",
                # A one-shot ends with 0 and stays down; anything else is a failure worth another go.
                *(["autorestart=unexpected", "startsecs=0"] if program.once else ["autorestart=true", "startsecs=1"]),
                "startretries=1000000",
                "exitcodes=0",
                "stopsignal=TERM",
                # Never the process group: sessions must outlive the scheduler, and it ends them itself.
                "stopasgroup=false",
                "killasgroup=false",
                f"stopwaitsecs={program.stop_wait_s}",
                "redirect_stderr=true",
                f"stdout_logfile={_escaped(os.path.join(log_dir, program.command + '.log'))}",
                "stdout_logfile_maxbytes=5MB",
                "stdout_logfile_backups=2",
            ]
        )
        for program in PROGRAMS
    ]
    members = ",".join(_section(name, program) for program in PROGRAMS)
    sections.append(f"[group:{name}]\nprograms={members}\npriority={GROUP_PRIORITY}")
    return "\n\n".join(sections) + "\n"


def _section(name: str, program: Program) -> str:
    return f"{name}-{program.command.removeprefix('dl-worker-')}"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")  # supervisord expands %(name)s in every value


def _quoted(text: str) -> str:
    # supervisord knows no escapes inside quotes, so a value may hold one kind of quote only.
    return f"'{_escaped(text)}'" if '"' in text else f'"{_escaped(text)}"'


def _word(text: str) -> str:
    import shlex

    return _escaped(shlex.quote(text))
