"""SQS on one machine: moto's queues (and its Secrets Manager) behind an HTTP server, in a process of their own.

moto knows what a request means. How it is served is decided here: one request at a time, for moto's server gives each
its own thread, and a message that is sent while another one is deleted can be lost between the two (moto 5.2). A long
poll waits for what it asks for and takes no time meanwhile; moto's looks once a second, or all the time where a message
group is held up.

The process ends with the one that started it, however that one ends. It holds everything in memory, so that nothing is
delivered that was sent before the last start. It serves whoever knows the key of this run, which no other user of the
machine can read; the port stays that of the run while the process is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from local import loopback, server
from local.account import environment

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

    from local.template import Queue

# The access key by which the queues of this run know who calls. Their process has it from its environment, as has
# another run that is to use the same queues. A service of the user's own is given it too, and need not know it.
KEY = "LOCAL_QUEUES_KEY"
_key = os.environ.get(KEY) or secrets.token_hex(16)
CREDENTIALS = {"AWS_ACCESS_KEY_ID": _key, "AWS_SECRET_ACCESS_KEY": _key}
LONGEST_POLL = 20  # seconds; "Amazon SQS message quotas"
STOP_GRACE = 1.0  # seconds that the process has to see that its input has ended

_MAX_REQUEST = 2 * 1024 * 1024  # a message has one mebibyte at most; JSON may write a byte as two
_DEDUPLICATION = 5 * 60 * 1000  # milliseconds; "Exactly-once processing in Amazon SQS"
_REMEMBERED_DELETIONS = 10_000

Json = dict[str, Any]


# ------------------------------------------------------------------ for those who use queues


class QueueService:
    """The process, or nothing where somebody else's service at `url` takes its place."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> str:
        """Start the process, which takes half a second to answer: who connects before is served then.

        Gives the URL that takes the place of AWS (AWS_ENDPOINT_URL). Started again after its process died, the service
        has the same URL and no queue.
        """
        if self._url:
            return self._url
        if self._socket is None:
            # Ours for as long as the service: while the process is down, nobody else can answer in its place, and be
            # told the key. Who connects meanwhile is served by the next one.
            self._socket = loopback.bind_inner()
        if self.pid is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local.queues", str(self._socket.fileno())],
                cwd=Path(__file__).parent.parent,
                env=self._environment(),
                stdin=subprocess.PIPE,  # never written to: its end is the end of the process
                stdout=2,
                pass_fds=(self._socket.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C is for the run, which ends this one last
            )
        return "http://{}:{}".format(*self._socket.getsockname())

    def stop(self) -> None:
        """End the process and give up the port; again does nothing."""
        if self._socket:
            self._socket.close()
            self._socket = None
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _environment(self) -> dict[str, str]:
        from local.template import ACCOUNT_ID, REGION  # here, because the process imports this module too

        return {
            **environment(),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            KEY: _key,
            "MOTO_ACCOUNT_ID": ACCOUNT_ID,
        }


def connect(url: str) -> SQSClient:
    """A client of the queues at `url`, to be used by any number of threads.

    It does not look at the user's AWS configuration, which might name a profile that is gone, or a proxy. It repeats
    nothing by itself: whoever polls does so anyway.
    """
    import botocore.session
    from botocore.config import Config

    from local.template import REGION

    nowhere = (None, None, os.devnull, None)
    session = botocore.session.Session(
        session_vars={"profile": (None, None, None, None), "config_file": nowhere, "credentials_file": nowhere}
    )
    client = session.create_client(
        "sqs",
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(
            connect_timeout=5,
            read_timeout=LONGEST_POLL + 10,
            max_pool_connections=100,
            proxies={},
            retries={"total_max_attempts": 1},
        ),
    )
    return cast("SQSClient", client)


