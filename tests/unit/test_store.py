"""The store's keys, and what is known of its content."""

from __future__ import annotations

import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libdeadline import store
from libdeadline.errors import Trouble
from libdeadline.s3 import Found, Page
from libdeadline.store import CheckCache, Hashes, Presence, Store

HASHES = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")


@pytest.mark.parametrize("plain", [0, 20, 1000])
@given(st.dictionaries(HASHES, st.integers(0, 2**48 - 1), max_size=200), st.lists(HASHES, max_size=50))
def test_hashes_are_a_dictionary(plain: int, wanted: dict[str, int], others: list[str]) -> None:
    table = Hashes(plain)
    for hash, number in wanted.items():
        table.set(hash, 7)
        table.set(hash, number)
    assert table.count == len(wanted)
    for hash in (*wanted, *others):
        assert table.get(hash) == wanted.get(hash)


def test_hashes_that_share_a_bucket_and_bytes_are_told_apart() -> None:
    # Entries of one bucket lie end to end: a hash must not be found across the border of two.
    table = Hashes(0)
    dice = random.Random(1)
    same = [f"0000{dice.randrange(3):02x}{dice.randrange(3):02x}" + "00" * 12 for _ in range(30)]
    known = set(same[:15])
    for hash in known:
        table.set(hash, 0)
    for hash in same:
        assert (table.get(hash) is not None) == (hash in known)


# Source: attachments specification, keys; the literals were made by the reference.
def test_output_keys() -> None:
    key = store.output_manifest(
        "farm-1", "queue-2", "job-3", "step-4", "task-5-0", "sessionaction-6-1", 1700000000.1, "/proj"
    )
    assert key == (
        "farm-1/queue-2/job-3/step-4/task-5-0/2023-11-14T22:13:20.099999Z_sessionaction-6-1/"
        "731442b4ddb4a5b53a932cb24fb47f14_output"
    )
    chunked = store.output_manifest("f", "q", "j", "s", None, "a", 0.0, "/proj", "LocName")
    assert chunked == "f/q/j/s/1970-01-01T00:00:00.000000Z_a/6c369881e45cab9e005c59bd641cd011_output"


def test_input_keys_are_new_each_time() -> None:
    first, second = (store.input_manifest("f", "q", "/proj") for _ in range(2))
    assert first != second
    folder, guid, name = first.rsplit("/", 2)
    assert (folder, name) == ("f/q/Inputs", "731442b4ddb4a5b53a932cb24fb47f14_input")
    assert len(guid) == 32 and set(guid) <= set("0123456789abcdef")


def test_prefixes_are_not_normalised() -> None:
    assert store.join("a/", "Data", "x") == "a//Data/x"
    assert store.join("", "Data", "x") == "Data/x"


@pytest.mark.parametrize("root", ["/proj", "C:\\proj", "/pröj", '/\U0001f600 "x"'])
def test_roots_survive_metadata(root: str) -> None:
    metadata = store.root_metadata(root, "Loc")
    assert all(value.isascii() for value in metadata.values())
    assert store.root_of(metadata) == root
    assert ("asset-root-json" in metadata) == (not root.isascii())
    assert metadata["file-system-location-name"] == "Loc"


def test_metadata_that_is_no_json_is_refused() -> None:
    with pytest.raises(Trouble):
        store.root_of({"asset-root-json": "[1]"})
    assert store.root_of({}) is None


@pytest.mark.parametrize("uri", ["s3://b", "s3://b/", "http://b/p", "s3:///p", ""])
def test_wrong_uris(uri: str) -> None:
    with pytest.raises(Trouble):
        store.parse_uri(uri)


def test_a_prefix_is_what_a_queue_has_to_the_last_slash() -> None:
    """The reference puts another / behind one that ends in /, for a queue and for an address alike."""
    assert store.parse_uri("s3://b/p/q") == ("b", "p/q")
    bucket, prefix = store.parse_uri("s3://b/p/")
    assert (bucket, store.join(prefix, "Data", "x")) == ("b", "p//Data/x")


