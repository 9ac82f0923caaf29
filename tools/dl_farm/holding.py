"""supervisord, with one thing put right: the listening socket of an fcgi-program stays open while no process runs.

Stock supervisord (4.3) closes such a socket when the last process ends and binds it anew for the next one: for that
moment clients are refused, and a worker agent that is refused exits. Held, they wait in the backlog.
"""

from __future__ import annotations

import sys
from typing import Any


def main() -> None:
    from supervisor import process, supervisord

    class HoldingGroup(process.FastCGIProcessGroup):
        def __init__(self, config: Any, **options: Any) -> None:
            super().__init__(config, **options)
            self.held = self.socket_manager.get_socket()

    process.FastCGIProcessGroup = HoldingGroup
    supervisord.main(sys.argv[1:])


if __name__ == "__main__":
    main()
