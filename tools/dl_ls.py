"""dl-ls - list resources of a farm, or get single ones

Usage:
  dl-ls [options] [--] <kind> [<id>...]

Options:
  --profile=<name>      AWS profile to use.
  --region=<name>       AWS region of the farm.
  --farm-id=<id>        Farm that the resources are in.
  --queue-id=<id>       Queue that they are in.
  --fleet-id=<id>       Fleet of the workers or members.
  --job-id=<id>         Job that they belong to.
  --step-id=<id>        Step of the tasks; without it, tasks of all steps.
  --task-id=<id>        Task whose actions to list.
  --session-id=<id>     Session of the actions; without it, actions of all
                        sessions of the job.
  --search=<text>       Only jobs, workers, steps or tasks with this in their
                        name or values.
  --status=<status>     Only those with this status.
  --limit=<n>           List at most this many, the newest jobs first.
  --item-offset=<n>     Start the list after this many.
  --whole               Get each one listed, as some members are only in the
                        answer to a Get request.
  --fields=<names>      Only these members of the service's answer, separated
                        by commas.
  --format=<format>     records, table, json or yaml; auto is a table on a
                        terminal, else records [default: auto].

A <kind> in the plural (several are separated by commas; farms, queues, fleets, workers, jobs, steps, tasks,
sessions, actions, queue-environments, storage-profiles,
queue-storage-profiles, limits, budgets, queue-fleets (the queue, then all about
each of its fleets), queue-fleet-associations, queue-limit-associations, farm-members, queue-members, fleet-members,
job-members, job-parameters, step-dependencies, step-consumers, monitors,
license-endpoints, metered-products) lists; with <id>s, it gets these. In the
singular it is the one with that <id>, or of an option or of the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from libdeadline import command, statuses
from libdeadline.errors import Trouble
from libdeadline.records import Record, Resource

PAGE_SIZE = 100  # most that a search answers at once
MOST_SEARCHED = 10_000  # highest item offset of a search


class Kind(NamedTuple):
    """How a kind of resource is listed and got, and which of its members are its id, name and status."""

    plural: str
    list_operation: str
    get_operation: str
    scope: str  # resources that its requests name, of: f(arm) q(ueue) l fleet, j(ob) s(tep) e session
    id: str
    name: str = "displayName"
    status: str = "status"
    members: str = ""  # the list in a search's answer


KINDS = {
    "farm": Kind("farms", "ListFarms", "GetFarm", "", "farmId"),
    "queue": Kind("queues", "ListQueues", "GetQueue", "f", "queueId"),
    "fleet": Kind("fleets", "ListFleets", "GetFleet", "f", "fleetId"),
    "worker": Kind("workers", "SearchWorkers", "GetWorker", "fl", "workerId", "", "status", "workers"),
    "job": Kind("jobs", "SearchJobs", "GetJob", "fq", "jobId", "name", "taskRunStatus", "jobs"),
    "step": Kind("steps", "ListSteps", "GetStep", "fqj", "stepId", "name", "taskRunStatus", "steps"),
    "task": Kind("tasks", "ListTasks", "GetTask", "fqjs", "taskId", "", "runStatus", "tasks"),
    "session": Kind("sessions", "ListSessions", "GetSession", "fqj", "sessionId", "", "lifecycleStatus"),
    "action": Kind("actions", "ListSessionActions", "GetSessionAction", "fqj", "sessionActionId"),
    "queue-environment": Kind(
        "queue-environments", "ListQueueEnvironments", "GetQueueEnvironment", "fq", "queueEnvironmentId", "name"
    ),
    "storage-profile": Kind("storage-profiles", "ListStorageProfiles", "GetStorageProfile", "f", "storageProfileId"),
    "queue-storage-profile": Kind(
        "queue-storage-profiles",
        "ListStorageProfilesForQueue",
        "GetStorageProfileForQueue",
        "fq",
        "storageProfileId",
    ),
    "limit": Kind("limits", "ListLimits", "GetLimit", "f", "limitId"),
    "budget": Kind("budgets", "ListBudgets", "GetBudget", "f", "budgetId"),
    "queue-fleet": Kind("queue-fleets", "ListQueueFleetAssociations", "", "fq", "fleetId"),
    "queue-fleet-association": Kind("queue-fleet-associations", "ListQueueFleetAssociations", "", "f", "fleetId"),
    "queue-limit-association": Kind("queue-limit-associations", "ListQueueLimitAssociations", "", "f", "limitId"),
    "farm-member": Kind("farm-members", "ListFarmMembers", "", "f", "principalId", "principalType", "membershipLevel"),
    "queue-member": Kind(
        "queue-members", "ListQueueMembers", "", "fq", "principalId", "principalType", "membershipLevel"
    ),
    "fleet-member": Kind(
        "fleet-members", "ListFleetMembers", "", "fl", "principalId", "principalType", "membershipLevel"
    ),
    "job-member": Kind("job-members", "ListJobMembers", "", "fqj", "principalId", "principalType", "membershipLevel"),
    "job-parameter": Kind("job-parameters", "ListJobParameterDefinitions", "", "fqj", "name", "name", "type"),
    "step-dependency": Kind("step-dependencies", "ListStepDependencies", "", "fqjs", "stepId", "", "status"),
    "step-consumer": Kind("step-consumers", "ListStepConsumers", "", "fqjs", "stepId", "", "status"),
    "monitor": Kind("monitors", "ListMonitors", "GetMonitor", "", "monitorId"),
    "license-endpoint": Kind(
        "license-endpoints", "ListLicenseEndpoints", "GetLicenseEndpoint", "", "licenseEndpointId"
    ),
    "metered-product": Kind(
        "metered-products", "ListAvailableMeteredProducts", "", "", "productId", "family", "vendor"
    ),
}
LEVELS = {
    "f": ("--farm-id", "farmId"),
    "q": ("--queue-id", "queueId"),
    "l": ("--fleet-id", "fleetId"),
    "j": ("--job-id", "jobId"),
    "s": ("--step-id", "stepId"),
    "e": ("--session-id", "sessionId"),
}
STATUS_FIELDS = {"job": "TASK_RUN_STATUS", "worker": "STATUS", "step": "TASK_RUN_STATUS", "task": "RUN_STATUS"}
SEARCHES = {"job": "SearchJobs", "worker": "SearchWorkers", "step": "SearchSteps", "task": "SearchTasks"}
FORMATS = ("auto", "records", "table", "json", "yaml")


class Request(NamedTuple):
    """What is asked for, and how to reach it."""

    kind: str
    call: Callable[[str, dict[str, Any]], dict[str, Any]]
    items: Callable[[str, dict[str, Any]], Iterator[dict[str, Any]]]
    where: dict[str, str]


def found(request: Request, args: command.Arguments, run: command.Run) -> Iterator[dict[str, Any]]:
    """Yield the service's answer for each resource in question, in the service's order."""
    kind = KINDS[request.kind]
    ids = args["<id>"]
    if not ids and args["<kind>"] == request.kind:
        ids = [_only(request, args)]
    if ids:
        for each in ids:
            yield _got(request, each)
        return
    offset = args.integer("--item-offset", 0) or 0
    limit = args.integer("--limit", 1)
    rows = _searched(request, args, run, offset, limit) if _searches(request, args) else _listed(request, args)
    if not _searches(request, args):
        status = (args["--status"] or "").upper()
        rows = (row for row in rows if not status or row.get(kind.status) == status)
        rows = _sliced(rows, offset, limit)
    for row in rows:
        yield _got(request, row[kind.id]) if args["--whole"] and kind.get_operation else row


def _searches(request: Request, args: command.Arguments) -> bool:
    if request.kind in ("job", "worker"):
        return True
    return request.kind in SEARCHES and bool(args["--search"])


def _only(request: Request, args: command.Arguments) -> str:
    option = f"--{request.kind}-id"
    if option in args and args[option]:
        return str(args[option])
    from libdeadline import targets

    setting = targets.OPTIONS.get(option)
    value = request.where.get(KINDS[request.kind].id) or (targets.config_of(args).get(setting) if setting else "")
    if not value:
        raise Trouble(f"which {request.kind}? name its id, or '{KINDS[request.kind].plural}' to list", statuses.USAGE)
    return value


def _got(request: Request, each: str) -> dict[str, Any]:
    kind = KINDS[request.kind]
    if not kind.get_operation:
        raise Trouble(f"{kind.plural} can only be listed", statuses.USAGE)
    parameters = {**request.where, kind.id: each}
    if request.kind == "task" and "stepId" not in parameters:
        raise Trouble("to get a task, name its step with --step-id", statuses.USAGE)
    answer = request.call(kind.get_operation, parameters)
    answer.pop("ResponseMetadata", None)
    return {kind.id: each, **answer} if kind.id not in answer else answer


def _listed(request: Request, args: command.Arguments) -> Iterator[dict[str, Any]]:
    kind = KINDS[request.kind]
    where = dict(request.where)
    if request.kind == "queue-fleet-association":
        where |= {name: args[option] for option, name in (LEVELS["q"], LEVELS["l"]) if args[option]}
    if request.kind == "queue-limit-association" and args["--queue-id"]:
        where["queueId"] = args["--queue-id"]
    if request.kind == "task" and "stepId" not in where:
        for step in request.items("ListSteps", where):
            for task in request.items("ListTasks", {**where, "stepId": step["stepId"]}):
                yield {"stepId": step["stepId"], "stepName": step.get("name"), **task}
    elif request.kind == "queue-fleet":
        yield from _queue_fleets(request)
    elif request.kind == "action" and args["--task-id"]:
        yield from request.items(kind.list_operation, {**where, "taskId": args["--task-id"]})
    elif request.kind == "action" and args["--session-id"]:
        yield from request.items(kind.list_operation, {**where, "sessionId": args["--session-id"]})
    elif request.kind == "action":
        for session in request.items("ListSessions", where):
            yield from request.items(kind.list_operation, {**where, "sessionId": session["sessionId"]})
    else:
        yield from request.items(kind.list_operation, where)


def _queue_fleets(request: Request) -> Iterator[dict[str, Any]]:
    farm = {"farmId": request.where["farmId"]}
    yield request.call("GetQueue", request.where)
    for association in request.items("ListQueueFleetAssociations", request.where):
        fleet = request.call("GetFleet", {**farm, "fleetId": association["fleetId"]})
        yield {**fleet, "queueFleetAssociationStatus": association["status"]}


def _searched(
    request: Request, args: command.Arguments, run: command.Run, offset: int, limit: int | None
) -> Iterator[dict[str, Any]]:
    filters: list[dict[str, Any]] = []
    if args["--search"]:
        filters.append({"searchTermFilter": {"searchTerm": args["--search"], "matchType": "CONTAINS"}})
    if args["--status"]:
        field = STATUS_FIELDS[request.kind]
        filters.append({"stringFilter": {"name": field, "operator": "EQUAL", "value": args["--status"].upper()}})
    parameters: dict[str, Any] = {"farmId": request.where["farmId"]}
    if request.kind == "worker":
        fleet = request.where.get("fleetId")
        fleets = [fleet] if fleet else [each["fleetId"] for each in request.items("ListFleets", parameters)]
        if not fleets:
            run.count(total=0)
            return
        parameters["fleetIds"] = fleets[:10]
    else:
        parameters["queueIds"] = [request.where["queueId"]]
    if "jobId" in request.where:
        parameters["jobId"] = request.where["jobId"]
    if request.kind == "job":
        parameters["sortExpressions"] = [{"fieldSort": {"sortOrder": "DESCENDING", "name": "CREATED_AT"}}]
    if filters:
        parameters["filterExpressions"] = {"filters": filters, "operator": "AND"}
    left = limit
    first = True
    while left is None or left > 0:
        size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
        answer = request.call(SEARCHES[request.kind], {**parameters, "itemOffset": offset, "pageSize": size})
        if first:
            run.count(total=answer.get("totalResults", 0))
            first = False
        rows = answer.get(KINDS[request.kind].members) or []
        yield from rows
        if left is not None:
            left -= len(rows)
        following = answer.get("nextItemOffset")
        if not rows or following is None:
            return
        if following > MOST_SEARCHED:
            run.warn(f"the service lists no more than {MOST_SEARCHED} {KINDS[request.kind].plural} of a search")
            return
        offset = following


def _sliced(rows: Iterator[dict[str, Any]], offset: int, limit: int | None) -> Iterator[dict[str, Any]]:
    from itertools import islice

    return islice(rows, offset, None if limit is None else offset + limit)


def record_of(kind: str, data: dict[str, Any], where: dict[str, str], fields: list[str] | None) -> Resource:
    """The resource record of an answer of the service, with `fields` only if named."""
    from libdeadline import times

    if kind == "queue-fleet":
        kind = "fleet" if "fleetId" in data else "queue"
    shape = KINDS[kind]
    members = times.texts(_chosen(data, fields))
    return Resource.of(
        resource=kind,
        id=str(data[shape.id]),
        name=data.get(shape.name) or data.get("displayName") or None,
        status=data.get(shape.status),
        farm_id=where.get("farmId"),
        queue_id=where.get("queueId"),
        data=members,
    )


def _chosen(data: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    return {name: data.get(name, "") for name in fields} if fields else data


def shown(rows: list[dict[str, Any]], single: bool, form: str, kind: str, fields: list[str] | None) -> str:
    """The text of `rows` for a person: a table, or a JSON or YAML document (one mapping if `single`)."""
    if form == "table":
        return _table(rows, kind, fields)
    chosen = [_chosen(row, fields) for row in rows]
    document: Any = chosen[0] if single and len(chosen) == 1 else chosen
    if form == "yaml":
        from libdeadline import yaml_text

        return yaml_text.dump(document) + "\n"
    import json

    from libdeadline import times

    return json.dumps(times.texts(document), indent=2) + "\n"


def _table(rows: list[dict[str, Any]], kind: str, fields: list[str] | None) -> str:
    if not rows:
        return ""
    shape = KINDS[kind]
    if not fields:
        fields = [name for name in (shape.id, shape.name, shape.status) if any(row.get(name) for row in rows)]
        fields += ["createdAt"] if any(row.get("createdAt") for row in rows) else []
    from datetime import datetime

    def cell(value: Any) -> str:
        if isinstance(value, datetime):
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return "" if value is None else " ".join(str(value).split())

    cells = [list(fields), *([cell(row.get(name)) for name in fields] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(fields))]
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in cells
    )


def request_of(kind: str, args: command.Arguments, warn: Callable[[str], None]) -> Request:
    """Which resources are meant, found out with as few requests as can be."""
    from libdeadline import aws, targets

    config = targets.config_of(args)
    scope = KINDS[kind].scope
    ids, singular = args["<id>"], args["<kind>"] == kind
    where: dict[str, str] = {}
    if kind == "farm" and ids:
        session = aws.Session(config.with_values({"defaults.farm_id": ids[0]}))
    elif scope or (kind == "farm" and singular):
        # What is got by its own id needs no choice of one here.
        reached = targets.target(args, queue="q" in scope or (kind == "queue" and singular and not ids))
        session = reached.session
        where["farmId"] = reached.farm_id
        if reached.queue_id:
            where["queueId"] = reached.queue_id
    else:
        session = aws.Session(config)
    for level in "lj":
        if level in scope:
            option, name = LEVELS[level]
            value = args[option] or (config.get("defaults.job_id") if level == "j" else "")
            if value:
                where[name] = value
            elif kind != "worker" or ids or singular:
                raise Trouble(f"which {name[:-2]}? give {option}", statuses.USAGE)
    if "s" in scope:
        if args["--step-id"]:
            where["stepId"] = args["--step-id"]
        elif kind != "task":
            raise Trouble("which step? give --step-id", statuses.USAGE)
    if kind == "farm" and not where and not ids:
        # Made only when it is asked, as each region has a client of its own.
        def farms(operation: str, parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
            listed, troubles = aws.list_farms(session, region=args["--region"])
            for trouble in troubles:
                warn(trouble)
            return iter(listed)

        return Request(
            kind, lambda operation, parameters: session.client("deadline").call(operation, parameters), farms, where
        )
    client = session.client("deadline")
    return Request(kind, client.call, client.items, where)


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    import os

    form = args.choice("--format", FORMATS)
    if form == "auto":
        form = "table" if os.isatty(1) else "records"
    fields = [name.strip() for name in args["--fields"].split(",") if name.strip()] if args["--fields"] else None
    run.text = form != "records"
    by_plural = {shape.plural: kind for kind, shape in KINDS.items()}
    words = args["<kind>"].split(",")
    for word in words:
        kind = by_plural.get(word, word)
        if kind not in KINDS:
            raise Trouble(f"there is no kind '{word}': it is one of {', '.join(by_plural)}", statuses.USAGE)
        if args["--search"] and kind not in SEARCHES:
            raise Trouble(f"{KINDS[kind].plural} can't be searched", statuses.USAGE)
    if len(words) > 1 and (run.text or args["<id>"]):
        raise Trouble("several kinds come only as records, and have no ids", statuses.USAGE)
    for word in words:
        kind = by_plural.get(word, word)
        asked = command.Arguments({**args, "<kind>": word})
        request = request_of(kind, asked, run.warn)
        rows = found(request, asked, run)
        if form == "records":
            for row in rows:
                yield record_of(kind, row, request.where, fields)
        else:
            single = word == kind and len(args["<id>"]) < 2
            run.print(shown(list(rows), single, str(form), kind, fields))


def main() -> int:
    return command.run(__doc__, stage)
