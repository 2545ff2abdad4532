"""An ASGI application that is in the registry whenever it runs: `uvicorn asgi_app:app`."""

from fastmcp import FastMCP
from mcp_registry_client import RegistryMiddleware
from starlette.applications import Starlette
from starlette.routing import Mount

server = FastMCP("units", version="1.0.0")


@server.tool
def miles(kilometres: float) -> float:
    """Kilometres in miles."""
    return kilometres / 1.609344


# Without sessions, so that every worker can answer every request.
mcp = server.http_app(path="/", stateless_http=True)
app = RegistryMiddleware(
    Starlette(routes=[Mount("/units", app=mcp)], lifespan=mcp.lifespan), server=server, path="/units/"
)
