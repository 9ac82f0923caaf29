"""Signing in and out with a monitor of our own making and a service that knows who has."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_server import FARMS, Server, refusal

TOP = Path(__file__).resolve().parents[2]
# It says where it is, then signs in when it is let: it waits for the file `go`.
MONITOR = """#!/bin/sh
echo "$*" >>"$HOME/monitor.calls"
[ "$1" = login ] || { rm -f "$HOME/keys"; echo "signed out"; exit 0; }
echo $$ >"$HOME/monitor.pid"
while [ ! -e "$HOME/go" ]; do sleep 0.05; done
echo '{"Version": 1, "AccessKeyId": "AKIAMONITOR", "SecretAccessKey": "geheim"}' >"$HOME/keys"
[ "$(cat "$HOME/go")" = stay ] && exec sleep 60
exit 0
"""


@pytest.fixture
def server():
    server = Server(
        lambda asked: (
            FARMS if "AKIAMONITOR" in asked.headers["authorization"] else refusal(403, "AccessDeniedException", "who?")
        )
    )
    yield server
    server.close()


@pytest.fixture
def home(tmp_path, server):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".deadline").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        "[profile mine]\nregion = us-west-2\nmonitor_id = m\nuser_id = user-1\n"
        f"credential_process = cat {tmp_path}/keys\n"
    )
    monitor = tmp_path / "monitor"
    monitor.write_text(MONITOR)
    monitor.chmod(0o755)
    (tmp_path / ".deadline" / "config").write_text(
        f"[deadline-cloud-monitor]\npath = {monitor}\n[defaults]\naws_profile_name = mine\n"
    )
    return tmp_path


def started(home, server, *words):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DL_", "DEADLINE"))
    }
    environment |= {"HOME": str(home), "AWS_ENDPOINT_URL_DEADLINE": server.url, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, str(TOP / "bin" / "dl-auth"), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_login_waits_for_the_person_and_leaves_the_monitor_open(home, server):
    login = started(home, server, "login")
    assert login.stdout.readline() == "Logging into AWS Profile 'mine' for AWS Deadline Cloud\n"
    assert "monitor opens" in login.stdout.readline()
    assert login.poll() is None
    (home / "go").write_text("stay")
    out, err = login.communicate(timeout=20)
    assert (login.returncode, err) == (0, "")
    assert out == "\nSuccessfully logged in: Deadline Cloud monitor profile: mine\n\n"
    pid = int((home / "monitor.pid").read_text())
    os.kill(pid, 0)  # it is the person's window, and still open
    os.kill(pid, 9)
    assert "principalId=user-1" in server.asked[-1].query

    status = started(home, server, "status")
    fields = json.loads(status.communicate(timeout=20)[0])
    assert fields == {
        "profile_name": "mine",
        "source": "DEADLINE_CLOUD_MONITOR_LOGIN",
        "status": "AUTHENTICATED",
        "api_availability": True,
    }

    logout = started(home, server, "logout")
    assert logout.communicate(timeout=20) == ("signed out\n", "")
    assert (home / "monitor.calls").read_text() == "login --profile mine\nlogout --profile mine\n"
    fields = json.loads(started(home, server, "status").communicate(timeout=20)[0])
    assert fields["status"] == "NEEDS_LOGIN" and "credential_process" in fields["reason"]


def test_a_refusal_of_the_service_is_told_as_the_reason(home, server):
    (home / "keys").write_text('{"Version": 1, "AccessKeyId": "AKIAOTHER", "SecretAccessKey": "geheim"}')
    status = started(home, server, "status", "--output=verbose")
    out, _ = status.communicate(timeout=20)
    assert status.returncode == 0
    assert "Status: NEEDS_LOGIN" in out and "AccessDeniedException: who?" in out and "geheim" not in out


def test_a_stopped_login_takes_the_monitor_with_it(home, server):
    login = started(home, server, "login")
    login.stdout.readline()
    login.stdout.readline()
    while not (home / "monitor.pid").exists() or not (home / "monitor.pid").read_text():
        assert login.poll() is None
    login.terminate()
    _, err = login.communicate(timeout=20)
    assert login.returncode == 128 + 15 and err == "dl-auth: stopped by signal 15\n"
    # Its parent is gone: whoever inherits it may take a moment to collect it.
    pid, until = int((home / "monitor.pid").read_text()), time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < until, "the monitor goes on"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_monitor_that_ended_is_not_waited_for_for_ever(monkeypatch):
    from io import BytesIO

    from dl_tools import dl_auth

    from libdeadline import config
    from libdeadline.errors import Trouble

    clock = [0.0]
    monkeypatch.setattr(dl_auth, "monotonic", lambda: clock[0])
    monkeypatch.setattr(dl_auth, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr(dl_auth, "probed", lambda settings: ("", dl_auth.NEEDS_LOGIN, Trouble("no keys")))
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(Trouble) as caught:
        dl_auth.wait_for_sign_in(config.read(os.devnull), ended, BytesIO(), None)
    assert caught.value.status == 77 and caught.value.message.endswith("no keys")
    assert dl_auth.GRACE_S <= clock[0] <= dl_auth.GRACE_S + 2 * dl_auth.POLL_S
