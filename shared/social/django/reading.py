"""The other direction: the jobs' results, in models and on the rows of a page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.db import router, transaction
from django.db.models import Model

from nexus.aws.rows import BadRow
from social.data import hashtags, posts, users
from social.data.posts import Media, Post
from social.data.users import User
from social.django import conf

PAGE = 1000
THREADS = 8

type Kind = Literal["users", "posts"]


def attach[M: Model](rows: Iterable[M], kind: Kind, *, by: str = "pk", to: str = "network") -> list[M]:
    """The rows of a page, each with the network's user or post (or None) as an attribute.

    `by` is the attribute with its id: `attach(page, "users", by="author_id", to="author_counts")`. One request per
    hundred ids.
    """
    found = list(rows)
    with conf.network():
        items = _read(kind, [str(getattr(row, by)) for row in found])
    for row in found:
        setattr(row, to, items.get(str(getattr(row, by))))
    return found


def _read(kind: Kind, ids: Sequence[str]) -> dict[str, User | Post]:
    if kind == "users":
        return {one.user_id: one for one in users.get_many(ids, threads=THREADS) if not isinstance(one, BadRow)}
    return {one.post_id: one for one in posts.get_many(ids, threads=THREADS) if not isinstance(one, BadRow)}


class ReadBack:
    """Fields of a model that `manage.py social_read_back` fills; `key` is the field with the network's id."""

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    def __init__(self, model: str, key: str, **fields: str) -> None:
        if unknown := ", ".join(sorted(fields.keys() - set(self.names))):
            raise TypeError(f"{type(self).__name__} of {model} has no {unknown}: it takes {', '.join(self.names)}")
        self.label, self.key, self.fields = model, key, fields

    @property
    def model(self) -> type[Model]:
        return apps.get_model(self.label)

    def faults(self) -> Iterator[str]:
        """The messages of `manage.py check` about it."""
        for name in (self.key, *self.fields.values()):
            try:
                if name != "pk":
                    self.model._meta.get_field(name)
            except FieldDoesNotExist as error:
                yield f"{type(self).__name__}: {error}"

    def run(self) -> int:
        """Updates the model without its signals. Returns how many rows changed. One request per hundred rows."""
        return sum(self._page(page) for page in self._pages())

    def _pages(self) -> Iterator[list[Any]]:
        rows = self.model._base_manager.using(router.db_for_write(self.model)).order_by("pk")
        rows = rows.only(*{self.key, *self.fields.values()})
        after = None
        while page := list((rows if after is None else rows.filter(pk__gt=after))[:PAGE]):
            after = page[-1].pk
            yield page

    def _page(self, page: Sequence[Any]) -> int:
        key = "pk" if self.key == "pk" else str(getattr(self.model._meta.get_field(self.key), "attname", self.key))
        kind: Kind = "users" if self.kind == "users" else "posts"
        changed = []
        for row in attach(page, kind, by=key, to="_network"):
            if row._network is None:
                continue
            found = {field: _value(row._network, name) for name, field in self.fields.items()}
            if any(getattr(row, field) != value for field, value in found.items()):
                vars(row).update(found)
                changed.append(row)
        if changed:
            rows = self.model._base_manager.using(router.db_for_write(self.model))
            rows.bulk_update(changed, list(self.fields.values()), batch_size=PAGE // 2)
        return len(changed)


def _value(item: Any, name: str) -> Any:
    if name in posts.COUNTERS:
        return getattr(item.counters, name.removesuffix("_count"))
    value = getattr(item, name)
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, Media) else value


class UserCounts(ReadBack):
    """The nightly count's results: `UserCounts("users.Profile", "user", followers_count="followers_count")`."""

    kind, names = "users", users.COUNTS


class PostFigures(ReadBack):
    """A post's counters, scores and media: `PostFigures("posts.Post", "pk", media="media")`."""

    kind, names = "posts", (*posts.COUNTERS, "engagement_score", "feed_rank", "media")


class Trends(ReadBack):
    """The tags that trend now: one row of the model each, created if missing; those that no longer trend have 0.

    `Trends("posts.Tag", "name", score="score", uses="uses")`; every field but the key must have a default.
    """

    kind, names = "trending", ("score", "uses")

    def run(self) -> int:
        with conf.network():
            trends = hashtags.trending()
        rows = self.model._base_manager.using(router.db_for_write(self.model))
        nothing: Mapping[str, Any] = dict.fromkeys(self.fields.values(), 0)
        with transaction.atomic(using=rows.db):
            gone = rows.exclude(**{f"{self.key}__in": [trend.tag for trend in trends]}).exclude(**nothing)
            changed = gone.update(**nothing)
            for trend in trends:
                found = {field: getattr(trend, name) for name, field in self.fields.items()}
                rows.update_or_create(defaults=found, **dict[str, Any]({self.key: trend.tag}))
        return changed + len(trends)
