"""Lambda on one machine: every function runs AWS's own runtime client in a process of its own.

A process asks for work at the Runtime API (2018-06-01: next, response, error, init/error), as in AWS. Here each process
has a listener of that API to itself, which serves connections of this process and closes those of anybody else, and
which takes a call only where the process may make it. Processes start on demand, handle one invocation at a time, are
used again (the last one first) and end when the code they loaded has been edited.

A function may ask another one (`Invocations`), by the address that AWS_ENDPOINT_URL_LAMBDA has for it.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from local import loopback, queues
from local.gateway import MAX_EVENT, FunctionError, FunctionTimeout, InvokeFunction
from local.server import PrivateListener, read_body, respond
from local.template import ACCOUNT_ID, PARTITION, REGION, Function

# Of one function; further invocations wait, so that 200 at once do not fork 200. An event source says how many it has.
MAX_PROCESSES = 4
INIT_TIMEOUT = 30.0  # seconds until a process asks for work; AWS gives 10, on a machine of its own
MAX_RESPONSE = 6 * 1024 * 1024  # "Lambda quotas"
STOP_GRACE = 1.0  # seconds between SIGTERM and SIGKILL

_API = "/2018-06-01/runtime"
_INVOKE = re.compile(r"/2015-03-31/functions/(\w+)/invocations", re.ASCII)
_ACCEPTED = b'{"status":"OK"}'
_JSON_HEADER = (b"content-type", b"application/json")

Json = dict[str, Any]


class Runtime:
    """Runs the functions of a stack; `invoke` is what the gateway calls.

    Use it as an async context manager: when it ends, no process that it started is left.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        environment: Mapping[str, str] | None = None,
        max_processes: int = MAX_PROCESSES,
        concurrency: Mapping[str, int] | None = None,
        hear: Callable[[str], None] | None = None,
    ) -> None:
        """`environment` reaches every function, below what the template sets.

        `concurrency` names functions of which more than `max_processes` may be at work at once. `hear` is given each
        line that a function prints, inside of the context manager; without it they go to standard error.
        """
        more = concurrency or {}
        self._output = _Output(hear)
        self._environment = dict(environment or {})
        self._pools = {
            logical_id: _Pool(function, self._environment, max(max_processes, more.get(logical_id, 0)), self._output)
            for logical_id, function in functions.items()
        }
        self._invocations = Invocations(self.invoke, self._pools, self._is_ours)

    async def __aenter__(self) -> "Runtime":
        await self._output.open()
        self._environment["AWS_ENDPOINT_URL_LAMBDA"] = await self._invocations.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def invoke(self, function: str, event: Json, /) -> object:
        """What the handler returns. Raises FunctionError or FunctionTimeout."""
        return await self._pools[function].invoke(event)

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """End every process: politely, then after `grace` seconds for certain; returns when the last one is gone."""
        await asyncio.gather(*(pool.stop(grace) for pool in self._pools.values()))
        self._invocations.close()
        await self._output.close(grace)

    def _is_ours(self, caller: loopback.Address, ours: loopback.Address) -> bool:
        return any(pool.has(caller, ours) for pool in self._pools.values())


