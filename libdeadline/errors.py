"""What a tool raises when it can't go on: one line for a person, and an exit status for a script."""

from . import statuses


class Trouble(Exception):
    """A failure that the command frame turns into one line on standard error and an exit status.

    `message` says what failed, on what and what to do about it: lower case, the subject in single
    quotes, no full stop. `status` is one of `libdeadline.statuses`.
    `path` names the file concerned, where there is one; `code` is the service's error code, if any.
    """

    def __init__(
        self,
        message: str,
        status: int = statuses.DATA,
        *,
        path: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.path = path
        self.code = code


def os_trouble(error: OSError, doing: str) -> Trouble:
    """The Trouble that says which path `doing` failed on, with the status that its errno deserves.

    Source: sysexits(3); errno(3).
    """
    import errno

    status = {
        errno.ENOENT: statuses.NO_INPUT,
        errno.ENOTDIR: statuses.NO_INPUT,
        errno.EISDIR: statuses.NO_INPUT,
        errno.EACCES: statuses.NOT_ALLOWED,
        errno.EPERM: statuses.NOT_ALLOWED,
    }.get(error.errno or 0, statuses.IO)
    path = error.filename
    if isinstance(path, bytes):
        import os

        path = os.fsdecode(path)
    subject = f" '{path}'" if path is not None else ""
    return Trouble(f"cannot {doing}{subject}: {error.strerror or error}", status, path=path)
