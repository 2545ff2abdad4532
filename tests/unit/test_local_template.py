"""The template as the local run reads it."""

from pathlib import Path

import pytest

from local.template import Authorizer, GatewayResponse, Invoke, Mock, Route, Stack, TemplateError, load

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
            FunctionPayloadType: TOKEN
            Identity: {Header: Authorization, ReauthorizeEvery: 60}
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
"""


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
    assert stack.api.authorizer == Authorizer("DoorFunction", "Authorization", 60)
    assert stack.api.binary_media_types == ("application/json",)


def test_gateway_responses_keep_status_headers_and_body(stack: Stack):
    assert stack.api.gateway_responses == {
        "DEFAULT_4XX": GatewayResponse(None, {}, '{"error": "4"}'),
        "UNAUTHORIZED": GatewayResponse(401, {"WWW-Authenticate": 'Basic realm="x"'}, '{"error": "who"}'),
    }


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
        ("URL: !Ref Url", "URL: !GetAtt Secret.Colour", "no attribute Colour"),
        ("URL: !Ref Url", "URL: !Ref Nobody", "neither a parameter nor a resource Nobody"),
        ('Path: "/things/{id}", Method: GET', 'Path: "/things/{id}"', "Method"),
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


def _key(route: Route) -> tuple[str, str, bool]:
    return route.method, route.path, route.authorized


def test_a_mock_that_would_pass_bodies_through_is_refused(template: Path):
    template.write_text(
        template.read_text().replace("passthroughBehavior: never", "passthroughBehavior: when_no_match")
    )
    with pytest.raises(TemplateError, match="passthroughBehavior"):
        load(template, {"Url": "x", "Password": "p"})
