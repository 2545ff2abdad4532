"""A handler of awslabs.mcp-lambda-handler, called as API Gateway calls it."""
# pyright: basic, reportMissingImports=false
# The package is in an environment of its own (environments.py); the checker sees the development environment only.

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from awslabs.mcp_lambda_handler import MCPLambdaHandler

server = MCPLambdaHandler("rates", "1.0.0")
rates = {"EUR": 1.0, "CHF": 0.94, "USD": 1.08}


@server.tool()
def convert(amount: float, currency: str) -> float:
    """Convert euros.

    Args:
        amount: Euros.
        currency: The currency that is wanted.
    """
    return amount * rates[currency]


class Gateway(BaseHTTPRequestHandler):
    """Turns a request into the event of a REST API, and the function's answer into a response."""

    def do_POST(self) -> None:
        """Call the function."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        event = {"httpMethod": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode()}
        answer = server.handle_request(event, None)
        self.send_response(answer["statusCode"])
        for name, value in answer.get("headers", {}).items():
            self.send_header(name, value)
        payload = answer.get("body", "").encode()
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def do_GET(self) -> None:
        """What API Gateway answers to a route that it does not have."""
        self.send_error(403)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Gateway).serve_forever()
