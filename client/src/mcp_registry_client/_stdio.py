"""Whether an MCP server of this process runs on stdio.

Nothing else tells a server that will never have an address from one that has not started yet. Every framework reads
stdin by the transport of the SDK, in a task of its own; so what the tasks of this process wait for is looked through.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

TRANSPORT = "mcp.server.stdio"


def is_spoken() -> bool:
    """Whether a task of this process is in the transport over stdio, as far as that can be seen."""
    asyncio: Any = sys.modules.get("asyncio")
    file = getattr(sys.modules.get(TRANSPORT), "__file__", None)
    if asyncio is None or file is None:
        return False
    try:
        return any(
            code.co_filename == file for loop in _loops() for task in asyncio.all_tasks(loop) for code in _of(task)
        )
    except Exception:  # noqa: BLE001 - loops run on meanwhile, and are somebody else's
        return False


def _loops() -> Iterator[Any]:
    """The event loops that run in the threads of this process."""
    for at in sys._current_frames().values():
        frame: Any = at
        while frame is not None:
            if frame.f_code.co_name == "run_forever" and "self" in frame.f_locals:
                yield frame.f_locals["self"]
            frame = frame.f_back


def _of(task: Any) -> Iterator[Any]:
    """The code of what a task runs, of what that waits for, and so on."""
    waiting = task.get_coro()
    while waiting is not None:
        if (code := getattr(waiting, "cr_code", None)) is not None:
            yield code
        waiting = getattr(waiting, "cr_await", None)
