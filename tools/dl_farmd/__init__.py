"""dl-farmd - serve the AWS Deadline Cloud API for the farm on this machine

Usage:
  dl-farmd [options]

Options:
  --dir=<dir>        Data folder of the farm [default: ~/.deadline/farm].
  --listen=<address>  Loopback address and port to listen on, such as
                     127.0.0.1:8650; without it the listening socket is
                     standard input, as supervisord passes it. Port 0 takes a
                     free one; it is written to run/farmd.port.
"""

# How the inside is put together, for those who write operations: see farm.py.

from __future__ import annotations

from libdeadline import command


def serve(args: command.Arguments, run: command.Run) -> int:
    """Serve until a signal asks to stop."""
    from . import server

    return server.serve(args["--dir"], args["--listen"], run)


def main() -> int:
    return command.call(__doc__, serve)