class Invocations:
    """Lambda's own API, as far as functions ask each other by it: "Invoke" in the AWS Lambda API Reference.

    It serves connections that `admits` knows, and of those requests that the key of this run has signed.
    """

    def __init__(
        self,
        invoke: InvokeFunction,
        functions: Collection[str],
        admits: Callable[[loopback.Address, loopback.Address], bool],
    ) -> None:
        self._invoke = invoke
        self._functions = functions
        self._admits = admits
        self._listener: PrivateListener | None = None

    async def open(self) -> str:
        """Listen, in the running loop; returns the URL that takes the place of AWS (AWS_ENDPOINT_URL_LAMBDA)."""
        sock = loopback.bind_inner()
        self._listener = PrivateListener(self, sock, self._admits)
        await self._listener.open()
        return "http://{}:{}".format(*sock.getsockname())

    def close(self) -> None:
        """Stop listening; again does nothing."""
        if self._listener:
            self._listener.close()
            self._listener = None

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        """Answer a request, as an ASGI callable."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = await read_body(receive, MAX_EVENT)
        if body is None:
            return
        place = _INVOKE.fullmatch(scope["path"])
        if not queues.is_of_this_run(headers.get("authorization", "")):
            await _answer(send, 403, b'{"message":"The key is not that of this run"}')
        elif scope["method"] != "POST" or place is None or place[1] not in self._functions:
            await _answer(send, 404, b'{"message":"There is no such function"}')
        else:
            await self._ask(place[1], body, send)

    async def _ask(self, function: str, body: bytes, send: Any) -> None:
        try:
            event = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            await _answer(send, 400, b'{"message":"The payload is not JSON"}')
            return
        failed: list[tuple[bytes, bytes]] = []
        try:
            answer = await self._invoke(function, event)
        except (FunctionError, FunctionTimeout) as error:
            failed = [(b"x-amz-function-error", b"Unhandled")]
            answer = {"errorType": type(error).__name__, "errorMessage": str(error)}
        content = msgspec.json.encode(answer)
        await respond(send, 200, [_JSON_HEADER, (b"content-length", b"%d" % len(content)), *failed], content)


class _Output(asyncio.Protocol):
    """Where functions print: our standard error, beside the access log; or a pipe of all of them, heard by the line."""

    def __init__(self, hear: Callable[[str], None] | None) -> None:
        self.descriptor = 2
        self._hear = hear
        self._transport: asyncio.ReadTransport | None = None
        self._rest = b""

    async def open(self) -> None:
        if self._hear is None:
            return
        reading, self.descriptor = os.pipe()
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(reading, "rb", 0))

    async def close(self, grace: float) -> None:
        """Hear the last of it, and no more; to be called when the functions have ended."""
        if self._transport is None:
            return
        os.close(self.descriptor)
        # The end does not come while a process that a function has left behind still holds the pipe.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), grace)
        self._transport.close()
        self._transport, self.descriptor = None, 2

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        if self._rest:
            self._tell(self._rest)
        self._ended.set()

    def _tell(self, line: bytes) -> None:
        assert self._hear is not None
        self._hear(line.decode("utf-8", "replace"))


class _Invocation:
    """One event on its way to a handler and back."""

    def __init__(self, payload: bytes) -> None:
        self.id = str(uuid.uuid4())
        self.payload = payload
        self.result: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.result.done()

    def succeed(self, result: object) -> None:
        if not self.result.done():
            self.result.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class _Pool:
    """The processes of one function, and the invocations that wait for one."""

    def __init__(self, function: Function, environment: Mapping[str, str], max_processes: int, output: _Output) -> None:
        self.function = function
        self.environment = environment
        self.output = output
        self._max_processes = max_processes
        self._sources = _Sources((function.code_dir, *function.layers))
        self._waiting: deque[_Invocation] = deque()
        self._idle: list[_Process] = []
        self._processes: set[_Process] = set()
        self._stopping = False

    async def invoke(self, event: Json) -> object:
        invocation = _Invocation(msgspec.json.encode(event))
        if self._sources.edited():
            self._retire_all()
        if self._idle:
            self._idle.pop().hand_over(invocation)
        else:
            self._waiting.append(invocation)
            self._start_missing()
        return await invocation.result

    def has(self, caller: loopback.Address, ours: loopback.Address) -> bool:
        """Whether the end `caller` of a connection is open in one of these processes."""
        return any(process.is_ours(caller, ours) for process in self._processes)

    def take_back(self, invocation: _Invocation) -> None:
        """Give an invocation that no process has begun to read to another one."""
        if self._stopping:
            invocation.fail(_stopping())
        elif self._idle:
            self._idle.pop().hand_over(invocation)
        else:
            self._waiting.appendleft(invocation)
            self._start_missing()

    def next_invocation(self) -> _Invocation | None:
        """The invocation that has waited longest, of those that somebody still waits for."""
        while self._waiting:
            invocation = self._waiting.popleft()
            if not invocation.over:
                return invocation
        return None

    def park(self, process: "_Process") -> None:
        self._idle.append(process)

    def unpark(self, process: "_Process") -> None:
        if process in self._idle:
            self._idle.remove(process)

    def ended(self, process: "_Process", error: FunctionError) -> None:
        """A process is gone. One that never asked for work takes the oldest invocation with it.

        Without that, code that can't be loaded would start processes for ever.
        """
        self._processes.discard(process)
        self.unpark(process)
        if process.starting and not process.retired and (invocation := self.next_invocation()):
            invocation.fail(error)
        self._start_missing()

    async def stop(self, grace: float) -> None:
        self._stopping = True
        while invocation := self.next_invocation():
            invocation.fail(_stopping())
        await asyncio.gather(*(process.stop(grace) for process in list(self._processes)))

    def _retire_all(self) -> None:
        self._idle.clear()
        for process in self._processes:
            process.retire()

    def _start_missing(self) -> None:
        """Start a process for each invocation that waits, as far as the pool's size allows."""
        if self._stopping:
            return
        # Retired ones do not count: what they still do must not hold up those who wait for the edited code.
        current = [process for process in self._processes if not process.retired and process.alive]
        starting = sum(process.starting for process in current)
        for _ in range(min(len(self._waiting) - starting, self._max_processes - len(current))):
            self._processes.add(_Process(self))


