"""A farm that an earlier version wrote goes on with this one; tests/farm/schemas has one of each earlier schema."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from dl_tools.dl_farmd import store
from simulated_worker import SimulatedWorker, audit

from libdeadline.errors import Trouble

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"), key=lambda path: int(path.stem))


def made(folder: Path, schema: Path) -> Path:
    """The database of a farm of an earlier schema, in a data folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "farm.sqlite"
    db = sqlite3.connect(path)
    text = schema.read_text()
    # What the dump says of sqlite_stat1 comes after ANALYZE made that table anew.
    db.executescript(text)
    db.execute(f"PRAGMA user_version = {schema.stem}")
    db.execute("PRAGMA journal_mode = WAL")
    db.commit()
    db.close()
    return path


def dump(path: Path) -> list[str]:
    """All that a database holds, as SQL."""
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


def shape(db: sqlite3.Connection) -> dict[str, str]:
    """The tables and indexes by name, as SQL without comments and spacing."""
    found = {}
    for name, sql in db.execute(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    ):
        plain = re.sub(r"--[^\n]*", "", sql)
        found[name] = re.sub(r"\s+", "", plain).replace('"', "")
    return found


def test_there_is_a_farm_of_each_earlier_schema() -> None:
    assert [path.stem for path in SCHEMAS] == [str(version + 1) for version in range(len(store.MIGRATIONS))]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_an_old_schema_becomes_that_of_a_new_farm(schema: Path, tmp_path: Path) -> None:
    told: list[str] = []
    old = store.open_writer(made(tmp_path / "old", schema), told.append)
    new = store.open_writer(tmp_path / "new" / "farm.sqlite", told.append)
    assert shape(old) == shape(new)
    versions = [db.execute("PRAGMA user_version").fetchone()[0] for db in (old, new)]
    assert versions == [len(store.MIGRATIONS) + 1] * 2
    assert len(told) == 1 and f"from schema {schema.stem} to {versions[0]}" in told[0]
    assert old.execute("PRAGMA foreign_keys").fetchone()[0] == 1 == new.execute("PRAGMA foreign_keys").fetchone()[0]
    assert old.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_an_old_farm_goes_on(schema: Path, tmp_path: Path, start_farmd: Any) -> None:
    path = made(tmp_path / "farm", schema)
    db = sqlite3.connect(path)
    farm, queue, fleet, job = db.execute(
        "SELECT farm_id, queue_id, fleet_id, job_id FROM jobs JOIN fleets USING (farm_id)"
    ).fetchone()
    worker_id, session = db.execute("SELECT worker_id, session_id FROM sessions WHERE status = 'STARTED'").fetchone()
    statuses = [row[0] for row in db.execute("SELECT status FROM tasks ORDER BY number")]
    assert statuses == ["SUCCEEDED", "RUNNING", "ASSIGNED", "ASSIGNED", "ASSIGNED"]
    db.close()
    farmd = start_farmd(tmp_path / "farm")
    client = farmd.client()
    ids = {"farmId": farm, "queueId": queue, "jobId": job}
    assert client.get_job(**ids)["taskRunStatusCounts"]["RUNNING"] == 1
    falling = [{"parameterSort": {"name": "N", "sortOrder": "DESCENDING"}}]
    page = client.search_tasks(farmId=farm, queueIds=[queue], jobId=job, itemOffset=0, sortExpressions=falling)
    assert [each["parameters"]["N"]["int"] for each in page["tasks"]] == ["5", "4", "3", "2", "1"]
    # The worker that was in the middle of it reports, and is given nothing twice.
    worker = SimulatedWorker(client, farm, fleet)
    worker.ids["workerId"] = worker_id
    assert list(worker.exchange()["assignedSessions"]) == [session]
    assert len([kind for _, kind, _ in worker.actions() if kind == "taskRun"]) == 4
    worker.work()
    assert client.get_job(**ids)["taskRunStatus"] == "SUCCEEDED"
    assert [kind for _, kind, _, _ in worker.ran].count("taskRun") == 4
    # An answer that was kept for its token is still the answer, and all else is where it was.
    client.create_farm(displayName="with a token", clientToken="token of schema 1")
    names = [each["displayName"] for each in client.list_farms()["farms"]]
    assert sorted(names) == ["f", "with a token"]
    assert client.list_tags_for_resource(resourceArn=f"arn:aws:deadline:us-west-2:000000000000:farm/{farm}")["tags"]
    assert [each["name"] for each in client.list_queue_environments(farmId=farm, queueId=queue)["environments"]] == [
        "e"
    ]
    # New work, too; and a service that is started again finds nothing left to do.
    more = client.create_job(farmId=farm, queueId=queue, priority=1, sourceJobId=job)["jobId"]
    farmd.restart()
    client = farmd.client()
    client.update_job(farmId=farm, queueId=queue, jobId=more, targetTaskRunStatus="CANCELED")
    audit(farmd.dir)
    assert farmd.log.read_text().count("from schema") == 1


def test_a_migration_that_fails_leaves_the_farm_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "farm", SCHEMAS[0])

    whole = dump(path)
    for wrong in ("INSERT INTO nowhere VALUES (1);", "DELETE FROM jobs;"):  # no such table; rows without their parent
        monkeypatch.setattr(store, "MIGRATIONS", [*store.MIGRATIONS[:1], wrong])
        with pytest.raises(Trouble, match="cannot open the farm's database"):
            store.open_writer(path)
        assert dump(path) == whole


def test_a_newer_schema_is_refused_in_one_line(tmp_path: Path) -> None:
    path = made(tmp_path, SCHEMAS[0])
    newer = len(store.MIGRATIONS) + 2
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {newer}")
    content = path.read_bytes()
    run = "from dl_tools.dl_farmd import main; raise SystemExit(main())"
    words = [sys.executable, "-c", run, "--dir", str(tmp_path), "--listen", "127.0.0.1:0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 78 and len(done.stderr.splitlines()) == 1
    assert f"schema {newer}" in done.stderr and "use the version that wrote it" in done.stderr
    assert path.read_bytes() == content
