"""Getting what was written past the caches of the system."""

import os


def flush(path: str) -> None:
    """Put the content of a file, or the names in a folder, on the disk: a loss of power doesn't take it then.

    Raises: OSError; what is on the disk is unknown then.
    Source: fsync(2); on macOS fcntl(2), F_FULLFSYNC, without which the drive may keep it in a cache of its own.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(fcntl, "F_FULLFSYNC"):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
