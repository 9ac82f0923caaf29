"""supervisord, with two things put right for servers that must not be missed.

It keeps the listening socket of an fcgi-program while no process of it runs: stock supervisord (4.3) closes it when the
last process ends and binds it anew for the next one. For that moment clients are refused, and a worker agent that is
refused exits; held, they wait in the backlog. And what ended is started again at once, not a second later.
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

    class PromptSupervisor(supervisord.Supervisor):
        def reap(self, *args: Any, **options: Any) -> None:
            super().reap(*args, **options)
            for group in self.process_groups.values():
                group.transition()

    process.FastCGIProcessGroup = HoldingGroup
    supervisord.Supervisor = PromptSupervisor
    supervisord.main(sys.argv[1:])


if __name__ == "__main__":
    main()
