"""The template as CloudFormation would make it for given parameters: which resources there are, and of what.

The SAM translator expands it; what is left of intrinsics is worked out here, but for what only AWS knows: that stays as
`${Name}` (Ref) or `${Name.Attribute}` (GetAtt).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from local import template
from tests.conftest import ROOT

Json = dict[str, Any]
GONE = object()
PSEUDO = {
    "AWS::AccountId": "111111111111",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::StackName": "registry",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackId": "stack-id",
}


@cache
def _expanded(**parameters: str) -> tuple[Json, Json, Json]:
    """The template, its parameters' values, and what the translator makes of both: made once, changed by nobody."""
    source = template._read(ROOT / "template.yaml")
    given = template._parameter_values(source, parameters)
    template._take_folders(source, ROOT)
    return source, given, template._expand(source, given)


class Stack:
    """A deployment: parameters, resources and outputs. `place` says what is special where it is deployed (PSEUDO)."""

    def __init__(self, place: Mapping[str, str] | None = None, /, **parameters: str) -> None:
        source, given, expanded = _expanded(**parameters)
        self.declared: Json = source["Parameters"]
        self._values = {**PSEUDO, **(place or {}), **given}
        self._mappings: Json = source.get("Mappings", {})
        self._rules: Json = source["Rules"]
        self._conditions: Json = expanded.get("Conditions", {})
        present = {
            name: resource
            for name, resource in expanded["Resources"].items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }
        self.resources: dict[str, Json] = {name: self._resolved(resource) for name, resource in present.items()}
        self.outputs: dict[str, Json] = {
            name: self._resolved(output)
            for name, output in expanded.get("Outputs", {}).items()
            if "Condition" not in output or self.holds(output["Condition"])
        }

    def of_type(self, kind: str) -> dict[str, Json]:
        """The properties of each resource of a type."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def references(self) -> Iterator[tuple[str, str]]:
        """(who, whom) of each resource that names another."""
        for name, resource in self.resources.items():
            for found in re.findall(r"\$\{(\w+)(?:\.[\w.]+)?\}", str(resource)):
                yield name, found
            depends = resource.get("DependsOn", [])
            for found in [depends] if isinstance(depends, str) else depends:
                yield name, found
        for name, output in self.outputs.items():
            for found in re.findall(r"\$\{(\w+)(?:\.[\w.]+)?\}", str(output)):
                yield name, found

    def statements(self, role: str) -> list[Json]:
        """What a role may do."""
        policies = self.resources[role]["Properties"].get("Policies", [])
        return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]

    def role_of(self, function: str) -> str:
        """The logical id of a function's role."""
        return self.resources[function]["Properties"]["Role"].removeprefix("${").removesuffix(".Arn}")

    def refusals(self) -> list[str]:
        """Why CloudFormation would make no change set, in the words of the rules."""
        return [
            assertion["AssertDescription"]
            for rule in self._rules.values()
            if self._resolved(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self._resolved(assertion["Assert"])
        ]

    def holds(self, condition: str) -> bool:
        """Whether a condition holds."""
        return bool(self._resolved(self._conditions[condition]))

    def _resolved(self, node: Any) -> Any:
        if isinstance(node, list):
            items = [self._resolved(item) for item in node]
            return [item for item in items if item is not GONE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if work := self._intrinsics().get(name):
                return work(argument)
            assert not name.startswith("Fn::"), name
        items = {key: self._resolved(value) for key, value in node.items()}
        return {key: value for key, value in items.items() if value is not GONE}

    def _intrinsics(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "Ref": self._ref,
            "Condition": self.holds,
            "Fn::If": lambda a: self._resolved(a[1] if self.holds(a[0]) else a[2]),
            "Fn::Equals": lambda a: self._resolved(a[0]) == self._resolved(a[1]),
            "Fn::Not": lambda a: not self._resolved(a[0]),
            "Fn::Contains": lambda a: self._resolved(a[1]) in a[0],
            "Fn::And": lambda a: all(self._resolved(one) for one in a),
            "Fn::Or": lambda a: any(self._resolved(one) for one in a),
            "Fn::GetAtt": lambda a: "${" + (a if isinstance(a, str) else ".".join(a)) + "}",
            "Fn::FindInMap": lambda a: self._mappings[a[0]][self._resolved(a[1])][self._resolved(a[2])],
            "Fn::Join": lambda a: self._resolved(a[0]).join(str(one) for one in self._resolved(a[1])),
            "Fn::Select": self._select,
            "Fn::Split": lambda a: self._resolved(a[1]).split(a[0]),
            "Fn::GetAZs": lambda a: ["eu-west-1a", "eu-west-1b", "eu-west-1c"],
            "Fn::Cidr": lambda a: [f"{self._resolved(a[0])}#{place}" for place in range(int(a[1]))],
            "Fn::Sub": self._sub,
        }

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return GONE
        return self._values.get(name, "${" + name + "}")

    def _select(self, argument: list[Any]) -> Any:
        values = self._resolved(argument[1])
        # Of a list that only AWS knows (an ARN that is split) there is one part.
        return values[int(argument[0])] if int(argument[0]) < len(values) else f"part {argument[0]} of {values[0]}"

    def _sub(self, argument: Any) -> str:
        text, names = (argument, {}) if isinstance(argument, str) else argument
        local: Json = self._resolved(names)

        def value(match: re.Match[str]) -> str:
            name = match[1]
            return str(local[name] if name in local else self._values.get(name, match[0]))

        return re.sub(r"\$\{([\w:.]+)\}", value, text)
