"""SHA-256 and its HMAC without OpenSSL, against hashlib's; and that a service call does without it."""

import hmac
import importlib.util
import subprocess
import sys
from hashlib import sha256

import pytest

LENGTHS = (0, 1, 32, 63, 64, 65, 200)
ALONE = """
import sys
from libdeadline.digests import hmac_sha256, sha256
for length in {lengths}:
    print(sha256(b"k" * length).hexdigest(), hmac_sha256(b"k" * length, b"message").hex())
assert ("_hashlib" in sys.modules) is {openssl}
"""
HAS_OWN = any(importlib.util.find_spec(name) for name in ("_sha2", "_sha256"))


@pytest.mark.parametrize("openssl", [False, True])
def test_it_is_the_same_digest(openssl: bool) -> None:
    if not openssl and not HAS_OWN:
        pytest.skip("this interpreter has no SHA-256 but OpenSSL's")
    text = ("import hashlib\n" if openssl else "") + ALONE.format(lengths=LENGTHS, openssl=openssl)
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, check=True)
    wanted = [f"{sha256(b'k' * n).hexdigest()} {hmac.digest(b'k' * n, b'message', 'sha256').hex()}" for n in LENGTHS]
    assert done.stdout.splitlines() == wanted


@pytest.mark.skipif(not HAS_OWN, reason="this interpreter has no SHA-256 but OpenSSL's")
def test_what_calls_a_service_does_not_load_openssl() -> None:
    text = "import sys, libdeadline.aws; assert '_hashlib' not in sys.modules and 'ssl' not in sys.modules"
    subprocess.run([sys.executable, "-c", text], check=True)
