"""The service object, and how the inside of dl-farmd is put together.

    server.py      HTTP/1.1, group commit            protocol.py  requests and responses from botocore's model
    auth.py        SigV4, who may call what          errors.py    what operations raise
    operations.py  @operation, Call                  store.py     SQLite, schema, insert/update/one/value/members
    pages.py       nextToken of lists                search.py    filters and sorts of Search*
    logs.py sts.py the other two services            roles.py     Assume*Role
    farms.py queues.py fleets.py associations.py environments.py storage_profiles.py limits.py budgets.py members.py
    monitors.py licences.py tags.py copies.py        resources, over resources.sql
    jobs.py changes.py scheduling.py scaling.py workers.py sessions.py ... work, over jobs.sql

**An operation** is `@operation("CreateFarm") def create_farm(call: Call) -> dict`. Every module of this package is
imported at start, so a new file needs no registration. It gets checked parameters (`call.params`: model member
names, absent ones left out, timestamps in ms), the database inside the request's transaction (`call.db`), and
returns members by name with timestamps in ms; what the output shape does not know is dropped, and None is left out.
It raises an error of errors.py; whatever it wrote is then rolled back. Client tokens (idempotency) are the frame's
affair. It runs in the event loop's thread, so it must not wait for anything but the database; it must not COMMIT.

**Group commit**: requests that arrived together run one after another in one transaction, each in a savepoint, and
are answered after its commit. `farm.after_commit(function)` runs `function()` once that has happened, and never if
the request is rolled back: memory that mirrors the database changes there, or is rebuilt on the event "rollback".

**A module's start**: a module-level `def start(farm)` is called once before the first request: it registers timers
and listeners, and takes up unfinished background work.

- `farm.every(seconds, function)`: `function(db)` in a transaction of its own, again and again.
- `farm.after(seconds, function)`: the same, once.
- `farm.soon(function)`: the same, as soon as the loop is free.
- `farm.background(prepare, then, failed)`: `prepare()` runs in the background thread (it must not touch
  `farm.db`; `store.connect(farm.path, read_only=True)` is there for reading), then `then(db, result)` in a
  transaction on the loop. If `then` returns a generator, each of its steps is a transaction of its own, and requests
  are served between the steps. If either raises, `failed(db, error)` runs in a transaction.
- `farm.stepwise(steps, failed)`: each step of an iterator in a transaction of its own, as of `then` above.
- `farm.on(event, listener)`, `farm.emit(event, db, **about)`: listeners run at once, in the emitter's transaction.
  Events and what they are told:
  `queue_fleet_association` (farm_id, queue_id, fleet_id, status, was) when one is made, changed or deleted (status
  None);
  `queue_limit_association` (farm_id, queue_id, limit_id, status, was);
  `queue_changed`, `queue_deleting` (farm_id, queue_id); `fleet_changed`, `fleet_deleting` (farm_id, fleet_id);
  `farm_deleting` (farm_id); `limit_changed` (farm_id, limit_id);
  `budget_changed` (farm_id, queue_id, blocked, cancels);
  `rollback` (nothing, db None): a whole group was undone, memory must be read anew.

An operation that has nothing to answer yet may raise `Hold(key, seconds)`: its request is undone, and runs again at
`farm.wake(key)` or when the time is over (`call.held` then says so). That is how idle workers learn of work at once.

`farm.now_ms()` is the clock, `farm.new_id("job")` makes ids, `farm.region`, `farm.account`, `farm.ring` (KeyRing),
`farm.settings` (the object `settings` of config.json), `farm.logs.create(group, stream)` makes a log stream.

**Tests**: `tests/farm/conftest.py` has the fixtures `farmd` (a dl-farmd process over a temporary folder; `.client()`
is a boto3 client with the admin key, `.client("logs")`, `.client(credentials=...)`, `.restart()`, `.kill()`,
`.dir`) and `farm_ids` (farm, queue, fleet, associated). With DL_FARM_CHECK=1, which they set, every response is
checked against its output shape, and a breach is a 500.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from time import time
from typing import TYPE_CHECKING, Any

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.minted import KeyRing

from . import store

if TYPE_CHECKING:
    from .logs import Logs

DEFAULT_REGION = "us-west-2"
DEFAULT_ACCOUNT = "000000000000"

Database = sqlite3.Connection
Work = Callable[[Database], Any]


class Farm:
    """Everything that the operations of one farm share."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.path = folder / "farm.sqlite"
        self.tell = tell
        self.config = read_config(folder / "config.json")
        self.region: str = self.config.get("region", DEFAULT_REGION)
        self.account: str = self.config.get("account", DEFAULT_ACCOUNT)
        self.settings: dict[str, Any] = self.config.get("settings", {})
        try:
            self.ring = KeyRing.create(folder / "keys")
        except ValueError as error:
            raise Trouble(f"the farm's keys can't be used: {error}", statuses.CONFIGURATION) from None
        self.db = store.open_writer(self.path, tell)
        self.logs: Logs
        self.loop: asyncio.AbstractEventLoop
        self.stopping = False
        self._listeners: dict[str, list[Callable[..., None]]] = defaultdict(list)
        self._committed: list[Callable[[], None]] = []
        self._held: dict[str, dict[Callable[[], None], asyncio.TimerHandle]] = defaultdict(dict)
        self._thread = ThreadPoolExecutor(1, "background")
        self.modules = [
            import_module(f"{__package__}.{found.name}") for found in iter_modules([str(Path(__file__).parent)])
        ]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let each module begin its work."""
        self.loop = loop
        for module in self.modules:
            begin = getattr(module, "start", None)
            if begin is not None:
                begin(self)

    @staticmethod
    def now_ms() -> int:
        """The time, in milliseconds since the epoch."""
        return int(time() * 1000)

    @staticmethod
    def new_id(prefix: str) -> str:
        """A new resource id such as `queue-` and 32 hexadecimal digits."""
        return f"{prefix}-{os.urandom(16).hex()}"

    def arn(self, path: str) -> str:
        """The ARN of a resource of this service, such as that of `farm/farm-…/queue/queue-…`."""
        return f"arn:aws:deadline:{self.region}:{self.account}:{path}"

    def on(self, event: str, listener: Callable[..., None]) -> None:
        """Call `listener(db, **about)` at each `event`."""
        self._listeners[event].append(listener)

    def emit(self, event: str, db: Database | None, **about: Any) -> None:
        """Tell the listeners of `event`."""
        for listener in self._listeners[event]:
            listener(db, **about)

    def hold(self, key: str, seconds: float, function: Callable[[], None]) -> None:
        """Run `function()` when `key` is woken, and `seconds` from now at the latest."""

        def over() -> None:
            if self._held[key].pop(function, None):
                function()

        self._held[key][function] = self.loop.call_later(seconds, over)

    def wake(self, key: str) -> None:
        """Run what was held with this key."""
        for function, timer in self._held.pop(key, {}).items():
            timer.cancel()
            function()

    def wake_all(self) -> None:
        """Run all that was held."""
        for key in list(self._held):
            self.wake(key)

    def after_commit(self, function: Callable[[], None]) -> None:
        """Run `function` once what is being written is on disk."""
        self._committed.append(function)

    def every(self, seconds: float, function: Work) -> None:
        """Run `function(db)` in a transaction every `seconds`."""

        def run() -> None:
            if not self.stopping:
                self.transaction(function)
                self.loop.call_later(seconds, run)

        self.loop.call_later(seconds, run)

    def after(self, seconds: float, function: Work) -> None:
        """Run `function(db)` in a transaction once, `seconds` from now."""
        self.loop.call_later(seconds, self.transaction, function)

    def soon(self, function: Work) -> None:
        """Run `function(db)` in a transaction as soon as the loop is free."""
        self.loop.call_soon(self.transaction, function)

    def background(
        self,
        prepare: Callable[[], Any],
        then: Callable[[Database, Any], Any],
        failed: Callable[[Database, BaseException], None],
    ) -> None:
        """Run `prepare()` in the background thread, then write what it made: see the module's text."""

        def work() -> None:
            try:
                result = prepare()
            except BaseException as error:
                self._to_loop(self.transaction, lambda db, error=error: failed(db, error))
            else:
                self._to_loop(self._write, then, result, failed)

        self._thread.submit(work)

    def stepwise(self, steps: Iterator[Any], failed: Callable[[Database, BaseException], None]) -> None:
        """Run each step of an iterator in a transaction of its own, with requests served between them."""
        self.loop.call_soon(self._step, steps, failed)

    def _to_loop(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed: unfinished work is taken up at the next start

    def _write(
        self, then: Callable[[Database, Any], Any], result: Any, failed: Callable[[Database, BaseException], None]
    ) -> None:
        made: list[Any] = []
        error = self.transaction(lambda db: made.append(then(db, result)))
        if error is not None:
            self.transaction(lambda db: failed(db, error))
        elif isinstance(made[0], Iterator):
            self._step(made[0], failed)

    def _step(self, steps: Iterator[Any], failed: Callable[[Database, BaseException], None]) -> None:
        if self.stopping:
            return
        more: list[bool] = []
        error = self.transaction(lambda db: more.append(next(steps, self) is not self))
        if error is not None:
            self.transaction(lambda db: failed(db, error))
        elif more[0]:
            self.loop.call_soon(self._step, steps, failed)

    def transaction(self, function: Work) -> BaseException | None:
        """Run `function(db)` in a transaction of its own, outside any request.

        Returns the exception that undid it, which has been told of, or None.
        """
        if self.db.in_transaction:
            raise RuntimeError("a transaction is open already: use farm.soon")
        try:
            self.db.execute("BEGIN")
            function(self.db)
            self.db.execute("COMMIT")
        except Exception as error:
            self.undo()
            import traceback

            self.tell(f"undone: {type(error).__name__}: {error}")
            self.tell("".join(traceback.format_exception(error)))
            return error
        self.committed()
        return None

    def undo(self) -> None:
        """Roll the open transaction back, if SQLite has not done so."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self._committed.clear()
        self.emit("rollback", None)

    def mark(self) -> int:
        """A place among the functions that wait for the commit: see `forget`."""
        return len(self._committed)

    def forget(self, mark: int) -> None:
        """Drop what waits for the commit since `mark`, because a savepoint was rolled back."""
        del self._committed[mark:]

    def committed(self) -> None:
        """Run what waited for the commit."""
        waiting, self._committed = self._committed, []
        for function in waiting:
            try:
                function()
            except Exception as error:  # what is on disk is to be acknowledged all the same
                self.tell(f"after a commit: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Stop the background thread and close the database, its log merged into the main file."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()


def read_config(path: Path) -> dict[str, Any]:
    """What config.json holds, {} without the file; the values of its `settings` are numbers.

    Raises: Trouble (78).
    """
    try:
        config = json.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise Trouble(f"cannot read '{path}': {error}", statuses.CONFIGURATION) from None
    settings = config.get("settings", {}) if isinstance(config, dict) else None
    if not isinstance(settings, dict):
        raise Trouble(f"'{path}' must hold an object, and so must its 'settings'", statuses.CONFIGURATION)
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise Trouble(f"the setting '{name}' in '{path}' takes a number, not {value!r}", statuses.CONFIGURATION)
    return dict(config)