STEP, TASK, ACTION = "step-" + "1" * 32, "task-" + "2" * 32 + "-1", "sessionaction-" + "3" * 32


def listed(*names: str) -> list[tuple[Any, Found]]:
    found = [(store.output_key(name), Found(name, 1, "")) for name in names]
    return [(key, each) for key, each in found if key]


def test_the_latest_attempt_of_each_task_is_taken() -> None:
    old = f"{STEP}/{TASK}/2024-01-01T00:00:00.000000Z_{ACTION}-1/x_output"
    new = f"{STEP}/{TASK}/2024-01-02T00:00:00.000000Z_{ACTION}-10/x_output"
    also = f"{STEP}/{TASK}/2024-01-02T00:00:00.000000Z_{ACTION}-10/y_output"
    other = f"{STEP}/{TASK}0/2023-01-01T00:00:00.000000Z_{ACTION}-2/x_output"
    chunks = [f"{STEP}/2024-01-0{day}T00:00:00.000000Z_{ACTION}-{day}/x_output" for day in (1, 2)]
    foreign = [f"{STEP}/{TASK}/readme", "Inputs/x_input", f"{STEP}/{TASK}/{ACTION}-1/x_output"]
    chosen = [found.key for _, found in store.latest_outputs(listed(old, new, also, other, *chunks, *foreign))]
    assert chosen == [new, also, other, *chunks]


def test_words_in_a_root_prefix_mean_nothing() -> None:
    # The reference looks for "task-" anywhere in the key.
    key = store.output_key(f"{STEP}/{TASK}/2024-01-01T00:00:00.000000Z_{ACTION}-1/task-step-_output")
    assert key is not None and (key.step_id, key.task_id, key.action_id) == (STEP, TASK, f"{ACTION}-1")


HASH = "e635a50a1a174ec409c0d29c19639283"


def test_the_check_cache_remembers_by_store(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "cache.sqlite")
    cache = CheckCache(path, "one")
    assert cache.problem is None and cache.size_of(HASH) is None
    cache.add(HASH, 5)
    cache.close()
    assert CheckCache(path, "one").size_of(HASH) == 5
    other = CheckCache(path, "two")
    assert other.size_of(HASH) is None
    other.forget()
    other.close()
    first = CheckCache(path, "one")
    assert first.size_of(HASH) == 5
    first.forget()
    assert first.size_of(HASH) is None


def test_the_check_cache_gives_the_same_when_read_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    cache = CheckCache(path, "one")
    known = {f"{number:032x}": number for number in range(0, 400, 2)}
    for hash, size in known.items():
        cache.add(hash, size)
    cache.close()
    cache = CheckCache(path, "one")
    for number in range(400):  # after some of these it reads all that is left
        assert cache.size_of(f"{number:032x}") == known.get(f"{number:032x}")
    assert cache._loaded is not None


def test_what_was_seen_long_ago_is_not_believed(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    cache = CheckCache(path, "one")
    cache.add(HASH, 5)
    cache.close()
    base = sqlite3.connect(path)
    base.execute("UPDATE seen SET at = at - 31 * 86400")
    base.commit()
    base.close()
    assert CheckCache(path, "one").size_of(HASH) is None


def test_what_is_not_believed_any_more_is_removed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "cache.sqlite")
    cache = CheckCache(path, "one")
    cache.add(HASH, 5)
    cache.close()
    base = sqlite3.connect(path)
    base.execute("UPDATE seen SET at = at - 31 * 86400")
    base.commit()
    for share, left in ((0.0, 1), (1.0, 0)):
        monkeypatch.setattr(store, "TIDIED", share)
        CheckCache(path, "one").close()
        assert base.execute("SELECT count(*) FROM seen").fetchone() == (left,)
    base.close()


