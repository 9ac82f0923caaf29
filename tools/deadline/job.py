"""Commands of the group job."""

import re

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .options import accepts_all, given, job_of, output_form, reach
from .pipeline import Listener, Shell

JOB_ID = re.compile(r"job-[0-9a-f]{32}\Z")
SHOWN_MATCHES = 5
REQUEUED_FROM = ("SUSPENDED", "CANCELED", "FAILED", "SUCCEEDED", "NOT_COMPATIBLE")


class Heard(Listener):
    """Keeps the error that ended the work, for a program that reads what we print."""

    def __init__(self) -> None:
        self.text: str | None = None

    def error(self, text: str) -> None:
        self.text = self.text or text

    def tell(self, options: Arguments, status: int, **about: str | None) -> None:
        """Print the error as the JSON document that a program expects in place of an answer."""
        if status >= statuses.USAGE and self.text and output_form(options) == "json":
            import json

            print(json.dumps({"error": self.text, **about}, indent=2))


def list_jobs(options: Arguments, shell: Shell) -> int:
    """deadline job list - list the jobs of a queue, the newest first

    Usage: deadline job list [options]

    Options:
      --profile=<name>   AWS profile to use.
      --farm-id=<id>     Farm of the queue.
      --queue-id=<id>    Queue to look in.
      --region=<name>    AWS region of the farm.
      --page-size=<n>    Jobs to list at most [default: 5].
      --item-offset=<n>  Jobs to pass over first [default: 0].
    """
    size = options.integer("--page-size", 1)
    offset = options.integer("--item-offset", 0)
    return shell.run(
        ["dl-ls", *reach(options), f"--limit={size}", f"--item-offset={offset}", "jobs"],
        ["dl-show", f"--item-offset={offset}", "jobs"],
    )


def get(options: Arguments, shell: Shell) -> int:
    """deadline job get - print all about a job, or find jobs by their name

    Usage: deadline job get [options] [<search-term>]

    Options:
      --profile=<name>  AWS profile to use.
      --farm-id=<id>    Farm of the queue.
      --queue-id=<id>   Queue of the job.
      --region=<name>   AWS region of the farm.
      --job-id=<id>     Job to print, else the default job.

    A search term that is a job id means that job; any other finds the jobs that have it in their name.
    """
    term = options["<search-term>"]
    if term and not JOB_ID.match(term):
        words = [f"--search={term}", f"--limit={SHOWN_MATCHES}", "--whole"]
        return shell.run(["dl-ls", *reach(options), *words, "jobs"], ["dl-show", f"--term={term}", "job-matches"])
    return shell.run(["dl-ls", *reach(options), "job", term or job_of(options)], ["dl-show", "job"])


def cancel(options: Arguments, shell: Shell) -> int:
    """deadline job cancel - cancel a job, or set the state of its tasks otherwise

    Usage: deadline job cancel [options]

    Options:
      --profile=<name>   AWS profile to use.
      --farm-id=<id>     Farm of the queue.
      --queue-id=<id>    Queue of the job.
      --region=<name>    AWS region of the farm.
      --job-id=<id>      Job to cancel, else the default job.
      --mark-as=<state>  suspended, canceled, failed or succeeded [default: CANCELED].
      --yes              Do not ask.
    """
    state = options.choice("--mark-as", ("SUSPENDED", "CANCELED", "FAILED", "SUCCEEDED"))
    job_id = job_of(options)
    change = ["dl-cancel", *reach(options), f"--to={state}", job_id]
    if shell.dry:
        return shell.run(change)
    status = shell.run(["dl-ls", *reach(options), "job", job_id], ["dl-show", "job-summary"])
    if status:
        return status
    if not accepts_all(options):
        question = "cancel this job" + ("" if state == "CANCELED" else f" and mark its taskRunStatus as {state}")
        if not shell.ask(f"Are you sure you want to {question}?"):
            print("Job not canceled.")
            return 1
    print("Canceling job..." if state == "CANCELED" else f"Canceling job and marking as {state}...", flush=True)
    return shell.quiet(change)


