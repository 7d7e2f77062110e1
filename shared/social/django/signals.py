"""Writes changes of rows into the outbox: by Django's signals, and by a function for changes that send no signals."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from itertools import batched
from typing import Any

from django.apps import apps
from django.db import router, transaction
from django.db.models import Model, QuerySet
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from social.django import conf
from social.django.mirror import Key, Mirror, key_in

KEYS = 100
"""The most keys in one message: a run has time for that many."""

PAGE = 1000
"""How many rows are read at a time: all of them may not fit into memory."""


def connect() -> None:
    """Listens to the models of all mirrors, and to their subclasses and proxies."""
    for mirror in conf.mirrors().values():
        for model in apps.get_models(include_auto_created=True):
            if mirror.is_of(model):
                _listen(mirror, model)


def _listen(mirror: Mirror[Any], model: type[Model]) -> None:
    if not hasattr(model.save_base, "atomic"):
        model.save_base = _atomic(model.save_base)  # type: ignore[method-assign]
    as_one: dict[str, Any] = {"sender": model, "weak": False}
    for signal, receive in ((pre_save, _moving), (post_save, _changed), (post_delete, _changed)):
        signal.connect(partial(receive, mirror), dispatch_uid=f"social.{mirror.kind}.{receive.__name__}", **as_one)
    if model._meta.auto_created:
        m2m_changed.connect(partial(_members, mirror), dispatch_uid=f"social.{mirror.kind}.members", **as_one)
        for end in model._meta.concrete_fields:
            for other in _with_proxies(end.related_model):
                uid = f"social.{mirror.kind}.{end.name}"
                pre_delete.connect(partial(_leaving, mirror, end), sender=other, weak=False, dispatch_uid=uid)


def _with_proxies(model: Any) -> Sequence[type[Model]]:
    """All classes of the model's table: Django's signals have the one that the caller used as their sender."""
    if model is None:
        return ()
    return [one for one in apps.get_models() if one._meta.concrete_model is model._meta.concrete_model]


def _atomic(save_base: Callable[..., None]) -> Callable[..., None]:
    """Runs a model's `save_base` in a transaction: otherwise Django commits the row before it sends post_save."""

    @wraps(save_base)
    def saved(self: Model, *args: Any, using: str | None = None, **options: Any) -> None:
        with transaction.atomic(using or router.db_for_write(type(self), instance=self), savepoint=False):
            save_base(self, *args, using=using, **options)

    saved.atomic = True  # type: ignore[attr-defined]
    return saved


def _changed(mirror: Mirror[Any], *, instance: Model, using: str, **_: Any) -> None:
    send(mirror, [mirror.sent_of(instance)], using)


def _moving(mirror: Mirror[Any], *, instance: Any, using: str, raw: bool, **_: Any) -> None:
    """Sends the old key of a row whose key changes, so that its item is removed."""
    if list(mirror.attributes) == ["pk"] or not instance._is_pk_set():
        return
    made = all(field.has_default() or field.has_db_default() for field in instance._meta.pk_fields)
    if instance._state.adding and made and not raw:  # Django inserts it; with a given key, it first tries an update
        return
    before = mirror.model._base_manager.using(using).filter(pk=instance.pk).values_list(*mirror.attributes).first()
    if before is not None and (key := key_in(before)) != mirror.key_of(instance):
        send(mirror, [key], using)


def _members(
    mirror: Mirror[Any], *, sender: Any, instance: Any, action: str, reverse: bool, pk_set: Any, using: str, **_: Any
) -> None:
    """A many-to-many field's `add`, `remove`, `set` and `clear`, which send no signals for their rows."""
    if action not in {"post_add", "post_remove", "pre_clear"}:
        return
    owner: Any = sender._meta.auto_created
    field = next(one for one in owner._meta.local_many_to_many if one.remote_field.through is sender)
    names = [sender._meta.get_field(name).attname for name in (field.m2m_field_name(), field.m2m_reverse_field_name())]
    ends = [tuple(reversed(names) if reverse else names)]
    if field.remote_field.symmetrical:  # each row has an opposite one, without a signal from Django
        ends.append(tuple(reversed(ends[0])))
    for here, there in ends:
        if action == "pre_clear":
            _leaving(mirror, sender._meta.get_field(here), instance=instance, using=using)
            continue
        rows = (sender(**{here: instance.pk, there: pk}) for pk in pk_set)
        send(mirror, map(mirror.key_of, rows), using)


def _leaving(mirror: Mirror[Any], end: Any, *, instance: Model, using: str, **_: Any) -> None:
    """Sends all many-to-many rows of an instance: Django sends no signals for those deleted with it either."""
    rows = end.model._base_manager.using(using).filter(**{end.attname: instance.pk})
    send(mirror, map(key_in, rows.values_list(*mirror.attributes).iterator(chunk_size=PAGE)), using)


def mirrored(rows: "QuerySet[Any] | Iterable[Model]", using: str | None = None) -> int:
    """Mirrors rows that were changed without signals: by `bulk_create`, `bulk_update`, `update`, or SQL.

        with transaction.atomic():
            Post.objects.filter(author=user).update(visibility="private")
            mirrored(Post.objects.filter(author=user))

    Call it in the transaction of the change, which is that of the database `using`: by default the queryset's own, or
    the one that the model's rows are written to. Returns the number of rows; sends one message per hundred. Raises
    LookupError for a model without a mirror, ValueError for a row without a primary key.
    """
    if isinstance(rows, QuerySet):
        model = rows.model
        chosen: str | None = rows._db  # type: ignore[attr-defined]  # what `using` set; django-stubs leaves it out
        using = using or chosen or router.db_for_write(model)
        rows = rows.using(using)
    else:
        rows = list(rows)
        if not rows:
            return 0
        model = type(rows[0])
        if not all(row._is_pk_set() for row in rows):  # type: ignore[attr-defined]  # django-stubs leaves it out
            raise ValueError(
                f"{model._meta.label}: a row has no primary key, as after some bulk_create: pass a queryset"
            )
        using = using or router.db_for_write(model, instance=rows[0])
    its = [mirror for mirror in conf.mirrors().values() if mirror.is_of(model)]
    if not its:
        raise LookupError(f"{model._meta.label} has no mirror in {conf.given()['MIRRORS']}")
    if isinstance(rows, QuerySet):
        read = {name for mirror in its for name in (*mirror.attributes, mirror.owner_attribute) if name}
        rows = rows.only(*read).order_by().iterator(chunk_size=PAGE)
    number = 0
    for some in batched(rows, PAGE):
        number += len(some)
        for mirror in its:
            send(mirror, map(mirror.sent_of, some), using)
    return number


def send(mirror: Mirror[Any], keys: Iterable[Key | None], using: str | None) -> None:
    """Writes the tasks that mirror these keys into the outbox, in the database's current transaction."""
    from nexus.django.models import Outbox
    from social.django.tasks import mirror as task

    for page in batched((key for key in keys if key is not None), PAGE):
        for some in batched(sorted({*page}), KEYS):
            Outbox.add(task, mirror.kind, [list(key) for key in some], using=using)
