"""`make test-localstack`: the template deployed by the real `sam deploy`, and run, against LocalStack on this machine.

    PYTHONPATH=layers/registry .venv/bin/python -m tests.localstack .venv-localstack/bin/python

It needs no Docker, no image, no token and no account, and a Python 3.13, which is Lambda's. It starts LocalStack on a
free port of loopback and the embedded Postgres, both in a temporary folder, builds, deploys, looks at what was made,
registers a server by the API, waits for the schedule to have it checked, deploys again with nothing new and with
another parameter, deletes the stack, and stops everything. A line for each thing that was proved; exit code 1 where one
was not. It takes three to four minutes.

What LocalStack (localstack-core 2026.3.0) lacks on a host without Docker is played here, as `serve` says:

    functions         AWS's own runtime client, a process for each sandbox, in the code and layers that were deployed
    custom resources  the documented requests and answers, by an address in S3 that is signed
    loopback          it would listen on every interface

What this does not prove:

    access        LocalStack asks no authorizer, IAM denies nothing, and a refusal has not the words of our gateway
                  responses. The authorizer's function is invoked by itself here. A real account proves the rest
                  (pytest tests/api --api-url).
    Lambda        no container, no limit of memory, /opt and /var/task lie elsewhere, boto3 is another version.
    the network   no VPC, no RDS, no endpoint: the stack is deployed with DatabaseUrl.
    upgrades      it can't update an alias, nor roll back: a deployment with a new migration ends there, and what a
                  failed one leaves behind only AWS tells.
    details       it passes over what it lacks: the whole Dashboard (`UNKNOWN`), reserved concurrency, LoggingConfig.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import boto3
from botocore.config import Config

# What else is imported stands in the functions that need it: LocalStack's process, whose environment is another one,
# imports this module too.

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
HOST = "127.0.0.1"
REGION = "eu-west-1"
STACK = "mcp-registry"
STAGE = "v1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # account 000000000000; nobody checks them
# Resources that LocalStack has no provider for, and says are complete.
UNKNOWN = {"Dashboard"}
# What it always says.
REMARKS = (" INFO ", " DEBUG ", "Advanced Lambda Logging", "feature_toggle", "unpublished metrics", "not specified: ")

STARTED_WITHIN = 60.0  # seconds; LocalStack takes 2-5
DEPLOYED_WITHIN = 600.0  # seconds; a deployment takes one to two minutes
CHECKED_WITHIN = 150.0  # seconds; the rule fires a minute after it was made
STOPPED_WITHIN = 20.0  # seconds; LocalStack ends its event sources first
LOADED_WITHIN = 60.0  # seconds until a function asks for work; six of them may start at once on two cores


# ------------------------------------------------------------------ LocalStack's process


def serve() -> None:
    """Be LocalStack, as its environment says, until standard input ends or a signal comes.

    Run by the Python of requirements/localstack.txt. What is put in its place, by its names of 2026.3.0:

        the executor of Lambda that starts Docker       -> Sandbox
        no provider for AWS::CloudFormation::CustomResource -> CustomResource
        a look for Fn::Transform before SAM's transform, which fails at names that only SAM makes -> none, we have none
        Twisted's endpoint on every interface           -> on loopback
    """
    threading.Thread(target=_end_with_input, daemon=True).start()
    plugins: Any = importlib.import_module("localstack.services.lambda_.invocation.plugins")
    plugins.DockerRuntimeExecutorPlugin.load = lambda *_, **__: Sandbox
    providers: Any = importlib.import_module("localstack.services.cloudformation.resource_provider")
    known = providers.ResourceProviderExecutor.try_load_resource_provider

    def provider(resource_type: str) -> Any:
        return CustomResource() if resource_type == CustomResource.TYPE else known(resource_type)

    providers.ResourceProviderExecutor.try_load_resource_provider = staticmethod(provider)
    transform: Any = importlib.import_module("localstack.services.cloudformation.engine.v2.change_set_model_transform")
    transform.ChangeSetModelTransform._execute_local_transforms = lambda _: None
    twisted: Any = importlib.import_module("localstack.runtime.server.twisted")
    twisted.endpoints.TCP4ServerEndpoint = functools.partial(twisted.endpoints.TCP4ServerEndpoint, interface=HOST)
    importlib.import_module("localstack.runtime.main").main()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


class Sandbox:
    """One sandbox of a function: a process of AWS's runtime client, and the Runtime API that it asks for work.

    LocalStack makes one where it would make a container, and calls it by the names of its RuntimeExecutor.
    """

    def __init__(self, name: str, function_version: Any) -> None:
        self.id = name
        self.function_version = function_version
        self.calls: queue.SimpleQueue[tuple[Json, float]] = queue.SimpleQueue()
        self.outcome: Future[tuple[bool, bytes]] = Future()
        self.ready = threading.Event()
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._api: ThreadingHTTPServer | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with the sandbox

    # -- for a version: what containers are made from

    @classmethod
    def prepare_version(cls, function_version: Any) -> None:
        """Unpack the code and the layers."""
        for code in (function_version.config.code, *(layer.code for layer in function_version.config.layers)):
            code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: Any) -> None:
        """Remove the code; layers may be others' too."""
        function_version.config.code.destroy_cached()

    @classmethod
    def validate_environment(cls) -> bool:
        """Nothing is needed."""
        return True

    # -- for one sandbox

    def start(self, env_vars: Mapping[str, Any]) -> None:
        """Start the process and wait until its code is loaded; RuntimeError where it ends before, or is too slow."""
        config = self.function_version.config
        code: Path = config.code.get_unzipped_code_location()
        layers = [layer.code.get_unzipped_code_location() / "python" for layer in config.layers]
        self._api = _RuntimeApi((HOST, 0), _RuntimeApiHandler)
        self._api.sandbox = self
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        self._environment = {
            "PATH": os.environ["PATH"],
            **{name: str(value) for name, value in env_vars.items()},
            "AWS_LAMBDA_RUNTIME_API": f"{HOST}:{self._api.server_port}",
            "LAMBDA_TASK_ROOT": str(code),
            "PYTHONPATH": os.pathsep.join(map(str, layers)),
        }
        self._load(code, config.handler)

    def _load(self, code: Path, handler: str) -> None:
        self.ready.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", handler],
            cwd=code,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + LOADED_WITHIN
        while not self.ready.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._kill()
                raise RuntimeError(
                    f"{self.function_version.id.function_name} was not loaded: {self.get_logs()[-2000:]}"
                )

    def invoke(self, payload: Mapping[str, str]) -> Any:
        """Hand an event over; LocalStack's InvocationResult with the answer, or with the error that Lambda reports."""
        config = self.function_version.config
        if self._process is None or self._process.poll() is not None:  # it timed out, or ended
            self._load(config.code.get_unzipped_code_location(), config.handler)
        before = self._log.seek(0, os.SEEK_END)
        deadline = time.time() + config.timeout
        self.outcome = Future()
        self.calls.put((dict(payload), deadline))
        is_error, body = self._wait(deadline)
        models: Any = importlib.import_module("localstack.services.lambda_.invocation.lambda_models")
        logs = (
            f"START RequestId: {payload['invoke-id']}\n{self.get_logs(before)}END RequestId: {payload['invoke-id']}\n"
        )
        return models.InvocationResult(payload["invoke-id"], body, is_error, logs)

    def _wait(self, deadline: float) -> tuple[bool, bytes]:
        assert self._process is not None
        while True:
            with contextlib.suppress(NotYet):
                return self.outcome.result(0.05)
            if self._process.poll() is not None:
                return True, _error("Runtime.ExitError", f"The process ended with status {self._process.returncode}")
            if time.time() > deadline:
                self._kill()
                return True, _error(
                    "Sandbox.Timedout", f"Task timed out after {self.function_version.config.timeout} s"
                )

    def stop(self) -> None:
        """End the process and its Runtime API."""
        self._kill()
        if self._api is not None:
            self._api.shutdown()
            self._api.server_close()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def get_logs(self, since: int = 0) -> str:
        """What the process has said, from this byte on."""
        end = self._log.seek(0, os.SEEK_END)
        return os.pread(self._log.fileno(), end - since, since).decode("utf-8", "replace")

    def get_address(self) -> str:
        """Where it is."""
        return HOST

    def get_endpoint_from_executor(self) -> str:
        """Where LocalStack is."""
        return HOST

    def get_runtime_endpoint(self) -> str:
        """LocalStack's own program in the container would answer here."""
        return ""


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class _RuntimeApi(ThreadingHTTPServer):
    daemon_threads = True
    sandbox: Sandbox