class _Process:
    """One process of a function, and the Runtime API that it talks to (as an ASGI callable)."""

    def __init__(self, pool: _Pool) -> None:
        self.starting = True
        self.retired = False
        self._pool = pool
        self._function = pool.function
        self._child: asyncio.subprocess.Process | None = None
        self._invocation: _Invocation | None = None
        self._next: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: FunctionError | None = None
        self._life = asyncio.create_task(self._live())

    async def _live(self) -> None:
        try:
            # It listens before there is a process, and takes connections when it is known which process may make them.
            with loopback.bind_inner() as sock:
                status = await self._run(sock)
            error = self._error or FunctionError("Runtime.ExitError", f"The process ended with status {status}")
        except OSError as refused:
            error = FunctionError("Runtime.StartError", f"The process could not be started: {refused}")
        if not self.retired:
            _report(self._function, error)
        if self._next is not None:
            self._next.cancel()  # nobody asks for work any more
            self._give_back()
        self._finish(error)
        self._pool.ended(self, error)

    async def _run(self, sock: socket.socket) -> int:
        """Start the process and serve it; returns its exit status. Raises OSError where it can't be started."""
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "awslambdaric", self._function.handler),
            cwd=self._function.code_dir,
            env=self._environment("{}:{}".format(*sock.getsockname())),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self._pool.output.descriptor,
            # A terminal's Ctrl-C reaches its whole group: the run itself ends these, when their work is done.
            start_new_session=True,
        )
        self._set_timer(INIT_TIMEOUT, self._init_timed_out)
        listener = PrivateListener(self, sock, self.is_ours)
        await listener.open()
        try:
            if self.retired:
                self._signal(signal.SIGKILL)
            return await self._child.wait()
        finally:
            listener.close()

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as the kernel knows before anybody has told us."""
        if self._child is None:
            return True
        try:
            return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # whoever waits for it has just seen its end
            return False

    def is_ours(self, caller: loopback.Address, ours: loopback.Address) -> bool:
        """Whether the end `caller` of a connection is open in this process."""
        return self._child is not None and loopback.belongs_to(self._child.pid, caller, ours)

    def hand_over(self, invocation: _Invocation) -> None:
        """Give an idle process its next invocation."""
        assert self._next is not None
        self._begin(invocation)
        self._next.set_result(None)

    def retire(self) -> None:
        """End it, after the invocation that it may be working on."""
        self.retired = True
        if self._invocation is None:
            self._signal(signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """End it and wait until it is gone."""
        self.retired = True
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait({self._life}, timeout=grace)
        finally:  # also where a second Ctrl-C ends the wait
            self._signal(signal.SIGKILL)
        await asyncio.wait({self._life})

    # -------------------------------------------------------------- the Runtime API

    async def __call__(self, scope: Json, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        if path == f"{_API}/invocation/next":
            await self._answer_next(receive, send)
            return
        body = await read_body(receive, MAX_RESPONSE)
        if body is None:
            return
        status, content = 202, _ACCEPTED
        if path == f"{_API}/init/error" and self.starting:
            self._error = _reported_error(body)
        elif self._invocation and path == f"{_API}/invocation/{self._invocation.id}/response":
            if len(body) > MAX_RESPONSE:
                status, content = 413, b"{}"
            self._finish(_result(body))
        elif self._invocation and path == f"{_API}/invocation/{self._invocation.id}/error":
            # Not reported: the runtime client has written it to the log, and "Unauthorized" is no news.
            self._finish(_reported_error(body))
        else:
            status, content = 400, b"{}"
        await _answer(send, status, content)

    async def _answer_next(self, receive: Any, send: Any) -> None:
        if self._next or self._invocation:
            # It waits already, or has not said what came of what it was given.
            await _answer(send, 403, b"{}")
            return
        self.starting = False
        self._cancel_timer()
        if self.retired:
            self._signal(signal.SIGKILL)
            return
        invocation = self._pool.next_invocation()
        if invocation:
            self._begin(invocation)
        elif not await self._is_handed(receive):
            return
        else:
            invocation = self._invocation
        if invocation is None:  # its time was over before this
            return
        headers = [
            _JSON_HEADER,
            (b"content-length", b"%d" % len(invocation.payload)),
            (b"lambda-runtime-aws-request-id", invocation.id.encode()),
            (b"lambda-runtime-deadline-ms", b"%d" % ((time.time() + self._function.timeout) * 1000)),
            (b"lambda-runtime-invoked-function-arn", self._arn.encode()),
        ]
        await respond(send, 200, headers, invocation.payload)

    async def _is_handed(self, receive: Any) -> bool:
        """Wait until the process has its next invocation; False where it does not wait any more, and has none."""
        self._next = asyncio.get_running_loop().create_future()
        self._pool.park(self)
        left = asyncio.ensure_future(self._left(receive))
        await asyncio.wait({self._next, left}, return_when=asyncio.FIRST_COMPLETED)
        gone = left.done() or not self.alive
        left.cancel()
        self._next = None
        self._pool.unpark(self)
        if gone:
            self._give_back()
        return not gone

    def _give_back(self) -> None:
        """Leave to another process what this one was handed and has not begun to read: it had died unseen."""
        self._cancel_timer()
        invocation, self._invocation = self._invocation, None
        if invocation and not invocation.over:
            self._pool.take_back(invocation)

    async def _left(self, receive: Any) -> None:
        while await read_body(receive, 0) is not None:
            pass

    # -------------------------------------------------------------- one invocation

    def _begin(self, invocation: _Invocation) -> None:
        # Before anything is awaited: a process that dies now must find the invocation that it takes along.
        self._invocation = invocation
        self._set_timer(self._function.timeout, self._timed_out)

    def _finish(self, outcome: object) -> None:
        self._cancel_timer()
        invocation, self._invocation = self._invocation, None
        if invocation is None:
            return
        if isinstance(outcome, Exception):
            invocation.fail(outcome)
        else:
            invocation.succeed(outcome)

    def _timed_out(self) -> None:
        message = f"Task timed out after {self._function.timeout:g} seconds"
        self._error = FunctionError("Sandbox.Timedout", message)
        self._finish(FunctionTimeout(message))
        self._signal(signal.SIGKILL)

    def _init_timed_out(self) -> None:
        self._error = FunctionError("Sandbox.Timedout", f"The code did not load within {INIT_TIMEOUT:g} seconds")
        self._signal(signal.SIGKILL)

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, action)

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _signal(self, number: signal.Signals) -> None:
        """Signal the process and whatever it may have started itself (start_new_session made it a group)."""
        if self._child and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    @property
    def _arn(self) -> str:
        return f"arn:{PARTITION}:lambda:{REGION}:{ACCOUNT_ID}:function:{self._function.logical_id}"

    def _environment(self, address: str) -> dict[str, str]:
        """Lambda's own variables ("Defined runtime environment variables") and the template's; nothing of ours."""
        function = self._function
        return {
            "LANG": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": os.pathsep.join(str(layer) for layer in function.layers),
            "PYTHONUNBUFFERED": "1",
            "TZ": ":UTC",
            **self._pool.environment,
            **function.environment,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
            "AWS_LAMBDA_FUNCTION_NAME": function.logical_id,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_FORMAT": function.log_format,
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_REGION": REGION,
            "LAMBDA_TASK_ROOT": str(function.code_dir),
            "_HANDLER": function.handler,
        }


def _stopping() -> FunctionError:
    return FunctionError("Runtime.Stopped", "The local run is stopping")


class _ReportedError(msgspec.Struct, rename="camel"):
    error_type: str = "Error"
    error_message: str = ""
    stack_trace: list[str] = []


def _result(body: bytes) -> object:
    if len(body) > MAX_RESPONSE:
        return FunctionError("Function.ResponseSizeTooLarge", f"The response has more than {MAX_RESPONSE} bytes")
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        return FunctionError("Runtime.MarshalError", f"The response is not JSON: {error}")


async def _answer(send: Any, status: int, content: bytes) -> None:
    await respond(send, status, [_JSON_HEADER, (b"content-length", b"%d" % len(content))], content)


def _reported_error(body: bytes) -> FunctionError:
    try:
        reported = msgspec.json.decode(body, type=_ReportedError)
    except (ValueError, RecursionError) as error:
        return FunctionError("Runtime.MarshalError", f"What was reported is no error: {error}")
    return FunctionError(reported.error_type, reported.error_message, tuple(reported.stack_trace))


def _report(function: Function, error: FunctionError) -> None:
    """Say on the terminal what went wrong in a function, with its traceback where there is one."""
    sys.stderr.write(f"{function.logical_id}: {error}\n{''.join(error.trace)}")


class _Sources:
    """The Python files under some folders, watched by modification time and size."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)
        self._folders, self._files = self._look()

    def edited(self) -> bool:
        """Whether a file was changed, added or removed since the last call.

        Asked before every invocation: some twenty calls of stat, 30 us. The folders are only listed again when one of
        them changed, and that is no edit by itself: Python writes its __pycache__ into them.
        """
        if _unchanged(self._folders) and _unchanged(self._files):
            return False
        before = self._files
        self._folders, self._files = self._look()
        return self._files != before

    def _look(self) -> tuple["_Stamps", "_Stamps"]:
        folders: _Stamps = {}
        files: _Stamps = {}
        for path in (found for root in self._roots for found in (root, *root.rglob("*"))):
            # A file may vanish between the listing and this look; the next call will see that.
            with contextlib.suppress(OSError):
                if path.suffix == ".py":
                    files[path] = _stamp(path)
                elif path.is_dir() and path.name != "__pycache__":
                    folders[path] = _stamp(path)
        return folders, files


_Stamps = dict[Path, tuple[int, int]]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _unchanged(stamps: _Stamps) -> bool:
    try:
        return all(_stamp(path) == stamp for path, stamp in stamps.items())
    except OSError:
        return False
