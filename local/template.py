"""template.yaml, read the way AWS reads it.

The SAM translator expands the template to what CloudFormation would see; the intrinsics that are left are resolved
here against parameter values and names that look like an account's. What comes out is plain data: the functions, the
API, the queues and what starts functions by itself. Nothing of the wiring is written down a second time for the local
run.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec
import yaml

REGION = "us-east-1"
ACCOUNT_ID = "000000000000"
PARTITION = "aws"

_PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Partition": PARTITION,
    "AWS::Region": REGION,
    "AWS::StackId": f"arn:{PARTITION}:cloudformation:{REGION}:{ACCOUNT_ID}:stack/local/local",
    "AWS::StackName": "local",
    "AWS::URLSuffix": "amazonaws.com",
}
_METHODS = frozenset({"delete", "get", "head", "options", "patch", "post", "put"})
_ANY_METHOD = "x-amazon-apigateway-any-method"
_NO_VALUE = object()

# The translator warns of feature toggles that only AWS's own deployment of it has.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

Json = dict[str, Any]
_Shape = TypeVar("_Shape")


class TemplateError(Exception):
    """The template can't be used; the message says where and why, in one line."""


@dataclass(frozen=True, slots=True)
class Function:
    """One Lambda function: its code on disk and how Lambda would run it."""

    logical_id: str
    code_dir: Path
    handler: str
    timeout: float
    memory: int
    environment: Mapping[str, str]
    layers: tuple[Path, ...]
    log_format: str


@dataclass(frozen=True, slots=True)
class Invoke:
    """A route's integration (aws_proxy): the function that answers."""

    function: str


@dataclass(frozen=True, slots=True)
class Mock:
    """A route's integration (mock): the answer itself, for bodies of these media types (passthroughBehavior never)."""

    media_types: tuple[str, ...]
    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Route:
    """One method (or "ANY") on one path such as /api/registry/servers/{id}."""

    method: str
    path: str
    integration: Invoke | Mock
    authorized: bool


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A REQUEST authorizer: the function, the headers that say who it is, how long a decision is remembered for them.

    A request without one of these headers is refused, and the function not asked.
    """

    function: str
    headers: tuple[str, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class GatewayResponse:
    """What API Gateway says by itself. `status` is None where the type's own status stays."""

    status: int | None
    headers: Mapping[str, str]
    template: str | None


@dataclass(frozen=True, slots=True)
class Api:
    """The REST API: routes, who may pass, and the words of every refusal."""

    api_id: str
    stage: str
    routes: tuple[Route, ...]
    authorizer: Authorizer | None
    gateway_responses: Mapping[str, GatewayResponse]
    binary_media_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Where a queue puts a message that was received `max_receives` times in vain: the logical id of another queue."""

    queue: str
    max_receives: int


@dataclass(frozen=True, slots=True)
class Queue:
    """An SQS queue. Its attributes are as CreateQueue takes them, but for the redrive policy."""

    name: str
    attributes: Mapping[str, str]
    dead_letters: DeadLetters | None

    @property
    def fifo(self) -> bool:
        """Whether it keeps the order of each message group, and drops duplicates."""
        return self.name.endswith(".fifo")

    @property
    def url(self) -> str:
        """What functions get by Ref. A service that stands in for SQS finds the queue by the last segment."""
        return f"https://sqs.{REGION}.{_PSEUDO_PARAMETERS['AWS::URLSuffix']}/{ACCOUNT_ID}/{self.name}"

    @property
    def arn(self) -> str:
        """What policies, dead letters and event source mappings name it by."""
        return f"arn:{PARTITION}:sqs:{REGION}:{ACCOUNT_ID}:{self.name}"


@dataclass(frozen=True, slots=True)
class Rate:
    """rate(...): again and again, this far apart."""

    every: timedelta


@dataclass(frozen=True, slots=True)
class Cron:
    """cron(...): every minute, in UTC, all of whose parts are listed here. A week begins with Sunday, which is 1."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    years: frozenset[int]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rule of EventBridge that invokes a function by the clock.

    `event` is None where EventBridge writes it. `retries` is how often Lambda repeats an invocation that failed.
    """

    rule: str
    expression: Rate | Cron
    function: str
    enabled: bool
    event: Any
    retries: int

    @property
    def arn(self) -> str:
        """The rule's ARN, which its events name."""
        return f"arn:{PARTITION}:events:{REGION}:{ACCOUNT_ID}:rule/{self.rule}"


