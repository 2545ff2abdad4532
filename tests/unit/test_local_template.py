"""The template as the local run reads it."""

from datetime import timedelta
from pathlib import Path

import pytest

from local.template import (
    Authorizer,
    Cron,
    DeadLetters,
    GatewayResponse,
    Invoke,
    Mock,
    Queue,
    Rate,
    Route,
    Schedule,
    Source,
    Stack,
    TemplateError,
    declares,
    load,
    schedule_expression,
)

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Url: {Type: String}
  Level: {Type: String, Default: INFO, AllowedValues: [INFO, WARNING]}
  Password: {Type: String, Default: ""}
Conditions:
  Generated: !Equals [!Ref Password, ""]
  Given: !Not [!Condition Generated]
  Loud: !And [!Condition Given, !Equals [!Ref Level, INFO]]
  Either: !Or [!Condition Generated, !Condition Loud]
Resources:
  Api:
    Type: AWS::Serverless::Api
    Properties:
      StageName: v7
      OpenApiVersion: 3.0.1
      BinaryMediaTypes: [application~1json]
      MergeDefinitions: true
      Auth:
        DefaultAuthorizer: Door
        Authorizers:
          Door:
            FunctionArn: !GetAtt DoorFunction.Arn
            FunctionPayloadType: REQUEST
            Identity: {Headers: [Authorization], ReauthorizeEvery: 60}
      GatewayResponses:
        DEFAULT_4XX: {ResponseTemplates: {application/json: '{"error": "4"}'}}
        UNAUTHORIZED:
          StatusCode: "401"
          ResponseParameters: {Headers: {WWW-Authenticate: "'Basic realm=\\"x\\"'"}}
          ResponseTemplates: {application/json: '{"error": "who"}'}
      DefinitionBody:
        openapi: 3.0.1
        info: {title: x, version: "1"}
        paths:
          /things/{id}:
            x-amazon-apigateway-any-method:
              responses: {"405": {description: no}}
              x-amazon-apigateway-integration:
                type: mock
                passthroughBehavior: never
                requestTemplates: {application/json: '{"statusCode": 405}'}
                responses:
                  default:
                    statusCode: "405"
                    responseParameters: {method.response.header.Allow: "'GET'"}
                    responseTemplates: {application/json: '{"error": "GET only"}'}
  DoorFunction:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: door, Handler: app.lambda_handler, Runtime: python3.13}
  ThingFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: thing
      Handler: app.lambda_handler
      Runtime: python3.13
      Timeout: 7
      MemorySize: 256
      Layers: [!Ref Requirements, !Ref Package]
      LoggingConfig: {LogFormat: JSON}
      Environment:
        Variables:
          URL: !Ref Url
          SENTENCE: !Sub "${Level} in ${AWS::Region} as ${AWS::StackName} ${!kept}"
          ARN: !GetAtt DoorFunction.Arn
          SECRET: !If [Generated, !Ref Secret, ""]
          JOINED: !Join ["-", [a, !Ref "AWS::NoValue", !Ref Level]]
          ABSENT: !If [Loud, loud, !Ref "AWS::NoValue"]
          EITHER: !If [Either, "yes", "no"]
      Events:
        Get: {Type: Api, Properties: {RestApiId: !Ref Api, Path: "/things/{id}", Method: GET}}
        Rest:
          Type: Api
          Properties: {RestApiId: !Ref Api, Path: "/open/{rest+}", Method: PUT, Auth: {Authorizer: NONE}}
  Requirements:
    Type: AWS::Serverless::LayerVersion
    Properties: {ContentUri: requirements}
    Metadata: {BuildMethod: python3.13}
  Package:
    Type: AWS::Serverless::LayerVersion
    Properties: {ContentUri: package}
    Metadata: {BuildMethod: python3.13}
  Secret:
    Type: AWS::SecretsManager::Secret
    Condition: Generated
  SweepFunction:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: thing
      Handler: app.lambda_handler
      Runtime: python3.13
      Timeout: 60
      EventInvokeConfig: {MaximumRetryAttempts: 1}
      Environment:
        Variables:
          WORK_URL: !Ref Work
          WORK_NAME: !GetAtt Work.QueueName
          SENTENCE: !Sub "${Later} and ${Later.Arn}"
      Events:
        Minute: {Type: Schedule, Properties: {Schedule: rate(1 minute), DeadLetterConfig: {Arn: !GetAtt Late.Arn}}}
        Night: {Type: Schedule, Properties: {Schedule: "cron(15 3 * * ? *)", Input: '{"deep": true}', Enabled: false}}
        Work:
          Type: SQS
          Properties:
            Queue: !GetAtt Work.Arn
            BatchSize: 1
            FunctionResponseTypes: [ReportBatchItemFailures]
            ScalingConfig: {MaximumConcurrency: 7}
        Later: {Type: SQS, Properties: {Queue: !GetAtt Later.Arn, MaximumBatchingWindowInSeconds: 2}}
  Work:
    Type: AWS::SQS::Queue
    Properties:
      FifoQueue: true
      ContentBasedDeduplication: true
      VisibilityTimeout: 60
      SqsManagedSseEnabled: true
      RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn, maxReceiveCount: 3}
  Dead: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
  Late: {Type: AWS::SQS::Queue}
  Later:
    Type: AWS::SQS::Queue
    Properties: {QueueName: slow, FifoQueue: false, DelaySeconds: 30, VisibilityTimeout: 60}
