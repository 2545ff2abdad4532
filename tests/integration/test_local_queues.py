"""Queues as SQS has them, event sources as Lambda polls them, and a schedule that sets a chain of both in motion."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local import queues, sources, template
from local.gateway import FunctionError, FunctionTimeout
from local.queues import QueueService
from local.runtime import Runtime
from local.schedule import Schedules
from local.sources import Sources, failures
from local.template import DeadLetters, Queue, Source
from tests.conftest import ROOT

FIFO = {"FifoQueue": "true", "ContentBasedDeduplication": "false"}
NUMBERS = count(1)

Json = dict[str, Any]
Handler = Callable[[list[Json]], Awaitable[object]]


connect = cache(queues.connect)  # a client takes 0.1 s to make


class Queues:
    """A few queues, and what tests do with them."""

    def __init__(self, url: str, **made: Queue) -> None:
        self.url = url
        self.client = connect(url)
        self.made = made
        queues.create(self.client, made)

    def send(self, queue: str, body: str, group: str | None = None, duplicate: str | None = None) -> None:
        fifo: Any = {"MessageGroupId": group or body, "MessageDeduplicationId": duplicate or body}
        self.client.send_message(
            QueueUrl=self.made[queue].url, MessageBody=body, **(fifo if self.made[queue].fifo else {})
        )

    def receive(self, queue: str, patience: int = 10) -> list[Any]:
        """What is there, or comes while the service waits; it stays in flight."""
        return self.client.receive_message(
            QueueUrl=self.made[queue].url,
            WaitTimeSeconds=patience,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
        ).get("Messages", [])

    def depth(self, queue: str) -> int:
        """How many messages it holds, in flight or not."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
        asked: Any = names
        found = self.client.get_queue_attributes(QueueUrl=self.made[queue].url, AttributeNames=asked)["Attributes"]
        return sum(int(number) for number in found.values())

    def play(self, *polled: Source, handler: Handler, test: Callable[[], Awaitable[Any]]) -> Any:
        """Run a test while the sources are polled; `handler` gets the records of each invocation."""

        async def invoke(function: str, event: Json) -> object:
            # As between processes: what arrives is what JSON can say.
            return await handler(msgspec.json.decode(msgspec.json.encode(event))["Records"])

        def revive() -> None:
            queues.create(self.client, self.made)

        async def playing() -> Any:
            async with Sources(polled, self.made, self.client, invoke, revive):
                return await asyncio.wait_for(test(), 20)

        return asyncio.run(playing())


@pytest.fixture
def new_queues(queue_service: str) -> Callable[..., Queues]:
    """Makes queues by their attributes; `dead_letters` names one of them."""

    def create(dead_letters: Mapping[str, DeadLetters] | None = None, **attributes: Mapping[str, str]) -> Queues:
        number = next(NUMBERS)
        made = {
            name: Queue(
                f"{name}{number}{'.fifo' if 'FifoQueue' in given else ''}", given, (dead_letters or {}).get(name)
            )
            for name, given in attributes.items()
        }
        return Queues(queue_service, **made)

    return create


def source(queue: str = "work", batch: int = 10, **fields: Any) -> Source:
    given: Json = {"window": 0, "max_concurrency": None, "reports_failures": True} | fields
    return Source(queue=queue, function="Subject", batch_size=batch, **given)


class Seen:
    """The records that a handler was given, and a way to wait for a number of them."""

    def __init__(self, number: int = 1) -> None:
        self.batches: list[list[Json]] = []
        self.enough = asyncio.Event()
        self._number = number

    @property
    def bodies(self) -> list[str]:
        return [record["body"] for batch in self.batches for record in batch]

    async def __call__(self, records: list[Json]) -> object:
        self.batches.append(records)
        if len(self.bodies) >= self._number:
            self.enough.set()
        return None


async def empty(made: Queues, queue: str) -> None:
    """Wait until a queue holds nothing: what was invoked has returned by then, and been deleted."""
    while await asyncio.to_thread(made.depth, queue):
        pass


async def gone(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.01)


# ------------------------------------------------------------------ the queue service


def test_the_url_of_the_template_leads_to_the_queue_of_its_last_segment(new_queues: Callable[..., Queues]):
    made = new_queues(work={})
    assert "amazonaws.com" in made.made["work"].url
    made.send("work", "é\u2028")
    (message,) = made.receive("work")
    assert message["Body"] == "é\u2028"


