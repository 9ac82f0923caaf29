"""The rules of the control tools that a farm does not show at will: states, times, pages, refusals."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dl_tools import dl_logs, dl_requeue, dl_submit, dl_wait
from dl_tools.dl_show import listing

from libdeadline import statuses, times
from libdeadline.aws import ServiceError
from libdeadline.command import Run
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, File, Manifest, OutputDir, Root

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
FARM = {"farmId": "farm-1", "queueId": "queue-1", "jobId": "job-1"}


class Client:
    """Answers of a service, in their order; an exception among them is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), []

    def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((operation, parameters))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (dl_wait, dl_submit):
        monkeypatch.setattr(module, "monotonic", clock.monotonic)
    for module in (dl_wait, dl_submit, dl_requeue):
        monkeypatch.setattr(module, "sleep", clock.sleep)
    return clock


def quiet_run() -> Run:
    return Run("test", "error", "none")


@pytest.mark.parametrize(
    ("lifecycle", "status", "answer"),
    [
        ("CREATE_COMPLETE", "SUCCEEDED", 0),
        ("CREATE_COMPLETE", "FAILED", 2),
        ("CREATE_COMPLETE", "CANCELED", 3),
        ("CREATE_COMPLETE", "SUSPENDED", 4),
        ("CREATE_COMPLETE", "NOT_COMPATIBLE", 5),
        ("CREATE_COMPLETE", "RUNNING", None),
        ("CREATE_FAILED", None, 2),
        ("ARCHIVED", "RUNNING", 4),
        ("CREATE_IN_PROGRESS", "SUSPENDED", None),
        ("UPDATE_SUCCEEDED", "READY", None),
    ],
)
def test_what_a_state_answers(lifecycle: str, status: str | None, answer: int | None) -> None:
    assert dl_wait.answer_of({"lifecycleStatus": lifecycle, "taskRunStatus": status}) == answer


def test_a_wait_ends_exactly_with_its_time(clock: Clock) -> None:
    client = Client(*[{"jobId": "job-1", "taskRunStatus": "RUNNING"}] * 1000)
    looks = list(dl_wait.watched(client, FARM, quiet_run(), clock.now + 61.7, 120))
    assert looks[-1][1] == dl_wait.TIMED_OUT
    assert clock.now == pytest.approx(1061.7)
    assert [answer for _, answer in looks[:-1]] == [None] * (len(looks) - 1)
    assert len(looks) < 120  # the pauses grow


def test_an_end_is_seen_within_a_twentieth_of_the_time(clock: Clock) -> None:
    ends = clock.now + 600

    class Ending(Client):
        def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
            return {"taskRunStatus": "SUCCEEDED" if clock.now >= ends else "RUNNING"}

    list(dl_wait.watched(Ending(), FARM, quiet_run(), None, 120))
    assert clock.now - ends <= 600 * dl_wait.POLL_SHARE + dl_wait.FIRST_POLL_S


def test_a_wait_outlives_an_outage_but_not_a_refusal(clock: Clock) -> None:
    running, gone = {"taskRunStatus": "RUNNING"}, Trouble("gone", statuses.UNAVAILABLE)
    client = Client(running, gone, gone, running, {"taskRunStatus": "SUCCEEDED"})
    assert list(dl_wait.watched(client, FARM, quiet_run(), None, 1))[-1][1] == 0
    with pytest.raises(Trouble):  # at the first look
        list(dl_wait.watched(Client(gone), FARM, quiet_run(), None, 1))
    with pytest.raises(Trouble):
        list(dl_wait.watched(Client(running, Trouble("no", statuses.NOT_ALLOWED)), FARM, quiet_run(), None, 1))
    with pytest.raises(Trouble, match="gone"):
        list(dl_wait.watched(Client(running, *[gone] * 10_000), FARM, quiet_run(), None, 1))
    assert clock.now > 1000 + dl_wait.OUTAGE_S


def test_creation_is_waited_for(clock: Clock) -> None:
    creating = {"lifecycleStatus": "CREATE_IN_PROGRESS"}
    done = {"lifecycleStatus": "CREATE_COMPLETE"}
    assert dl_submit.created(Client(creating, creating, done), "farm-1", "queue-1", "job-1") is done
    failed = {"lifecycleStatus": "CREATE_FAILED", "lifecycleStatusMessage": "no such\nstep"}
    with pytest.raises(Trouble, match="no such step") as caught:
        dl_submit.created(Client(failed), "farm-1", "queue-1", "job-1")
    assert caught.value.status == statuses.DATA
    with pytest.raises(Trouble, match="still being created") as caught:
        dl_submit.created(Client(*[creating] * 1000), "farm-1", "queue-1", "job-1")
    assert caught.value.status == statuses.TRY_AGAIN


