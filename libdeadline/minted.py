"""Credentials of the embedded farm: long-term keys from a file, and temporary ones that need no table.

A minted session token is the claims and the expiry, authenticated by HMAC-SHA256 with the farm's master key; its
secret is derived from the access key id and the token. So whoever has the master key (dl-farmd, dl-s3d) can check a
credential alone, nothing is written when one is made, and all of them survive restarts.

Source: spec/service.md section 13.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hmac import compare_digest
from hmac import digest as hmac_digest
from pathlib import Path
from secrets import token_bytes
from time import time
from typing import Any

from . import disk

MASTER_BYTES = 32
SEAL_BYTES = 16
CACHE_SIZE = 4096
RELOAD_S = 1.0  # how often at most access.json is looked at for a change
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


class CredentialError(Exception):
    """A credential that is not accepted; `code` is the name of the AWS error that says why."""

    code = "UnrecognizedClientException"


class UnknownKey(CredentialError):
    """Nobody has this access key id."""


class InvalidToken(CredentialError):
    """The session token is missing, malformed, or not made with this master key for this access key id."""


class Expired(CredentialError):
    """The credential was valid once."""

    code = "ExpiredTokenException"


@dataclass(frozen=True, slots=True)
class Minted:
    """A fresh temporary credential; `expires` in seconds since the epoch."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose credential it is: its secret, and what it claims.

    `claims` of a long-term key are its entry in access.json without the secret ({"principal": "admin"}); of a
    minted one what `KeyRing.mint` was given. `expires` is None for a long-term key.
    """

    access_key_id: str
    secret: str
    claims: dict[str, Any]
    expires: int | None = None


class KeyRing:
    """The keys of one farm: the folder `keys` below its data folder."""

    def __init__(self, master: bytes, access: Path | None = None) -> None:
        self._master = master
        self._access = access
        self._keys: dict[str, Principal] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0
        self._cache: dict[tuple[str, str], Principal] = {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> KeyRing:
        """The key ring of the folder that holds `master` and `access.json`.

        Raises: OSError, ValueError where they are missing or malformed.
        """
        path = Path(folder)
        master = (path / "master").read_bytes()
        if len(master) != MASTER_BYTES:
            raise ValueError(f"'{path / 'master'}' must hold {MASTER_BYTES} bytes, not {len(master)}")
        ring = cls(master, path / "access.json")
        ring._reload(time())
        return ring

    @classmethod
    def create(cls, folder: str | os.PathLike[str], **admin: Any) -> KeyRing:
        """The key ring of `folder`, whose missing files are made first: a master key, and one admin key.

        `admin` adds claims to the admin key's entry.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_once(path / "master", token_bytes(MASTER_BYTES))
        entry = {"secret": b64encode(token_bytes(30)).decode(), "principal": "admin", **admin}
        _write_once(path / "access.json", json.dumps({access_key_id("AKIA"): entry}, indent=1).encode() + b"\n")
        return cls.load(path)

    def keys(self) -> dict[str, Principal]:
        """The long-term keys, by access key id."""
        self._reload(time())
        return dict(self._keys)

    def mint(self, claims: dict[str, Any], life_s: int, now: float | None = None) -> Minted:
        """A temporary credential that carries `claims` (a JSON object) for `life_s` seconds."""
        key_id = access_key_id("ASIA")
        expires = int(time() if now is None else now) + life_s
        payload = json.dumps({**claims, "expires": expires}, separators=(",", ":")).encode()
        token = f"{_encode(payload)}.{_encode(self._tag(key_id, payload))}"
        return Minted(key_id, self._secret(key_id, token), token, expires)

    def resolve(self, key_id: str, token: str | None, now: float | None = None) -> Principal:
        """The principal of an access key id and the session token that came with it.

        Raises: UnknownKey, InvalidToken, Expired.
        """
        now = time() if now is None else now
        if token is None:
            self._reload(now)
            try:
                return self._keys[key_id]
            except KeyError:
                if key_id.startswith("ASIA"):
                    raise InvalidToken("The security token is missing from the request.") from None
                raise UnknownKey("The security token included in the request is invalid.") from None
        principal = self._cache.get((key_id, token))
        if principal is None:
            principal = self._open(key_id, token)
            if len(self._cache) >= CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            self._cache[key_id, token] = principal
        assert principal.expires is not None
        if now >= principal.expires:
            raise Expired("The security token included in the request is expired.")
        return principal

    def seal(self, about: bytes, content: bytes) -> bytes:
        """`content` with a tag in front that only this key ring makes, and only for `about`; anyone can read it."""
        return self._seal_tag(about, content) + content

    def unseal(self, about: bytes, sealed: bytes) -> bytes:
        """The content of what `seal` made for the same `about`.

        Raises: ValueError.
        """
        tag, content = sealed[:SEAL_BYTES], sealed[SEAL_BYTES:]
        if not compare_digest(tag, self._seal_tag(about, content)):
            raise ValueError("the seal is not that of this farm")
        return content

    def _seal_tag(self, about: bytes, content: bytes) -> bytes:
        text = b"seal\0" + len(about).to_bytes(8) + about + content
        return hmac_digest(self._master, text, "sha256")[:SEAL_BYTES]

    def _open(self, key_id: str, token: str) -> Principal:
        payload, _, tag = token.partition(".")
        try:
            content = _decode(payload)
            good = compare_digest(_decode(tag), self._tag(key_id, content))
            claims = json.loads(content) if good else {}
        except ValueError:
            good = False
        if not good:
            raise InvalidToken("The security token included in the request is invalid.")
        return Principal(key_id, self._secret(key_id, token), claims, claims.pop("expires"))

    def _reload(self, now: float) -> None:
        if self._access is None or 0 <= now - self._looked < RELOAD_S:
            return
        self._looked = now
        try:
            status = self._access.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            entries = json.loads(self._access.read_bytes())
            self._keys = {
                key_id: Principal(key_id, entry["secret"], {k: v for k, v in entry.items() if k != "secret"})
                for key_id, entry in entries.items()
            }
            self._stamp = stamp
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            if self._stamp is None:
                if isinstance(error, OSError):
                    raise
                raise ValueError(f"'{self._access}' is no object of keys with secrets") from error
            # Someone is writing it: the keys that we know go on working.

    def _tag(self, key_id: str, payload: bytes) -> bytes:
        return hmac_digest(self._master, b"token\0" + key_id.encode() + b"\0" + payload, "sha256")

    def _secret(self, key_id: str, token: str) -> str:
        return b64encode(hmac_digest(self._master, f"secret\0{key_id}\0{token}".encode(), "sha256")).decode()


def access_key_id(prefix: str) -> str:
    """A fresh access key id: `prefix` (AKIA or ASIA) and sixteen random characters."""
    return prefix + "".join(ALPHABET[byte & 31] for byte in token_bytes(16))


def _write_once(path: Path, content: bytes) -> None:
    # Linked to its name when whole, so that of two programs that start together one makes it, for both.
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        disk.flush(str(path.parent))
    finally:
        temporary.unlink()


def _encode(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