def requeue_tasks(options: Arguments, shell: Shell) -> int:
    """deadline job requeue-tasks - run tasks of a job again

    Usage: deadline job requeue-tasks [options]

    Options:
      --profile=<name>          AWS profile to use.
      --farm-id=<id>            Farm of the queue.
      --queue-id=<id>           Queue of the job.
      --region=<name>           AWS region of the farm.
      --job-id=<id>             Job of the tasks, else the default job.
      --run-status=<status>...  Status of the tasks to requeue: suspended, canceled, failed,
                                succeeded or not_compatible; may be repeated. Without it,
                                suspended, canceled and failed.
      --yes                     Do not ask.
    """
    import json

    states = sorted({state.upper() for state in options["--run-status"]} or {"SUSPENDED", "CANCELED", "FAILED"})
    unknown = [state for state in states if state not in REQUEUED_FROM]
    if unknown:
        raise Trouble(f"--run-status takes one of {', '.join(REQUEUED_FROM)}, not '{unknown[0]}'", statuses.USAGE)
    job_id = job_of(options)
    change = ["dl-requeue", *reach(options), f"--run-status={','.join(states)}", job_id]
    view = ["dl-show", f"--run-status={','.join(states)}", "requeue"]
    if shell.dry:
        return shell.run(change, view)
    status, output = shell.read(["dl-ls", *reach(options), "job", job_id])
    if status:
        return status
    job = json.loads(output.partition(b"\n")[0])["data"]
    counts = {name: count for name, count in (job.get("taskRunStatusCounts") or {}).items() if count}
    print(f"Job: {job.get('name')} ({job_id})\ntaskRunStatusCounts:")
    print("".join(f"  {name}: {count}\n" for name, count in counts.items()))
    print(f"Requeuing all tasks with run status among: {', '.join(states)}")
    concerned = {state: counts[state] for state in states if state in counts}
    total = sum(concerned.values())
    if not total:
        print("No tasks to requeue.")
        return statuses.OK
    told = ", ".join(f"{count} {state} tasks" for state, count in concerned.items())
    if accepts_all(options):
        print(f"Estimated {total} total tasks ({told}) to requeue.", flush=True)
    else:
        print(f"This action will requeue an estimated {total} total tasks ({told})")
        if not shell.ask("Are you sure you want to requeue these tasks?"):
            print("No tasks were requeued.")
            return 1
        print("Requeuing tasks...", flush=True)
    return shell.run(change, view)


def wait(options: Arguments, shell: Shell) -> int:
    """deadline job wait - wait until a job has ended, and tell how

    Usage: deadline job wait [options]

    Options:
      --profile=<name>         AWS profile to use.
      --farm-id=<id>           Farm of the queue.
      --queue-id=<id>          Queue of the job.
      --region=<name>          AWS region of the farm.
      --job-id=<id>            Job to wait for, else the default job.
      --max-poll-interval=<s>  Longest pause between two looks [default: 120].
      --timeout=<s>            Stop waiting after this long; 0: never [default: 0].
      --output=<form>          verbose or json; else verbose on a terminal.

    Exit status: 0 succeeded, 1 timed out, 2 failed, 3 canceled, 4 suspended or archived, 5 not compatible.
    """
    limit_s = options.seconds("--timeout")
    options.seconds("--max-poll-interval")
    timeout = [f"--timeout={options['--timeout']}"] if limit_s else []
    job_id = job_of(options)
    heard = Heard()
    status = shell.run(
        [
            "dl-wait", "--changes", *reach(options), f"--max-poll-interval={options['--max-poll-interval']}",
            *timeout, job_id,
        ],
        ["dl-show", f"--output={output_form(options)}", *timeout, "wait"],
        draws=output_form(options) == "json",
        listener=heard,
    )  # fmt: skip
    heard.tell(options, status, jobId=job_id, jobName=None)
    return status