def test_a_queue_has_the_attributes_and_the_dead_letters_of_the_template(new_queues: Callable[..., Queues]):
    made = new_queues({"work": DeadLetters("dead", 4)}, work={"DelaySeconds": "7", "VisibilityTimeout": "9"}, dead={})
    url = made.made["work"].url
    attributes: Any = made.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (attributes["DelaySeconds"], attributes["VisibilityTimeout"]) == ("7", "9")
    assert attributes["QueueArn"] == made.made["work"].arn
    policy = json.loads(attributes["RedrivePolicy"])
    assert policy == {"deadLetterTargetArn": made.made["dead"].arn, "maxReceiveCount": 4}


def test_a_queue_that_is_there_is_brought_up_to_date(new_queues: Callable[..., Queues]):
    made = new_queues(work={"VisibilityTimeout": "9", **FIFO})
    name = made.made["work"].name
    queues.create(made.client, {"work": Queue(name, {"VisibilityTimeout": "8", **FIFO}, None)})
    attributes = made.client.get_queue_attributes(QueueUrl=made.made["work"].url, AttributeNames=["VisibilityTimeout"])
    assert attributes["Attributes"] == {"VisibilityTimeout": "8"}


@pytest.mark.parametrize("deleted", [False, True])
def test_a_duplicate_is_delivered_once_also_after_its_first_was_deleted(
    new_queues: Callable[..., Queues], deleted: bool
):
    made = new_queues(work=FIFO)
    made.send("work", "first", duplicate="one")
    if deleted:
        (message,) = made.receive("work")
        made.client.delete_message(QueueUrl=made.made["work"].url, ReceiptHandle=message["ReceiptHandle"])
    made.send("work", "again", duplicate="one")
    made.send("work", "other", duplicate="two")
    assert [message["Body"] for message in made.receive("work")] == ["other"] if deleted else ["first", "other"]


def test_where_duplicates_are_told_by_group_another_group_has_its_own(new_queues: Callable[..., Queues]):
    made = new_queues(work={**FIFO, "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"})
    for group in ("a", "b", "a"):
        made.send("work", f"of {group}", group=group, duplicate="one")
    assert [message["Body"] for message in made.receive("work")] == ["of a", "of b"]


def test_a_group_waits_for_its_message_in_flight_and_its_deletion_is_noticed_at_once(
    new_queues: Callable[..., Queues],
):
    made = new_queues(work=FIFO)
    made.send("work", "first", group="a")
    (first,) = made.receive("work")
    made.send("work", "second", group="a")
    made.send("work", "other", group="b")
    assert [message["Body"] for message in made.receive("work")] == ["other"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.receive, "work", 20)
        made.client.delete_message(QueueUrl=made.made["work"].url, ReceiptHandle=first["ReceiptHandle"])
        assert [message["Body"] for message in waiting.result(10)] == ["second"]


def test_what_was_kept_long_enough_is_gone(new_queues: Callable[..., Queues]):
    made = new_queues(work={"MessageRetentionPeriod": "0"})
    made.send("work", "old")
    assert [made.receive("work", patience=0), made.receive("work", patience=0)] == [[], []]
    assert made.depth("work") == 0


def test_who_hung_up_while_waiting_is_given_no_message(new_queues: Callable[..., Queues]):
    made = new_queues(work={})
    parts = urlsplit(made.url)
    body = json.dumps({"QueueUrl": made.made["work"].url, "WaitTimeSeconds": 20}).encode()
    head = (
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-amz-json-1.0\r\n"
        f"authorization: AWS4-HMAC-SHA256 Credential={queues.CREDENTIALS['AWS_ACCESS_KEY_ID']}/\r\n"
        f"x-amz-target: AmazonSQS.ReceiveMessage\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port)) as poll:
        poll.sendall(head.encode() + body)
        made.depth("work")  # requests are answered one after the other, so that the poll is waiting by now
    made.depth("work")
    made.send("work", "for somebody else")
    (message,) = made.receive("work")
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_no_message_is_lost_or_doubled_where_many_send_and_delete_at_once(new_queues: Callable[..., Queues]):
    made = new_queues(work={})
    seen = Seen(200)

    async def test() -> None:
        def send(number: int) -> None:
            made.send("work", str(number))

        with ThreadPoolExecutor(8) as pool:
            await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, send, n) for n in range(200)))
        await seen.enough.wait()
        await empty(made, "work")

    made.play(source(), handler=seen, test=test)
    assert sorted(map(int, seen.bodies)) == list(range(200))


