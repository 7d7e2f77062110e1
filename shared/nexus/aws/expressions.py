"""DynamoDB's condition and update expressions, and BatchExecuteStatement's PartiQL, compiled once per text.

Used by the in-memory substitutes for DynamoDB (`nexus.aws.memory`, and the simulation of the runtime).
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Final

type Attribute = Mapping[str, Any]
type Item = Mapping[str, Attribute]
type Operand = Callable[[Item, "Given"], Attribute | None]
type Test = Callable[[Item, "Given"], bool]

_TOKEN = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|(<>|<=|>=|[#:]?[\w.]+|[()=<>,?{}:+*-]))""")
_COMPARED: Final = ("=", "<>", "<", "<=", ">", ">=")


class ValidationError(Exception):
    """A request that DynamoDB refuses before it reads an item."""


@dataclass(frozen=True, slots=True)
class Given:
    """The values behind a request's placeholders: names and values of an expression, or parameters of a statement."""

    names: Mapping[str, str]
    values: Mapping[str, Attribute]

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Given":
        return cls(request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {}))

    @classmethod
    def positional(cls, parameters: Sequence[Attribute]) -> "Given":
        return cls({}, {f"?{n}": value for n, value in enumerate(parameters)})

    def name(self, token: str) -> str:
        if not token.startswith("#"):
            return token
        if token not in self.names:
            raise ValidationError(f"an expression attribute name used in the document path is not defined: {token}")
        return self.names[token]

    def value(self, token: str) -> Attribute:
        if token not in self.values:
            raise ValidationError(f"an expression attribute value used in expression is not defined: {token}")
        return self.values[token]


@dataclass(frozen=True, slots=True)
class Update:
    """What an update does, with names and values still placeholders."""

    set: Sequence[tuple[str, Operand]] = ()
    remove: Sequence[str] = ()
    add: Sequence[tuple[str, str]] = ()
    discard: Sequence[tuple[str, str]] = ()
    when: Test = staticmethod(lambda _item, _given: True)  # noqa: RUF009 - it has no state
    insert: bool = False
    delete: bool = False
    returning: bool = False

    def applied(self, item: Item, given: Given) -> dict[str, Attribute]:
        """The item after the update. Every operand reads the item as it was before."""
        changed = dict(item)
        for token, operand in self.set:
            value = operand(item, given)
            if value is None:
                raise ValidationError("the provided expression refers to an attribute that does not exist in the item")
            changed[given.name(token)] = value
        for token in self.remove:
            changed.pop(given.name(token), None)
        for token, placeholder in self.add:
            name, value = given.name(token), given.value(placeholder)
            changed[name] = _added(item.get(name), value)
        for token, placeholder in self.discard:
            name, value = given.name(token), given.value(placeholder)
            if name in item:
                kind, members = next(iter(value.items()))
                left = [member for member in item[name][kind] if member not in members]
                changed[name] = {kind: left}
                if not left:
                    del changed[name]
        return changed


def _added(existing: Attribute | None, value: Attribute) -> Attribute:
    kind, what = next(iter(value.items()))
    if existing is None:
        return value
    if kind == "N":
        return {"N": number_text(f"{Decimal(existing['N']) + Decimal(what):f}")}
    return {kind: sorted({*existing[kind], *what})}


def number_text(text: str) -> str:
    """A number as DynamoDB returns it: without insignificant zeros."""
    return text.rstrip("0").rstrip(".") if "." in text else text


@cache
def condition(text: str) -> Test:
    """A ConditionExpression."""
    reader = _Reader(text)
    test = reader.either()
    reader.end()
    return test


@cache
def update(text: str) -> Update:
    """An UpdateExpression."""
    reader = _Reader(text)
    clauses: dict[str, list[Any]] = {"SET": [], "REMOVE": [], "ADD": [], "DELETE": []}
    while (verb := reader.take()) is not None:
        if verb not in clauses:
            raise ValidationError(f"not an update: {text}")
        while True:
            name = reader.must()
            if verb == "SET":
                reader.expect("=")
                clauses[verb].append((name, reader.operand()))
            else:
                clauses[verb].append(name if verb == "REMOVE" else (name, reader.must()))
            if not reader.skip(","):
                break
    return Update(clauses["SET"], clauses["REMOVE"], clauses["ADD"], clauses["DELETE"])


