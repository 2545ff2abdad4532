"""Functions in processes of their own, with AWS's runtime client in them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from local import loopback, server
from local import runtime as runtime_module
from local.gateway import FunctionError, FunctionTimeout
from local.runtime import Runtime
from local.template import Function

ECHO = """
    import os
    def lambda_handler(event, context):
        return {"event": event, "pid": os.getpid(), "cwd": os.getcwd(), "environment": dict(os.environ)}
"""
# Says on a FIFO that it is at work, then waits there for the word to go on.
WAIT = """
    import os
    def lambda_handler(event, context):
        with open(event["at_work"], "w") as fifo:
            fifo.write(str(os.getpid()))
        with open(event["go_on"]) as fifo:
            fifo.read()
        return os.getpid()
"""

Test = Callable[[Runtime], Awaitable[Any]]


class Code:
    """One function in a folder, with the runtime that runs it."""

    def __init__(self, folder: Path):
        self.folder = folder / "function"
        self.layer = folder / "layer"
        self.folder.mkdir()
        self.layer.mkdir()

    def write(self, source: str, path: str = "function/app.py") -> None:
        (self.folder.parent / path).write_text(textwrap.dedent(source))

    def function(self, timeout: float = 10) -> Function:
        return Function(
            logical_id="Subject",
            code_dir=self.folder,
            handler="app.lambda_handler",
            timeout=timeout,
            memory=128,
            environment={"FROM_TEMPLATE": "yes"},
            layers=(self.layer,),
            log_format="JSON",
        )

    def run(
        self, test: Test, timeout: float = 10, max_processes: int = 4, concurrency: dict[str, int] | None = None
    ) -> Any:
        async def running() -> Any:
            runtime = Runtime({"Subject": self.function(timeout)}, {"FROM_RUN": "yes"}, max_processes, concurrency)
            async with runtime:
                return await asyncio.wait_for(test(runtime), 15)

        return asyncio.run(running())


class Gate:
    """Where a handler of WAIT stops: two FIFOs."""

    def __init__(self, folder: Path, name: str):
        self.event = {"at_work": str(folder / f"{name}.at_work"), "go_on": str(folder / f"{name}.go_on")}
        for path in self.event.values():
            os.mkfifo(path)

    async def reached(self) -> int:
        """Wait until a handler is there; its process id."""
        return int(await asyncio.to_thread(Path(self.event["at_work"]).read_text))

    async def open(self) -> None:
        await asyncio.to_thread(Path(self.event["go_on"]).write_text, "")


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


@pytest.fixture
def gates(tmp_path: Path) -> Callable[[str], Gate]:
    return lambda name: Gate(tmp_path, name)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid: int) -> None:
    while exists(pid):
        await asyncio.sleep(0.01)


def call(runtime: Runtime, event: Any = None) -> Coroutine[Any, Any, Any]:
    return runtime.invoke("Subject", event or {})


async def idle(runtime: Runtime) -> None:
    """Until whoever has answered asks for work again: until then an invocation starts another process."""
    pool = runtime._pools["Subject"]
    while len(pool._idle) < len(pool._processes):
        await asyncio.sleep(0)


async def used(runtime: Runtime, times: int) -> set[int]:
    """The processes that handle so many invocations, one after the other."""
    pids: set[int] = set()
    for _ in range(times):
        pids.add((await call(runtime))["pid"])
        await idle(runtime)
    return pids


def test_a_handler_gets_the_event_and_the_environment_of_lambda_and_nothing_else(
    code: Code, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    code.write(ECHO)
    result = code.run(lambda runtime: call(runtime, {"text": "é\u2028"}))
    environment = result["environment"]
    assert result["event"] == {"text": "é\u2028"}
    assert result["cwd"] == str(code.folder) == environment["LAMBDA_TASK_ROOT"]
    assert environment["FROM_TEMPLATE"] == environment["FROM_RUN"] == "yes"
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "Subject" and environment["_HANDLER"] == "app.lambda_handler"
    assert not environment.keys() & {"SECRET_OF_THE_USER", "HOME", "VIRTUAL_ENV"}


def test_the_context_knows_what_time_is_left_and_which_request_it_is(code: Code):
    code.write("""
        def lambda_handler(event, context):
            return [context.get_remaining_time_in_millis(), context.aws_request_id, context.invoked_function_arn]
    """)
    left, request_id, arn = code.run(call, timeout=7)
    assert 6000 < left <= 7000
    assert len(request_id) == 36 and arn.endswith(":function:Subject")


def test_a_process_is_used_again(code: Code):
    code.write(ECHO)
    assert len(code.run(lambda runtime: used(runtime, 5))) == 1


def test_invocations_at_once_get_a_process_each_up_to_the_maximum_and_the_rest_wait(
    code: Code, gates: Callable[[str], Gate]
):
    code.write(WAIT)
    doors = [gates(str(number)) for number in range(5)]

    async def test(runtime: Runtime):
        calls = [asyncio.create_task(call(runtime, door.event)) for door in doors]
        first = await asyncio.gather(*(door.reached() for door in doors[:3]))
        last = [asyncio.create_task(door.reached()) for door in doors[3:]]
        assert not any(task.done() for task in last)
        for door in doors:
            await door.open()
        assert set(await asyncio.gather(*last)) <= set(first)
        return await asyncio.gather(*calls)

    assert len(set(code.run(test, max_processes=3))) == 3


def test_a_function_that_queues_invoke_may_have_a_process_for_each_of_their_invocations(
    code: Code, gates: Callable[[str], Gate]
):
    code.write(WAIT)
    doors = [gates(str(number)) for number in range(2)]

    async def test(runtime: Runtime):
        calls = [asyncio.create_task(call(runtime, door.event)) for door in doors]
        pids = await asyncio.gather(*(door.reached() for door in doors))
        for door in doors:
            await door.open()
        await asyncio.gather(*calls)
        return set(pids)

    assert len(code.run(test, max_processes=1, concurrency={"Subject": 2})) == 2


def test_two_hundred_invocations_at_once_are_all_answered(code: Code):
    code.write(ECHO)

    async def test(runtime: Runtime):
        return await asyncio.gather(*(call(runtime, {"number": number}) for number in range(200)))

    results = code.run(test)
    assert [result["event"]["number"] for result in results] == list(range(200))
    assert len({result["pid"] for result in results}) <= 4


def test_an_edit_of_the_function_or_of_a_layer_is_in_force_for_the_next_invocation(code: Code):
    code.write("GREETING = 'one'", "layer/words.py")
    code.write("from words import GREETING\ndef lambda_handler(event, context): return GREETING, 1")

    async def test(runtime: Runtime):
        yield_ = [await call(runtime)]
        code.write("from words import GREETING\ndef lambda_handler(event, context): return GREETING, 22")
        yield_.append(await call(runtime))
        code.write("GREETING = 'three'", "layer/words.py")
        yield_.append(await call(runtime))
        code.write("GREETING = 'four'", "function/words.py")  # a new file, which comes first on the path
        yield_.append(await call(runtime))
        return yield_

    assert code.run(test) == [["one", 1], ["one", 22], ["three", 22], ["four", 22]]


def test_an_edit_does_not_disturb_an_invocation_under_way(code: Code, gates: Callable[[str], Gate]):
    code.write(WAIT)
    gate = gates("gate")

    async def test(runtime: Runtime):
        before = asyncio.create_task(call(runtime, gate.event))
        pid = await gate.reached()
        code.write("def lambda_handler(event, context): return 'edited'")
        assert await call(runtime) == "edited"
        await gate.open()
        assert await before == pid
        await gone(pid)

    code.run(test, max_processes=1)


def test_bytecode_that_python_writes_is_no_edit(code: Code):
    code.write("import lazy_module\n" + textwrap.dedent(ECHO))
    code.write("", "function/lazy_module.py")
    assert len(code.run(lambda runtime: used(runtime, 3))) == 1
    assert (code.folder / "__pycache__").exists()


def test_a_handler_that_takes_too_long_is_killed_and_the_next_invocation_works(
    code: Code, gates: Callable[[str], Gate]
):
    code.write(WAIT)
    slow, quick = gates("slow"), gates("quick")

    async def test(runtime: Runtime):
        invocation = asyncio.create_task(call(runtime, slow.event))
        pid = await slow.reached()
        with pytest.raises(FunctionTimeout, match=r"timed out after 0\.3 seconds"):
            await invocation
        await gone(pid)
        runtime._pools["Subject"].function = code.function()  # how long a busy machine takes for the next is no matter
        invocation = asyncio.create_task(call(runtime, quick.event))
        assert await quick.reached() != pid
        await quick.open()
        await invocation

    code.run(test, timeout=0.3)


def test_a_handler_that_raises_fails_alone(code: Code):
    code.write("""
        import os
        def lambda_handler(event, context):
            if event:
                raise ValueError("no such thing")
            return os.getpid()
    """)

    async def test(runtime: Runtime):
        before = await call(runtime)
        await idle(runtime)
        with pytest.raises(FunctionError) as caught:
            await call(runtime, {"fail": True})
        assert (caught.value.error_type, caught.value.message) == ("ValueError", "no such thing")
        await idle(runtime)
        assert await call(runtime) == before

    code.run(test)


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), 9)", "sys.exit(0)"])
def test_a_process_that_dies_in_a_handler_fails_its_invocation_and_the_next_one_works(code: Code, death: str):
    code.write(f"""
        import os, sys
        def lambda_handler(event, context):
            if event:
                {death}
            return "alive"
    """)

    async def test(runtime: Runtime):
        await call(runtime)
        with pytest.raises(FunctionError, match=r"Runtime\.ExitError"):
            await call(runtime, {"die": True})
        return await call(runtime)

    assert code.run(test) == "alive"


def test_an_idle_process_that_dies_is_replaced(code: Code):
    code.write(ECHO)

    async def test(runtime: Runtime):
        pid = (await call(runtime))["pid"]
        await idle(runtime)
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # a watcher of asyncio's may be quicker
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        # Nothing was awaited since, so that the runtime can't have noticed: it finds out by itself.
        return pid, (await call(runtime))["pid"]

    before, after = code.run(test)
    assert before != after


@pytest.mark.parametrize(
    ("source", "error", "trace"),
    [
        ("import nowhere", "Runtime.ImportModuleError", "No module named 'nowhere'"),
        ("def lambda_handler(:", "Runtime.UserCodeSyntaxError", "def lambda_handler(:"),
        ("1 / 0", "ZeroDivisionError", "1 / 0"),
        ("import os\nos._exit(7)", "Runtime.ExitError", "status 7"),
    ],
)
def test_code_that_cannot_be_loaded_says_why_and_works_once_it_is_mended(
    code: Code, capsys: pytest.CaptureFixture[str], source: str, error: str, trace: str
):
    code.write(source)

    async def test(runtime: Runtime):
        failures = await asyncio.gather(*(call(runtime) for _ in range(6)), return_exceptions=True)
        assert {getattr(failure, "error_type", failure) for failure in failures} == {error}
        code.write(ECHO)
        await call(runtime)

    code.run(test, max_processes=2)
    said = capsys.readouterr().err
    assert f"Subject: {error}" in said and trace in said


def test_what_functions_print_is_heard_by_the_line(code: Code, capfd: pytest.CaptureFixture[str]):
    code.write("""
        import sys
        def lambda_handler(event, context):
            print("x" * 100_000)
            print("é", flush=True)
            sys.stdout.write(event["end"])
    """)
    heard: list[str] = []

    async def test() -> None:
        async with Runtime({"Subject": code.function()}, hear=heard.append) as runtime:
            await asyncio.wait_for(call(runtime, {"end": "one\n"}), 15)
            await asyncio.wait_for(call(runtime, {"end": "without an end"}), 15)

    asyncio.run(test())
    assert heard == ["x" * 100_000, "é", "one", "x" * 100_000, "é", "without an end"]
    assert capfd.readouterr() == ("", "")


def test_what_nobody_hears_goes_to_standard_error(code: Code, capfd: pytest.CaptureFixture[str]):
    code.write("def lambda_handler(event, context): print('said')")
    code.run(call)
    assert capfd.readouterr() == ("", "said\n")


def test_code_that_does_not_end_loading_is_given_up(code: Code, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime_module, "INIT_TIMEOUT", 0.3)
    code.write("import threading; threading.Event().wait()")

    async def test(runtime: Runtime):
        with pytest.raises(FunctionError, match="did not load within"):
            await call(runtime)

    code.run(test)


def test_a_response_beyond_lambdas_limit_is_an_error(code: Code):
    code.write("def lambda_handler(event, context): return 'x' * (6 * 1024 * 1024)")

    async def test(runtime: Runtime):
        with pytest.raises(FunctionError, match="ResponseSizeTooLarge"):
            await call(runtime)

    code.run(test)


def test_an_invocation_that_nobody_waits_for_any_more_is_not_run(code: Code, gates: Callable[[str], Gate]):
    code.write(WAIT)
    busy, after = gates("busy"), gates("after")

    async def test(runtime: Runtime):
        first = asyncio.create_task(call(runtime, busy.event))
        await busy.reached()
        abandoned = asyncio.create_task(call(runtime, {"at_work": "/nowhere/at/all", "go_on": ""}))
        last = asyncio.create_task(call(runtime, after.event))
        await asyncio.sleep(0)
        abandoned.cancel()
        await busy.open()
        assert await after.reached() == await first
        await after.open()
        await last

    code.run(test, max_processes=1)


def test_stopping_ends_idle_busy_and_starting_processes(code: Code, gates: Callable[[str], Gate]):
    code.write(WAIT)
    gate = gates("gate")

    async def test():
        runtime = Runtime({"Subject": code.function()}, max_processes=2)
        busy = asyncio.create_task(call(runtime, gate.event))
        pid = await gate.reached()
        others = [asyncio.create_task(call(runtime, gate.event)) for _ in range(3)]
        await asyncio.sleep(0)
        await runtime.stop()
        outcomes = await asyncio.gather(busy, *others, return_exceptions=True)
        assert all(isinstance(outcome, FunctionError) for outcome in outcomes)
        assert not exists(pid)

    asyncio.run(asyncio.wait_for(test(), 15))


def test_a_process_that_ignores_sigterm_is_killed_when_stopping(code: Code):
    code.write("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + textwrap.dedent(ECHO))

    async def test():
        runtime = Runtime({"Subject": code.function()})
        pid = (await call(runtime))["pid"]
        await runtime.stop(grace=0.1)
        return pid

    assert not exists(asyncio.run(test()))


def test_no_process_outlives_a_run_that_is_killed(code: Code):
    code.write(ECHO)
    script = f"""
