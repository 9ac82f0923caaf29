"""Some minutes of trouble for the reference worker agent and our own worker on one queue, then an audit.

Usage:
  agents_soak.py [--seconds=<n>] [--seed=<n>] <agent>

Jobs come, are cancelled, suspended and requeued; associations stop; the agent is stopped and killed; dl-farmd and
dl-s3d are killed, and now and then all of the farm at once. When it is over every job comes to an end, and:

- the counts of each job equal its tasks, and each task is what its last action says;
- no two actions of a task overlap;
- each task that succeeded logged all of its lines, but for sessions whose agent was killed with -9;
- no session is left open.

<agent> is the program file of the reference agent, deadline-worker-agent.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path += [str(TESTS), str(TESTS / "interop")]

import agents  # noqa: E402
import conftest  # noqa: E402
from docopt import docopt  # noqa: E402

END_S = 300.0
FINAL = ("SUCCEEDED", "FAILED", "CANCELED")


def connector(farm: Any) -> Any:
    import boto3
    from botocore.config import Config

    os.environ.update(farm.environment)
    # A server that was killed is there again after a moment.
    return lambda service: boto3.Session().client(service, config=Config(retries={"total_max_attempts": 12}))


class Trouble:
    def __init__(self, site: agents.Site, chance: random.Random) -> None:
        self.site, self.chance, self.client = site, chance, site.client
        self.jobs: list[dict[str, str]] = []
        self.killed: list[tuple[float, float]] = []  # when the agent's last word may have been lost
        self.done: Counter[str] = Counter()

    def job(self) -> dict[str, str] | None:
        return self.chance.choice(self.jobs) if self.jobs else None

    def submit(self) -> None:
        key = f"job{len(self.jobs)}"
        fields = {"alone": self.chance.random() < 0.3, "maxRetriesPerTask": 50, "priority": self.chance.randrange(100)}
        self.jobs.append(self.site.many(key, self.chance.randint(1, 5), self.chance.choice((0, 0.3, 1.5)), **fields))

    def target(self) -> None:
        if job := self.job():
            target = self.chance.choice(("CANCELED", "SUSPENDED", "READY", "READY", "PENDING", "FAILED"))
            try:
                self.client.update_job(**job, targetTaskRunStatus=target)
            except self.client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] not in ("ConflictException", "ValidationException"):
                    raise

    def requeue(self) -> None:
        if job := self.job():
            for step in self.client.list_steps(**job)["steps"]:
                for task in self.client.list_tasks(**job, stepId=step["stepId"])["tasks"]:
                    if self.chance.random() < 0.5:
                        ids = {**job, "stepId": step["stepId"], "taskId": task["taskId"]}
                        self.client.update_task(**ids, targetRunStatus="PENDING")

    def associations(self) -> None:
        for queue in (self.site.ids.queue, self.site.ids.shared_queue):
            status = self.chance.choice(("STOP_SCHEDULING_AND_CANCEL_TASKS", "STOP_SCHEDULING_AND_COMPLETE_TASKS"))
            pair = {"farmId": self.site.ids.farm, "queueId": queue, "fleetId": self.site.ids.fleet}
            self.client.update_queue_fleet_association(**pair, status=status)

    def resume(self) -> None:
        for queue in (self.site.ids.queue, self.site.ids.shared_queue):
            self.site.associate(queue, "ACTIVE")

    def stop_agent(self) -> None:
        self.site.end(signal.SIGTERM)
        self.site.start()

    def kill_agent(self) -> None:
        self.site.end(signal.SIGKILL)
        self.killed.append((time.time() - 10, time.time() + 1))
        if self.chance.random() < 0.3:
            time.sleep(agents.SILENCE_S + 1)
        self.site.start()

    def kill_server(self) -> None:
        name = self.chance.choice(("dl-farmd", "dl-farmd", "dl-s3d"))
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            mine = f"--dir={self.site.farm.dir}".encode() in words
            if mine and any(word.endswith(f"/{name}".encode()) for word in words):
                os.kill(int(place.name), signal.SIGKILL)

    def kill_all(self) -> None:
        self.killed.append((time.time() - 10, time.time() + 1))
        assert self.site.process is not None
        self.site.process.kill()
        agents.kill_all(self.site.farm.dir)
        self.site.process.wait()
        self.site.farm.run("dl-farm", "up", "--dir", str(self.site.farm.dir), check=True)
        self.site.start()

    def go_on(self, seconds: float) -> None:
        deeds = {
            self.submit: 12, self.target: 6, self.requeue: 4, self.associations: 2, self.resume: 4, self.stop_agent: 1,
            self.kill_agent: 2, self.kill_server: 3, self.kill_all: 1,
        }  # fmt: skip
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            [deed] = self.chance.choices(list(deeds), list(deeds.values()))
            self.keep_alive()
            deed()
            self.done[deed.__name__] += 1
            time.sleep(self.chance.uniform(0, 1.5))

    def settle(self) -> None:
        """Until all jobs are finished."""
        self.resume()
        for job in self.jobs:
            agents.until(lambda job=job: self.is_finished(job), END_S)

    def keep_alive(self) -> None:
        """Start an agent anew that ended by itself, as a host's service manager does."""
        if self.site.process is None or self.site.process.poll() is not None:
            self.done["agent that ended by itself"] += 1
            self.site.start()

    def is_finished(self, job: dict[str, str]) -> bool:
        """Whether a job has come to an end; what is suspended is taken up again first."""
        self.keep_alive()
        status = self.client.get_job(**job).get("taskRunStatus")
        if status == "SUSPENDED":
            self.client.update_job(**job, targetTaskRunStatus="READY")
        return status in FINAL

    def audit(self) -> list[str]:
        """What is wrong."""
        wrong = []
        for number, job in enumerate(self.jobs):
            told = self.client.get_job(**job)
            counts = {status: n for status, n in told["taskRunStatusCounts"].items() if n}
            [step] = self.client.list_steps(**job)["steps"]
            tasks = self.client.list_tasks(**job, stepId=step["stepId"])["tasks"]
            if counts != Counter(task["runStatus"] for task in tasks):
                wrong.append(f"job{number}: {counts} are not its tasks")
            try:
                self.site.check_once_at_a_time(job)
            except AssertionError as error:
                wrong.append(f"job{number}: {error}")
            open_ones = [s["sessionId"] for s in self.client.list_sessions(**job)["sessions"] if "endedAt" not in s]
            if open_ones:
                wrong.append(f"job{number}: open sessions {open_ones}")
            wrong += [f"job{number}: {fault}" for fault in self.logs(job, tasks)]
        return wrong

    def logs(self, job: dict[str, str], tasks: list[dict[str, Any]]) -> list[str]:
        wrong = []
        for task in tasks:
            if task["runStatus"] != "SUCCEEDED" or "latestSessionActionId" not in task:
                continue
            action = self.client.get_session_action(**job, sessionActionId=task["latestSessionActionId"])
            if action["status"] != "SUCCEEDED":
                if not action["status"].startswith("CANCEL"):
                    wrong.append(f"{task['taskId']} succeeded, its action {action['status']}")
                continue
            ended = action["endedAt"].timestamp()
            session_id = f"session-{action['sessionActionId'].split('-')[1]}"
            name = next(iter(task["parameters"]["N"].values()))
            lines = [line for line in self.site.lines(job, session_id) if line.startswith("line ")]
            found = [line.split(" ")[1] for line in lines if line.endswith(f" of {name}")][-agents.LINES :]
            excused = any(first <= ended <= last for first, last in self.killed)
            if found != [str(n) for n in range(1, agents.LINES + 1)] and not excused:
                wrong.append(f"{task['taskId']}: {len(found)} lines in {session_id}")
        return wrong


def main() -> int:
    args = docopt(__doc__)
    seconds, seed = float(args["--seconds"] or 180), int(args["--seed"] or time.time())
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="dl-agents-soak-"))
    farm = conftest.SharedFarm(folder)
    try:
        agents.set_silence(farm)
        (folder / "site").mkdir()
        site = agents.Site(args["<agent>"], farm, connector(farm), folder / "site")
        site.start()
        trouble = Trouble(site, random.Random(seed))
        try:
            trouble.go_on(seconds)
            trouble.settle()
            agents.until(lambda: not [fault for fault in trouble.audit() if "open sessions" in fault])
            wrong = trouble.audit()
        finally:
            site.end(signal.SIGKILL)
    finally:
        farm.down()
    print(dict(trouble.done), f"{len(trouble.jobs)} jobs", folder)
    print("\n".join(wrong) or "nothing is wrong")
    if not wrong:
        subprocess.run(["rm", "-rf", folder], check=True)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