def submission(**fields: Any) -> dl_submit.Submission:
    found = dl_submit.Submission()
    shape = {"path": "/b", "template": "{}", "template_type": "JSON", "s3_bucket_name": "bucket", **fields}
    found.read(Bundle.of(**shape))
    return found


def test_attachments_follow_the_roots() -> None:
    found = submission(file_system="VIRTUAL", max_worker_count=-1, priority=0)
    for root in ("/z", "/a"):
        found.read(
            Root.of(root=root, root_path_format="posix", file_system_location_name="L" if root == "/a" else None)
        )
        found.read(File.of(path="f", root=root))
    for path in ("out/b", "out/a", "out/b"):
        found.read(OutputDir.of(root="/a", path=path))
    found.read(Manifest.of(root="/a", manifest_path="k/a", hash="1"))
    found.read(Manifest.of(root="/z", manifest_path="k/z", hash="2"))
    found.read(Manifest.of(root="/a", manifest_path="k/out", hash="3", output=True))
    request = found.request("farm-1", "queue-1")
    assert request["attachments"] == {
        "fileSystem": "VIRTUAL",
        "manifests": [
            {"rootPath": "/z", "rootPathFormat": "posix", "inputManifestPath": "k/z", "inputManifestHash": "2"},
            {
                "rootPath": "/a",
                "rootPathFormat": "posix",
                "fileSystemLocationName": "L",
                "inputManifestPath": "k/a",
                "inputManifestHash": "1",
                "outputRelativeDirectories": ["out/a", "out/b"],
            },
        ],
    }
    assert (request["priority"], request["maxWorkerCount"]) == (0, -1)
    assert "storageProfileId" not in request


def test_a_request_without_its_manifests_is_refused() -> None:
    found = submission()
    found.read(Root.of(root="/a", root_path_format="posix"))
    assert found.request("f", "q")["attachments"]["manifests"] == [{"rootPath": "/a", "rootPathFormat": "posix"}]
    found.read(File.of(path="f", root="/a"))
    for manifest in ({"root": "/b", "manifest_path": "k"}, {"root": "/a"}):
        found.read(Manifest.of(**manifest))
        with pytest.raises(Trouble, match="under '/a' are not stored"):
            found.request("f", "q")
    with pytest.raises(Trouble, match="two bundles"):
        found.read(Bundle.of(path="/c", template="{}", template_type="JSON"))
    assert "attachments" not in submission(s3_bucket_name=None).request("f", "q")


def at(minutes: int | None) -> datetime | None:
    return None if minutes is None else NOON + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("spans", "chosen"),
    [
        ([(0, 5)], 0),
        ([(0, 50), (10, 20)], 0),
        ([(0, None), (10, 60)], 0),
        ([(0, None), (10, None), (5, None)], 1),
        ([(None, None), (1, None)], 1),
        ([(0, 5), (None, None)], 1),
    ],
)
def test_the_session_to_read(spans: list[tuple[int | None, int | None]], chosen: int) -> None:
    sessions = [
        {name: moment for name, moment in (("startedAt", at(start)), ("endedAt", at(end))) if moment}
        | {"sessionId": str(index)}
        for index, (start, end) in enumerate(spans)
    ]
    assert dl_logs.chosen_session(sessions)["sessionId"] == str(chosen)


def stream() -> dl_logs.Stream:
    return dl_logs.Stream("/g", "s", None, NOON, None)


def test_all_pages_are_read_from_the_head() -> None:
    pages = [
        {"events": [{"timestamp": 1, "message": "a \n"}], "nextForwardToken": "f/1"},
        {"events": [], "nextForwardToken": "f/2"},
        {"events": [{"timestamp": 1500, "message": "b"}], "nextForwardToken": "f/3"},
        {"events": [], "nextForwardToken": "f/3"},
    ]
    client = Client(*pages)
    rows = [row for page in dl_logs.pages(client, stream(), None, None) for row in dl_logs.lines(page, stream())]
    assert [(row.timestamp, row.message) for row in rows] == [
        ("1970-01-01T00:00:00.001Z", "a"),
        ("1970-01-01T00:00:01.500Z", "b"),
    ]
    assert [asked.get("nextToken") for _, asked in client.asked] == [None, "f/1", "f/2", "f/3"]
    assert all(asked["startFromHead"] for _, asked in client.asked)
    assert client.asked[0][1]["endTime"] == int(NOON.timestamp() * 1000) + 1


