"""Values that survive a round trip through JSON. Any other value is refused at sending, naming its field.

JSON has no NaN or infinity, UTF-8 no lone surrogates, and JSON objects have only string keys. Pydantic turns those into
null, an error that names no field, or one entry of two, so the task would get a different value or none.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nexus.errors import InvalidMessage

DEPTH = 100
"""Limit of nested containers: pydantic's JSON parser accepts 200, including those around the arguments."""

BITS = 14_000
"""Limit of a whole number's digits: Python reads 4,300."""

_SMALL = 2**63
_DIGITS = "a number with more digits than Python reads"


compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
"""JSON without spaces, as records and keys store it."""


def plain(model: BaseModel, what: str, **options: Any) -> dict[str, Any]:
    """The model as JSON values; `options` are model_dump's. Raises InvalidMessage: "`what`: field: its fault"."""
    try:
        # First, since an iterator can be read only once; the second check walks what the model holds.
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
    """Whether it needs no closer check; most values do not."""
    kind = type(value)
    if kind is not type(source):
        return False
    return (
        value.isascii() if kind is str else kind is bool or value is None or (kind is int and -_SMALL < value < _SMALL)
    )


def unsendable(value: Any, source: Any = None, path: str = "", depth: int = 0) -> str:
    """Why JSON cannot represent the value, as "path: fault"; empty if it can. `source` is what it was made from."""
    fault = ""
    match value:
        case float() | None if _is_infinite(value) or _is_infinite(source):
            fault = "not a finite number"
        case int() if value.bit_length() > BITS:
            fault = _DIGITS
        case str() if hasattr(source, "get_secret_value") and source.get_secret_value() != value:
            fault = "a secret, of which only asterisks would be sent: declare it as str"
        case str() if not _is_unicode(value):
            fault = "a lone surrogate, which is not valid Unicode"
        case dict() | list() if depth >= DEPTH:
            return f"{path.partition('.')[0]}: nested more than {DEPTH} deep"
        case dict():
            pairs = source if isinstance(source, Mapping) else {}
            if pairs and len(pairs) != len(value):
                fault = "two of its keys are equal as text"
            elif not all(map(_is_unicode, value)):
                fault = "a key with a lone surrogate, which is not valid Unicode"
            else:
                prefix = f"{path}." if path else ""
                # By position, not by key: a key that is a number has become text.
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
    """Whether it is a number that JSON lacks; pydantic turns it into null in most places."""
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
    """The first field that JSON cannot represent, and why, without its value."""
    for name in (*type(model).model_fields, *(model.model_extra or ())):
        try:
            model.model_dump(mode="json", include={name}, warnings=False)
        except (ValueError, TypeError, RecursionError) as error:
            return f"{name}: {_why(error)}"
    return "(whole): not representable as JSON"


def _why(error: Exception) -> str:
    match error:
        case UnicodeEncodeError():
            return "a lone surrogate, which is not valid Unicode"
        case UnicodeDecodeError():
            return "bytes that are not UTF-8: encode them, for example as base64"
        case ValidationError():
            return kinds(faults_of(error))
    text = str(error).lower()
    if "depth" in text or isinstance(error, RecursionError):
        return f"nested more than {DEPTH} deep"
    if "circular" in text:
        return "it contains itself"
    if "digits" in text:
        return _DIGITS
    return "its type is not representable as JSON, or is not the declared type"


# --- what pydantic says ----------------------------------------------------------------------------------------------


def faults_of(error: ValidationError) -> Sequence[Any]:
    """The faults, one by one."""
    return error.errors(include_url=False, include_context=False)


def described(faults: Sequence[Any], secret: Sequence[str] = ()) -> str:
    """The faults in one line: `user_id: Field required; days: Input should be ... (got 'x')`.

    Not with the value of a `secret` field, or with all values if one of them is secret.
    """
    return "; ".join(_with_value(fault, secret) for fault in faults)


def kinds(faults: Sequence[Any]) -> str:
    """The same for a log line, without any values: `user_id: missing; days: int_parsing`.

    Below the argument itself, a path element may be a mapping's key, which is a value too.
    """
    return "; ".join(map(_kind, faults))


def _with_value(fault: Any, secret: Sequence[str]) -> str:
    loc = fault["loc"]
    where = ".".join(map(str, loc)) or "(whole)"
    hidden = fault["type"] == "missing" or (loc[0] in secret if loc else bool(secret))
    got = "" if hidden else f" (got {_short(fault['input'])})"
    return f"{where}: {fault['msg']}{got}"


def _kind(fault: Any) -> str:
    first, *rest = fault["loc"] or ("(whole)",)
    return f"{first}{'...' if rest else ''}: {fault['type']}"


def _short(value: Any) -> str:
    try:
        return repr(str(value)[:80])
    except (ValueError, RecursionError):
        return type(value).__name__
