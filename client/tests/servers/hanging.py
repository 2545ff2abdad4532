"""An application whose tools never come: `python hanging.py PORT`."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn
from starlette.applications import Starlette

from mcp_registry_client import RegistryMiddleware

logging.basicConfig(level="INFO")


async def tools():
    """Say so, and hang."""
    logging.getLogger("tools").info("asked for the tools")
    await asyncio.Event().wait()


app = RegistryMiddleware(Starlette(), name="hanging", tools=tools)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]))
