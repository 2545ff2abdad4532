"""Event source mappings: what stands in a queue is handed to its function, as Lambda's pollers do.

Each mapping polls by itself, in batches, for as many invocations at once as it may have. What a batch did well is
deleted; what failed is left to the queue: its visibility timeout, and then its redrive policy.
"""

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError

from local import queues
from local.gateway import MAX_EVENT, FunctionError, FunctionTimeout, InvokeFunction
from local.template import REGION, Queue, Source

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef, MessageTypeDef

LARGEST_RECEIVE = 10  # messages; "Amazon SQS message quotas"
CONCURRENCY = 4  # of a mapping that sets none; Lambda would begin with five pollers
RETRY = 1.0  # seconds until a queue service that does not answer is asked again

Json = dict[str, Any]
_Result = TypeVar("_Result")


class Tasks:
    """Work that goes on by itself until it ends or all of it is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def cancel(self) -> None:
        """Cancel what is left of it; returns when it has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Nobody awaits these. What can be expected to fail is reported where it fails; this is the rest.
        if not task.cancelled() and (error := task.exception()):
            report(f"The local run has a fault: {error!r}")


class Sources:
    """The event source mappings of a stack; as a context manager it polls until it is left.

    Leaving gives up what is under way: its messages stay in their queues.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        queues: Mapping[str, Queue],
        client: "SQSClient",
        invoke: InvokeFunction,
        revive: Callable[[], None],
    ) -> None:
        """`revive` is called, in a thread, when the queue service does not answer, before it is asked again."""
        self._sources = sources
        self._queues = queues
        self._client = client
        self._invoke = invoke
        self._outage = _Outage(revive)
        self._tasks = Tasks()

    async def __aenter__(self) -> "Sources":
        for source in self._sources:
            self._tasks.start(self._poll(source))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.cancel()

    async def _poll(self, source: Source) -> None:
        free = asyncio.Semaphore(source.max_concurrency or CONCURRENCY)
        while True:
            await free.acquire()
            if batch := await self._gather(source):
                self._tasks.start(self._hand_over(source, batch)).add_done_callback(lambda _: free.release())
            else:
                free.release()

    async def _gather(self, source: Source) -> "list[MessageTypeDef]":
        """One batch: what is there, or with a window what comes until it is full, too large or late."""
        batch = await self._receive(source, source.batch_size, queues.LONGEST_POLL)
        deadline = time.monotonic() + source.window
        while batch and (missing := source.batch_size - len(batch)) > 0:
            # SQS waits for whole seconds. A window is a maximum, and may end early.
            left = round(deadline - time.monotonic())
            if left < 1 or sum(len(message.get("Body", "")) for message in batch) > MAX_EVENT // 2:
                break
            batch += await self._receive(source, missing, left)
        return batch

    async def _receive(self, source: Source, most: int, patience: int) -> "list[MessageTypeDef]":
        queue = self._queues[source.queue]
        try:
            answer = await aside(
                lambda: self._client.receive_message(
                    QueueUrl=queue.url,
                    MaxNumberOfMessages=min(most, LARGEST_RECEIVE),
                    # After an outage the first answer is news.
                    WaitTimeSeconds=0 if self._outage.reported else patience,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                )
            )
        except (BotoCoreError, ClientError) as error:
            await self._outage.wait(error)
            return []
        self._outage.end()
        return answer.get("Messages", [])

    async def _hand_over(self, source: Source, batch: "list[MessageTypeDef]") -> None:
        queue = self._queues[source.queue]
        event = {"Records": [_record(message, queue) for message in batch]}
        ids = {message.get("MessageId", "") for message in batch}
        reason = ""
        try:
            result = await self._invoke(source.function, event)
            failed = failures(result, ids) if source.reports_failures else set()
        except (FunctionError, FunctionTimeout) as error:
            failed, reason = ids, f": {one_line(error)}"
        done = [message for message in batch if message.get("MessageId") not in failed]
        if failed:
            report(f"{source.function} failed with {len(failed)} of {len(batch)} messages of {source.queue}{reason}")
        try:
            await aside(lambda: _delete(self._client, queue, done))
        except (BotoCoreError, ClientError) as error:
            # They will be delivered again, as SQS says may happen at any time.
            await self._outage.wait(error)


class _Outage:
    """The queue service does not answer: said once, whoever finds out."""

    def __init__(self, revive: Callable[[], None]) -> None:
        self._revive = revive
        self.reported = False
        self._reviving = asyncio.Lock()

    async def wait(self, error: Exception) -> None:
        """Do what can be done about it; returns when it is worth trying again."""
        if not self.reported:
            self.reported = True
            report(f"The queues do not answer ({one_line(error).rstrip('.')}): the health checks wait for them.")
        await asyncio.sleep(RETRY)
        async with self._reviving:
            with contextlib.suppress(BotoCoreError, ClientError, OSError):
                await aside(self._revive)

    def end(self) -> None:
        """The service has answered."""
        if self.reported:
            self.reported = False
            report("The queues answer again; what stood in them may be lost.")


def failures(result: object, ids: set[str]) -> set[str]:
    """The messages that failed, by what a function returns that reports them.

    "Implementing partial batch responses": nothing and an empty list are success. What is not understood fails them
    all, and so does a message that was not in the batch. Of a FIFO queue, too, what is not named is deleted: a function
    has to name those after a failed one as well.
    """
    if result is None:
        return set()
    if not isinstance(result, dict):
        return ids
    listed = cast("Json", result).get("batchItemFailures")
    if listed is None:
        return set()
    if not isinstance(listed, list):
        return ids
    items = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in cast("list[Any]", listed)]
    named = {item for item in items if isinstance(item, str) and item in ids}
    return named if len(named) == len(items) else ids


def report(line: str) -> None:
    """Say on the terminal what nobody waits for to see it."""
    sys.stderr.write(f"{line}\n")


def one_line(error: Exception) -> str:
    """An error's message, whatever breaks its lines."""
    return " ".join(str(error).split())


def _record(message: "MessageTypeDef", queue: Queue) -> Json:
    """A message as it stands in an event ("Using Lambda with Amazon SQS")."""
    record: Json = {
        "messageId": message.get("MessageId"),
        "receiptHandle": message.get("ReceiptHandle"),
        "body": message.get("Body"),
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()},
        "md5OfBody": message.get("MD5OfBody"),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue.arn,
        "awsRegion": REGION,
    }
    if "MD5OfMessageAttributes" in message:
        record["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    return record


def _attribute(value: "MessageAttributeValueOutputTypeDef") -> Json:
    # msgspec writes bytes in base 64, as Lambda does.
    names = {"StringValue": "stringValue", "BinaryValue": "binaryValue"}
    given = {ours: value[theirs] for theirs, ours in names.items() if theirs in value}
    return {**given, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}


def _delete(client: "SQSClient", queue: Queue, messages: "list[MessageTypeDef]") -> None:
    for start in range(0, len(messages), LARGEST_RECEIVE):
        client.delete_message_batch(
            QueueUrl=queue.url,
            Entries=[
                {"Id": str(number), "ReceiptHandle": message.get("ReceiptHandle", "")}
                for number, message in enumerate(messages[start : start + LARGEST_RECEIVE])
            ],
        )


async def aside(work: Callable[[], _Result]) -> _Result:
    """Run what blocks in a thread that nobody has to wait for: a poll takes up to 20 s, and Ctrl-C must not."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: Exception | None) -> None:
        if outcome.done():  # nobody waits any more
            return
        if error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as caught:  # noqa: BLE001 - it is raised where the work is awaited
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: the run has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await outcome