class _RuntimeApiHandler(BaseHTTPRequestHandler):
    """The Runtime API of 2018-06-01: next, response, error, init/error."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        sandbox = cast("_RuntimeApi", self.server).sandbox
        sandbox.ready.set()
        call, deadline = sandbox.calls.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": call["invoke-id"],
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": call["invoked-function-arn"],
            "Lambda-Runtime-Trace-Id": call["trace-id"],
        }
        self._answer(200, call["payload"].encode(), headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        outcome = cast("_RuntimeApi", self.server).sandbox.outcome
        if "/invocation/" in self.path and not outcome.done():
            outcome.set_result((self.path.endswith("/error"), body))
        self._answer(202, b'{"status":"OK"}', {})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        pass


class CustomResource:
    """A provider of LocalStack's CloudFormation: a resource whose function is asked, and answers by a signed address.

    "Custom resource request types" and "response objects" in the AWS CloudFormation User Guide.
    """

    TYPE = "AWS::CloudFormation::CustomResource"
    SCHEMA: ClassVar[Json] = {"primaryIdentifier": ["/properties/PhysicalResourceId"]}
    BUCKET = "cloudformation-custom-resource-response-local"

    def create(self, request: Any) -> Any:
        return self._ask("Create", request, {})

    def update(self, request: Any) -> Any:
        return self._ask("Update", request, {"OldResourceProperties": request.previous_state})

    def delete(self, request: Any) -> Any:
        return self._ask("Delete", request, {})

    def _ask(self, kind: str, request: Any, more: Json) -> Any:
        providers: Any = importlib.import_module("localstack.services.cloudformation.resource_provider")
        aws = Aws(f"http://{os.environ['GATEWAY_LISTEN']}")
        properties: Json = dict(request.desired_state)
        place = {"Bucket": self.BUCKET, "Key": str(uuid.uuid4())}
        with contextlib.suppress(aws.s3.exceptions.BucketAlreadyOwnedByYou):
            aws.s3.create_bucket(Bucket=self.BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        event = {
            "RequestType": kind,
            "RequestId": place["Key"],
            "ResponseURL": aws.s3.generate_presigned_url("put_object", place, 7200),
            "ResourceType": self.TYPE,
            "LogicalResourceId": request.logical_resource_id,
            "StackId": request.stack_id,
            "ServiceToken": properties["ServiceToken"],
            "ResourceProperties": properties,
            **({} if kind == "Create" else {"PhysicalResourceId": self._known(request)}),
            **more,
        }
        aws.lambda_.invoke(
            FunctionName=properties["ServiceToken"], InvocationType="Event", Payload=json.dumps(event, default=str)
        )
        answer = self._wait(aws, place, float(properties.get("ServiceTimeout", 3600)))
        model = {**properties, "PhysicalResourceId": answer.get("PhysicalResourceId"), **answer.get("Data", {})}
        succeeded = answer["Status"] == "SUCCESS"
        status = providers.OperationStatus.SUCCESS if succeeded else providers.OperationStatus.FAILED
        return providers.ProgressEvent(status=status, resource_model=model, message=answer.get("Reason", ""))

    def _known(self, request: Any) -> str:
        state = request.previous_state or request.desired_state
        return state.get("PhysicalResourceId", "unknown")

    def _wait(self, aws: Aws, place: Mapping[str, str], seconds: float) -> Json:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(aws.s3.exceptions.NoSuchKey):
                return json.loads(aws.s3.get_object(**place)["Body"].read())
            time.sleep(0.2)
        return {"Status": "FAILED", "Reason": f"the function did not answer within {seconds:.0f} s"}


class Aws:
    """Clients of LocalStack at a URL."""

    def __init__(self, url: str) -> None:
        self._session = boto3.Session("test", "test", region_name=REGION)
        self._url = url

    def __getattr__(self, name: str) -> Any:
        config = Config(s3={"addressing_style": "path"}, signature_version="s3v4" if name == "s3" else None)
        made: Any = self._session.client(name.rstrip("_"), endpoint_url=self._url, config=config)  # pyright: ignore
        setattr(self, name, made)
        return made


# ------------------------------------------------------------------ what is started


class Failure(Exception):
    """Something was not as it should be; the message says what."""


@contextlib.contextmanager
def localstack(python: Path, folder: Path) -> Generator[str]:
    """LocalStack in `folder`, on a free port of loopback; gives its URL. Failure where it does not start."""
    with socket.create_server((HOST, 0)) as free:
        address = f"{HOST}:{free.getsockname()[1]}"
    for name in ("home", "tmp", "root"):
        (folder / name).mkdir()
    environment = {
        **CREDENTIALS,
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),  # unpacked code lies here
        "FILESYSTEM_ROOT": str(folder / "root"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GATEWAY_LISTEN": address,
        "LOCALSTACK_HOST": address,  # in the addresses that it hands out; its own name needs a resolver
        "SQS_ENDPOINT_STRATEGY": "path",
        "DNS_ADDRESS": "0",  # no resolver
        "DISABLE_EVENTS": "1",  # nothing is sent to its makers
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        # Lambda asks a queue all the time. This pauses for 10 s where it was empty: a shard may miss its half minute.
        "LAMBDA_EVENT_SOURCE_MAPPING_MAX_BACKOFF_ON_EMPTY_POLL_SEC": "1",
        "LAMBDA_RUNTIME_ENVIRONMENT_TIMEOUT": f"{LOADED_WITHIN:.0f}",
        "CFN_IGNORE_UNSUPPORTED_RESOURCE_TYPES": "1",
    }
    with (folder / "localstack.log").open("wb") as log:
        process = subprocess.Popen(
            [python, "-m", "tests.localstack", "serve"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,  # never written to: its end is the end of the process
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://{address}/_localstack/health", process)
        yield f"http://{address}"
    finally:
        _stop(process)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failure(f"LocalStack ended with exit code {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise Failure(f"LocalStack did not answer within {STARTED_WITHIN:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End LocalStack and, for its group is theirs, the functions."""
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOPPED_WITHIN)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Healthy(BaseHTTPRequestHandler):
    """A server as one that is registered: no MCP, but a /health."""

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(404)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        pass