"""
SWEEP = "SweepFunction"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    for folder in ("door", "thing", "requirements", "package/shared"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "requirements/requirements.txt").touch()
    (tmp_path / "package/shared/__init__.py").touch()
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE)
    return path


@pytest.fixture
def stack(template: Path) -> Stack:
    return load(template, {"Url": "postgresql://x"})


def test_a_function_has_the_settings_of_the_template(stack: Stack, template: Path):
    function = stack.functions["ThingFunction"]
    assert function.code_dir == template.parent / "thing"
    assert (function.handler, function.timeout, function.memory) == ("app.lambda_handler", 7, 256)
    assert function.log_format == "JSON"


def test_what_the_template_leaves_out_is_what_lambda_takes(stack: Stack):
    function = stack.functions["DoorFunction"]
    assert (function.timeout, function.memory, function.environment, function.layers) == (3, 128, {}, ())


def test_intrinsics_in_the_environment_become_values(stack: Stack):
    assert stack.functions["ThingFunction"].environment == {
        "URL": "postgresql://x",
        "SENTENCE": "INFO in us-east-1 as local ${kept}",
        "ARN": "arn:aws:lambda:us-east-1:000000000000:function:DoorFunction",
        "SECRET": "arn:aws:secretsmanager:us-east-1:000000000000:secret:Secret",
        "JOINED": "a-INFO",
        "EITHER": "yes",
    }


def test_conditions_follow_the_parameters(template: Path):
    loud = load(template, {"Url": "x", "Password": "p"}).functions["ThingFunction"].environment
    quiet = load(template, {"Url": "x", "Password": "p", "Level": "WARNING"}).functions["ThingFunction"].environment
    assert (loud["SECRET"], loud["ABSENT"], loud["EITHER"]) == ("", "loud", "yes")
    assert (quiet.get("ABSENT"), quiet["EITHER"]) == (None, "no")


def test_a_layer_that_only_lists_requirements_is_not_on_the_path(stack: Stack, template: Path):
    assert stack.functions["ThingFunction"].layers == (template.parent / "package",)


def test_routes_name_their_function_or_their_mock(stack: Stack):
    assert set(map(_key, stack.api.routes)) == {
        ("GET", "/things/{id}", True),
        ("ANY", "/things/{id}", True),
        ("PUT", "/open/{rest+}", False),
    }
    by_key = {_key(route): route.integration for route in stack.api.routes}
    assert by_key["GET", "/things/{id}", True] == Invoke("ThingFunction")
    assert by_key["ANY", "/things/{id}", True] == Mock(
        ("application/json",), 405, {"Allow": "GET"}, '{"error": "GET only"}'
    )


def test_the_api_has_its_stage_authorizer_and_media_types(stack: Stack):
    assert stack.api.stage == "v7"
    assert stack.api.authorizer == Authorizer("DoorFunction", ("Authorization",), 60)
    assert stack.api.binary_media_types == ("application/json",)


def test_gateway_responses_keep_status_headers_and_body(stack: Stack):
    assert stack.api.gateway_responses == {
        "DEFAULT_4XX": GatewayResponse(None, {}, '{"error": "4"}'),
        "UNAUTHORIZED": GatewayResponse(401, {"WWW-Authenticate": 'Basic realm="x"'}, '{"error": "who"}'),
    }


def test_queues_have_the_attributes_that_sqs_takes_and_their_dead_letters(stack: Stack):
    work = {"ContentBasedDeduplication": "true", "FifoQueue": "true", "VisibilityTimeout": "60"}
    assert stack.queues == {
        "Work": Queue("Work.fifo", work, DeadLetters("Dead", 3)),
        "Dead": Queue("Dead.fifo", {"FifoQueue": "true"}, None),
        "Late": Queue("Late", {}, None),
        "Later": Queue("slow", {"DelaySeconds": "30", "VisibilityTimeout": "60"}, None),
    }
    assert (stack.queues["Work"].fifo, stack.queues["Later"].fifo) == (True, False)


def test_ref_of_a_queue_is_its_url_and_its_attributes_are_known(stack: Stack):
    assert stack.functions[SWEEP].environment == {
        "WORK_URL": "https://sqs.us-east-1.amazonaws.com/000000000000/Work.fifo",
        "WORK_NAME": "Work.fifo",
        "SENTENCE": "https://sqs.us-east-1.amazonaws.com/000000000000/slow and arn:aws:sqs:us-east-1:000000000000:slow",
    }


def test_event_sources_name_their_queue_and_function(stack: Stack):
    assert set(stack.sources) == {
        Source("Work", SWEEP, 1, 0, 7, reports_failures=True),
        Source("Later", SWEEP, 10, 2, None, reports_failures=False),
    }


def test_schedules_are_rules_that_invoke_a_function(stack: Stack):
    minute, night = stack.schedules
    assert minute == Schedule(f"{SWEEP}Minute", Rate(timedelta(minutes=1)), SWEEP, enabled=True, event=None, retries=1)
    assert minute.arn == "arn:aws:events:us-east-1:000000000000:rule/SweepFunctionMinute"
    assert isinstance(night.expression, Cron)
    assert (night.enabled, night.event) == (False, {"deep": True})


def test_an_event_source_that_is_switched_off_is_none(template: Path):
    template.write_text(TEMPLATE.replace("BatchSize: 1", "BatchSize: 1\n            Enabled: false"))
    assert [source.queue for source in load(template, {"Url": "x"}).sources] == ["Later"]


def test_a_rule_that_waits_for_events_is_left_out(template: Path):
    rule = "\n  Waiting: {Type: AWS::Events::Rule, Properties: {EventPattern: {source: [aws.ec2]}}}\n"
    template.write_text(TEMPLATE + rule)
    assert len(load(template, {"Url": "x"}).schedules) == 2


def test_a_look_at_the_text_says_what_the_template_may_have(template: Path):
    assert declares(template, "AWS::SQS::Queue")
    assert not declares(template, "AWS::SNS::Topic")
    assert not declares(template.with_name("nowhere.yaml"), "AWS::SQS::Queue")
    template.write_text("Type: AWS::SQS::QueuePolicy")
    assert not declares(template, "AWS::SQS::Queue")


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("rate(1 minute)", timedelta(minutes=1)),
        ("rate(5 minutes)", timedelta(minutes=5)),
        ("rate(1 hour)", timedelta(hours=1)),
        ("rate(12 hours)", timedelta(hours=12)),
        ("rate(1 day)", timedelta(days=1)),
        ("rate(7 days)", timedelta(days=7)),
    ],
)
def test_rates_are_minutes_hours_and_days(text: str, every: timedelta):
    assert schedule_expression(text, "Rule") == Rate(every)


@pytest.mark.parametrize(
    ("field", "position", "numbers"),
    [
        ("7", 0, {7}),
        ("*", 1, set(range(24))),
        ("0/15", 0, {0, 15, 30, 45}),
        ("*/20", 0, {0, 20, 40}),
        ("50/5", 0, {50, 55}),
        ("8-18/5", 1, {8, 13, 18}),
        ("1,15-17,31", 2, {1, 15, 16, 17, 31}),
        ("JAN,mar-APR,12", 3, {1, 3, 4, 12}),
        ("MON-FRI", 4, {2, 3, 4, 5, 6}),
        ("1,SAT", 4, {1, 7}),
        ("2026-2028", 5, {2026, 2027, 2028}),
    ],
)
def test_a_field_of_cron_is_a_list_of_numbers_ranges_and_steps(field: str, position: int, numbers: set[int]):
    fields = ["0", "0", "?", "*", "*", "*"] if position == 4 else ["0", "0", "*", "*", "?", "*"]
    fields[position] = field
    cron = schedule_expression(f"cron({' '.join(fields)})", "Rule")
    assert isinstance(cron, Cron)
    assert (cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays, cron.years)[position] == numbers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every minute",
        "at(2026-11-22T00:00:00)",
        "rate(0 minutes)",
        "rate(1 minutes)",
        "rate(5 minute)",
        "rate(1 week)",
        "cron(0 0 * * ?)",
        "cron(0 0 * * * *)",
        "cron(0 0 ? * ? *)",
        "cron(? 0 * * ? *)",
        "cron(60 0 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 0 L * ? *)",
        "cron(0 0 3W * ? *)",
        "cron(0 0 ? * 3#2 *)",
        "cron(0 0 0 * ? *)",
        "cron(0 0 9-3 * ? *)",
        "cron(0/0 0 * * ? *)",
        "cron(1- 0 * * ? *)",
        "cron(0 0 * FOO ? *)",
    ],
)
def test_a_schedule_that_eventbridge_or_the_local_run_does_not_know_is_refused(text: str):
    with pytest.raises(TemplateError, match=r"^Rule: .*schedule"):
        schedule_expression(text, "Rule")


def test_a_profile_that_is_gone_from_the_users_aws_configuration_does_not_matter(
    template: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_PROFILE", "gone")
    assert load(template, {"Url": "x"}).api.stage == "v7"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "the parameter Url has no value"),
        ({"Url": "x", "Level": "LOUD"}, "Level must be one of INFO, WARNING"),
        ({"Url": "x", "Colour": "red"}, "no parameter Colour"),
    ],
)
def test_parameters_are_checked_as_cloudformation_does(template: Path, parameters: dict[str, str], message: str):
    with pytest.raises(TemplateError, match=message):
        load(template, parameters)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("Transform:", "Transform: [", "not YAML"),
        ("CodeUri: thing", "CodeUri: nothing", "CodeUri must name a folder"),
        ("Timeout: 7", "Timeout: soon", "Timeout"),
        ("!Equals [!Ref Level, INFO]]", "!Condition Unknown]", "no condition Unknown"),
        ("URL: !Ref Url", "URL: !ImportValue x", "does not know Fn::ImportValue"),
        ("URL: !Ref Url", "URL: !FindInMap [Urls, x, y]", "the mapping Urls has no x, y"),
        ("URL: !Ref Url", "URL: !GetAtt Secret.Colour", "no attribute Colour"),
        ("URL: !Ref Url", "URL: !Ref Nobody", "neither a parameter nor a resource Nobody"),
        ('Path: "/things/{id}", Method: GET', 'Path: "/things/{id}"', "Method"),
        ("rate(1 minute)", "rate(1 minutes)", "SweepFunctionMinute: EventBridge takes no schedule 'rate"),
        ("Input: '{\"deep\": true}'", "Input: deep", "SweepFunctionNight: Input is not JSON"),
        ("!GetAtt Dead.Arn, max", "x, max", "Work: no queue of the template takes its dead letters"),
        ("!GetAtt Dead.Arn, max", "!GetAtt Late.Arn, max", "Work: its dead letters need a queue of its own kind"),
        ("maxReceiveCount: 3", "maxReceiveCount: often", "Work: .*maxReceiveCount"),
        ("Queue: !GetAtt Work.Arn", "Queue: arn:aws:sqs:us-east-1:1:other", "plays queues of the template, not arn"),
        ("BatchSize: 1\n", "BatchSize: 1\n            FilterCriteria: {Filters: [{Pattern: '{}'}]}\n", "not filter"),
        ("Timeout: 60\n      Event", "Timeout: 61\n      Event", "shows a message again after 60 s, and SweepF"),
        (
            "Type: Schedule, Properties: {Schedule: rate",
            "Type: ScheduleV2, Properties: {ScheduleExpression: rate",
            "V2",
        ),
        ("WORK_URL: !Ref Work", "WORK_URL: !GetAtt Work.Depth", "no attribute Depth of Work"),
    ],
)
def test_a_broken_template_is_one_line_that_names_the_place(template: Path, before: str, after: str, message: str):
    template.write_text(TEMPLATE.replace(before, after))
    with pytest.raises(TemplateError, match=message) as caught:
        load(template, {"Url": "x", "Password": "p"})
    assert "\n" not in str(caught.value)


def test_the_template_of_this_repository_can_be_read():
    root = Path(__file__).resolve().parents[2]
    stack = load(root / "template.yaml", {"DatabaseUrl": "x", "RegistryPassword": "p"})
    invoked = {route.integration.function for route in stack.api.routes if isinstance(route.integration, Invoke)}
    assert invoked <= stack.functions.keys()
    assert stack.api.authorizer and stack.api.authorizer.function in stack.functions
    assert stack.queues and stack.schedules and stack.sources


def _key(route: Route) -> tuple[str, str, bool]:
    return route.method, route.path, route.authorized


def test_a_mock_that_would_pass_bodies_through_is_refused(template: Path):
    template.write_text(
        template.read_text().replace("passthroughBehavior: never", "passthroughBehavior: when_no_match")
    )
    with pytest.raises(TemplateError, match="passthroughBehavior"):
        load(template, {"Url": "x", "Password": "p"})
