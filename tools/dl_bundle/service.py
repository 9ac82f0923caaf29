"""What the service knows about where a job is to go: queue, queue environments, storage profile.

Source: attachments specification, submission; service API.
"""

from __future__ import annotations

from threading import Thread
from typing import Any, NamedTuple

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from . import documents, parameters
from .parameters import Definition


class Service(NamedTuple):
    """What the service knows about where the job is to go."""

    farm_id: str | None = None
    queue_id: str | None = None
    queue: dict[str, Any] = {}
    environments: list[tuple[str, dict[str, Definition]]] = []
    storage_profile: dict[str, Any] | None = None


class Inquiry:
    """Asks the service, while other work goes on."""

    def __init__(self, args: Arguments) -> None:
        self._args = args
        self._answer: Service | None = None
        self._error: BaseException | None = None
        self._thread = Thread(target=self._ask, daemon=True)
        self._thread.start()

    def answer(self) -> Service:
        """What came of it.

        Raises: what asking raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def _ask(self) -> None:
        try:
            self._answer = inquire(self._args)
        except BaseException as error:  # for the main thread to raise
            self._error = error


def inquire(args: Arguments) -> Service:
    """Get the queue, its environments and the storage profile, side by side."""
    from libdeadline.targets import target

    where = target(args)
    client = where.session.client("deadline")
    place = {"farmId": where.farm_id, "queueId": where.queue_id}
    profile_id = where.config.get("settings.storage_profile_id")

    def environment(row: dict[str, Any]) -> tuple[int, str, dict[str, Definition]]:
        found = client.call("GetQueueEnvironment", {**place, "queueEnvironmentId": row["queueEnvironmentId"]})
        name = str(found.get("name", row["queueEnvironmentId"]))
        kind = str(found.get("templateType", "YAML"))
        try:
            template = documents.parse(found["template"], kind)
        except ValueError as error:
            raise Trouble(f"the template of queue environment '{name}' is not {kind}: {error}", statuses.DATA) from None
        defined = template.get("parameterDefinitions") if isinstance(template, dict) else None
        return int(found.get("priority", 0)), name, parameters.definitions(defined, f"queue environment '{name}'")

    def environments() -> list[tuple[str, dict[str, Definition]]]:
        rows = list(client.items("ListQueueEnvironments", place))
        found = _side_by_side([lambda row=row: environment(row) for row in rows])
        return [(name, defined) for _, name, defined in sorted(found, key=lambda each: each[0])]

    calls = [lambda: client.call("GetQueue", place), environments]
    if profile_id:
        calls.append(lambda: client.call("GetStorageProfileForQueue", {**place, "storageProfileId": profile_id}))
    found = _side_by_side(calls)
    return Service(where.farm_id, where.queue_id, found[0], found[1], found[2] if profile_id else None)


def _side_by_side(calls: list[Any]) -> list[Any]:
    """The results of calls that wait for a server, made at the same time."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:  # for the caller to raise
            errors.append(error)

    threads = [Thread(target=work, args=(index,), daemon=True) for index in range(1, len(calls))]
    for thread in threads:
        thread.start()
    if calls:
        work(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
