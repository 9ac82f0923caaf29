"""Minted credentials: checked without a table, bound to their key, ending in time."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from libdeadline.minted import Expired, InvalidToken, KeyRing, UnknownKey

NOW = 1_800_000_000.0
CLAIMS = {"kind": "worker", "farm": "farm-1", "worker": "worker-ä"}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keys")


def test_files_are_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    KeyRing.create(folder, name="first")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    KeyRing.create(folder, name="second")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(before) == ["access.json", "master"] and len(before["master"]) == 32
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_the_admin_key_resolves(tmp_path: Path, ring: KeyRing) -> None:
    entries = json.loads((tmp_path / "keys" / "access.json").read_text())
    ((key_id, entry),) = entries.items()
    principal = ring.resolve(key_id, None)
    assert (principal.secret, principal.claims, principal.expires) == (entry["secret"], {"principal": "admin"}, None)
    with pytest.raises(UnknownKey):
        ring.resolve("AKIA" + "A" * 16, None)


def test_a_key_added_later_is_found_and_a_removed_one_is_not(tmp_path: Path, ring: KeyRing) -> None:
    path = tmp_path / "keys" / "access.json"
    entries = json.loads(path.read_text())
    old = next(iter(entries))
    path.with_suffix(".new").write_text(
        json.dumps({"AKIANEW": {"secret": "s", "principal": "user", "level": "VIEWER"}})
    )
    path.with_suffix(".new").replace(path)
    later = NOW + 1e6  # the file is looked at once a second at most
    assert ring.resolve("AKIANEW", None, later).claims == {"principal": "user", "level": "VIEWER"}
    with pytest.raises(UnknownKey):
        ring.resolve(old, None, later)


def test_a_file_that_is_half_written_changes_nothing(tmp_path: Path, ring: KeyRing) -> None:
    path = tmp_path / "keys" / "access.json"
    whole = path.read_text()
    key_id = next(iter(json.loads(whole)))
    for n, broken in enumerate((whole[:-9], "[]", '{"AKIA": 1}', '{"AKIA": {}}', "")):
        path.write_text(broken)
        assert ring.resolve(key_id, None, NOW + 10 * n).claims == {"principal": "admin"}
        with pytest.raises(ValueError):
            KeyRing.load(tmp_path / "keys")


def test_minted_credentials_resolve_in_another_ring_of_the_same_folder(tmp_path: Path, ring: KeyRing) -> None:
    minted = ring.mint(CLAIMS, 3600, NOW)
    assert minted.expires == NOW + 3600
    principal = KeyRing.load(tmp_path / "keys").resolve(minted.access_key_id, minted.session_token, NOW + 3599)
    assert principal.claims == CLAIMS
    assert (principal.secret, principal.expires) == (minted.secret_access_key, minted.expires)


def test_they_end(ring: KeyRing) -> None:
    minted = ring.mint(CLAIMS, 60, NOW)
    assert ring.resolve(minted.access_key_id, minted.session_token, NOW + 59.9)
    with pytest.raises(Expired):
        ring.resolve(minted.access_key_id, minted.session_token, NOW + 60)


def test_every_changed_character_is_noticed(ring: KeyRing) -> None:
    minted = ring.mint({"a": 1}, 60, NOW)
    token = minted.session_token
    for index, character in enumerate(token):
        changed = token[:index] + ("A" if character != "A" else "B") + token[index + 1 :]
        if _means_the_same(token, changed):
            continue
        with pytest.raises(InvalidToken):
            ring.resolve(minted.access_key_id, changed, NOW)


def _means_the_same(token: str, other: str) -> bool:
    # The last character of a base64 text may have bits to spare.
    from base64 import urlsafe_b64decode

    try:
        decoded = [[urlsafe_b64decode(part + "==") for part in each.split(".")] for each in (token, other)]
    except ValueError:
        return False
    return decoded[0] == decoded[1]


def test_a_token_is_of_its_key_and_its_farm(tmp_path: Path, ring: KeyRing) -> None:
    one, two = ring.mint(CLAIMS, 60, NOW), ring.mint(CLAIMS, 60, NOW)
    for key_id, token in (
        (one.access_key_id, two.session_token),
        (one.access_key_id, None),
        (one.access_key_id, ""),
        (one.access_key_id, "no token"),
        (one.access_key_id, "ü.ü"),
        (next(iter(ring.keys())), one.session_token),
    ):
        with pytest.raises(InvalidToken):
            ring.resolve(key_id, token, NOW)
    with pytest.raises(InvalidToken):
        KeyRing.create(tmp_path / "other").resolve(one.access_key_id, one.session_token, NOW)


def test_the_cache_holds_no_more_than_it_may(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libdeadline.minted.CACHE_SIZE", 3)
    minted = [ring.mint({"n": n}, 60, NOW) for n in range(9)]
    for _ in range(2):
        for n, each in enumerate(minted):
            assert ring.resolve(each.access_key_id, each.session_token, NOW).claims == {"n": n}
    assert len(ring._cache) == 3


def test_a_short_master_key_is_refused(tmp_path: Path) -> None:
    KeyRing.create(tmp_path)
    (tmp_path / "master").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing.load(tmp_path)


def test_a_seal_is_for_one_thing_of_one_farm(tmp_path: Path, ring: KeyRing) -> None:
    sealed = ring.seal(b"about", b"content")
    assert KeyRing.load(tmp_path / "keys").unseal(b"about", sealed) == b"content"
    other = KeyRing.create(tmp_path / "other")
    changed = [sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :] for place in range(len(sealed))]
    for who, about, content in (
        (ring, b"abou", sealed), (ring, b"aboutc", sealed), (other, b"about", sealed), (ring, b"about", b""),
        *((ring, b"about", each) for each in changed),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="seal"):
            who.unseal(about, content)