def test_secrets_manager_is_served_too_and_nothing_else(queue_service: str):
    session = botocore.session.get_session()

    def client(service: str) -> Any:
        return session.create_client(
            service,
            region_name=template.REGION,
            endpoint_url=queue_service,
            aws_access_key_id=queues.CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key="any",
            config=Config(retries={"total_max_attempts": 1}),
        )

    name = f"secret-{next(NUMBERS)}"
    secrets = client("secretsmanager")
    secrets.create_secret(Name=name, SecretString="word")
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "word"
    with pytest.raises(ClientError, match="AmazonSQS and secretsmanager"):
        client("dynamodb").list_tables()
    with pytest.raises(ClientError, match=r"StartMessageMoveTask.*NotImplemented"):
        client("sqs").start_message_move_task(SourceArn="arn:aws:sqs:us-east-1:000000000000:x")


def test_a_profile_that_is_gone_from_the_users_aws_configuration_does_not_matter(
    queue_service: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_PROFILE", "gone")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert queues.connect(queue_service).list_queues(QueueNamePrefix="nobody") is not None


def test_the_service_ends_with_the_one_that_started_it_however_that_ends():
    script = "from local.queues import QueueService; s = QueueService(); s.start(); print(s.pid, flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()
    asyncio.run(asyncio.wait_for(gone(pid), 10))


# ------------------------------------------------------------------ event sources


def test_a_record_is_written_as_lambda_writes_it(new_queues: Callable[..., Queues]):
    made = new_queues(work=FIFO)
    made.client.send_message(
        QueueUrl=made.made["work"].url,
        MessageBody="hello",
        MessageGroupId="group",
        MessageDeduplicationId="once",
        MessageAttributes={
            "Colour": {"DataType": "String", "StringValue": "red"},
            "Raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        },
    )
    seen = Seen()
    delivered: list[Json] = []

    async def handler(records: list[Json]) -> object:
        delivered.extend(records)
        return await seen(records)

    made.play(source(), handler=handler, test=seen.enough.wait)
    (record,) = delivered
    attributes = record["attributes"]
    assert all(isinstance(value, str) for value in attributes.values())
    assert record == {
        "messageId": record["messageId"],
        "receiptHandle": record["receiptHandle"],
        "body": "hello",
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": attributes["SentTimestamp"],
            "SenderId": attributes["SenderId"],
            "ApproximateFirstReceiveTimestamp": attributes["ApproximateFirstReceiveTimestamp"],
            "MessageGroupId": "group",
            "MessageDeduplicationId": "once",
            "SequenceNumber": attributes["SequenceNumber"],
        },
        "messageAttributes": {
            "Colour": {"stringValue": "red", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "Raw": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfBody": "5d41402abc4b2a76b9719d911017c592",
        "md5OfMessageAttributes": record["md5OfMessageAttributes"],
        "eventSource": "aws:sqs",
        "eventSourceARN": made.made["work"].arn,
        "awsRegion": "us-east-1",
    }


def test_what_a_function_reports_as_failed_comes_again_and_the_rest_does_not(
    new_queues: Callable[..., Queues], capsys: pytest.CaptureFixture[str]
):
    made = new_queues(work={"VisibilityTimeout": "1"})
    for body in ("good", "bad", "better"):
        made.send("work", body)
    seen = Seen(4)

    async def handler(records: list[Json]) -> object:
        await seen(records)
        bad = [record for record in records if record["body"] == "bad"]
        first = bool(bad) and bad[0]["attributes"]["ApproximateReceiveCount"] == "1"
        return {"batchItemFailures": [{"itemIdentifier": bad[0]["messageId"]}] if first else []}

    async def test() -> None:
        await seen.enough.wait()
        await empty(made, "work")

    made.play(source(), handler=handler, test=test)
    assert [[record["body"] for record in batch] for batch in seen.batches] == [["good", "bad", "better"], ["bad"]]
    assert capsys.readouterr().err == "Subject failed with 1 of 3 messages of work\n"


def test_a_message_that_always_fails_ends_among_the_dead_letters(
    new_queues: Callable[..., Queues], capsys: pytest.CaptureFixture[str]
):
    errors = [FunctionTimeout("Task timed out"), FunctionError("ValueError", "no\nway")]
    made = new_queues({"work": DeadLetters("dead", 2)}, work={**FIFO, "VisibilityTimeout": "1"}, dead=FIFO)
    made.send("work", "poison", group="a")
    made.send("work", "patient", group="a")
    tries: list[str] = []
    cured = asyncio.Event()

    async def handler(records: list[Json]) -> object:
        (record,) = records
        if record["body"] == "poison":
            tries.append(record["attributes"]["ApproximateReceiveCount"])
            raise errors.pop()
        cured.set()
        return None

    made.play(source(batch=1), handler=handler, test=cured.wait)
    assert tries == ["1", "2"]
    (message,) = made.receive("dead")
    assert message["Body"] == "poison"
    assert capsys.readouterr().err.splitlines() == [
        "Subject failed with 1 of 1 messages of work: ValueError: no way",
        "Subject failed with 1 of 1 messages of work: Task timed out",
    ]


def test_a_delay_is_honoured(new_queues: Callable[..., Queues]):
    made = new_queues(work={"DelaySeconds": "1"})
    seen = Seen()

    async def test() -> None:
        await asyncio.to_thread(made.send, "work", "later")
        await seen.enough.wait()

    made.play(source(), handler=seen, test=test)
    attributes = seen.batches[0][0]["attributes"]
    assert int(attributes["ApproximateFirstReceiveTimestamp"]) - int(attributes["SentTimestamp"]) >= 1000


def test_no_more_invocations_are_made_at_once_than_the_mapping_allows(new_queues: Callable[..., Queues]):
    made = new_queues(work={})
    at_work, most, seen = 0, 0, Seen(6)
    crowded = asyncio.Event()

    async def handler(records: list[Json]) -> object:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if at_work == 2:
            crowded.set()
        await crowded.wait()  # so that those before are still at work
        await asyncio.to_thread(made.depth, "work")  # long enough for a third to come, if it could
        at_work -= 1
        return await seen(records)

    for number in range(6):
        made.send("work", str(number))
    made.play(source(batch=1, max_concurrency=2), handler=handler, test=seen.enough.wait)
    assert most == 2


def test_a_window_gathers_a_larger_batch_than_one_poll_gives(new_queues: Callable[..., Queues]):
    made = new_queues(work={})
    for number in range(12):
        made.send("work", str(number))
    seen = Seen(12)
    made.play(source(batch=20, window=1), handler=seen, test=seen.enough.wait)
    assert [len(batch) for batch in seen.batches] == [12]


def test_what_is_under_way_when_it_stops_stays_in_the_queue(new_queues: Callable[..., Queues]):
    made = new_queues(work={})
    made.send("work", "slow")
    begun = asyncio.Event()

    async def handler(records: list[Json]) -> object:
        begun.set()
        return await asyncio.Future()

    made.play(source(), handler=handler, test=begun.wait)
    assert made.depth("work") == 1


def test_a_queue_service_that_died_is_reported_once_and_used_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "RETRY", 0.05)
    service = QueueService()
    made = Queues(service.start(), work=Queue("work", {}, None), other=Queue("other", {}, None))
    seen = Seen(2)

    async def invoke(function: str, event: Json) -> object:
        return await seen(event["Records"])

    def revive() -> None:
        service.start()
        queues.create(made.client, made.made)

    async def test() -> None:
        polled = (source("work"), source("other"))
        async with Sources(polled, made.made, made.client, invoke, revive):
            await asyncio.to_thread(made.send, "work", "before")
            await empty(made, "work")
            pid = service.pid
            assert pid is not None
            os.kill(pid, 9)
            while True:
                try:
                    await asyncio.to_thread(made.send, "work", "after")
                    break
                except (BotoCoreError, ClientError):
                    await asyncio.sleep(0.05)
            await seen.enough.wait()

    try:
        asyncio.run(asyncio.wait_for(test(), 20))
    finally:
        service.stop()
    assert seen.bodies == ["before", "after"]
    down, up = capsys.readouterr().err.splitlines()
    assert down.startswith("The queues do not answer (")
    assert up == "The queues answer again; what stood in them may be lost."


IDS = {"a", "b"}


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (None, set()),
        ({}, set()),
        ({"batchItemFailures": None}, set()),
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"a"}),
        ({"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "a"}]}, IDS),
        ({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "unknown"}]}, IDS),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, IDS),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, IDS),
        ({"batchItemFailures": [{"itemIdentifier": ["a"]}]}, IDS),
        ({"batchItemFailures": [{"messageId": "a"}]}, IDS),
        ({"batchItemFailures": ["a"]}, IDS),
        ({"batchItemFailures": "a"}, IDS),
        (["a"], IDS),
        ("done", IDS),
        (True, IDS),
    ],
)
def test_what_a_function_returns_says_which_messages_failed(result: object, failed: set[str]):
    assert failures(result, IDS) == failed


