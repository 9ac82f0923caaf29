"""What supervisord keeps running, as its configuration file.

supervisord ─┬─ fcgi-program farmd    dl-farmd, its listening socket held by supervisord
             ├─ fcgi-program s3d      dl-s3d, likewise
             └─ group worker<n>       the programs of worker n
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libdeadline import statuses
from libdeadline.errors import Trouble

from . import environment
from .layout import HOST, replace

if TYPE_CHECKING:
    from .layout import Folder

# Inherited by all that runs, also by the processes of jobs (a worker passes it on), so that `down` can tell its own.
MARK = "DEADLINE_LOCAL_FARM"
BACKLOG = 1024
SERVERS = ("farmd", "s3d")


def command_folder() -> str:
    """The folder of this installation's commands.

    Raises: Trouble (78) where dl-farmd and dl-s3d are not beside us.
    """
    from shutil import which

    places = [os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable)]
    places += [os.path.dirname(found) for found in (which("dl-farmd"),) if found]
    for place in places:
        if all(os.access(os.path.join(place, f"dl-{name}"), os.X_OK) for name in SERVERS):
            return place
    raise Trouble("cannot find dl-farmd and dl-s3d beside dl-farm or on PATH: install them", statuses.CONFIGURATION)


def command_path() -> str:
    """PATH with this installation's commands first."""
    return f"{command_folder()}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def configuration(folder: Folder) -> str:
    """The text of supervisord.conf for the remembered ports, ids and number of workers."""
    commands = command_folder()
    sections = [
        f"""[unix_http_server]
file={_safe(folder.control_socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{_safe(folder.control_socket)}

[supervisord]
identifier=dl-farm
directory={_safe(folder.path)}
logfile={_safe(folder.at("log", "supervisord.log"))}
logfile_maxbytes=5MB
logfile_backups=2
pidfile={_safe(folder.pid_file)}
childlogdir={_safe(folder.at("log"))}
umask=077
nodaemon=true
silent=true
minfds=1024
minprocs=64
"""
    ]
    sections += [_server(folder, commands, name) for name in SERVERS]
    if folder.settings.get("fleet_id"):
        sections += [_worker(folder, commands, number) for number in range(1, folder.settings["workers"] + 1)]
    lines = "\n".join(sections).split("\n")
    # Names of log files supervisord (4.3) expands twice.
    return "\n".join(line.replace("%%", "%%%%") if line.startswith("stdout_logfile=") else line for line in lines)


def _server(folder: Folder, commands: str, name: str) -> str:
    words = [os.path.join(commands, f"dl-{name}"), f"--dir={folder.path}", "--log-level=info"]
    return f"""[fcgi-program:{name}]
command={" ".join(_word(word) for word in words)}
socket=tcp://{HOST}:{folder.settings["ports"][name]}
socket_backlog={BACKLOG}
process_name={name}
directory={_safe(folder.path)}
priority=100
autorestart=true
; A server that was killed is back at once; one that keeps failing is tried again after 1, 2, 3, ... seconds.
startsecs=1
startretries=1000000
stopsignal=TERM
stopwaitsecs=10
redirect_stderr=true
stdout_logfile={_safe(folder.at("log", f"{name}.log"))}
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


def _worker(folder: Folder, commands: str, number: int) -> str:
    """The sections of one worker, from the template that comes with the worker."""
    state = folder.at("workers", str(number))
    try:
        for name in ("log", "aws"):
            os.makedirs(os.path.join(state, name), mode=0o700, exist_ok=True)
    except OSError as error:
        raise Trouble(f"cannot make '{error.filename}': {error.strerror}", statuses.CANNOT_CREATE) from None
    farm_id, fleet_id = folder.settings["farm_id"], folder.settings["fleet_id"]
    key = environment.bootstrap_key(folder, farm_id, fleet_id)
    replace(os.path.join(state, "aws", "config"), environment.profile_text(folder, environment.PROFILE))
    replace(os.path.join(state, "aws", "credentials"), environment.credentials_text(environment.PROFILE, key))
    values = {
        **environment.endpoints(folder),
        "AWS_CONFIG_FILE": os.path.join(state, "aws", "config"),
        "AWS_SHARED_CREDENTIALS_FILE": os.path.join(state, "aws", "credentials"),
        "AWS_PROFILE": environment.PROFILE,
        "DEADLINE_WORKER_FARM_ID": farm_id,
        "DEADLINE_WORKER_FLEET_ID": fleet_id,
        "DEADLINE_WORKER_SESSION_ROOT_DIR": os.path.join(state, "work"),
        "DEADLINE_WORKER_RUN_JOBS_AS_AGENT_USER": "true",
        "DEADLINE_WORKER_HOST_METRICS_LOGGING": "false",
    }
    text = template()
    for name, value in {
        "name": f"worker{number}",
        "state_dir": _safe(state),
        "command_dir": _safe(commands),
        "environment": ",".join(f'{name}="{_safe(value)}"' for name, value in values.items()),
    }.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def template() -> str:
    """The worker's own configuration file, to be filled in."""
    from importlib.util import find_spec

    found = find_spec("dl_worker")
    for place in (found.submodule_search_locations or []) if found else []:
        path = os.path.join(place, "supervisord.conf")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return file.read()
    raise Trouble("the worker's supervisord.conf is missing: install the package again", statuses.CONFIGURATION)


def _safe(text: str) -> str:
    """A value for supervisord.conf, which expands %(name)s and takes ` ;` and ` #` for the start of a comment.

    Raises: Trouble (78) for what it has no way to write.
    """
    if any(each in text for each in ('"', "\n", " ;", " #")):
        message = f"supervisord cannot be told of '{text}': use names without double quotes, ' ;' and ' #'"
        raise Trouble(message, statuses.CONFIGURATION)
    return text.replace("%", "%%")


def _word(text: str) -> str:
    from shlex import quote

    return quote(_safe(text))