@dataclass(frozen=True, slots=True)
class Source:
    """An event source mapping: messages of a queue are handed to a function, in batches.

    `max_concurrency` is None where the mapping sets none.
    """

    queue: str
    function: str
    batch_size: int
    window: float
    max_concurrency: int | None
    reports_failures: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything of the template that the local run plays."""

    functions: Mapping[str, Function]
    api: Api
    queues: Mapping[str, Queue]
    schedules: tuple[Schedule, ...]
    sources: tuple[Source, ...]


def load(path: Path, parameters: Mapping[str, str]) -> Stack:
    """Read the template at `path`, with `parameters` as a deployment would pass them."""
    source = _read(path)
    values = _parameter_values(source, parameters)
    folders = _take_folders(source, path.parent)
    expanded = _expand(source, values)
    resolver = _Resolver(expanded, values)
    layers = {
        resolver.ref(logical_id): folders[_artifact(properties["Content"])]
        for logical_id, properties in resolver.resources("AWS::Lambda::LayerVersion")
    }
    functions = {
        logical_id: _function(logical_id, properties, resolver, folders, layers)
        for logical_id, properties in resolver.resources("AWS::Lambda::Function")
    }
    queues = _queues(resolver)
    return Stack(
        functions=functions,
        api=_api(resolver),
        queues=queues,
        schedules=_schedules(resolver, functions),
        sources=_sources(resolver, queues, functions),
    )


def declares(path: Path, kind: str) -> bool:
    """Whether the template may have a resource of this type: a look at its text, for who can't wait for `load`."""
    try:
        return re.search(rf"{kind}\b", path.read_text(encoding="utf-8")) is not None
    except OSError:
        return False


# ------------------------------------------------------------------ from YAML to CloudFormation


# samtranslator is imported where it is used. It takes 0.4 s of the start (2 cores, 2026-11-22), and those who need
# nothing but the names of this module can begin before: the queues and Postgres get ready meanwhile.


def _read(path: Path) -> Json:
    from samtranslator.yaml_helper import yaml_parse

    try:
        source = yaml_parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TemplateError(f"{path.name} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise TemplateError(f"{path.name} is not YAML: {_one_line(error)}") from error
    if not isinstance(source, dict) or not isinstance(source.get("Resources"), dict):
        raise TemplateError(f"{path.name} has no Resources")
    return cast("Json", source)


def _parameter_values(source: Json, given: Mapping[str, str]) -> dict[str, str]:
    declared: Json = source.get("Parameters", {})
    unknown = sorted(given.keys() - declared.keys())
    if unknown:
        raise TemplateError(f"the template has no parameter {', '.join(unknown)}")
    values: dict[str, str] = {}
    for name, parameter in declared.items():
        allowed = [str(choice) for choice in parameter.get("AllowedValues", [])]
        # What a deployment has to be told about the account matters to nobody here.
        value = given[name] if name in given else parameter.get("Default", next(iter(allowed), None))
        if value is None:
            raise TemplateError(f"the parameter {name} has no value and no default")
        if allowed and str(value) not in allowed:
            raise TemplateError(f"the parameter {name} must be one of {', '.join(allowed)}, not {value!r}")
        values[name] = str(value)
    return values


def _take_folders(source: Json, root: Path) -> dict[str, Path]:
    """Put an S3 address where the template names a folder, as `sam package` does, and return the folders by its key."""
    folders: dict[str, Path] = {}
    kinds = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}
    for logical_id, resource in source["Resources"].items():
        key = kinds.get(resource.get("Type"))
        if key is None:
            continue
        uri = resource.get("Properties", {}).get(key)
        if not isinstance(uri, str) or not (root / uri).is_dir():
            raise TemplateError(f"{logical_id}: {key} must name a folder, not {uri!r}")
        folders[logical_id] = (root / uri).resolve()
        resource["Properties"][key] = f"s3://local/{logical_id}"
    return folders