def create(client: SQSClient, queues: Mapping[str, Queue]) -> None:
    """Make the queues of a template, or bring those that exist up to its attributes. Raises what botocore raises."""

    def distance(queue: Queue) -> int:
        return 1 + distance(queues[queue.dead_letters.queue]) if queue.dead_letters else 0

    # A redrive policy names another queue, which has to be there: dead letter queues first.
    for queue in sorted(queues.values(), key=distance):
        attributes = dict(queue.attributes)
        if queue.dead_letters:
            policy = {
                "deadLetterTargetArn": _arn(client, queues[queue.dead_letters.queue].name),
                "maxReceiveCount": queue.dead_letters.max_receives,
            }
            attributes["RedrivePolicy"] = json.dumps(policy)
        given = cast("Mapping[QueueAttributeNameType, str]", attributes)
        try:
            client.create_queue(QueueName=queue.name, Attributes=given)
        except client.exceptions.QueueNameExists:  # with other attributes
            attributes.pop("FifoQueue", None)  # the one that can't be changed; the name says the same
            client.set_queue_attributes(QueueUrl=_url(client, queue.name), Attributes=given)


def _url(client: SQSClient, name: str) -> str:
    return client.get_queue_url(QueueName=name)["QueueUrl"]


def _arn(client: SQSClient, name: str) -> str:
    """A queue's ARN as the service has it: another one than ours may know another account."""
    attributes = client.get_queue_attributes(QueueUrl=_url(client, name), AttributeNames=["QueueArn"])
    return attributes["Attributes"]["QueueArn"]


# ------------------------------------------------------------------ the process of the queues

Dispatch = Callable[[Any], tuple[int, Mapping[str, Any], str | bytes]]


class _Moto:
    """The parts of moto that are used, which takes 0.4 s to import. Nothing else of it is reachable."""

    def __init__(self) -> None:
        models: Any = importlib.import_module("moto.sqs.models")
        models.Queue = type("Queue", (_Corrections, models.Queue), {})
        self._queues: Mapping[str, _Corrections] = models.sqs_backends[os.environ["MOTO_ACCOUNT_ID"]][
            os.environ["AWS_DEFAULT_REGION"]
        ].queues
        self._services: dict[str, Dispatch] = {
            "AmazonSQS": importlib.import_module("moto.sqs.responses").SQSResponse.dispatch,
            "secretsmanager": importlib.import_module("moto.secretsmanager.responses").SecretsManagerResponse.dispatch,
        }
        self._request = importlib.import_module("moto.core.request").Request

    def queue(self, parameters: Json) -> _Corrections | None:
        """The queue that a request is about."""
        return self._queues.get(str(parameters.get("QueueUrl", "")).rpartition("/")[2])

    def answer(self, headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, Any], bytes]:
        """What AWS would answer; of what moto can't do, in the shape of AWS's own errors."""
        service, _, action = headers.get("x-amz-target", "").partition(".")
        if service not in self._services:
            return _unsupported(f"The local run serves {' and '.join(self._services)} in JSON")
        request = self._request.from_primitives("POST", f"http://{headers.get('host', loopback.HOST)}/", headers, body)
        try:
            status, answered, content = self._services[service](request)
        except Exception as error:  # noqa: BLE001 - moto has no type of its own for what it lacks; say which it was
            return _unsupported(f"{action}: {type(error).__name__}: {error}")
        return status, answered, content.encode() if isinstance(content, str) else content


def _unsupported(message: str) -> tuple[int, Mapping[str, Any], bytes]:
    return _error(501, "UnsupportedOperation", message)


def _error(status: int, kind: str, message: str) -> tuple[int, Mapping[str, Any], bytes]:
    body = json.dumps({"__type": kind, "message": message}).encode()
    return status, {"Content-Type": "application/x-amz-json-1.0"}, body


def is_of_this_run(authorization: str) -> bool:
    """Whether a request is signed by our key ("Elements of an AWS API request signature").

    Only the name of the key is looked at: it is as secret as the key, and never leaves this machine.
    """
    given = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/", authorization)
    return given is not None and hmac.compare_digest(given[1].encode(), _key.encode())


