"""A dl-farmd of its own for each test module: a process on a free port over a temporary folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from own_farmd import CONFIGURATION, ROLE, Farmd


@pytest.fixture(scope="module")
def farmd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Farmd(tmp_path_factory.mktemp("farm"))
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


@pytest.fixture
def start_farmd() -> Any:
    """Start a dl-farmd over a folder, as often as needed; all are ended with the test."""
    servers: list[Farmd] = []

    def start(folder: Path) -> Farmd:
        servers.append(Farmd(folder))
        return servers[-1]

    yield start
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The service in this process, without a network."""
    from in_process import Service

    made = Service(tmp_path_factory.mktemp("farm"))
    yield made
    made.farm.close()


@pytest.fixture(scope="module")
def farm_ids(farmd: Farmd) -> SimpleNamespace:
    """A farm with a queue (attachments, a role, run as the agent's user) and a fleet, associated."""
    client = farmd.client()
    farm = client.create_farm(displayName="farm")["farmId"]
    queue = client.create_queue(
        farmId=farm,
        displayName="queue",
        roleArn=ROLE,
        jobAttachmentSettings={"s3BucketName": "bucket", "rootPrefix": "root"},
        jobRunAsUser={"runAs": "WORKER_AGENT_USER"},
    )["queueId"]
    fleet = client.create_fleet(
        farmId=farm, displayName="fleet", roleArn=ROLE, maxWorkerCount=100, configuration=CONFIGURATION
    )["fleetId"]
    client.create_queue_fleet_association(farmId=farm, queueId=queue, fleetId=fleet)
    return SimpleNamespace(farm=farm, queue=queue, fleet=fleet, role=ROLE, configuration=CONFIGURATION)