def _expand(source: Json, values: Mapping[str, str]) -> Json:
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    # All that the translator wants of a session is its region. A real one would read the user's AWS configuration,
    # and fail where that names a profile that is gone.
    session = cast("Any", SimpleNamespace(region_name=REGION))
    translator: Any = Translator(None, Parser(), boto_session=session)
    try:
        return translator.translate(source, parameter_values=dict(values), get_managed_policy_map=dict)
    except InvalidDocumentException as error:
        reasons = "; ".join(_one_line(cause.message) for cause in error.causes)
        raise TemplateError(f"the SAM translator refuses the template: {reasons}") from error


def _artifact(location: Json) -> str:
    return location["S3Key"]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


# ------------------------------------------------------------------ intrinsics


class _Resolver:
    """Gives intrinsics the values that CloudFormation would, for one expanded template."""

    def __init__(self, template: Json, parameters: Mapping[str, str]) -> None:
        self._resources: Json = template["Resources"]
        self._conditions: Json = template.get("Conditions", {})
        self._mappings: Json = template.get("Mappings", {})
        self._values: dict[str, str] = {**_PSEUDO_PARAMETERS, **parameters}
        self._intrinsics: dict[str, Callable[[Any], Any]] = {
            "Ref": self.ref,
            "Fn::If": self._if,
            "Fn::Sub": self._sub,
            "Fn::GetAtt": self._get_att,
            "Fn::Join": self._join,
            "Fn::FindInMap": self._find_in_map,
            "Fn::Equals": lambda pair: self.resolve(pair[0]) == self.resolve(pair[1]),
            "Fn::Not": lambda one: not self._holds(one[0]),
            "Fn::And": lambda many: all(self._holds(one) for one in many),
            "Fn::Or": lambda many: any(self._holds(one) for one in many),
            "Condition": self._condition,
        }

    def resources(self, kind: str) -> list[tuple[str, Json]]:
        """(logical id, unresolved properties) of each resource of this type whose condition holds."""
        return [
            (logical_id, resource.get("Properties", {}))
            for logical_id, resource in self._resources.items()
            if resource["Type"] == kind and ("Condition" not in resource or self._condition(resource["Condition"]))
        ]

    def resolve(self, node: Any) -> Any:
        """`node` with every intrinsic in it replaced; what is AWS::NoValue is left out."""
        if isinstance(node, list):
            items = [self.resolve(item) for item in cast("list[Any]", node)]
            return [item for item in items if item is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        mapping = cast("Json", node)
        if len(mapping) == 1:
            name, argument = next(iter(mapping.items()))
            if name in self._intrinsics:
                return self._intrinsics[name](argument)
            if name.startswith("Fn::"):
                raise TemplateError(f"the local run does not know {name}")
        items = {key: self.resolve(value) for key, value in mapping.items()}
        return {key: value for key, value in items.items() if value is not _NO_VALUE}

    def _find_in_map(self, argument: list[Any]) -> Any:
        name, first, second = (self.resolve(part) for part in argument)
        try:
            return self._mappings[name][first][second]
        except KeyError:
            raise TemplateError(f"the mapping {name} has no {first}, {second}") from None

    def ref(self, name: str) -> Any:
        """What Ref gives: a parameter's value, or the name of a resource."""
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self._values:
            return self._values[name]
        kind = self._type(name)
        if kind == "AWS::SQS::Queue":
            return self.queue(name).url
        if kind == "AWS::Lambda::Alias":
            alias = self.resolve({key: self._resources[name]["Properties"][key] for key in ("FunctionName", "Name")})
            return f"{self._arn(alias['FunctionName'])}:{alias['Name']}"
        # Ref of most resources is a name; of these it is the ARN.
        if kind in {"AWS::Lambda::LayerVersion", "AWS::SecretsManager::Secret"}:
            return self._arn(name)
        return name

    def queue(self, name: str) -> Queue:
        """The queue of a logical id, so far as Ref and GetAtt need it: what leads to other queues is not resolved."""
        properties: Json = self._resources[name].get("Properties", {})
        attributes = {
            attribute: _text(value)
            for attribute in _QUEUE_ATTRIBUTES
            if (value := self.resolve(properties.get(attribute))) is not None
        }
        fifo = attributes.get("FifoQueue") == "true"
        if not fifo:  # SQS knows it only as true
            attributes.pop("FifoQueue", None)
        return Queue(self.resolve(properties.get("QueueName")) or name + ".fifo" * fifo, attributes, None)

    def _get_att(self, argument: str | list[str]) -> str:
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        if attribute == "Arn":
            return self._arn(name)
        if self._type(name) == "AWS::SQS::Queue" and attribute in {"QueueName", "QueueUrl"}:
            queue = self.queue(name)
            return queue.name if attribute == "QueueName" else queue.url
        raise TemplateError(f"the local run knows no attribute {attribute} of {name}")

    def _sub(self, argument: str | list[Any]) -> str:
        text, names = (argument, {}) if isinstance(argument, str) else argument
        local: Json = self.resolve(names)

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):  # ${!Literal} stands for ${Literal}
                return f"${{{name[1:]}}}"
            if name in local:
                return str(local[name])
            return str(self._get_att(name) if "." in name else self.ref(name))

        return re.sub(r"\$\{([^}]+)\}", value, text)

    def _join(self, argument: list[Any]) -> str:
        separator, parts = argument
        return str(separator).join(str(part) for part in self.resolve(parts))

    def _if(self, argument: list[Any]) -> Any:
        condition, yes, no = argument
        return self.resolve(yes if self._condition(condition) else no)

    def _condition(self, name: str) -> bool:
        if name not in self._conditions:
            raise TemplateError(f"the template has no condition {name}")
        return self._holds(self._conditions[name])

    def _holds(self, node: Any) -> bool:
        return bool(self.resolve(node))

    def _type(self, name: str) -> str:
        if name not in self._resources:
            raise TemplateError(f"the template has neither a parameter nor a resource {name}")
        return self._resources[name]["Type"]

    def _arn(self, name: str) -> str:
        if self._type(name) == "AWS::SQS::Queue":
            return self.queue(name).arn
        service = self._type(name).split("::")[1].lower()
        kinds = {
            "AWS::Events::Rule": "rule/",
            "AWS::Lambda::Function": "function:",
            "AWS::SecretsManager::Secret": "secret:",
        }
        return f"arn:{PARTITION}:{service}:{REGION}:{ACCOUNT_ID}:{kinds.get(self._type(name), '')}{name}"


