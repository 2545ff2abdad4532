"""A server without the client, to register from outside: `fastmcp run weather.py --transport http --port 8080`."""

from fastmcp import FastMCP

server = FastMCP("weather")


@server.tool
def forecast(place: str) -> str:
    """The forecast for a place."""
    return f"Sunny in {place}"
