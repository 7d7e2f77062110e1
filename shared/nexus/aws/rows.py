"""Reading rows: attributes of a DynamoDB JSON item, each as the type that its reader needs, or BadRow."""

from nexus.aws.dynamodb import Row, to_number
from nexus.errors import NexusError


class BadRow(NexusError):
    """An item that cannot be read: `key` identifies it, the message names the attribute and its fault."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


def key_of(row: Row, *names: str) -> str:
    """The key of an item for a log line: its values joined by slashes, a question mark for each that is missing."""
    return "/".join(str(next(iter(row[name].values()), "?")) if name in row else "?" for name in names)


def read_text(row: Row, name: str, key: str, default: str | None = None) -> str:
    """A string attribute. Raises BadRow if it has another type, or is absent without a default."""
    attribute = row.get(name)
    if attribute is None:
        return _absent(name, key, default)
    value = attribute.get("S")
    if not isinstance(value, str):
        raise BadRow(key, f"{name} is not a string")
    return value


def read_count(row: Row, name: str, key: str, default: int | None = None) -> int:
    """A whole number, 0 or more. Raises BadRow if it is anything else, or absent without a default."""
    attribute = row.get(name)
    if attribute is None:
        return _absent(name, key, default)
    try:
        value = to_number(attribute["N"])
    except (KeyError, ValueError):
        raise BadRow(key, f"{name} is not a number") from None
    if not isinstance(value, int):
        raise BadRow(key, f"{name} is not a whole number")
    if value < 0:
        raise BadRow(key, f"{name} is below zero")
    return value


def _absent[T](name: str, key: str, default: T | None) -> T:
    if default is None:
        raise BadRow(key, f"{name} is missing")
    return default


def read_flag(row: Row, name: str, key: str, default: bool) -> bool:
    """A boolean attribute, `default` if absent. Raises BadRow if it has another type."""
    attribute = row.get(name)
    if attribute is None:
        return default
    value = attribute.get("BOOL")
    if not isinstance(value, bool):
        raise BadRow(key, f"{name} is not a boolean")
    return value


def read_texts(row: Row, name: str, key: str) -> tuple[str, ...]:
    """A list or set of strings, empty if absent. Raises BadRow if it is anything else."""
    attribute = row.get(name)
    if attribute is None:
        return ()
    if "SS" in attribute:
        return tuple(attribute["SS"])
    members = attribute.get("L")
    if members is None or not all("S" in member for member in members):
        raise BadRow(key, f"{name} is not a list of strings")
    return tuple(member["S"] for member in members)