@contextlib.contextmanager
def healthy_server() -> Generator[str]:
    """A server that a check finds healthy; gives its URL."""
    with ThreadingHTTPServer((HOST, 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{server.server_port}/mcp"
        finally:
            server.shutdown()


# ------------------------------------------------------------------ what is proved


class Sam:
    """The SAM CLI on a stack in LocalStack, with a build of its own in `folder`."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._environment = {
            **kept,
            **CREDENTIALS,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "ARCHITECTURE": "x86_64",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "SAM_CLI_TELEMETRY": "0",
        }
        self._folder = folder
        self.template = folder / "build" / "template.yaml"

    def run(self, *words: str) -> str:
        """Run it with samconfig.toml's first environment; gives what it said. Failure where it fails."""
        try:
            done = subprocess.run(
                [BIN / "sam", *words, "--config-file", ROOT / "samconfig.toml", "--config-env", "default"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEPLOYED_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise Failure(f"sam {words[0]} took more than {expired.timeout:.0f} s") from expired
        if done.returncode != 0:
            raise Failure(
                f"sam {words[0]} ended with exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}"
            )
        return done.stdout + done.stderr

    def build(self) -> None:
        self.run("build", "--build-dir", str(self.template.parent), "--template", str(ROOT / "template.yaml"))

    def deploy(self, parameters: Mapping[str, str]) -> str:
        return self.run(
            *("deploy", "--template", str(self.template), "--stack-name", STACK, "--no-confirm-changeset"),
            *("--no-fail-on-empty-changeset", "--no-progressbar", "--parameter-overrides"),
            *(f"{name}={value}" for name, value in parameters.items()),
        )

    def delete(self) -> None:
        self.run("delete", "--stack-name", STACK, "--no-prompts")


class Report:
    """Prints a line for each thing: proved, or not and why."""

    def __init__(self) -> None:
        self.failures = 0

    @contextlib.contextmanager
    def proof(self, what: str) -> Generator[list[str]]:
        """What happens inside proves `what`, unless it raises; strings put into the list are said as well."""
        since, details = time.monotonic(), list[str]()
        try:
            yield details
        except Exception as error:
            self.failures += 1
            self._say("NOT", what, since, f"{type(error).__name__}: {error}")
        else:
            self._say("yes", what, since, ", ".join(details))

    def _say(self, proved: str, what: str, since: float, details: str) -> None:
        print(f"{proved}  {time.monotonic() - since:6.1f} s  {what}{': ' if details else ''}{details}", flush=True)


def rehearse(report: Report, sam: Sam, aws: Aws, endpoint: str, database_url: str) -> None:
    """Deploy, look, use, deploy again, delete."""
    parameters = {
        "ApiGatewayRole": "create",
        "Architecture": "x86_64",
        "DatabaseUrl": database_url,
        "DatabaseAccess": "role",  # each function takes on its role of sql/roles.sql: what one may not do, fails here
        "OpenCidrs": "127.0.0.0/8",
        "CronSecret": "cron",
        "StageName": STAGE,
        "AlarmEmail": "team@example.com",
        "LogLevel": "DEBUG",
    }
    with report.proof("sam build"):
        sam.build()
    with report.proof("sam deploy"):
        sam.deploy(parameters)
    if report.failures:
        return  # there is nothing to look at
    look(report, aws, parameters, database_url)
    use(report, aws, endpoint, database_url)
    with report.proof("a second deployment touches no resource"):
        before = _events(aws)
        sam.deploy(parameters)
        _equal([event["LogicalResourceId"] for event in _events(aws)[: -len(before)]], [STACK, STACK])
    with report.proof("a deployment with another parameter changes one function"):
        sam.deploy({**parameters, "RawRetentionDays": "8"})
        _equal(_stack(aws)["StackStatus"], "UPDATE_COMPLETE")
        made = aws.lambda_.get_function_configuration(FunctionName=_names(aws)["MaintainFunction"])
        _equal(made["Environment"]["Variables"]["RAW_RETENTION_DAYS"], "8")
    with report.proof("sam delete removes the stack and leaves the database") as details:
        sam.delete()
        # It lists those that are gone as well, which AWS does not.
        stacks = aws.cloudformation.describe_stacks()["Stacks"]
        _equal({one["StackStatus"] for one in stacks if one["StackName"] == STACK} - {"DELETE_COMPLETE"}, set())
        _equal(aws.lambda_.list_functions()["Functions"], [])
        details.append(
            f"{_rows(database_url, 'SELECT count(*) FROM registry.mcp_servers')[0][0]} server is still there"
        )


def look(report: Report, aws: Aws, parameters: Mapping[str, str], database_url: str) -> None:
    """Compare what there is with what the template says, as tests/cloudformation.py works it out."""
    from tests.cloudformation import Stack

    expected = Stack(**parameters)
    found = {one["LogicalResourceId"]: one for one in _resources(aws)}
    names = {name: one["PhysicalResourceId"] for name, one in found.items()}

    with report.proof("the stack is complete, with every resource of the translated template") as details:
        _equal(_stack(aws)["StackStatus"], "CREATE_COMPLETE")
        _equal({name: one["ResourceStatus"] for name, one in found.items()}, dict.fromkeys(found, "CREATE_COMPLETE"))
        _equal({_unversioned(name) for name in found}, {_unversioned(name) for name in expected.resources})
        unknown = {name for name, physical in names.items() if physical == "unknown"}
        details += [f"{len(found)} resources", f"passed over: {' '.join(sorted(unknown))}"]
        _equal(unknown, UNKNOWN)

    with report.proof("the migration ran as a custom resource, before the functions were made") as details:
        tables = _rows(database_url, "SELECT count(*) FROM pg_tables WHERE schemaname IN ('registry', 'metrics')")
        roles = _rows(database_url, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'registry\\_%' ORDER BY rolname")
        _equal([name for (name,) in roles], ["registry_reader", "registry_sweeper", "registry_writer"])
        _equal(tables[0][0] > 5, True)
        _equal(names["Migration"], "migrations")
        made = {
            one["LogicalResourceId"]: one["Timestamp"]
            for one in _events(aws)
            if one["ResourceStatus"] == "CREATE_COMPLETE"
        }
        late = [name for name, one in expected.resources.items() if "Migration" in one.get("DependsOn", ())]
        _equal([name for name in late if made[name] < made["Migration"]], [])
        details += [f"{tables[0][0]} tables", "3 roles", f"{len(late)} functions after it"]

    with report.proof("functions have their configuration, role, layers and variables") as details:
        functions = expected.of_type("AWS::Lambda::Function")
        for name, wanted in functions.items():
            _look_at_function(aws, names, names[name], wanted)
        details.append(f"{len(functions)} functions")

    with report.proof("queues, dead letters and event sources") as details:
        queues = expected.of_type("AWS::SQS::Queue")
        for name, wanted in queues.items():
            made = aws.sqs.get_queue_attributes(QueueUrl=names[name], AttributeNames=["All"])["Attributes"]
            for key in ("VisibilityTimeout", "DelaySeconds", "MessageRetentionPeriod"):
                _equal(made[key], str(wanted.get(key, made[key])))
            _equal("RedrivePolicy" in made, "RedrivePolicy" in wanted)
        sources = {one["UUID"]: one for one in aws.lambda_.list_event_source_mappings()["EventSourceMappings"]}
        for name, wanted in expected.of_type("AWS::Lambda::EventSourceMapping").items():
            one = sources.pop(names[name])
            _equal((one["State"], one["BatchSize"]), ("Enabled", wanted["BatchSize"]))
            _equal(one["FunctionResponseTypes"], wanted["FunctionResponseTypes"])
            details.append(f"{name} ScalingConfig {one.get('ScalingConfig')}")
        _equal(sources, {})

    with report.proof("schedules, alarms, log groups, topic") as details:
        rules = {one["Name"]: one for one in aws.events.list_rules()["Rules"]}
        for name, wanted in expected.of_type("AWS::Events::Rule").items():
            _equal(rules[names[name].split("|")[-1]]["ScheduleExpression"], wanted["ScheduleExpression"])
        alarms = {one["AlarmName"]: one for one in aws.cloudwatch.describe_alarms()["MetricAlarms"]}
        for name, wanted in expected.of_type("AWS::CloudWatch::Alarm").items():
            _equal(alarms[names[name]].get("MetricName"), wanted.get("MetricName"))  # none where it is a sum of metrics
            _equal(alarms[names[name]]["AlarmActions"], [names["AlarmTopic"]])
        details += [f"{len(rules)} rules", f"{len(alarms)} alarms"]


def _look_at_function(aws: Aws, names: Mapping[str, str], function: str, wanted: Json) -> None:
    made = aws.lambda_.get_function_configuration(FunctionName=function)
    for key in ("Runtime", "Handler", "Timeout", "MemorySize"):
        _equal(made[key], wanted[key])
    _equal(made["State"], "Active")
    _equal(made["Role"].rpartition("/")[2], names[wanted["Role"].removeprefix("${").removesuffix(".Arn}")])
    _equal(len(made.get("Layers", [])), len(wanted.get("Layers", [])))
    _equal(set(made.get("Environment", {}).get("Variables", {})), set(wanted["Environment"]["Variables"]))


def use(report: Report, aws: Aws, endpoint: str, database_url: str) -> None:
    """Ask the API, and let the schedule have a registered server checked."""
    outputs = {one["OutputKey"]: one["OutputValue"] for one in _stack(aws)["Outputs"]}
    names = _names(aws)
    secret = json.loads(aws.secretsmanager.get_secret_value(SecretId=outputs["CredentialsSecret"])["SecretString"])
    basic = "Basic " + b64encode(f"{secret['username']}:{secret['password']}".encode()).decode()
    base = _base(aws, endpoint)

    with report.proof("the authorizer lets in who has the secret, and nobody else"):
        arn = f"arn:aws:execute-api:{REGION}:000000000000:{names['RegistryApi']}/{STAGE}/GET/api/registry/servers"
        for credentials, effect in ((basic, "Allow"), (basic[:-6] + "AAAA==", "Deny")):
            event = {
                "type": "REQUEST",
                "methodArn": arn,
                "multiValueHeaders": {"Authorization": [credentials]},
                "requestContext": {"identity": {"sourceIp": HOST}},
            }
            answer = _invoke(aws, names["AuthorizerFunction"], event)
            _equal(answer["policyDocument"]["Statement"][0]["Effect"], effect)

    with report.proof("API: GET /health"):
        _equal(_ask("GET", f"{base}/health", None, None)[0], 200)

    with report.proof("API: a method that a path does not have gets the mock's answer"):
        status, text = _ask("DELETE", f"{base}/api/registry/servers", basic, None)
        _equal((status, json.loads(text)["code"]), (405, "METHOD_NOT_ALLOWED"))

    with healthy_server() as url:
        document = {
            "name": "rehearsal",
            "display_name": "Rehearsal",
            "server_type": "mock",
            "endpoint_url": url,
            "tools": [{"name": "forecast", "description": "Weather", "input_schema": {"type": "object"}}],
        }
        with report.proof("API: register and list") as details:
            status, text = _ask("POST", f"{base}/api/registry/register", basic, document)
            _equal((status, text[:300] if status != 201 else ""), (201, ""))
            status, text = _ask("GET", f"{base}/api/registry/servers", basic, None)
            _equal(status, 200)
            details.append(f"{len(json.loads(text)['servers'])} server")

        with report.proof("the rule fires and a check is written: rule, queue, prober, queue, Postgres") as details:
            row = _until(
                database_url, "SELECT verdict, status_code, response_time_ms FROM metrics.server_health_metrics"
            )
            details.append(" ".join(map(str, row)))
            _equal(row[0], "healthy")

        with report.proof("half a minute later the tick queue starts the second sweep of the minute") as details:
            # The rule's own slots are a minute apart.
            row = _until(
                database_url,
                "SELECT b.slot - a.slot, b.verdict FROM metrics.server_health_metrics a"
                " JOIN metrics.server_health_metrics b ON b.slot - a.slot = interval '30 s'",
            )
            details.append(f"{row[0]} later {row[1]}")

    with report.proof("no dead letter"):
        for name in ("ProbeDeadLetterQueue", "ResultDeadLetterQueue", "EventDeadLetterQueue"):
            made = aws.sqs.get_queue_attributes(QueueUrl=names[name], AttributeNames=["ApproximateNumberOfMessages"])
            _equal(made["Attributes"]["ApproximateNumberOfMessages"], "0")


# ------------------------------------------------------------------ how


def _stack(aws: Aws) -> Json:
    return aws.cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]


def _resources(aws: Aws) -> list[Json]:
    return aws.cloudformation.describe_stack_resources(StackName=STACK)["StackResources"]


def _names(aws: Aws) -> dict[str, str]:
    """Physical ids by logical ids."""
    return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in _resources(aws)}


def _base(aws: Aws, endpoint: str) -> str:
    """The API's URL in LocalStack."""
    return f"{endpoint}/_aws/execute-api/{_names(aws)['RegistryApi']}/{STAGE}"


def _invoke(aws: Aws, function: str, event: Json) -> Any:
    return json.loads(aws.lambda_.invoke(FunctionName=function, Payload=json.dumps(event))["Payload"].read())


def _ask(method: str, url: str, credentials: str | None, document: Json | None) -> tuple[int, str]:
    headers = {"authorization": credentials} if credentials else {}
    body = None
    if document is not None:
        headers["content-type"] = "application/json"
        body = json.dumps(document).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _rows(database_url: str, query: str) -> list[Any]:
    import psycopg

    with psycopg.connect(database_url) as connection:
        return connection.execute(query.encode()).fetchall()


def _until(database_url: str, query: str) -> Any:
    """The first row that a query gives; Failure where there is none in time."""
    deadline = time.monotonic() + CHECKED_WITHIN
    while time.monotonic() < deadline:
        if rows := _rows(database_url, query):
            return rows[0]
        time.sleep(0.5)
    raise Failure(f"nothing within {CHECKED_WITHIN:.0f} s")


def _events(aws: Aws) -> list[Json]:
    """What happened to the stack and its resources, the newest first."""
    return aws.cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]


def _unversioned(name: str) -> str:
    """A logical id without the digest of the code that SAM puts behind those of versions, layers and deployments."""
    return re.sub("[0-9a-f]{10}$", "", name)


def _equal(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Failure(f"{found!r} and not {wanted!r}")


def _complaints(log: Path) -> Iterator[str]:
    """The last lines of LocalStack's log that are more than a remark."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    yield from [line for line in lines if not any(remark in line for remark in REMARKS)][-20:]


def main(python: Path) -> int:
    """Run all of it with LocalStack in this Python; returns the exit code."""
    from local.postgres import Postgres

    report = Report()
    with tempfile.TemporaryDirectory(prefix="registry-localstack-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres is somebody else where we are root
        with report.proof("Postgres starts"):
            database_url = stack.enter_context(Postgres(folder / "postgres", durable=False))
        with report.proof("LocalStack starts"):
            endpoint = stack.enter_context(localstack(python, folder))
        if not report.failures:
            rehearse(report, Sam(endpoint, folder), Aws(endpoint), endpoint, database_url)
        if report.failures:
            print(*_complaints(folder / "localstack.log"), sep="\n", file=sys.stderr)
    return 1 if report.failures else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(main(Path(sys.argv[1]).absolute()))
