"""The checksums that S3 clients send, by the names in their headers.

Source: Amazon S3 API reference, "Checking object integrity"; CRC-32C: RFC 3720 appendix B.4;
CRC-64/NVME: NVM Express NVM command set specification, "64b CRC polynomial".
"""

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Protocol

TABLE_LIMIT = 1 << 15  # bytes that a table-driven CRC is computed over: more would hold up every other client


class Hasher(Protocol):
    def update(self, data: memoryview) -> None: ...
    def digest(self) -> bytes: ...


class Crc32:
    def __init__(self) -> None:
        self.value = 0

    def update(self, data: memoryview) -> None:
        self.value = zlib.crc32(data, self.value)

    def digest(self) -> bytes:
        return self.value.to_bytes(4, "big")


class TableCrc:
    """A reflected CRC by awscrt where that is installed, else by a table, in Python.

    `digest` gives b"" for a body longer than TABLE_LIMIT without awscrt: then it is not known.
    """

    def __init__(self, polynomial: int, width: int, native: Callable[..., int] | None) -> None:
        self.polynomial, self.width, self.native = polynomial, width, native
        self.value, self.length = 0, 0

    def update(self, data: memoryview) -> None:
        self.length += len(data)
        if self.native:
            self.value = self.native(bytes(data), self.value)
        elif self.length <= TABLE_LIMIT:
            table, mask = _table(self.polynomial), (1 << self.width) - 1
            value = self.value ^ mask
            for byte in data:
                value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
            self.value = value ^ mask

    def digest(self) -> bytes:
        if self.native or self.length <= TABLE_LIMIT:
            return self.value.to_bytes(self.width // 8, "big")
        return b""


@cache
def _table(polynomial: int) -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ polynomial if value & 1 else value >> 1
        table.append(value)
    return table


@cache
def _native(name: str) -> Callable[..., int] | None:
    try:
        from awscrt import checksums
    except ImportError:
        return None
    return getattr(checksums, name, None)


def _crc32c() -> Hasher:
    return TableCrc(0x82F63B78, 32, _native("crc32c"))


def _crc64nvme() -> Hasher:
    return TableCrc(0x9A6C9329AC4BC9B5, 64, _native("crc64nvme"))


def _xxhash(name: str) -> Callable[[], Hasher]:
    def make() -> Hasher:
        import xxhash

        return getattr(xxhash, name)()

    return make


HASHERS: dict[str, Callable[[], Hasher]] = {
    "crc32": Crc32,
    "crc32c": _crc32c,
    "crc64nvme": _crc64nvme,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
    "xxhash64": _xxhash("xxh64"),
    "xxhash3": _xxhash("xxh3_64"),
    "xxhash128": _xxhash("xxh3_128"),
}


def composite(algorithm: str, parts: list[str]) -> str:
    """The checksum of checksums of a multipart object, from base64 of each part's, as S3 writes it."""
    from base64 import b64decode

    hasher = HASHERS[algorithm]()
    hasher.update(memoryview(b"".join(b64decode(part) for part in parts)))
    return f"{b64encode(hasher.digest()).decode()}-{len(parts)}"
