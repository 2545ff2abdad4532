"""The published mcp-server-time, which speaks over stdio only, behind the proxy of fastmcp 4."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own (environments.py); the checker sees the development environment only.

from __future__ import annotations

import sys
from pathlib import Path

from fastmcp.server import create_proxy

clock = Path(sys.executable).with_name("mcp-server-time")
server = create_proxy({"mcpServers": {"time": {"command": str(clock), "args": ["--local-timezone", "UTC"]}}})
server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