# ------------------------------------------------------------------ functions


class _FunctionProperties(msgspec.Struct):
    Handler: str
    Timeout: float = 3
    MemorySize: int = 128
    Environment: dict[str, dict[str, str]] = {}
    Layers: list[str] = []
    LoggingConfig: dict[str, str] = {}


def _function(
    logical_id: str, properties: Json, resolver: _Resolver, folders: Mapping[str, Path], layers: Mapping[str, Path]
) -> Function:
    wanted = {key: value for key, value in properties.items() if key in _FunctionProperties.__struct_fields__}
    shape = _convert(resolver.resolve(wanted), _FunctionProperties, logical_id)
    return Function(
        logical_id=logical_id,
        code_dir=folders[_artifact(properties["Code"])],
        handler=shape.Handler,
        timeout=shape.Timeout,
        memory=shape.MemorySize,
        environment=shape.Environment.get("Variables", {}),
        layers=tuple(layers[arn] for arn in shape.Layers if arn in layers and _has_modules(layers[arn])),
        log_format=shape.LoggingConfig.get("LogFormat", "Text"),
    )


def _has_modules(folder: Path) -> bool:
    """Whether a layer's folder is itself on the path. One that only lists requirements is the virtualenv's part."""
    return any(entry.suffix == ".py" or (entry / "__init__.py").is_file() for entry in folder.iterdir())


# ------------------------------------------------------------------ queues, and what takes from them

_QUEUE_ATTRIBUTES = (
    "ContentBasedDeduplication",
    "DeduplicationScope",
    "DelaySeconds",
    "FifoQueue",
    "FifoThroughputLimit",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "VisibilityTimeout",
)
_DEFAULT_VISIBILITY = 30  # seconds, of SQS


class _RedrivePolicy(msgspec.Struct, rename="camel"):
    dead_letter_target_arn: str
    max_receive_count: int


class _Scaling(msgspec.Struct, frozen=True):
    MaximumConcurrency: int | None = None


class _Mapping(msgspec.Struct):
    EventSourceArn: str
    FunctionName: str
    BatchSize: int = 10
    Enabled: bool = True
    FilterCriteria: dict[str, Any] = {}
    FunctionResponseTypes: list[str] = []
    MaximumBatchingWindowInSeconds: float = 0
    ScalingConfig: _Scaling = _Scaling()