import asyncio, sys
from pathlib import Path
from local.runtime import Runtime
from local.template import Function

async def main():
    folder = Path({str(code.folder)!r})
    runtime = Runtime({{"Subject": Function("Subject", folder, "app.lambda_handler", 9, 128, {{}}, (), "Text")}})
    print((await runtime.invoke("Subject", {{}}))["pid"], flush=True)
    await asyncio.Future()

asyncio.run(main())
"""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=root) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.kill()
    asyncio.run(asyncio.wait_for(gone(pid), 10))


# ------------------------------------------------------------------ the public port


async def exchange(sent: bytes, seen: list[dict[str, Any]] | None = None) -> bytes:
    """What the public server answers to these bytes; `seen` gets the scopes that reached the application."""

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        (seen if seen is not None else []).append(scope)
        body = await server.read_body(receive, 100) or b""
        await server.respond(send, 200, [(b"content-length", b"%d" % len(body))], body)

    public = server.PublicServer(application)
    with loopback.bind(0) as sock:
        serving = asyncio.create_task(public.serve(sockets=[sock]))
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(sent)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        public.should_exit = True
        await serving
    return answer


@pytest.mark.parametrize(
    "request_line",
    [b"GARBAGE", b"get / HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET /\xff HTTP/1.1"],
)
def test_what_is_not_http_is_refused_in_the_shape_of_all_errors(request_line: bytes):
    head, _, body = asyncio.run(exchange(request_line + b"\r\nhost: x\r\n\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"application/json" in head
    assert json.loads(body)["code"] == "VALIDATION_ERROR"


def test_a_header_of_9_kib_and_a_raw_path_reach_the_application():
    seen: list[dict[str, Any]] = []
    request = b"GET //a/%2e%2e/b?x=%20 HTTP/1.1\r\nconnection: close\r\nauthorization: " + b"x" * 9216 + b"\r\n\r\n"
    assert asyncio.run(exchange(request, seen)).startswith(b"HTTP/1.1 200 ")
    assert (seen[0]["raw_path"], seen[0]["query_string"]) == (b"//a/%2e%2e/b", b"x=%20")
    assert len(dict(seen[0]["headers"])[b"authorization"]) == 9216


def test_a_response_to_head_has_a_length_and_no_body():
    head, _, body = asyncio.run(
        exchange(b"HEAD / HTTP/1.1\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc")
    ).partition(b"\r\n\r\n")
    assert b"content-length: 3" in head and body == b""


def test_a_port_that_is_taken_cannot_be_bound():
    with loopback.bind(0) as sock, pytest.raises(OSError, match="in use"):
        loopback.bind(sock.getsockname()[1])