# ------------------------------------------------------------------ a template, played

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Tick:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: tick
      Handler: app.lambda_handler
      Runtime: python3.13
      Environment: {Variables: {WORK_URL: !Ref ChainWork}}
      Events:
        Minute: {Type: Schedule, Properties: {Schedule: rate(1 minute)}}
        Get: {Type: Api, Properties: {Path: /, Method: GET}}
  Work:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: work
      Handler: app.lambda_handler
      Runtime: python3.13
      Timeout: 1
      Environment: {Variables: {OUT_URL: !Ref ChainOut}}
      Events:
        Work: {Type: SQS, Properties: {Queue: !GetAtt ChainWork.Arn, BatchSize: 1}}
  ChainWork:
    Type: AWS::SQS::Queue
    Properties:
      FifoQueue: true
      VisibilityTimeout: 1
      RedrivePolicy: {deadLetterTargetArn: !GetAtt ChainDead.Arn, maxReceiveCount: 1}
  ChainDead: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
  ChainOut: {Type: AWS::SQS::Queue}
"""
TICK = """
    import json, os
    import boto3
    sqs = boto3.client("sqs")
    def lambda_handler(event, context):
        for body in ("crash", "go on"):
            sqs.send_message(
                QueueUrl=os.environ["WORK_URL"],
                MessageBody=json.dumps({"do": body, "time": event["time"]}),
                MessageGroupId=body,
                MessageDeduplicationId=body,
            )
