"""A CloudFormation template with its intrinsic functions resolved, as far as SAM templates use them.

Nothing is created here: the caller supplies what `Ref` and `Fn::GetAtt` of a resource return. Source: CloudFormation
user guide, "Intrinsic function reference".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NO_VALUE = object()
"""What `AWS::NoValue` resolves to: the property with this value is omitted."""


class TemplateError(Exception):
    """The template refers to something that does not exist, or uses something that is not supported here."""


@dataclass(frozen=True, slots=True)
class Made:
    """A created resource: what `Ref` and `Fn::GetAtt` return for it."""

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Template:
    """`pseudo` has the `AWS::` parameters; `made` creates a resource at the first reference to it."""

    document: dict[str, Any]
    pseudo: Mapping[str, str]
    made: Callable[[str], Made]
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = dict(self.parameters)
        self.parameters = {}
        for name, parameter in self.document.get("Parameters", {}).items():
            if name not in given and "Default" not in parameter:
                raise TemplateError(f"the template's parameter {name} has no default and no value")
            value = given.pop(name, parameter.get("Default"))
            listed = parameter.get("Type", "").startswith(("List<", "CommaDelimitedList"))
            self.parameters[name] = str(value).split(",") if listed and isinstance(value, str) else value
        if given:
            raise TemplateError(f"the template has no parameters {', '.join(sorted(given))}")

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        """The resources whose condition is true, by logical id."""
        return {
            name: resource
            for name, resource in self.document.get("Resources", {}).items()
            if "Condition" not in resource or self.holds(resource["Condition"])
        }

    def holds(self, condition: str) -> bool:
        """Whether a named condition is true."""
        conditions = self.document.get("Conditions", {})
        if condition not in conditions:
            raise TemplateError(f"there is no condition {condition}")
        return bool(self.resolve(conditions[condition]))

    def resolve(self, value: Any) -> Any:
        """Return the value with every intrinsic function replaced by its result."""
        if isinstance(value, list):
            return [each for each in map(self.resolve, value) if each is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            if name == "Ref":
                return self._ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.holds(argument)
            if name.startswith("Fn::"):
                function = _FUNCTIONS.get(name)
                if function is None:
                    raise TemplateError(f"{name} is not understood here")
                return function(self, argument)
        found = {name: self.resolve(each) for name, each in value.items()}
        return {name: each for name, each in found.items() if each is not NO_VALUE}

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.parameters:
            return self.parameters[name]
        return self.made(name).ref

    def _attribute(self, argument: Any) -> str:
        parts = argument.split(".", 1) if isinstance(argument, str) else [str(self.resolve(each)) for each in argument]
        made = self.made(parts[0])
        if parts[1] not in made.attributes:
            raise TemplateError(f"{parts[0]} has no attribute {parts[1]}")
        return made.attributes[parts[1]]

    def _substitute(self, argument: Any) -> str:
        text, local = (argument, {}) if isinstance(argument, str) else (argument[0], self.resolve(argument[1]))

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in local:
                return str(local[name])
            return str(self._attribute(name) if "." in name else self._ref(name))

        return re.sub(r"\$\{([^}]+)\}", value, text)

    def _if(self, argument: list[Any]) -> Any:
        return self.resolve(argument[1] if self.holds(argument[0]) else argument[2])

    def _map(self, argument: list[Any]) -> Any:
        name, first, second = (self.resolve(each) for each in argument)
        return self.document["Mappings"][name][first][second]


_FUNCTIONS: dict[str, Callable[[Template, Any], Any]] = {
    "Fn::GetAtt": Template._attribute,
    "Fn::Sub": Template._substitute,
    "Fn::If": Template._if,
    "Fn::FindInMap": Template._map,
    "Fn::Equals": lambda it, argument: it.resolve(argument[0]) == it.resolve(argument[1]),
    "Fn::Not": lambda it, argument: not it.resolve(argument[0]),
    "Fn::And": lambda it, argument: all(it.resolve(each) for each in argument),
    "Fn::Or": lambda it, argument: any(it.resolve(each) for each in argument),
    "Fn::Join": lambda it, argument: str(argument[0]).join(map(str, it.resolve(argument[1]))),
    "Fn::Select": lambda it, argument: it.resolve(argument[1])[int(it.resolve(argument[0]))],
    "Fn::Split": lambda it, argument: str(it.resolve(argument[1])).split(argument[0]),
}
