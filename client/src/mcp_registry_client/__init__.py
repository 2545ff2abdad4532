"""An MCP server registers itself in the MCP registry when it starts.

from mcp_registry_client import register

mcp = FastMCP("weather")
register(mcp)
mcp.run(transport="http")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_registry_client._announcer import Registration
    from mcp_registry_client._register import register
    from mcp_registry_client.asgi import RegistryMiddleware
    from mcp_registry_client.aws_lambda import register_lambda

__version__ = "0.1.0"
__all__ = ["Registration", "RegistryMiddleware", "register", "register_lambda"]

_HOMES = {
    "Registration": "_announcer",
    "RegistryMiddleware": "asgi",
    "register": "_register",
    "register_lambda": "aws_lambda",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: the command line needs none of it, a Lambda function only its part."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
