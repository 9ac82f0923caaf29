"""SHA-256 and its HMAC from the interpreter's own code: what signing a few requests takes, without OpenSSL.

Loading OpenSSL costs a process 3 ms and 3.6 MB, and a pipeline as much for each of its stages. Where it is loaded
anyway it does the work, because it is three times as fast.
Source: FIPS 180-4; RFC 2104.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING or "_hashlib" in sys.modules:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # from Python 3.12 on
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:  # an interpreter that was built without
            from hashlib import sha256

__all__ = ["hmac_sha256", "sha256"]

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """The HMAC of a message, 32 bytes."""
    if "_hashlib" in sys.modules:
        from hmac import digest

        return digest(key, message, "sha256")
    if len(key) > _BLOCK_BYTES:
        key = sha256(key).digest()
    key = key.ljust(_BLOCK_BYTES, b"\0")
    return sha256(key.translate(_OUTER) + sha256(key.translate(_INNER) + message).digest()).digest()