def _queues(resolver: _Resolver) -> dict[str, Queue]:
    found = resolver.resources("AWS::SQS::Queue")
    queues = {logical_id: resolver.queue(logical_id) for logical_id, _ in found}
    by_arn = {queue.arn: logical_id for logical_id, queue in queues.items()}
    for logical_id, properties in found:
        policy = resolver.resolve(properties.get("RedrivePolicy"))
        if not policy:
            continue
        shape = _convert(policy, _RedrivePolicy, logical_id)
        target = by_arn.get(shape.dead_letter_target_arn)
        if target is None:
            raise TemplateError(f"{logical_id}: no queue of the template takes its dead letters")
        if queues[target].fifo != queues[logical_id].fifo:
            raise TemplateError(f"{logical_id}: its dead letters need a queue of its own kind, FIFO or standard")
        queues[logical_id] = replace(
            queues[logical_id], dead_letters=DeadLetters(target, max_receives=shape.max_receive_count)
        )
    return queues


def _sources(resolver: _Resolver, queues: Mapping[str, Queue], functions: Mapping[str, Function]) -> tuple[Source, ...]:
    by_arn = {queue.arn: logical_id for logical_id, queue in queues.items()}
    sources: list[Source] = []
    for logical_id, properties in resolver.resources("AWS::Lambda::EventSourceMapping"):
        shape = _convert(resolver.resolve(properties), _Mapping, logical_id)
        queue = by_arn.get(shape.EventSourceArn)
        if queue is None:
            raise TemplateError(f"{logical_id}: the local run plays queues of the template, not {shape.EventSourceArn}")
        if shape.FilterCriteria:
            raise TemplateError(f"{logical_id}: the local run does not filter events")
        function = _target(shape.FunctionName, functions, logical_id)
        visibility = float(queues[queue].attributes.get("VisibilityTimeout", _DEFAULT_VISIBILITY))
        if visibility < function.timeout:  # AWS does not create such a mapping
            raise TemplateError(
                f"{logical_id}: {queue} shows a message again after {visibility:g} s,"
                f" and {function.logical_id} may work on it for {function.timeout:g} s"
            )
        if shape.Enabled:
            sources.append(
                Source(
                    queue=queue,
                    function=function.logical_id,
                    batch_size=shape.BatchSize,
                    window=shape.MaximumBatchingWindowInSeconds,
                    max_concurrency=shape.ScalingConfig.MaximumConcurrency,
                    reports_failures="ReportBatchItemFailures" in shape.FunctionResponseTypes,
                )
            )
    return tuple(sources)


def _target(name: str, functions: Mapping[str, Function], where: str) -> Function:
    """The function of a name or an ARN."""
    logical_id = name.rpartition(":")[2]
    if logical_id not in functions:
        raise TemplateError(f"{where}: the template has no function {name}")
    return functions[logical_id]