class _Corrections:
    """What SQS does and a queue of moto (5.2) does not; this goes before moto's class."""

    fifo_queue: bool
    deduplication_scope: str
    message_retention_period: int
    receive_message_wait_time_seconds: int
    deleted_messages: set[str]
    _messages: list[Any]
    _pending_messages: set[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._accepted: dict[tuple[str | None, str], float] = {}
        self._waiting: set[asyncio.Future[None]] = set()

    def add_message(self, message: Any) -> None:
        """Take a message, unless it is a duplicate. moto forgets one that is deleted, and knows no groups here."""
        # What has been received comes as a dead letter, from another queue.
        if self.fifo_queue and message.deduplication_id and not message.approximate_receive_count:
            now: float = message.sent_timestamp
            self._accepted = {key: sent for key, sent in self._accepted.items() if now - sent < _DEDUPLICATION}
            key = (message.group_id if self.deduplication_scope == "messageGroup" else None, message.deduplication_id)
            if key in self._accepted:
                return
            self._accepted[key] = now
        self._messages.append(message)
        self.wake()

    def delete_message(self, receipt_handle: str) -> None:
        """Delete a message. moto remembers every handle that it ever deleted, for as long as it runs."""
        cast("Any", super()).delete_message(receipt_handle)
        if len(self.deleted_messages) > _REMEMBERED_DELETIONS:
            self.deleted_messages.clear()

    def expire(self) -> None:
        """Drop what was kept long enough. moto lets the first such message hold up those behind it."""
        oldest = time.time() * 1000 - self.message_retention_period * 1000
        expired = {message for message in self._messages if message.sent_timestamp < oldest}
        if expired:
            self._messages = [message for message in self._messages if message not in expired]
            self._pending_messages -= expired

    def wake(self) -> None:
        """Have everybody look who waits for a message."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def change(self, seconds: float, gone: asyncio.Future[Any]) -> None:
        """Wait until there may be something to receive, for so many seconds at most, or until `gone` is done."""
        # moto shows a message after that millisecond, not in it.
        now = time.time() * 1000 - 1
        shown = (max(message.visible_at, message.delayed_until) - now for message in self._messages)
        patience = min([seconds, *(later / 1000 for later in shown if later > 0)])
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait({waiting, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(waiting)


class _Service:
    """The queues as an ASGI callable."""

    def __init__(self) -> None:
        self._moto = _Moto()

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not is_of_this_run(headers.get("authorization", "")):
            await _respond(send, *_error(403, "UnrecognizedClientException", "The key is not that of this run"))
            return
        body = await server.read_body(receive, _MAX_REQUEST)
        if body is None:
            return
        # The SDKs of 2023 and later send JSON; what is none is refused by moto.
        parameters: Json = {}
        with contextlib.suppress(ValueError, RecursionError):
            parameters = json.loads(body)
        queue = self._moto.queue(parameters)
        if queue and headers.get("x-amz-target") == "AmazonSQS.ReceiveMessage":
            answer = await self._receive(queue, headers, body, parameters, receive)
        else:
            answer = self._moto.answer(headers, body)
            if queue:  # a group may be free again, a message be shown again
                queue.wake()
        if answer is not None:
            await _respond(send, *answer)

    async def _receive(
        self, queue: _Corrections, headers: Mapping[str, str], body: bytes, parameters: Json, receive: Any
    ) -> tuple[int, Mapping[str, Any], bytes] | None:
        """Long polling; None where the client went away, which must not be given a message."""
        patience = parameters.get("WaitTimeSeconds", queue.receive_message_wait_time_seconds)
        if patience not in range(LONGEST_POLL + 1):
            return self._moto.answer(headers, body)  # which refuses it
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        body = json.dumps({**parameters, "WaitTimeSeconds": 0}).encode()
        headers = {**headers, "content-length": str(len(body))}
        gone = asyncio.ensure_future(receive())
        try:
            while True:
                queue.expire()
                answer = self._moto.answer(headers, body)
                left = deadline - loop.time()
                if left <= 0 or answer[0] != 200 or b'"Messages"' in answer[2]:
                    return answer
                await queue.change(left, gone)
                if gone.done():
                    return None
        finally:
            gone.cancel()


async def _respond(send: Any, status: int, headers: Mapping[str, Any], body: bytes) -> None:
    # moto's `status` is no header, and uvicorn has its own of the other two.
    kept = {name: str(value) for name, value in headers.items() if name.lower() not in {"status", "date", "server"}}
    lines = [(name.lower().encode(), value.encode()) for name, value in kept.items()]
    await server.respond(send, status, [*lines, (b"content-length", b"%d" % len(body))], body)


async def _serve(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    # Nothing here is worth an orderly end, and whoever waits for a message would hold one up.
    loop.add_reader(sys.stdin.fileno(), os._exit, 0)
    await server.PublicServer(_Service()).serve(sockets=[sock])


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1]))))