"""
WORK = """
    import json, os
    import boto3
    sqs = boto3.client("sqs")
    def lambda_handler(event, context):
        (record,) = event["Records"]
        body = json.loads(record["body"])
        if body["do"] == "crash":
            os._exit(3)
        sqs.send_message(QueueUrl=os.environ["OUT_URL"], MessageBody=json.dumps([body, record["eventSourceARN"]]))
"""


@pytest.fixture
def stack(tmp_path: Path) -> template.Stack:
    for name, source in (("tick", TICK), ("work", WORK)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(textwrap.dedent(source))
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    return template.load(tmp_path / "template.yaml", {})


def test_a_schedule_sends_to_a_queue_whose_function_sends_to_another_and_one_that_crashes_disturbs_nobody(
    stack: template.Stack, queue_service: str, capsys: pytest.CaptureFixture[str]
):
    made = Queues(queue_service, **stack.queues)
    environment = {**queues.CREDENTIALS, "AWS_ENDPOINT_URL": queue_service}

    def revive() -> None:
        queues.create(made.client, made.made)

    async def test() -> list[Json]:
        async with (
            Runtime(stack.functions, environment) as runtime,
            Sources(stack.sources, stack.queues, made.client, runtime.invoke, revive),
            Schedules(stack.schedules, runtime.invoke),
        ):
            out = await asyncio.to_thread(made.receive, "ChainOut", 20)
            await empty(made, "ChainWork")  # the crash is dead by then
            return out

    # A minute may begin meanwhile, and the rule be due once more.
    message, *_ = asyncio.run(asyncio.wait_for(test(), 30))
    body, arn = json.loads(message["Body"])
    assert body["do"] == "go on" and body["time"].endswith("Z")
    assert arn == stack.queues["ChainWork"].arn
    dead, *_ = made.receive("ChainDead")
    assert json.loads(dead["Body"])["do"] == "crash"
    lines = capsys.readouterr().err.splitlines()
    crash = "Work failed with 1 of 1 messages of ChainWork: Runtime.ExitError: The process ended with status 3"
    assert crash in lines
