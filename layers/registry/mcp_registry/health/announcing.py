"""At once: has somebody introduced to who has just been registered, or has come back."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any


def at_once(visit: tuple[datetime, *tuple[Any, ...]]) -> None:
    """Ask for the introduction of an endpoint: when it was read, and the fields of `messages.Visit`.

    Takes 300 ms at most and never raises. Where the message is lost, the dispatcher makes it good half a minute later.
    The moment is the database's, as `moved_at` is, which it is compared with.
    """
    queue = os.environ.get("INTRODUCE_QUEUE_URL")
    if not queue:  # nobody is to be asked, as in a local run without checks
        return
    # A request that announces nobody, as most do, is not to pay for the way to SQS.
    from mcp_registry.aws import sqs
    from mcp_registry.health import messages

    asked_at, *endpoint = visit
    asked = messages.Visits(asked_at, [messages.Visit(*endpoint)])
    sqs.send(queue, messages.encode(asked))
