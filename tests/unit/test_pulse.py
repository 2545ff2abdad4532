"""The pulse: what is learnt of answers, by every kind of server in the table of shapes, and by rule."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from mcp_registry.dial.introduction import PULSE_ID
from mcp_registry.health import pulse
from mcp_registry.health.pulse import Pulse, Question, Sample, Signature, learnt, patience, signature
from tests import shapes
from tests.hostile import Farm
from tests.shapes import KINDS, SESSIONS

JSON = "application/json"
OK = Signature(400, JSON, "{}")
OTHER = Signature(404, "text/html", "")


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    with shapes.serving() as farm:
        yield farm


def ask(farm: Farm, question: Question, path: str) -> Sample:
    """Ask a server of the table once."""
    connection = http.client.HTTPConnection("127.0.0.1", farm.port, timeout=10)
    began = time.monotonic()
    connection.request(question.method, path, question.body, dict(question.headers))
    answer = connection.getresponse()
    kind = answer.headers.get_content_type() if answer.headers["content-type"] else ""
    sample = signature(answer.status, kind, answer.read())
    opened = answer.headers["mcp-session-id"] is not None
    connection.close()
    return Sample(sample, min(time.monotonic() - began, 0.1), opened)


def learn(farm: Farm, name: str) -> Pulse | None:
    asked = pulse.questions(declared=False, era="legacy")
    samples = {question.name: [ask(farm, question, f"/{name}/mcp") for _ in range(2)] for question in asked}
    beside = {question.name: ask(farm, question, f"/{name}/{pulse.NONSENSE}").signature for question in asked}
    return learnt(samples, beside)


@pytest.mark.parametrize("name", KINDS)
def test_of_every_sdk_a_question_is_found_that_opens_nothing_and_that_no_other_answers_so(farm, name):
    found = learn(farm, name)
    assert found is not None
    question = next(question for question in pulse.QUESTIONS if question.name == found.question)
    before = len(SESSIONS[name])
    assert ask(farm, question, f"/{name}/mcp").signature == found.signature
    assert len(SESSIONS[name]) == before
    # Whatever may stand in its place one day.
    for other in (
        "bad-gateway",
        "parked-domain",
        "not-found",
        "single-page-app",
        "unavailable",
        "bare-401",
        "no-route",
        "429",
    ):
        assert ask(farm, question, f"/{other}/mcp").signature != found.signature, other


@pytest.mark.parametrize("name", ["parked-domain", "bad-gateway", "429", "402", "login-elsewhere", "unavailable"])
def test_nothing_is_learnt_of_what_tells_of_no_server(farm, name):
    sample = [ask(farm, question, f"/{name}/mcp") for question in pulse.questions(declared=False, era="legacy")]
    names = [question.name for question in pulse.questions(declared=False, era="legacy")]
    twice = {name: [one, one] for name, one in zip(names, sample, strict=True)}
    # Such a host answers a path that cannot exist in the same way.
    assert learnt(twice, {name: one[0].signature for name, one in twice.items()}) is None


CASES = {
    "twice alike": ([Sample(OK, 0.1), Sample(OK, 0.2)], True),
    "asked once": ([Sample(OK, 0.1)], False),
    "not asked": ([], False),
    "two answers": ([Sample(OK, 0.1), Sample(OTHER, 0.1)], False),
    "no answer": ([Sample(None, 5.0), Sample(None, 5.0)], False),
    "slow": ([Sample(OK, 0.1), Sample(OK, 2.5)], False),
    "opens a session": ([Sample(OK, 0.1, opened=True), Sample(OK, 0.1)], False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_question_is_kept_where_it_was_answered_twice_alike_quickly_and_opened_nothing(case):
    samples, kept = CASES[case]
    assert (learnt({"ping": samples}, {}) is not None) == kept
    assert learnt({"ping": samples}, {"ping": OK}) is None


def test_the_cheapest_question_is_kept_and_a_declared_health_url_before_all():
    samples = {question.name: [Sample(OK, 0.1)] * 2 for question in pulse.QUESTIONS}
    assert (found := learnt(samples, {})) and found.question == "no request"
    up = {**samples, "health_url": [Sample(OK._replace(status=200), 0.1)] * 2}
    assert (found := learnt(up, {})) and found.question == "health_url"


@pytest.mark.parametrize(
    ("era", "gated", "last"),
    [
        ("legacy", False, ["no stream", "ping"]),
        ("modern", False, ["server/discover"]),
        ("sse", False, []),
        (None, True, []),
    ],
)
def test_nobody_is_asked_what_only_another_era_understands(era, gated, last):
    asked = [question.name for question in pulse.questions(declared=True, era=era, gated=gated)]
    assert asked == ["health_url", "no request", "no JSON", "unknown session", *last]


def test_of_who_wants_credentials_is_told_that_it_still_wants_them_in_the_same_way():
    gate = Signature(401, JSON, "{}")
    samples = {"no JSON": [Sample(OK, 0.1)] * 2, "unknown session": [Sample(gate, 0.1)] * 2}
    # Its whole host may want them: what a path that cannot exist answers says nothing against it.
    assert (found := learnt(samples, {"unknown session": gate}, 401)) and found.question == "unknown session"
    assert learnt({"no JSON": samples["no JSON"]}, {}, 401) is None


def test_a_result_tells_of_a_server_that_answers_at_every_path_and_an_error_does_not():
    result = Signature(200, JSON, '{"id":int,"jsonrpc":str,"result":{}}')
    error = Signature(200, JSON, '{"error":{"code":int},"id":int,"jsonrpc":str}')
    for answer, tells in ((result, True), (error, False)):
        assert (learnt({"ping": [Sample(answer, 0.1)] * 2}, {"ping": answer}) is not None) == tells


@pytest.mark.parametrize(
    "found",
    [
        Pulse("ping", OK, 5.0),
        Pulse("plain health", Signature(200, "", ""), 6.25),
        Pulse("no JSON", signature(404, "x" * 100, json.dumps({f'k\u00e9"{n}': n for n in range(500)}).encode()), 20),
    ],
)
def test_a_pulse_is_read_as_it_was_written_and_is_never_long(found):
    assert pulse.read(pulse.write(found)) == found and len(pulse.write(found)) <= 500


@pytest.mark.parametrize("text", ["", "null", "[]", '["ping",1,"","",5,1]', '["other",200,"","",5.0]', "[" * 100_000])
def test_what_is_no_pulse_of_this_release_is_none(text):
    assert pulse.read(text) is None


def test_long_shapes_that_differ_anywhere_are_told_apart():
    one, other = ({**{f"key{n}": n for n in range(50)}, **last} for last in ({"y": 1}, {"z": 1}))
    shapes_ = [signature(200, JSON, json.dumps(value).encode()).shape for value in (one, other, one)]
    assert shapes_[0] == shapes_[2] != shapes_[1] and max(map(len, shapes_)) < 120


def test_a_media_type_that_is_none_is_not_kept():
    assert [signature(200, kind, b"").media_type for kind in ("a b", 'a"', "\x00", "x" * 101)] == [""] * 4


def test_who_takes_anything_without_a_word_tells_nothing_of_who_is_behind_it():
    """The bridge dcc-mcp-server 0.20.49 answers 202 to what is no JSON, whether its child lives or not."""
    accepted, answered = Signature(202, "", ""), Signature(200, JSON, '{"id":int,"jsonrpc":str,"result":{}}')
    samples = {"no JSON": [Sample(accepted, 0.1)] * 2, "ping": [Sample(answered, 0.1)] * 2}
    assert (found := learnt(samples, {})) and found.question == "ping"


def test_who_works_for_a_question_that_is_asked_to_be_refused_is_asked_a_cheaper_one():
    """The bridge supergateway 4.0.0 starts a process for every POST; a GET it refuses by itself."""
    answered = Signature(200, "text/event-stream", '{"id":int,"jsonrpc":str,"result":{}}')
    refused = Signature(405, JSON, '{"error":{"code":int,"message":str},"id":null,"jsonrpc":str}')
    samples = {name: [Sample(answered, 0.6)] * 2 for name in ("unknown session", "ping")}
    assert (found := learnt(samples, {})) and found.question == "ping"
    assert (found := learnt({**samples, "no stream": [Sample(refused, 0.1)] * 2}, {})) and found.question == "no stream"


@pytest.mark.parametrize("status", [302, 402, 429, 500, 503])
def test_what_is_answered_for_a_server_that_does_not_work_is_no_sign_of_one_that_does(status):
    assert learnt({"ping": [Sample(OK._replace(status=status), 0.1)] * 2}, {}) is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ('{"error": {"code": -1, "message": "a"}, "id": 1}', '{"id": 2, "error": {"message": "b", "code": 7}}', True),
        ('{"error": {"code": -1}}', '{"result": {}}', False),
        ('{"id": null}', '{"id": 1}', False),
        ('{"trace": [{"line": 1}, {"line": 2}]}', '{"trace": [1]}', True),
        ('{"a": {"b": {"c": {"d": 1}}}}', '{"a": {"b": {"c": {"e": "x"}}}}', True),
        ("Session 1 is not known", "Session 2 is not known", True),
        ("", "{}", False),
        ("1", "true", False),
        ("[" * 100_000, "x", True),
    ],
)
def test_a_signature_has_no_values(one, other, equal):
    assert (signature(400, JSON, one.encode()) == signature(400, JSON, other.encode())) == equal
    events = [f"event: message\nid: {place}\ndata: {text}\n\n".encode() for place, text in enumerate((one, other))]
    assert (signature(200, pulse.EVENTS, events[0]) == signature(200, pulse.EVENTS, events[1])) == equal


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([], 5.0), ([0.1] * 9, 5.0), ([4.0] * 9, 12.0), ([0.1] * 99 + [60.0], 5.0), ([30.0], 20.0)],
)
def test_patience_is_what_a_server_usually_takes_and_never_without_bounds(seconds, expected):
    assert patience(seconds) == expected


def test_a_made_up_session_is_a_uuid_and_questions_are_what_they_seem():
    assert UUID(pulse.UNKNOWN_SESSION).version == 4
    bodies = {question.name: question.body for question in pulse.QUESTIONS}
    assert not bodies["health_url"] and json.loads(bodies["ping"])["method"] == "ping"
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(bodies["no JSON"])
    assert json.loads(bodies["no request"]) == {}
    ids = {json.loads(body)["id"] for name, body in bodies.items() if body and name not in ("no JSON", "no request")}
    assert ids == {PULSE_ID} and 10**6 < PULSE_ID < 2**31
