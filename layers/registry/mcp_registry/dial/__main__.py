"""What an introduction finds of servers, as JSON: `python -m mcp_registry.dial URL ...`

From this machine, under the guard's settings of this environment. Of each list it says only how long it is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from mcp_registry.dial.introduction import Introduction, introduce


def main(urls: Sequence[str]) -> int:
    """Print a JSON object for each URL, in their order; 0 where all are up, 1 where one is not, 2 without a URL."""
    if not urls:
        print(__doc__, file=sys.stderr)
        return 2
    found = asyncio.run(_introduce(urls))
    for url, one in zip(urls, found, strict=True):
        print(json.dumps({"url": url, **_told(one)}, indent=2))
    return 0 if all(one.verdict == "up" for one in found) else 1


async def _introduce(urls: Sequence[str]) -> list[Introduction]:
    return await asyncio.gather(*(introduce(url) for url in urls))


def _told(found: Introduction) -> dict[str, Any]:
    told = found._asdict()
    for name in ("tools", "prompts", "resources", "templates"):
        told[name] = len(told[name])
    told["gate"] = found.gate and found.gate._asdict()
    told["evidence"] = [one._asdict() for one in found.evidence]
    return {name: value for name, value in told.items() if value not in (None, "", {}, [], ())}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