def _text(value: object) -> str:
    """A value as SQS takes it, which is text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------------ schedules

_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_RETRIES = 2  # of an asynchronous invocation, where the template does not say otherwise
_RULE_STATES = {"ENABLED": True, "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS": True, "DISABLED": False}


class _RuleTarget(msgspec.Struct):
    Arn: str
    Input: str | None = None
    InputPath: Any = None
    InputTransformer: Any = None


class _Rule(msgspec.Struct):
    ScheduleExpression: str | None = None
    State: str = "ENABLED"
    Targets: list[_RuleTarget] = []


def _schedules(resolver: _Resolver, functions: Mapping[str, Function]) -> tuple[Schedule, ...]:
    for logical_id, _ in resolver.resources("AWS::Scheduler::Schedule"):
        raise TemplateError(f"{logical_id}: the local run plays events of the type Schedule, not ScheduleV2")
    retries = {
        resolver.resolve(config["FunctionName"]): int(resolver.resolve(config.get("MaximumRetryAttempts", _RETRIES)))
        for _, config in resolver.resources("AWS::Lambda::EventInvokeConfig")
    }
    schedules: list[Schedule] = []
    for logical_id, properties in resolver.resources("AWS::Events::Rule"):
        if "ScheduleExpression" not in properties:
            continue  # it waits for events that nothing on this machine sends
        shape = _convert(resolver.resolve(properties), _Rule, logical_id)
        if shape.State not in _RULE_STATES:
            raise TemplateError(f"{logical_id}: a rule's State is not {shape.State!r}")
        expression = schedule_expression(shape.ScheduleExpression or "", logical_id)
        for target in shape.Targets:
            if target.InputPath or target.InputTransformer:
                raise TemplateError(f"{logical_id}: the local run takes Input, neither InputPath nor InputTransformer")
            function = _target(target.Arn, functions, logical_id).logical_id
            schedules.append(
                Schedule(
                    rule=logical_id,
                    expression=expression,
                    function=function,
                    enabled=_RULE_STATES[shape.State],
                    event=_constant_event(target.Input, logical_id),
                    retries=retries.get(function, _RETRIES),
                )
            )
    return tuple(schedules)


def _constant_event(text: str | None, where: str) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise TemplateError(f"{where}: Input is not JSON: {error}") from error


def schedule_expression(text: str, where: str) -> Rate | Cron:
    """Parse a schedule ("Schedule expression types for EventBridge rules")."""
    if match := re.fullmatch(r"rate\(\s*([1-9]\d*)\s+(minute|hour|day)(s?)\s*\)", text):
        number = int(match[1])
        if (number == 1) != bool(match[3]):  # EventBridge insists on the grammar
            return Rate(number * _UNITS[match[2]])
    elif match := re.fullmatch(r"cron\(\s*(.*?)\s*\)", text):
        fields = match[1].upper().split()
        # A day is named by its date or by its place in the week, never by both; the other one is the question mark.
        if len(fields) == 6 and [number for number, field in enumerate(fields) if field == "?"] in ([2], [4]):
            return _cron(fields, text, where)
    raise TemplateError(f"{where}: EventBridge takes no schedule {text!r}")


def _cron(fields: list[str], text: str, where: str) -> Cron:
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (1, 7), (1970, 2199))
    names: tuple[tuple[str, ...], ...] = ((), (), (), _MONTHS, _WEEKDAYS, ())
    try:
        return Cron(*map(_cron_field, fields, bounds, names))
    except ValueError:
        raise TemplateError(f"{where}: the local run can't play the schedule {text!r}") from None


def _cron_field(field: str, bounds: tuple[int, int], names: tuple[str, ...]) -> frozenset[int]:
    """The numbers that a field stands for. Raises ValueError for what is none of list, range and step."""

    def number(word: str) -> int:
        value = names.index(word) + 1 if word in names else int(word)
        if not bounds[0] <= value <= bounds[1]:
            raise ValueError(word)
        return value

    found: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(?:(\*|\?)|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part)
        if match is None:
            raise ValueError(part)
        every, first, last, step = match.groups()
        start = bounds[0] if every else number(first)
        # 5/15 is 5, 20, 35 and so on: a step goes on to the bound where no range ends before it.
        end = number(last) if last else bounds[1] if every or step else start
        if start > end:
            raise ValueError(part)
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


# ------------------------------------------------------------------ the API


class _RestApi(msgspec.Struct):
    Body: dict[str, Any]
    BinaryMediaTypes: list[str] = []


class _Authorizer(msgspec.Struct, rename="camel"):
    type: str
    authorizer_uri: str
    authorizer_result_ttl_in_seconds: float = 300
    identity_source: str = ""


class _Response(msgspec.Struct, rename="camel"):
    """What a mock integration and a gateway response have in common."""

    status_code: int | None = None
    response_parameters: dict[str, str] = {}
    response_templates: dict[str, str] = {}


def _api(resolver: _Resolver) -> Api:
    found = resolver.resources("AWS::ApiGateway::RestApi")
    if len(found) != 1:
        raise TemplateError(f"the local run plays exactly one REST API; the template has {len(found)}")
    api_id, properties = found[0]
    rest_api = _convert(resolver.resolve(properties), _RestApi, api_id)
    stages = [
        resolver.resolve(stage["StageName"])
        for _, stage in resolver.resources("AWS::ApiGateway::Stage")
        if resolver.resolve(stage["RestApiId"]) == api_id
    ]
    body = rest_api.Body
    name, authorizer = _authorizer(body)
    return Api(
        api_id=api_id,
        stage=stages[0],
        routes=tuple(
            _route(path, method, operation, name)
            for path, operations in body["paths"].items()
            for method, operation in operations.items()
            if method in _METHODS or method == _ANY_METHOD
        ),
        authorizer=authorizer,
        gateway_responses={
            kind: _gateway_response(kind, response)
            for kind, response in body.get("x-amazon-apigateway-gateway-responses", {}).items()
        },
        # CloudFormation writes the slash of a media type as ~1, as in a JSON pointer.
        binary_media_types=tuple(kind.replace("~1", "/") for kind in rest_api.BinaryMediaTypes),
    )


def _authorizer(body: Json) -> tuple[str | None, Authorizer | None]:
    schemes: Json = body.get("components", {}).get("securitySchemes", {}) or body.get("securityDefinitions", {})
    found = [(name, scheme) for name, scheme in schemes.items() if "x-amazon-apigateway-authorizer" in scheme]
    if not found:
        return None, None
    if len(found) > 1:
        raise TemplateError("the local run plays one authorizer; the template has several")
    name, scheme = found[0]
    shape = _convert(scheme["x-amazon-apigateway-authorizer"], _Authorizer, name)
    if shape.type != "request":
        raise TemplateError(f"{name}: the local run plays REQUEST authorizers, not {shape.type}")
    return name, Authorizer(
        function=_function_of(shape.authorizer_uri),
        headers=tuple(_header(source.strip(), name) for source in shape.identity_source.split(",")),
        ttl=shape.authorizer_result_ttl_in_seconds,
    )


def _header(source: str, where: str) -> str:
    """The header that an identity source is."""
    match = re.fullmatch(r"method\.request\.header\.([\w-]+)", source)
    if match is None:
        raise TemplateError(f"{where}: the local run knows headers as identity sources, not {source!r}")
    return match[1]


def _route(path: str, method: str, operation: Json, authorizer: str | None) -> Route:
    integration: Json = operation["x-amazon-apigateway-integration"]
    required = {name for requirement in operation.get("security", []) for name in requirement}
    return Route(
        method="ANY" if method == _ANY_METHOD else method.upper(),
        path=path,
        integration=_mock(path, integration)
        if integration["type"].lower() == "mock"
        else Invoke(_function_of(integration["uri"])),
        authorized=authorizer in required,
    )


def _mock(path: str, integration: Json) -> Mock:
    if integration.get("passthroughBehavior", "").lower() != "never":
        raise TemplateError(f"{path}: only mock integrations with passthroughBehavior never can be played.")
    response = _convert(integration["responses"]["default"], _Response, path)
    return Mock(
        media_types=tuple(integration["requestTemplates"]),
        status=response.status_code or 200,
        headers=_static_headers(response.response_parameters, "method.response.header."),
        body=next(iter(response.response_templates.values()), ""),
    )


def _gateway_response(kind: str, response: Json) -> GatewayResponse:
    shape = _convert(response, _Response, kind)
    return GatewayResponse(
        status=shape.status_code,
        headers=_static_headers(shape.response_parameters, "gatewayresponse.header."),
        template=next(iter(shape.response_templates.values()), None),
    )


def _static_headers(parameters: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Header values are 'quoted' where they are literal; mapping expressions are not played."""
    headers: dict[str, str] = {}
    for name, value in parameters.items():
        if not (name.startswith(prefix) and len(value) >= 2 and value[0] == value[-1] == "'"):
            raise TemplateError(f"the local run knows only literal header values, not {name}: {value}")
        headers[name.removeprefix(prefix)] = value[1:-1]
    return headers


def _function_of(uri: str) -> str:
    """The logical id in an integration's URI, .../functions/<function ARN>/invocations."""
    match = re.search(r"/functions/arn:[^/]+:function:(\w+)(?::\w+)?/invocations$", uri)
    if match is None:
        raise TemplateError(f"not the address of a function: {uri}")
    return match[1]


def _convert(node: Any, shape: type[_Shape], where: str) -> _Shape:
    try:
        # CloudFormation takes a number written as text (a parameter is always text).
        return msgspec.convert(node, shape, strict=False)
    except msgspec.ValidationError as error:
        raise TemplateError(f"{where}: {error}") from error
