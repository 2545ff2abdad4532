"""`python -m mcp_registry_client` is the command `mcp-registry`."""

import sys

from mcp_registry_client.cli import main

sys.exit(main())
