"""The reference client, as PyPI has it, in a virtual environment of its own.

DL_REFERENCE_VENV names one that exists. Else it is made once below the person's cache folder; where that
fails, for want of a network, the tests of this folder are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "0.60.7"  # whose facts we follow; a later one words some answers otherwise
PACKAGES = (f"deadline=={VERSION}",)
INSTALL_S = 300


@pytest.fixture(scope="session")
def reference() -> str:
    """The program file of the reference client."""
    named = os.environ.get("DL_REFERENCE_VENV")
    if named:
        program = Path(named) / "bin" / "deadline"
        assert program.exists(), f"DL_REFERENCE_VENV has no {program}"
        return str(program)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = cache / "deadline-tools" / f"reference-{VERSION}-python{sys.version_info[0]}.{sys.version_info[1]}"
    program = venv / "bin" / "deadline"
    if not (venv / "installed").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True, capture_output=True)
            install = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
            subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_S)
            (venv / "installed").touch()
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"the reference client can't be installed: {error}")
    return str(program)
