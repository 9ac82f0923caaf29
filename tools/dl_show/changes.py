"""Views of what was done to a farm: a submission, tasks that were requeued."""

from __future__ import annotations

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, File, Job, Step, Task

from .view import View


def submission_view(view: View) -> int:
    """What was submitted."""
    bundle: Bundle | None = None
    job: Job | None = None
    files = {True: 0, False: 0}  # by whether they had to be sent
    sizes = {True: 0, False: 0}
    for row in view.input:
        if isinstance(row, Bundle):
            bundle = row
            name = row.queue_name
            view.print(f"Submitting to Queue: {name or row.queue_id}\n")
        elif isinstance(row, File):
            sent = row.upload != "present"
            files[sent] += 1
            sizes[sent] += row.size or 0
        elif isinstance(row, Job):
            job = row
    if job is None or bundle is None:
        raise Trouble("no job was submitted in this stream", statuses.DATA)
    if files[True] or files[False]:
        from libdeadline.progress import size_text

        view.print(f"Upload Summary:\n    Processed {_files(files[True])} totaling {size_text(sizes[True])}.")
        if files[False]:
            view.print(f"    Skipped re-processing {_files(files[False])} totaling {size_text(sizes[False])}.")
    view.print("Waiting for Job to be created...")
    view.print(f"Submitted job bundle:\n   {bundle.path}")
    view.print(f"{job.lifecycle_status_message or 'Job creation completed successfully'}\n{job.job_id}")
    return statuses.OK


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def requeue_view(view: View) -> int:
    """The tasks that were requeued."""
    states = [state.strip().upper() for state in (view.args["--run-status"] or "").split(",")]
    count = 0
    step: Step | None = None
    shown = 0

    def none_of_step() -> None:
        if step is not None and not shown:
            view.print("  Step has no tasks to requeue.")

    for row in view.input:
        if isinstance(row, Step):
            none_of_step()
            step, shown = row, 0
            view.print(f"\nStep: {row.name} ({row.step_id})")
        elif isinstance(row, Task):
            if not shown and step is not None:
                counts = step.task_run_status_counts or {}
                told = [(counts[state], state) for state in states if counts.get(state)]
                words = ", ".join(f"{number} {state} tasks" for number, state in told)
                view.print(f"  Requeuing an estimated {sum(number for number, _ in told)} total tasks ({words})...")
            shown += 1
            count += 1
            values = ",".join(f"{name}={next(iter(each.values()))}" for name, each in (row.parameters or {}).items())
            view.print(
                f"    {row.run_status} {values} ({row.task_id})" if values else f"    {row.run_status} {row.task_id}"
            )
    none_of_step()
    view.print(f"\nRequeued a total of {count} tasks.")
    return statuses.OK
