"""The farm's database: schema versions, migrations that happen whole or not at all, rows as responses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from dl_tools.dl_farmd import store

from libdeadline.errors import Trouble


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "farm.sqlite"


def schema(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return [tuple(row) for row in db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name")]


def test_a_new_farm_has_the_newest_schema(path: Path) -> None:
    db = store.open_writer(path)
    assert db.execute("PRAGMA user_version").fetchone()[0] == len(store.MIGRATIONS) + 1
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert {"farms", "queues", "jobs", "tasks", "client_tokens"} <= {row[1] for row in schema(db)}
    before = schema(db)
    db.close()
    assert schema(store.open_writer(path)) == before


def test_migrations_run_once_in_order_and_keep_the_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = store.open_writer(path)
    store.insert(db, "farms", farm_id="farm-1", display_name="old", created_at=1, created_by="x")
    db.close()
    steps: list[str] = []

    def step(db: sqlite3.Connection) -> None:
        steps.append("function")
        db.execute("UPDATE farms SET colour = upper(colour)")

    text = "ALTER TABLE farms ADD COLUMN colour TEXT;\n-- a comment; with a semicolon\nUPDATE farms SET colour = 'red';"
    monkeypatch.setattr(store, "MIGRATIONS", [*store.MIGRATIONS, text, step])
    for _ in range(2):
        db = store.open_writer(path)
        assert [tuple(row) for row in db.execute("SELECT display_name, colour FROM farms")] == [("old", "RED")]
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(store.MIGRATIONS) + 1
        db.close()
    assert steps == ["function"]


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = store.open_writer(path)
    before = schema(db)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    monkeypatch.setattr(store, "MIGRATIONS", [*store.MIGRATIONS, "CREATE TABLE half (x);", "nonsense;"])
    with pytest.raises(Trouble, match="nonsense"):
        store.open_writer(path)
    db = sqlite3.connect(path)
    assert schema(db) == before and db.execute("PRAGMA user_version").fetchone()[0] == version


def test_json_columns_hold_documents(path: Path) -> None:
    db = store.open_writer(path)
    store.insert(db, "farms", farm_id="farm-1", display_name="f", created_at=1, created_by="x")
    document = {"s3BucketName": "ü", "list": [1, {"a": None}]}
    store.insert(
        db, "queues", queue_id="queue-1", farm_id="farm-1", display_name="q", status="IDLE", created_at=1,
        created_by="x",
        job_attachment_settings=document,
    )  # fmt: skip
    row = store.one(db, "SELECT * FROM queues")
    assert row is not None and row["job_attachment_settings"] == document
    assert store.value(db, "SELECT json_extract(job_attachment_settings, '$.s3BucketName') FROM queues") == "ü"
    assert store.update(db, "queues", {"queue_id": "queue-1"}, allowed_storage_profile_ids=["sp-1"]) == 1
    told = store.members(store.one(db, "SELECT * FROM queues"), extra=1)
    assert told["allowedStorageProfileIds"] == ["sp-1"] and told["jobAttachmentSettings"] == document
    assert "description" not in told and told["extra"] == 1
    with pytest.raises(sqlite3.IntegrityError):
        store.insert(
            db, "queues", queue_id="q2", farm_id="none", display_name="q", status="IDLE", created_at=1, created_by="x"
        )


@pytest.mark.parametrize(
    ("member", "column"),
    [("farmId", "farm_id"), ("kmsKeyArn", "kms_key_arn"), ("displayName", "display_name"), ("status", "status")],
)
def test_names_of_members_and_columns(member: str, column: str) -> None:
    assert (store.column_name(member), store.member_name(column)) == (column, member)


def test_readers_see_what_is_committed_while_a_write_is_open(path: Path) -> None:
    db = store.open_writer(path)
    reader = store.connect(path, read_only=True)
    db.execute("BEGIN")
    store.insert(db, "farms", farm_id="farm-1", display_name="f", created_at=1, created_by="x")
    assert store.value(reader, "SELECT count(*) FROM farms") == 0
    db.execute("COMMIT")
    assert store.value(reader, "SELECT count(*) FROM farms") == 1
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM farms")