@cache
def statement(text: str) -> Update:
    """A PartiQL statement that writes one item; its condition includes the key."""
    reader = _Reader(text)
    verb = reader.must()
    reader.skip("INTO" if verb == "INSERT" else "FROM")
    reader.must()
    if verb == "INSERT":
        reader.expect("VALUE")
        reader.expect("{")
        values = []
        while not reader.skip("}"):
            name = reader.must()
            reader.expect(":")
            values.append((name, reader.operand()))
            reader.skip(",")
        reader.end()
        return Update(values, insert=True)
    set_: list[tuple[str, Operand]] = []
    remove: list[str] = []
    while not reader.skip("WHERE"):
        if reader.must() == "SET":
            name = reader.must()
            reader.expect("=")
            set_.append((name, reader.operand()))
        else:
            remove.append(reader.must())
    when = reader.either()
    returning = reader.skip("RETURNING")
    if returning:
        for word in ("ALL", "OLD" if verb == "DELETE" else "NEW", "*"):
            reader.expect(word)
    reader.end()
    return Update(set_, remove, when=when, delete=verb == "DELETE", returning=returning)


class _Reader:
    """Parses one text by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0
        self._parameters = 0

    def take(self) -> str | None:
        if self._at == len(self._tokens):
            return None
        self._at += 1
        return self._tokens[self._at - 1]

    def must(self) -> str:
        token = self.take()
        if token is None:
            raise ValidationError(f"the expression ends too early: {self._text}")
        return token

    def skip(self, word: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at] == word:
            self._at += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.skip(word):
            raise ValidationError(f"{word} is missing at {self._tokens[self._at :]} of {self._text}")

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise ValidationError(f"unexpected {self._tokens[self._at :]} at the end of {self._text}")

    def either(self) -> Test:
        tests = [self._both()]
        while self.skip("OR"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda item, given: any(test(item, given) for test in tests)

    def _both(self) -> Test:
        tests = [self._negated()]
        while self.skip("AND"):
            tests.append(self._negated())
        return tests[0] if len(tests) == 1 else lambda item, given: all(test(item, given) for test in tests)

    def _negated(self) -> Test:
        if self.skip("NOT"):
            test = self._negated()
            return lambda item, given: not test(item, given)
        return self._predicate()

    def _predicate(self) -> Test:
        if self.skip("("):
            inner = self.either()
            self.expect(")")
            return inner
        for function in ("attribute_exists", "attribute_not_exists"):
            if self.skip(function):
                self.expect("(")
                name = self.must()
                self.expect(")")
                wanted = function == "attribute_exists"
                return lambda item, given: (given.name(name) in item) is wanted
        if self.skip("contains"):
            self.expect("(")
            left = self.operand()
            self.expect(",")
            right = self.operand()
            self.expect(")")
            return lambda item, given: _contains(left(item, given), right(item, given))
        name = self._tokens[self._at]
        left = self.operand()
        if self.skip("IS"):
            wanted = self.skip("NOT")
            self.expect("MISSING")
            return lambda item, given: (given.name(name) in item) is wanted
        how = self.must()
        if how == "BETWEEN":
            low = self.operand()
            self.expect("AND")
            high = self.operand()
            return lambda item, given: _between(left(item, given), low(item, given), high(item, given))
        if how not in _COMPARED:
            raise ValidationError(f"{how} is not a comparison, in {self._text}")
        right = self.operand()
        return lambda item, given: _compare(how, left(item, given), right(item, given))

    def operand(self) -> Operand:
        token = self.must()
        if token == "?":  # noqa: S105 - a parameter's place
            token, self._parameters = f"?{self._parameters}", self._parameters + 1
        if token[0] in ":?":
            return lambda _item, given: given.value(token)
        return lambda item, given: item.get(given.name(token))


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValidationError(f"cannot be read from {text[at:]!r}")
        yield found[1] or found[2] or found[3]
        at = found.end()


def _contains(left: Attribute | None, right: Attribute | None) -> bool:
    if left is None or right is None:
        return False
    kind, members = next(iter(left.items()))
    wanted = next(iter(right.values()))
    return bool(wanted in members if kind in ("S", "SS", "NS") else right in members)


def _compare(how: str, left: Attribute | None, right: Attribute | None) -> bool:
    if left is None or right is None:
        return how == "<>"
    (kind, a), (other, b) = next(iter(left.items())), next(iter(right.items()))
    if kind != other:
        return how == "<>"
    if kind == "N":
        a, b = Decimal(a), Decimal(b)
    if how in ("=", "<>"):
        return bool(a == b) is (how == "=")
    compared: bool = _ORDER[how](a, b)
    return compared


def _between(value: Attribute | None, low: Attribute | None, high: Attribute | None) -> bool:
    if not _compare("<=", low, high):
        raise ValidationError("BETWEEN requires an upper bound that is not below the lower one")
    return _compare(">=", value, low) and _compare("<=", value, high)


_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