def test_the_newest_lines_are_one_page() -> None:
    client = Client({"events": [], "nextForwardToken": "f/1", "nextBackwardToken": "b/1"})
    assert len(list(dl_logs.pages(client, stream(), "b/0", 5))) == 1
    assert not client.asked[0][1]["startFromHead"]
    missing = ServiceError("GetLogEvents", "ResourceNotFoundException", "no such stream", 400, {})
    assert list(dl_logs.pages(Client(missing), stream(), None, 5)) == []
    denied = ServiceError("GetLogEvents", "AccessDeniedException", "no", 403, {})
    with pytest.raises(ServiceError):
        list(dl_logs.pages(Client(denied), stream(), None, 5))


def test_actions_name_their_session() -> None:
    digits = "0123456789abcdef" * 2
    assert dl_logs.session_of_action(f"sessionaction-{digits}-12", None) == f"session-{digits}"
    for action, session in (("sessionaction-1-2", None), (f"sessionaction-{digits}-1", "session-1"), ("x", None)):
        with pytest.raises(Trouble) as caught:
            dl_logs.session_of_action(action, session)
        assert caught.value.status == statuses.USAGE


def test_requeueing_goes_in_batches_and_tries_again_what_may_pass(clock: Clock) -> None:
    tasks = [{"taskId": f"task-{number}", "stepId": "step-1"} for number in range(150)]
    throttled = {"taskId": "task-3", "code": "ThrottlingException", "message": "slow"}
    refused = {"taskId": "task-5", "code": "ConflictException", "message": "busy"}
    client = Client({"errors": [throttled, refused]}, {"errors": []}, {})
    run = quiet_run()
    done = dl_requeue.requeued(client, FARM, tasks, run)
    assert [len(asked["tasks"]) for _, asked in client.asked] == [100, 1, 50]
    assert client.asked[1][1]["tasks"] == [
        {**FARM, "stepId": "step-1", "taskId": "task-3", "targetRunStatus": "PENDING"}
    ]
    assert set(done) == {task["taskId"] for task in tasks} - {"task-5"}
    assert run.status == statuses.DATA


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"), (59.9, "59 seconds"), (60, "1 minute"), (150, "2 minutes"), (3600, "1 hour"),
        (3660, "1 hour, 1 minute"), (2 * 3600 + 125, "2 hours, 2 minutes"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds: float, words: str) -> None:
    assert listing.duration(seconds) == words


def test_the_time_left_is_told_from_what_is_done() -> None:
    job = {"startedAt": NOON, "taskRunStatusCounts": {"SUCCEEDED": 2, "FAILED": 1, "RUNNING": 1, "READY": 2}}
    assert listing.time_left(job, NOON + timedelta(minutes=9)) == "9 minutes"
    for counts in ({}, {"READY": 3}, {"SUCCEEDED": 3}):
        assert listing.time_left({**job, "taskRunStatusCounts": counts}, NOON + timedelta(minutes=9)) == "N/A"
    assert listing.time_left({**job, "startedAt": None}, NOON) == "N/A"


def test_names_are_shortened_in_the_middle() -> None:
    assert listing.shortened("x" * 80) == "x" * 80
    short = listing.shortened("a" * 100 + "b" * 100)
    assert len(short) == 80
    assert short == "a" * 51 + "..." + "b" * 26


def test_times_go_to_text_and_back() -> None:
    moment = NOON.replace(microsecond=821000)
    answer = {"createdAt": moment, "list": [{"endedAt": NOON}], "name": "2026-01-31T12:00:00Z", "at": 1}
    text = times.texts(answer)
    assert text["createdAt"] == "2026-01-31T12:00:00.821000Z"
    assert text["list"] == [{"endedAt": "2026-01-31T12:00:00Z"}]
    assert times.moments(text) == answer  # a name that looks like a time stays text
