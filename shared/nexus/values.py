"""Values that travel as JSON and come back as what they were. Anything else is refused where it is sent, by its field.

JSON has no NaN and no infinity, UTF-8 no lone surrogate, JSON's objects no keys but text. What pydantic makes of those
(null, an error without a name, one entry of two) would be read by a task as something else, or not at all.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nexus.errors import InvalidMessage

DEPTH = 100
"""Containers within each other: pydantic's reader of JSON takes 200, those around the arguments included."""

BITS = 14_000
"""Of a whole number: Python reads 4,300 digits."""

_SMALL = 2**63
_DIGITS = "a number of more digits than Python reads"


compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""JSON without spaces, as records and keys carry it."""


def plain(model: BaseModel, what: str, **options: Any) -> dict[str, Any]:
    """The model as JSON's values; `options` are model_dump's. Raises InvalidMessage: "`what`: field: its fault"."""
    try:
        # First, since an iterator can be read once; the other walks over what the model holds.
        sent: dict[str, Any] = model.model_dump(mode="json", warnings=False, **options)
        held = model.__dict__
        if all(_is_simple(value, held.get(name, held)) for name, value in sent.items()):
            return sent
        fault = unsendable(sent, model.model_dump(warnings=False, **options))
    except (ValueError, TypeError, RecursionError):
        sent, fault = {}, _fault_of_fields(model)
    if fault:
        raise InvalidMessage(f"{what}: {fault}", fault)
    return sent


def _is_simple(value: Any, source: Any) -> bool:
    """Whether it needs no closer look, as most values do not."""
    kind = type(value)
    if kind is not type(source):
        return False
    return (
        value.isascii() if kind is str else kind is bool or value is None or (kind is int and -_SMALL < value < _SMALL)
    )


def unsendable(value: Any, source: Any = None, path: str = "", depth: int = 0) -> str:
    """Why JSON does not carry the value, as "path: fault"; empty where it does. `source` is what it was made from."""
    fault = ""
    match value:
        case float() | None if _is_infinite(value) or _is_infinite(source):
            fault = "not a finite number"
        case int() if value.bit_length() > BITS:
            fault = _DIGITS
        case str() if hasattr(source, "get_secret_value") and source.get_secret_value() != value:
            fault = "a secret, of which asterisks alone would be sent: declare it as str"
        case str() if not _is_unicode(value):
            fault = "a lone surrogate, which is no Unicode"
        case dict() | list() if depth >= DEPTH:
            return f"{path.partition('.')[0]}: nested more than {DEPTH} deep"
        case dict():
            pairs = source if isinstance(source, Mapping) else {}
            if pairs and len(pairs) != len(value):
                fault = "two of its keys are the same as text"
            elif not all(map(_is_unicode, value)):
                fault = "a key with a lone surrogate, which is no Unicode"
            else:
                prefix = f"{path}." if path else ""
                # By place and not by key: a key that is a number has become text.
                sources = list(pairs.values()) if pairs else [None] * len(value)
                return _first(
                    unsendable(v, s, f"{prefix}{k}", depth + 1)
                    for (k, v), s in zip(value.items(), sources, strict=True)
                )
        case list():
            each = source if isinstance(source, list | tuple) and len(source) == len(value) else [None] * len(value)
            return _first(
                unsendable(v, s, f"{path}.{n}", depth + 1) for n, (v, s) in enumerate(zip(value, each, strict=True))
            )
    return f"{path}: {fault}" if fault else ""


def _first(faults: Iterable[str]) -> str:
    return next(filter(None, faults), "")


def _is_infinite(value: Any) -> bool:
    """Whether it is a number that JSON does not have; pydantic makes null of it in most places."""
    return isinstance(value, float) and not math.isfinite(value)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault_of_fields(model: BaseModel) -> str:
    """The first field that cannot be JSON by itself, and why, without its value."""
    for name in (*type(model).model_fields, *(model.model_extra or ())):
        try:
            model.model_dump(mode="json", include={name}, warnings=False)
        except (ValueError, TypeError, RecursionError) as error:
            return f"{name}: {_why(error)}"
    return "(whole): cannot be JSON"


def _why(error: Exception) -> str:
    match error:
        case UnicodeEncodeError():
            return "a lone surrogate, which is no Unicode"
        case UnicodeDecodeError():
            return "bytes that are no UTF-8: encode them, as base64 for one"
        case ValidationError():
            return kinds(faults_of(error))
    text = str(error).lower()
    if "depth" in text or isinstance(error, RecursionError):
        return f"nested more than {DEPTH} deep"
    if "circular" in text:
        return "it contains itself"
    if "digits" in text:
        return _DIGITS
    return "its type cannot be JSON, or is not the one declared"


# --- what pydantic says ----------------------------------------------------------------------------------------------


def faults_of(error: ValidationError) -> Sequence[Any]:
    """What is wrong, one by one."""
    return error.errors(include_url=False, include_context=False)


def told(faults: Sequence[Any]) -> str:
    """The faults in one line: `user_id: Field required; days: Input should be ... (got 'x')`."""
    return "; ".join(map(_with_value, faults))


def kinds(faults: Sequence[Any]) -> str:
    """The same for a log line, without any value: `user_id: missing; days: int_parsing`.

    Below the argument itself a place may be the key of a mapping, which is a value too.
    """
    return "; ".join(map(_kind, faults))


def _with_value(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "(whole)"
    got = "" if fault["type"] == "missing" else f" (got {_short(fault['input'])})"
    return f"{where}: {fault['msg']}{got}"


def _kind(fault: Any) -> str:
    first, *rest = fault["loc"] or ("(whole)",)
    return f"{first}{'...' if rest else ''}: {fault['type']}"


def _short(value: Any) -> str:
    try:
        return repr(str(value)[:80])
    except (ValueError, RecursionError):
        return type(value).__name__
