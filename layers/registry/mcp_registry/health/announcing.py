"""At once: has somebody introduced to who has just been registered, or has come back."""

from __future__ import annotations


def at_once(visit: tuple[int, int, str, str | None, str | None, str | None]) -> None:
    """Ask for the introduction of an endpoint: the fields of `messages.Visit`, as the statement answers them.

    Takes 300 ms at most and never raises. Where the message is lost, the dispatcher makes it good half a minute later.
    """
    # A request that announces nobody, as most do, is not to pay for the way to SQS.
    import os
    from datetime import UTC, datetime

    from mcp_registry.aws import sqs
    from mcp_registry.health import messages

    asked = messages.Visits(datetime.now(UTC), [messages.Visit._make(visit)])  # pyright: ignore[reportArgumentType]
    sqs.send(os.environ.get("INTRODUCE_QUEUE_URL", ""), messages.encode(asked))
