"""Parses the PartiQL of nexus.aws.dynamodb: for stand-ins of DynamoDB, and for moto, which lacks conditions."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

_INSERT = re.compile(r'INSERT INTO "(?P<table>[^"]+)" VALUE \{(?P<members>.*)\}')
_MEMBER = re.compile(r"'([^']+)': \?")
_WRITE = re.compile(
    r'(?P<verb>UPDATE|DELETE FROM) "(?P<table>[^"]+)" (?P<changes>.*?) ?WHERE (?P<where>.*?)'
    r"(?P<returning> RETURNING ALL (?:NEW|OLD) \*)?"
)
_CHANGE = re.compile(r'SET "(?P<set>[^"]+)" = \?|REMOVE "(?P<remove>[^"]+)"')
_TERM = re.compile(r'"(?P<name>[^"]+)" (?P<test>=|<=|<|>|IS MISSING|IS NOT MISSING)(?: \?)?')
_TESTS = {"IS MISSING": "missing", "IS NOT MISSING": "exists"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement with its parameters, all values in DynamoDB's JSON.

    An INSERT's `set` is the whole item. Otherwise `key` and `when` (attribute, test as a Condition's, value) are of the
    WHERE. `returning`: the answer holds the item, as it was for a DELETE, else as it is.
    """

    table: str
    verb: str
    returning: bool
    set: dict[str, Any]
    remove: tuple[str, ...]
    key: dict[str, Any]
    when: tuple[tuple[str, str, Any], ...]


def read(text: str, parameters: Sequence[Any], keys: Mapping[str, Sequence[str | None]]) -> Statement:
    """The statement; `keys` are the names of each table's key attributes."""
    table, verb, returning, names, remove, where = _parsed(text)
    values = iter(parameters)
    set_ = {name: next(values) for name in names}
    terms = [(name, test, None if test in _TESTS.values() else next(values)) for name, test in where]
    assert next(values, None) is None, (text, parameters)
    key = {name: value for name, _, value in terms if name in keys.get(table, ())}
    return Statement(table, verb, returning, set_, remove, key, tuple(term for term in terms if term[0] not in key))


@cache
def _parsed(text: str) -> tuple[str, str, bool, tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...]]:
    if insert := _INSERT.fullmatch(text):
        return insert["table"], "INSERT", False, tuple(_MEMBER.findall(insert["members"])), (), ()
    write = _WRITE.fullmatch(text)
    assert write, text
    changes = list(_CHANGE.finditer(write["changes"]))
    return (
        write["table"],
        write["verb"].removesuffix(" FROM"),
        write["returning"] is not None,
        tuple(change["set"] for change in changes if change["set"]),
        tuple(change["remove"] for change in changes if change["remove"]),
        tuple((term["name"], _TESTS.get(term["test"], term["test"])) for term in _TERM.finditer(write["where"])),
    )
