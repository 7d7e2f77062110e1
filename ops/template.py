"""Loads CloudFormation templates as plain values and compares them."""

from collections.abc import Iterator, Mapping
from typing import Any


def load(text: str) -> Mapping[str, Any]:
    """A template as plain values; CloudFormation's short forms (!Sub x) become the long ones."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """YAML with short forms."""

    def long_form(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            value: Any = loader.construct_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            value = loader.construct_sequence(node, deep=True)
        else:
            value = loader.construct_mapping(node, deep=True)
        return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}

    Loader.add_multi_constructor("!", long_form)
    loaded: Mapping[str, Any] = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader with constructors of plain values
    return loaded


_PACKAGED = {"CodeUri", "ContentUri", "Metadata"}
"""What `sam build` and `sam deploy` rewrite."""


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    """The names of the template's parts that differ, apart from the code's location."""
    for section in ("Parameters", "Conditions", "Rules", "Globals", "Outputs"):
        if _plain(here.get(section)) != _plain(there.get(section)):
            yield section
    ours, theirs = here.get("Resources", {}), there.get("Resources", {})
    for name in sorted({*ours, *theirs}):
        if name not in theirs:
            yield f"{name} (not deployed)"
        elif name not in ours:
            yield f"{name} (only deployed)"
        elif _plain(ours[name]) != _plain(theirs[name]):
            yield name


def _plain(value: Any) -> Any:
    match value:
        case {"Fn::GetAtt": str(path)}:
            return {"Fn::GetAtt": path.split(".", 1)}
        case {"Fn::GetAtt": [*parts]}:
            return {"Fn::GetAtt": list(parts)}
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items() if key not in _PACKAGED}
        case list():
            return [_plain(inner) for inner in value]
        case bool():
            return value
        case int() | float():
            return str(value)
    return value


def concurrency(template: Mapping[str, Any], queue: str) -> int | None:
    """The MaximumConcurrency of the event source of a queue's function (`UsersFunction`); None if the template has no
    such function, or leaves it to a parameter."""
    function = template.get("Resources", {}).get(f"{queue.capitalize()}Function", {}).get("Properties", {})
    sources = [event["Properties"] for event in function.get("Events", {}).values() if event["Type"] == "SQS"]
    found = sources[0].get("ScalingConfig", {}).get("MaximumConcurrency") if sources else None
    return found if isinstance(found, int) else None
