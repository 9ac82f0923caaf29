"""dl-s3d - serve the S3 of a farm on this machine

Usage:
  dl-s3d [options] --dir=<dir>

Options:
  --dir=<dir>       Folder of the farm: objects are kept below its store, keys are read from its keys.
  --listen=<where>  Address and port to listen at, such as 127.0.0.1:0 for a free port;
                    without it, the listening socket that is standard input.
  --beyond-loopback  Allow an address that other machines can reach.
  --no-flush        Answer before what was stored is on the disk: faster, and the last seconds may be lost with
                    the power.

Answers the part of S3's API that job attachments and ordinary clients need, by path or by host name below
.localhost, to requests signed with the farm's keys or with credentials that its API minted. Once it listens at
an address that it was given, one record on standard output tells its URL. Ends on SIGTERM, when open requests
are answered.
"""

from __future__ import annotations

import os
import signal
import socket

from libdeadline import command, statuses
from libdeadline.command import Arguments, Run
from libdeadline.errors import Trouble

GRACE_S = 5.0  # for open requests when told to stop
BACKLOG = 1024
MOST_FILES = 16384
DEFAULT_ACCOUNT = "000000000000"
DEFAULT_REGION = "us-west-2"


def given_socket() -> socket.socket:
    """The listening socket that a supervisor handed over as standard input.

    Raises: Trouble.
    """
    try:
        listener = socket.socket(fileno=os.dup(0))
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listening = 0
    if not listening:
        raise Trouble("standard input is no listening socket: give --listen=127.0.0.1:0, say", statuses.USAGE)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return listener


def bound_socket(where: str, beyond_loopback: bool) -> socket.socket:
    """A socket that listens at `where`.

    Raises: Trouble.
    """
    from ipaddress import ip_address

    host, colon, port = where.rpartition(":")
    host = host.strip("[]")
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
        if not 0 <= number < 65536:
            raise ValueError
    except ValueError:
        message = f"--listen takes an address and a port such as 127.0.0.1:0, not '{where}'"
        raise Trouble(message, statuses.USAGE) from None
    if not address.is_loopback and not beyond_loopback:
        raise Trouble(
            f"'{where}' can be reached by other machines: give a loopback address, or --beyond-loopback", statuses.USAGE
        )
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((str(address), number))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Trouble(f"cannot listen at '{where}': {error.strerror}", statuses.UNAVAILABLE) from None
    return listener


def settings(folder: str) -> tuple[str, str, bool]:
    """(account, region) of the farm, and whether its objects are to be on the disk before a request is answered.

    Raises: Trouble.
    """
    import json

    path = os.path.join(folder, "config.json")
    try:
        with open(path, "rb") as file:
            config = json.load(file)
        flushes = bool(config.get("settings", {}).get("flush_objects", 1))
        return str(config.get("account", DEFAULT_ACCOUNT)), str(config.get("region", DEFAULT_REGION)), flushes
    except FileNotFoundError:
        return DEFAULT_ACCOUNT, DEFAULT_REGION, True
    except (ValueError, AttributeError):
        raise Trouble(f"'{path}' is no JSON object: put it right or remove it", statuses.CONFIGURATION) from None


def serve(args: Arguments, run: Run) -> int:
    import sqlite3

    from libdeadline.minted import KeyRing

    from .service import Service
    from .serving import Loop
    from .store import VERSION, Busy, Newer, Store

    folder = os.path.abspath(args["--dir"])
    where = args["--listen"]
    listener = given_socket() if where is None else bound_socket(where, args["--beyond-loopback"])
    account, region, flushes = settings(folder)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        ring = KeyRing.create(os.path.join(folder, "keys"))
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble(f"the keys of '{folder}' cannot be used: {error}", statuses.CONFIGURATION) from None
    try:
        store = Store(os.path.join(folder, "store"), flushes and not args["--no-flush"])
    except Busy:
        raise Trouble(
            f"another dl-s3d serves '{folder}': end it first, or use another folder", statuses.TRY_AGAIN
        ) from None
    except Newer as error:
        message = f"the index of '{folder}/store' has schema {error.args[0]}, newer than this version's {VERSION}: "
        raise Trouble(f"{message}use the version that wrote it", statuses.CONFIGURATION) from None
    except sqlite3.Error as error:
        raise Trouble(f"the index of '{folder}/store' cannot be opened: {error}", statuses.IO) from None
    service = Service(store, ring, account, region, run.debug, run.warn)
    loop = Loop(listener, service.converse, store.commit, run.warn)
    _allow_files()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    if where is not None:
        _announce(listener)
    try:
        loop.run(GRACE_S)
    finally:
        store.close()
    return statuses.OK


def _allow_files() -> None:
    """As many open files as the system lets us have: two for each client that is being answered."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(MOST_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _announce(listener: socket.socket) -> None:
    from libdeadline.records import Resource, encode

    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    os.write(1, encode(Resource.of(resource="server", id="dl-s3d", data={"url": url})))


def main() -> int:
    return command.call(__doc__, serve)
