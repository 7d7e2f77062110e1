"""Imports existing users, posts and follows: from a file, another database's cursor, or any iterable.

    from social import backfill
    backfill.users({"user_id": row.pk, "email": row.email, ...} for row in User.objects.iterator())

Existing rows are left unchanged, so a backfill may be repeated, and may run alongside the application. Rows are
written a thousand at a time and then dropped, so memory use does not depend on their number. `on_progress` gets the
number of rows that are durably written; `start` skips that many of the same rows. No mail is sent, and the nightly job
writes the counts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched, islice
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from nexus import clock
from nexus.aws.dynamodb import Value, Write
from nexus.aws.table import Table
from nexus.values import described, faults_of
from social import application
from social.data import follows as edges
from social.data import posts as articles
from social.data import users as people
from social.data.days import DAY_SECONDS, day_of
from social.data.posts import Counters, Post, Visibility
from social.data.users import User

AT_ONCE = 1_000
THREADS = 8


def seconds_of(moment: datetime) -> int:
    """Seconds since 1970; a time without a time zone is UTC."""
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _plausible(moment: datetime) -> datetime:
    if not 0 <= seconds_of(moment) <= clock.now() + DAY_SECONDS:
        raise ValueError("it is before 1970 or in the future")  # no job reads the one, and the other tops the feed
    return moment


Moment = Annotated[datetime, AfterValidator(_plausible)]
"""A time from 1970 on. A day is left for times without an offset that are not in UTC."""


def _words(text: object) -> object:
    return text.replace(",", " ").split() if isinstance(text, str) else text


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@=-]{0,63}$")]
Count = Annotated[int, Field(ge=0)]


class Row(BaseModel):
    """A row of the backfill. Times are seconds since 1970 or ISO 8601 (UTC unless specified).

    Other fields are ignored. An empty field of a CSV file counts as omitted.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class UserRow(Row):
    """A user. `last_active_at` defaults to `created_at`."""

    user_id: Id
    email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]
    name: str = Field(default="", max_length=1000)
    locale: str = Field(default="en", max_length=35)
    digest: bool = True
    suppressed: str | None = None
    created_at: Moment
    last_active_at: Moment | None = None


class PostRow(Row):
    """A post. `hashtags` default to those in the text; in a CSV file they are separated by spaces or commas."""

    post_id: Id
    author_id: Id
    created_at: Moment
    text: str = Field(default="", max_length=100_000)
    visibility: Visibility = "public"
    hashtags: Annotated[tuple[str, ...] | None, BeforeValidator(_words)] = None
    likes_count: Count = 0
    comments_count: Count = 0
    shares_count: Count = 0
    views_count: Count = 0


class FollowRow(Row):
    """An edge: who follows whom, since when."""

    follower_id: Id
    followed_id: Id
    created_at: Moment

    @field_validator("followed_id")
    @classmethod
    def _another_user(cls, followed_id: str, info: ValidationInfo) -> str:
        if followed_id == info.data.get("follower_id"):  # application.follow refuses it too
            raise ValueError("it is the follower's own id")
        return followed_id


@dataclass(frozen=True, slots=True)
class Report:
    """Row counts by outcome: written, already `present`, or invalid (`faulty`)."""

    rows: int = 0
    written: int = 0
    present: int = 0
    faulty: int = 0


type Rows = Iterable[Mapping[str, Any]]
type OnProgress = Callable[[int], None]
"""Called with the number of finished rows, including those skipped by `start`."""

type OnFault = Callable[[int, str], None]
"""Called with a row's number, from 1, and its fault."""


def _silent(*_: object) -> None:
    pass


def users(
    rows: Rows, *, start: int = 0, check: bool = False, on_progress: OnProgress = _silent, on_fault: OnFault = _silent
) -> Report:
    """Writes users (see UserRow). One write request per 25; `check` reads all rows and writes none."""
    return _fill(rows, people.TABLE, _user, start=start, check=check, on_progress=on_progress, on_fault=on_fault)


def posts(
    rows: Rows, *, start: int = 0, check: bool = False, on_progress: OnProgress = _silent, on_fault: OnFault = _silent
) -> Report:
    """Writes posts (see PostRow); old and quiet ones are marked for review, those with counters for scoring."""
    return _fill(rows, articles.TABLE, _post, start=start, check=check, on_progress=on_progress, on_fault=on_fault)


def follows(
    rows: Rows, *, start: int = 0, check: bool = False, on_progress: OnProgress = _silent, on_fault: OnFault = _silent
) -> Report:
    """Writes follows (see FollowRow)."""
    return _fill(rows, edges.TABLE, _follow, start=start, check=check, on_progress=on_progress, on_fault=on_fault)


def _fill(
    rows: Rows,
    table: Table,
    values_of: Callable[[Mapping[str, Any]], Mapping[str, Value]],
    *,
    start: int,
    check: bool,
    on_progress: OnProgress,
    on_fault: OnFault,
) -> Report:
    done, written, present, faulty = start, 0, 0, 0
    for some in batched(islice(rows, start, None), AT_ONCE):
        writes: dict[tuple[str, ...], Write] = {}
        for number, row in enumerate(some, done + 1):
            try:
                values = values_of({name: value for name, value in row.items() if value != ""})
            except ValidationError as error:
                faulty += 1
                on_fault(number, described(faults_of(error)))
                continue
            key = {name: str(values[name]) for name in table.key}
            present += tuple(key.values()) in writes
            writes.setdefault(tuple(key.values()), Write(key, set=values, insert=True))
        made = [] if check else table.update_many(list(writes.values()), threads=THREADS)
        written += sum(made)
        present += len(made) - sum(made)
        done += len(some)
        on_progress(done)
    return Report(done - start, written, present, faulty)


def user_of(row: UserRow) -> User:
    """The user that a row describes."""
    created_at = seconds_of(row.created_at)
    return User(
        user_id=row.user_id,
        email=row.email,
        name=row.name,
        created_at=created_at,
        last_active_day=day_of(seconds_of(row.last_active_at) if row.last_active_at else created_at),
        locale=row.locale,
        digest=row.digest,
        suppressed=row.suppressed,
    )


def post_of(row: PostRow) -> Post:
    """The post that a row describes."""
    return Post(
        post_id=row.post_id,
        author_id=row.author_id,
        created_at=seconds_of(row.created_at),
        text=row.text,
        visibility=row.visibility,
        hashtags=application.hashtags_of(row.text, row.hashtags),
        counters=Counters(row.likes_count, row.comments_count, row.shares_count, row.views_count),
    )


def _user(row: Mapping[str, Any]) -> Mapping[str, Value]:
    return people.to_values(user_of(UserRow.model_validate(row)))


def _post(row: Mapping[str, Any]) -> Mapping[str, Value]:
    return articles.to_values(post_of(PostRow.model_validate(row)), now=int(clock.now()))


def _follow(row: Mapping[str, Any]) -> Mapping[str, Value]:
    read = FollowRow.model_validate(row)
    return {
        "follower_id": read.follower_id,
        "followed_id": read.followed_id,
        "created_at": seconds_of(read.created_at),
    }