def test_a_check_cache_that_cannot_be_written_only_forgets(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CheckCache(str(tmp_path / "file" / "cache.sqlite"), "one")
    assert cache.problem
    cache.add(HASH, 5)
    assert cache.size_of(HASH) is None
    cache.forget()
    cache.close()


def test_many_processes_may_share_the_check_cache(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.sqlite")
    problems = []

    def work(number: int) -> None:
        cache = CheckCache(path, "one")
        for index in range(700):
            cache.add(f"{number:02x}{index:030x}", index)
        cache.close()
        problems.append(cache.problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == [None] * 8
    assert sqlite3.connect(path).execute("SELECT count(*) FROM seen").fetchone() == (5600,)


class Listing:
    """Stands in for S3: a store's content, asked for by listing or one by one."""

    def __init__(self, hashes: list[str]) -> None:
        self.keys = sorted(f"p/Data/{hash}.xxh128" for hash in hashes)
        self.heads = self.pages_read = 0
        self.lock = threading.Lock()

    def head_each(self, keys: list[str]) -> list[Found | None]:
        with self.lock:
            self.heads += len(keys)
        return [Found(key, 3, "") if key in self.keys else None for key in keys]

    def pages(self, prefix: str, *, after: str | None = None, most: int | None = None) -> Any:
        rows = [key for key in self.keys if key.startswith(prefix) and key > (after or "")]
        for start in range(0, max(len(rows), 1), 1000):
            with self.lock:
                self.pages_read += 1
            page = rows[start : start + 1000]
            following = "more" if start + 1000 < len(rows) else None
            yield Page(page, [3] * len(page), [""] * len(page), [], following)


def presence_of(count: int) -> tuple[Presence, Listing, list[str]]:
    dice = random.Random(count)
    hashes = [f"{dice.getrandbits(128):032x}" for _ in range(count)]
    listing = Listing(hashes)
    return Presence(Store(listing, "p"), None), listing, hashes  # type: ignore[arg-type]


def settled(presence: Presence) -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.endswith("(_list)"):
            thread.join(10)


@pytest.mark.parametrize(
    ("count", "waiting", "is_listed"), [(300, 64, True), (3000, 2000, True), (3000, 20, False), (20_000, 100, False)]
)
def test_a_listing_is_read_where_it_pays(count: int, waiting: int, is_listed: bool) -> None:
    presence, listing, hashes = presence_of(count)
    presence.expect(waiting)
    settled(presence)
    assert (presence.listed is not None) == is_listed
    wanted = hashes[:50] + [f"{number:032x}" for number in range(50)]
    assert [presence.find(hash) for hash in wanted] == [3] * 50 + [None] * 50
    assert listing.heads == (0 if is_listed else 100)
    if is_listed:
        assert presence.listed is not None and presence.listed.count == count


def test_what_came_in_while_the_first_page_was_read_counts() -> None:
    presence, listing, hashes = presence_of(3000)
    presence.backlog = lambda: 2000
    presence.expect(64)
    settled(presence)
    assert presence.listed is not None and presence.listed.count == 3000


def test_keys_that_are_no_contents_are_passed_over() -> None:
    presence, listing, hashes = presence_of(10)
    listing.keys = sorted([*listing.keys, "p/Data/readme", f"p/Data/{HASH}", f"p/Data/{HASH.upper()}.xxh128"])
    presence.expect(64)
    settled(presence)
    assert presence.listed is not None and presence.listed.count == 10


def test_a_listing_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that makes up keys for ever, where its first page promised some three thousand."""
    monkeypatch.setattr(store, "MOST_PAGES", 5)
    presence, listing, hashes = presence_of(3000)
    real = listing.pages

    def pages(prefix: str, **how: Any) -> Any:
        page = next(real(prefix, **how))
        yield page._replace(next="more")
        while True:
            last = page.keys[-1] if page.keys else prefix
            yield Page([f"{last}{number:05}" for number in range(1000)], [3] * 1000, [""] * 1000, [], "more")

    monkeypatch.setattr(listing, "pages", pages)
    monkeypatch.setattr(listing, "url", lambda key: key, raising=False)
    presence.expect(2000)
    settled(presence)
    assert presence.listed is None
    assert presence.find(hashes[0]) == 3 and presence.find("0" * 32) is None
    assert listing.heads == 2
