"""An MCP server on AWS Lambda, behind a function URL or API Gateway; its first request puts it into the registry."""

from awslabs.mcp_lambda_handler import MCPLambdaHandler
from mcp_registry_client import register_lambda

server = MCPLambdaHandler("holidays", "1.0.0")


@server.tool()
def is_holiday(date: str, country: str) -> bool:
    """Whether a day is a public holiday.

    Args:
        date: As YYYY-MM-DD.
        country: Its two letters.
    """
    return date.endswith("-01-01")


lambda_handler = register_lambda(server.handle_request, server=server, path="/mcp", tags=["calendar"])
