"""What this host is: capabilities, names and addresses, EC2 instance.

Source: spec worker 5.2, 5.3, 1.3.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from typing import Any

from .settings import Settings

NVIDIA_SMI_S = 5.0
IMDS = "http://169.254.169.254"
IMDS_S = 0.5  # longest wait for an answer: off EC2 nobody answers


def capabilities(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """What UpdateWorker takes: detected values, overlaid name by name by the configured ones."""
    gpus = gpu_memory_mib()
    amounts: dict[str, float] = {
        "amount.worker.vcpu": float(os.cpu_count() or 1),
        "amount.worker.memory": _memory_mib(),
        "amount.worker.disk.scratch": float(shutil.disk_usage("/").free // (1 << 20)),
        "amount.worker.gpu": float(len(gpus)),
        "amount.worker.gpu.memory": float(min(gpus, default=0)),
    }
    attributes: dict[str, list[str]] = {
        "attr.worker.os.family": [_os_family()],
        "attr.worker.cpu.arch": [_cpu_architecture()],
    }
    amounts.update({name: float(value) for name, value in settings.capabilities["amounts"].items()})
    attributes.update(settings.capabilities["attributes"])
    return {
        "amounts": [{"name": name, "value": value} for name, value in amounts.items()],
        "attributes": [{"name": name, "values": values} for name, values in attributes.items()],
    }


def properties() -> dict[str, Any]:
    """hostProperties: host name and the addresses of all interfaces; what can't be had is left out."""
    import socket

    found: dict[str, Any] = {}
    name = socket.gethostname()
    if re.fullmatch(r"[a-zA-Z0-9_.-]{1,255}", name):
        found["hostName"] = name
    v4, v6 = _addresses()
    addresses = {key: value for key, value in (("ipV4Addresses", v4), ("ipV6Addresses", v6)) if value}
    if addresses:
        found["ipAddresses"] = addresses
    return found


def _addresses() -> tuple[list[str], list[str]]:
    import socket

    try:
        import psutil

        per_interface = psutil.net_if_addrs()
    except (ImportError, OSError):
        return [], []
    v4: set[str] = set()
    v6: set[str] = set()
    for addresses in per_interface.values():
        for each in addresses:
            if each.family == socket.AF_INET:
                v4.add(each.address)
            elif each.family == socket.AF_INET6:
                v6.add(ipaddress.IPv6Address(each.address.partition("%")[0]).exploded.upper())
    return sorted(v4), sorted(v6)


def _memory_mib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 20)


def _os_family() -> str:
    import platform

    return {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}.get(platform.system(), "linux")


def _cpu_architecture() -> str:
    machine = os.uname().machine.lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(machine, machine)


def gpu_memory_mib() -> list[int]:
    """The memory of each NVIDIA GPU; empty where there is none, or no driver."""
    command = shutil.which("nvidia-smi")
    if not command:
        return []
    try:
        answer = subprocess.run(
            [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return [int(line) for line in answer.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


class Metadata:
    """The EC2 instance metadata service, version 2, of this host, if it is one of EC2's."""

    def __init__(self, base: str | None = None) -> None:
        self.base = base or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", IMDS).rstrip("/")
        self.enabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true"

    def token(self, life_s: int = 30) -> str | None:
        """A session token, or None where nobody answers."""
        answer = self._request("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(life_s)})
        return answer[1] if answer and answer[0] == 200 else None

    def get(self, path: str, token: str) -> str | None:
        """The text at /latest/meta-data/`path`, or None where there is none."""
        answer = self._request("GET", f"/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})
        return answer[1] if answer and answer[0] == 200 else None

    def instance_id(self) -> str | None:
        token = self.token()
        return self.get("instance-id", token) if token else None

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        import http.client
        from urllib.parse import urlsplit

        if not self.enabled:
            return None
        at = urlsplit(self.base)
        connection = http.client.HTTPConnection(at.hostname or "", at.port or 80, timeout=IMDS_S)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(1 << 16).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
