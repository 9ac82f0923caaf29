"""The kernel: what at least two tools need. It starts no process, prints nothing and exits nowhere."""

__version__ = "0.1.0"
