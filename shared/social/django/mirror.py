"""The common part of every mirror: reads a model's rows in the network's form, and updates the network."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.models import F, Model, Q, QuerySet
from django.db.models.expressions import Combinable
from django.utils import timezone
from pydantic import BaseModel, ValidationError

from nexus.django.tasks import aware
from nexus.errors import Reject, Retry
from nexus.values import described, faults_of
from social.data import posts

type Key = tuple[str, ...]
type Source = str | Combinable
"""A field of the model, by its name or a path over relations (`author__profile__locale`), or an expression."""

TRIES = 8


class Mirror[R: BaseModel](ABC):
    """A model's rows as one kind of the network's. `fields` map each of the kind's fields to its source.

    The network sees only rows that match `where`, which is evaluated with the row, so a row that no longer matches is
    removed. `changed_at` names the field that records a row's last change: `social_backfill --since` uses it.
    """

    kind: ClassVar[str]
    row: ClassVar[type[BaseModel]]
    key: ClassVar[tuple[str, ...]]
    usual: ClassVar[Mapping[str, Source]] = {}
    owner: ClassVar[str | None] = None
    """A field that is sent with the key, since the row may be gone when the message is read."""

    def __init__(self, model: str, *, where: Q | None = None, changed_at: str | None = None, **fields: Source) -> None:
        known = self.row.model_fields
        if unknown := ", ".join(sorted(fields.keys() - known.keys())):
            raise TypeError(f"{type(self).__name__} of {model} has no {unknown}: it takes {', '.join(known)}")
        self.fields = {**self.usual, **fields}
        needed = (name for name, field in known.items() if field.is_required() and name not in self.fields)
        if missing := ", ".join(needed):
            raise TypeError(f"{type(self).__name__} of {model} lacks {missing}")
        self.label = model
        self.where = where or Q()
        self.changed_at = changed_at

    @property
    def model(self) -> type[Model]:
        return apps.get_model(self.label)

    def is_of(self, model: type[Model]) -> bool:
        """Whether rows of a model are rows of this mirror's: those of its subclasses and proxies are."""
        return issubclass(model, self.model._meta.concrete_model or self.model)

    @property
    def database(self) -> str:
        """The database that rows are read from: a replica might lack the latest change."""
        return router.db_for_write(self.model)

    @property
    def attributes(self) -> Sequence[str]:
        """The model's attributes that form a key. Raises FieldDoesNotExist for one that is not the model's own."""
        return [self._attribute(self.fields[name]) for name in self.key]

    def _attribute(self, source: Source) -> str:
        if source == "pk" and len(self.model._meta.pk_fields) == 1:
            return "pk"
        if source == "pk":
            raise FieldDoesNotExist(f"{self.label} has a composite primary key, but an id must be one field")
        if not isinstance(source, str):
            raise FieldDoesNotExist(f"{self.label}: {source} is an expression, but a key must be a field")
        return str(getattr(self.model._meta.get_field(source), "attname", source))

    def key_of(self, instance: Any) -> Key | None:
        """The key of a row; None if a part of it is NULL."""
        return key_in(self._as_read(name, getattr(instance, name)) for name in self.attributes)

    def _as_read(self, name: str, value: Any) -> Any:
        """A value of an instance as the database gives it: an instance may have a UUID as text, for example."""
        if hasattr(value, "resolve_expression"):  # such as F(...), before the row is saved
            return value
        field: Any = self.model._meta.pk if name == "pk" else self.model._meta.get_field(name)
        return field.to_python(value)

    @property
    def owner_attribute(self) -> str | None:
        """The model's attribute with the owner; None if the owner is not a field of the model itself."""
        if self.owner is None:
            return None
        try:
            return self._attribute(self.fields[self.owner])
        except FieldDoesNotExist:
            return None

    def sent_of(self, instance: Any) -> Key | None:
        """The key of a row as a message has it: followed by the owner, if the instance has it loaded."""
        key, owner = self.key_of(instance), self.owner_attribute
        if key is None or owner is None or vars(instance).get(owner) is None:
            return key
        return (*key, str(self._as_read(owner, vars(instance)[owner])))

    def read(self, key: Key) -> Any:
        """What the network should have at this key now; None for nothing. Raises Reject for an invalid row."""
        own = zip(self.attributes, key[: len(self.key)], strict=True)
        rows = self.rows(self.query().filter(**dict(own))[:1])
        return next((row for _, row in rows), None)

    def sync(self, key: Key) -> None:
        """Updates the network. Raises Reject for an invalid row, Retry for one that cannot be written now.

        `key` may be followed by the owner, as `sent_of` returns it.

        Afterwards it compares what was written with the row again: a later change may have been written first.
        """
        wanted = self.read(key)
        for _ in range(TRIES):
            self.write(key, wanted)
            written, wanted = wanted, self.read(key)
            if written == wanted:
                return
        raise Retry(f"{self.kind} {key}: the row keeps changing", after=30.0)

    @abstractmethod
    def write(self, key: Key, wanted: Any) -> None:
        """Makes the network's item match `wanted`, except for what the jobs own; None removes it."""

    @abstractmethod
    def put(self, rows: Sequence[R]) -> None:
        """Writes many rows at once, for a backfill. Existing items may stay unchanged."""

    def query(self) -> QuerySet[Any, dict[str, Any]]:
        """The rows with only the mirrored fields, and the primary key as `key`."""
        named = {f"of_{name}": F(value) if isinstance(value, str) else value for name, value in self.fields.items()}
        found = self.model._base_manager.using(self.database).filter(self.where).order_by()
        return found.values(mirrored_pk=F("pk"), **named)

    def rows(self, found: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, R]]:
        """(primary key, row) of each. Raises Reject for a row that is invalid in the network."""
        for values in found:
            try:
                yield values["mirrored_pk"], self.row_of(values)
            except ValidationError as error:
                reason = described(faults_of(error))
                raise Reject(f"{self.label} {values['mirrored_pk']}: {reason}") from None

    def row_of(self, values: Mapping[str, Any]) -> R:
        """The row in a result of `query`. Raises ValidationError."""
        named = {name: _plain(name, values[f"of_{name}"]) for name in self.fields}
        made: Any = self.row.model_validate({name: value for name, value in named.items() if value is not None})
        return made  # type: ignore[no-any-return]  # the class variable cannot name R


def key_in(values: Iterable[Any]) -> Key | None:
    """The key of these values; None if one is NULL."""
    found = tuple(values)
    return None if None in found else tuple(map(str, found))


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime) and timezone.is_naive(value):
        return aware(value)
    return str(value) if name.endswith("_id") and value is not None else value


def counted(post_id: str, **wanted: int) -> bool:
    """Sets a post's counters to the database's counts; one read, and a write if they differ. False without a post.

    Raises Retry for a post that is being archived.
    """
    post = posts.get(post_id, consistent=True)
    if post is None:
        return False
    differing = {f"{name}_count": n for name, n in wanted.items() if getattr(post.counters, name) != n}
    if differing and not posts.set_counters(post_id, differing):
        raise Retry(f"post {post_id} is being archived or erased", after=60.0)
    return True
