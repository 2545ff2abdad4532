"""psycopg, imported without asyncio.

psycopg imports asyncio for its asynchronous half, which a Lambda function never uses. That import, with what asyncio
brings along, was 36 of the 213 ms of CPU that `functions/list` took to load (medians of 25 starts, Python
3.13, 2026-11-22), and neither Lambda's runtime client nor anything else here needs it. Where asyncio is loaded already,
as in the tests and the local run, it is left alone.

Take psycopg from here, so that it is imported once and this way: `from mcp_registry.sync_psycopg import psycopg`.
"""

from __future__ import annotations

import sys
from types import ModuleType

NAME = "asyncio"


class _Absent(ModuleType):
    """Stands in for a module: every name in it is an exception class that nobody raises.

    A class, because psycopg subscripts some of the names in annotations, and an exception, because it lists one
    (CancelledError) among those that it catches.
    """

    def __getattr__(self, name: str) -> type[Exception]:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {"__class_getitem__": classmethod(_itself)})


def _itself(cls: type, _parameters: object) -> type:
    return cls


if NAME in sys.modules:
    import psycopg as psycopg
else:
    sys.modules[NAME] = _Absent(NAME)
    try:
        import psycopg as psycopg
    finally:
        # Whoever wants asyncio later gets the real one.
        del sys.modules[NAME]