def logs(options: Arguments, shell: Shell) -> int:
    """deadline job logs - print the log of a job's session

    Usage: deadline job logs [options]

    Options:
      --profile=<name>           AWS profile to use.
      --farm-id=<id>             Farm of the queue.
      --queue-id=<id>            Queue of the job.
      --region=<name>            AWS region of the farm.
      --job-id=<id>              Job to look at, else the default job.
      --session-id=<id>          Session to read, else the latest.
      --session-action-id=<id>   Read only what this action logged.
      --limit=<n>                Newest lines to print at most [default: 100].
      --all                      Print all lines.
      --follow                   Print all lines, and those to come until the job ends.
      --start-time=<time>        Only lines from this time on (ISO 8601).
      --end-time=<time>          Only lines up to this time.
      --next-token=<token>       Go on where an earlier answer stopped.
      --output=<form>            verbose or json; else verbose on a terminal.
      --timestamp-format=<form>  utc, local or relative [default: utc].
      --timezone=<zone>          Old name for --timestamp-format: utc or local.
    """
    form = options.choice("--timestamp-format", ("utc", "local", "relative"))
    zone = options.choice("--timezone", ("utc", "local"))
    names = ("--session-id", "--session-action-id", "--limit", "--all", "--follow", "--start-time", "--end-time")
    job_id = job_of(options)
    heard = Heard()
    status = shell.run(
        ["dl-logs", *reach(options), *given(options, *names, "--next-token"), "--format=records", job_id],
        ["dl-show", f"--output={output_form(options)}", f"--timestamp-format={zone or form}", "logs"],
        listener=heard,
    )
    heard.tell(options, status)
    return status


def trace_schedule(options: Arguments, shell: Shell) -> int:
    """deadline job trace-schedule - tell how the time of a job was spent

    Usage: deadline job trace-schedule [options]

    Options:
      --profile=<name>         AWS profile to use.
      --farm-id=<id>           Farm of the queue.
      --queue-id=<id>          Queue of the job.
      --region=<name>          AWS region of the farm.
      --job-id=<id>            Job to look at, else the default job.
      -v, --verbose            Print all that was read.
      --trace-format=<format>  chrome, which chrome://tracing and ui.perfetto.dev show.
      --trace-file=<file>      File to write the trace to.
    """
    form = options.choice("--trace-format", ("chrome",))
    if options["--trace-file"] and not form:
        raise Trouble("give --trace-format with --trace-file", statuses.USAGE)
    look = ["dl-ls", *reach(options), f"--job-id={job_of(options)}", "job,steps,tasks,sessions,actions"]
    return shell.run(look, ["dl-trace", *(["--data"] if options["--verbose"] else []), *given(options, "--trace-file")])


def download_output(options: Arguments, shell: Shell) -> int:
    """deadline job download-output - download the output files of a job

    Usage: deadline job download-output [options]

    Options:
      --profile=<name>             AWS profile to use.
      --farm-id=<id>               Farm of the queue.
      --queue-id=<id>              Queue of the job.
      --region=<name>              AWS region of the farm.
      --job-id=<id>                Job of the files, else the default job.
      --step-id=<id>               Only output of this step.
      --task-id=<id>               Only output of this task; needs the step as well.
      -i, --include=<glob>...      Only files that match; may be repeated.
      --match-paths-by=<side>      What globs are about: job, paths as the job has them, or
                                   local, as they are here [default: local].
      --ignore-storage-profiles    Take paths as the job has them.
      --conflict-resolution=<how>  Where a file exists that differs: skip, overwrite or
                                   create_copy; else the setting, else you are asked.
      --yes                        Do not ask.
      --output=<form>              verbose or json; else verbose on a terminal.
    """
    from .download import download

    return download(options, shell, "output")


def download_input(options: Arguments, shell: Shell) -> int:
    """deadline job download-input - download the input files of a job

    Usage: deadline job download-input [options]

    Options:
      --profile=<name>             AWS profile to use.
      --farm-id=<id>               Farm of the queue.
      --queue-id=<id>              Queue of the job.
      --region=<name>              AWS region of the farm.
      --job-id=<id>                Job of the files, else the default job.
      -i, --include=<glob>...      Only files that match; may be repeated.
      --match-paths-by=<side>      What globs are about: job, paths as the job has them, or
                                   local, as they are here [default: local].
      --ignore-storage-profiles    Take paths as the job has them.
      --conflict-resolution=<how>  Where a file exists that differs: skip, overwrite or
                                   create_copy; else the setting, else you are asked.
      --yes                        Do not ask.
      --output=<form>              verbose or json; else verbose on a terminal.
    """
    from .download import download

    return download(options, shell, "input")


COMMANDS = {
    "list": list_jobs,
    "get": get,
    "cancel": cancel,
    "requeue-tasks": requeue_tasks,
    "trace-schedule": trace_schedule,
    "wait": wait,
    "logs": logs,
    "download-output": download_output,
    "download-input": download_input,
}
