"""Why a server could not be asked, in one word for programs and one sentence for people."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from mcp_registry_client import _answer, _transport
from mcp_registry_client._transport import Deadline, Target

if TYPE_CHECKING:
    from mcp_registry_client.introspect import Introspection

Kind = Literal[
    "url",  # no address that can be asked
    "dns",
    "refused",
    "closed",  # the connection ended before the answer did
    "timeout",
    "tls",
    "credentials",
    "moved",
    "http_error",
    "not_mcp",
    "version",
    "invalid",  # it speaks MCP, and what it says cannot be used
    "too_large",
    "mcp_error",  # a verdict of `check`
]

# Whoever gave one of these has not been reached, and will answer no other question either.
LOST: Final = frozenset({"dns", "refused", "tls"})
# What OpenSSL says to bytes that are no TLS.
NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}
)


class Failed(Exception):
    """A server could not be asked: of which kind the fault is, and one sentence on it for people.

    `server`: what it had said of itself by then, where only its tools are missing. `lost`: nobody was reached there.
    """

    def __init__(self, kind: Kind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.status = status
        self.server: Introspection | None = None
        self.lost = kind in LOST


@contextmanager
def plain(target: Target, deadline: Deadline, most: int) -> Generator[None]:
    """Say in plain words what the network, TLS and HTTP may do wrong: raises Failed in place of their errors.

    `most` is how many bytes there was room for.
    """
    try:
        yield
    except _transport.Failed as failed:
        if failed.kind == "lookup":
            raise Failed("dns", f"The host name {target.host} does not resolve: check the URL") from None
        raise _too_late(deadline) from None
    except TimeoutError:
        raise _too_late(deadline) from None
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
        advice = "mend it, or name the file of a private CA in SSL_CERT_FILE"
        raise Failed("tls", f"The server's certificate is not valid ({why}): {advice}") from None
    except ConnectionRefusedError:
        advice = "start the server, or check the port"
        raise Failed("refused", f"Nothing listens at {target.authority}: {advice}") from None
    except (ConnectionError, ssl.SSLEOFError, _answer.Closed):
        advice = "look into the server's log, and check http or https"
        raise Failed("closed", f"The connection was closed before an answer came: {advice}") from None
    except ssl.SSLError as error:
        if error.reason in NO_TLS:
            raise Failed("tls", "What answers there does not speak TLS: try http:// in the URL") from None
        why = error.reason or "without a reason"
        raise Failed("tls", f"No secure connection could be agreed on ({why}): check the server's TLS") from None
    except _answer.NotHttp:
        raise Failed("not_mcp", "What answers there is not HTTP: check the port of the URL") from None
    except _answer.TooLong as error:
        message = f"The server's answers are longer than {most >> 20} MiB: serve fewer or shorter tools"
        raise Failed("too_large", message, error.status) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Failed("refused", f"{target.authority} cannot be reached ({why}): check the network") from None


def _too_late(deadline: Deadline) -> Failed:
    return Failed("timeout", f"No complete answer came{deadline.words}: is the server overloaded?")
