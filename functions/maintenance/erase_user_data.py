"""erase_user_data: erases a deleted user, or one of their posts, from every table, bucket and archive.

The rule is the right to erasure (GDPR, article 17): personal data is erased without undue delay, in backups by expiry.
Every report names what is kept and why (`KEPT_AFTER_ERASURE`). The web application sends the task with `delete_user`
and `delete_post`, which hide the user or post at once.

Every step is idempotent, and no other progress is stored: a run that dies or continues looks for what is left. A post
is hidden first, which blocks likes, comments, media and archiving; then its dependents are deleted, and last the item,
through which they are found. An archived post has no item: its author and id lead to what is left of it. A comment on
another user's post is deleted in one transaction with that post's count. The nightly job corrects counts of followers
and posts.

A second pass 15 minutes later finds what was written meanwhile (an upload with an issued form, a comment in flight):
no form and no sandbox lives longer. It leaves a user or post alone that was made again under the same id, as by a
mirror whose row was hidden for a moment. A user with many rows is split into segments, one for each kind of row.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import batched

from nexus import clock
from nexus.aws.dynamodb import Condition, Row
from nexus.aws.rows import BadRow, read_count, read_text
from nexus.aws.table import Meter, Page, Table, in_threads, transact
from nexus.errors import Reject, Retry
from nexus.worker import Continuation, Run, handler_for, implements, implements_part
from social import catalogue, day_report
from social.catalogue import KEPT_AFTER_ERASURE, EraseUserData, ErasureReport
from social.data import (
    analytics,
    archive,
    blocks,
    comments,
    follows,
    mail_ledger,
    notifications,
    objects,
    posts,
    sessions,
    users,
)
from social.data.days import day_of
from social.data.posts import Counters
from social.parts import EraseShare, LookAgain
from social.sweep import Tally

SECOND_LOOK = 900
"""Seconds: the default lifetime of a presigned form, and the longest of a sandbox."""

AT_ONCE = 100
"""Posts, and comments on other people's posts, between two checks of the time."""

ALONE = 500
"""The most posts that one run erases without segments; also the size of a segment."""

THREADS = 8


@dataclass(frozen=True, slots=True)
class Erasing:
    """Whose data, which of their posts (None: all), and whether a second pass will follow.

    `post_id` is the one post to erase, and nothing else.
    """

    user_id: str
    again: bool
    tally: Tally
    post_ids: Sequence[str] | None = None
    post_id: str | None = None


type Step = Iterator[Counter[str]]
"""Yields counts of what was erased, by kind, after each page. The run may continue elsewhere after any page that erased
something."""


def merge(parts: Sequence[ErasureReport]) -> ErasureReport:
    """Sums the numbers."""
    return parts[0].add(*parts[1:]).model_copy(update={"kept": KEPT_AFTER_ERASURE})


@implements(catalogue.erase_user_data, reduce=merge)
def erase_user_data(args: EraseUserData, run: Run) -> ErasureReport | Continuation:
    """Erases one post, or all of a user's rows, in segments if there are many. Rejects another user's post."""
    tally = Tally.resumed(run)
    if (args.remains or not args.again) and _made_again(args, tally.meter):
        return ErasureReport(**tally.numbers(), reason=f"the {'post' if args.post_id else 'user'} exists again")
    if args.post_id is not None:
        erasing = Erasing(args.user_id, args.again, tally, (args.post_id,), args.post_id)
        try:
            return _erase(erasing, STEPS_OF_A_POST, run, look_again=args.again)
        except archive.OtherAuthor as error:
            raise Reject(str(error)) from None
    users.TABLE.delete(args.user_id, meter=tally.meter)  # first: prevents mail, logins and notifications from now on
    erasing = Erasing(args.user_id, args.again, tally)
    post_ids = _posts_of(erasing)
    if len(post_ids) <= ALONE and not _many_follow(erasing):
        return _erase(erasing, tuple(STEPS), run, look_again=args.again)
    share = partial(EraseShare, user_id=args.user_id, again=args.again)
    shares = [share(store="posts", post_ids=some) for some in batched(post_ids, ALONE, strict=False)]
    shares += [share(store=store) for store in STEPS if store != "posts"]
    return run.fan_out(shares, then=LookAgain(user_id=args.user_id) if args.again else None)


@implements_part(catalogue.erase_user_data)
def part(args: EraseShare | LookAgain, run: Run) -> ErasureReport | Continuation:
    """Erases one kind of row, or sends the second pass after all of them."""
    if isinstance(args, LookAgain):
        _look_again(args.user_id)
        return ErasureReport()
    erasing = Erasing(args.user_id, args.again, Tally.resumed(run), args.post_ids or None)
    return _erase(erasing, (args.store,), run, look_again=False)


def _erase(erasing: Erasing, stores: Sequence[str], run: Run, *, look_again: bool) -> ErasureReport | Continuation:
    cursor, tally = run.cursor or {}, erasing.tally
    erased = Counter[str](cursor.get("erased", {}))
    for place in range(cursor.get("place", 0), len(stores)):
        for found in STEPS[stores[place]](erasing):
            erased.update(found)
            tally.changed += found.total()
            if found.total() and run.short_of_time:
                return run.continue_from(tally.cursor(place=place, erased=dict(erased)))
    if look_again:
        _look_again(erasing.user_id, erasing.post_id)
    numbers = {what: number for what, number in erased.items() if number}
    run.logger.info("erased", user_id=erasing.user_id, erased=numbers)
    return ErasureReport(**tally.numbers(), erased=numbers, kept=KEPT_AFTER_ERASURE)


def _made_again(args: EraseUserData, meter: Meter) -> bool:
    if args.post_id is None:
        return users.exists(args.user_id, meter=meter)
    return posts.is_new(args.post_id, meter=meter)


def _look_again(user_id: str, post_id: str | None = None) -> None:
    """Sends the second pass. Idempotent: a duplicate finds nothing."""
    args = {"user_id": user_id, "post_id": post_id, "again": False}
    catalogue.erase_user_data.apply_async(args, countdown=SECOND_LOOK)


def _posts_of(erasing: Erasing) -> list[str]:
    """The author's posts, including those of which only an upload is left."""
    pages = posts.written_by(erasing.user_id, meter=erasing.tally.meter)
    written = [item["post_id"]["S"] for page in pages for item in page.items]
    uploaded = [key.split("/")[2] for key in objects.keys("uploads", f"uploads/{erasing.user_id}/")]
    return list(dict.fromkeys((*written, *uploaded)))


def _many_follow(erasing: Erasing) -> bool:
    """Whether the followers fill more than one page of their index: more than 13,000."""
    return next(follows.count_followers(erasing.user_id, meter=erasing.tally.meter)).next_key is not None


# --- posts -----------------------------------------------------------------------------------------------------------


def erase_posts(erasing: Erasing) -> Step:
    """Erases posts and their dependents in batches."""
    post_ids = _posts_of(erasing) if erasing.post_ids is None else erasing.post_ids
    for some in batched(post_ids, AT_ONCE, strict=False):
        meter = erasing.tally.meter
        found = {item["post_id"]["S"]: item for item in posts.in_full(some, meter=meter, threads=THREADS)}
        erasing.tally.rows_read += len(found)
        others = {post_id for post_id, item in found.items() if item.get("author_id") != {"S": erasing.user_id}}
        if erasing.post_id is not None and erasing.post_id in others:
            raise archive.OtherAuthor(erasing.post_id, erasing.user_id)
        own = [post_id for post_id in some if post_id not in others]
        yield sum(in_threads(partial(erase_post, erasing, found), own, THREADS), Counter[str]())


def erase_post(erasing: Erasing, found: Mapping[str, Row], post_id: str) -> Counter[str]:
    """Erases one post, or what is left of it if its item no longer exists."""
    meter, item = erasing.tally.meter, found.get(post_id)
    if item is not None:
        posts.hide(post_id, meter=meter)
    rows = comments.items_of_post(post_id, meter=meter)
    comments.delete_many([(post_id, one["comment_id"]["S"]) for one in rows], meter=meter)
    erased = Counter(comments=len(rows), posts=item is not None)
    erased["renditions"] += objects.erase("media", f"media/{post_id}/")
    if item is not None:  # otherwise an archived post with this id may be another user's
        erased["renditions"] += objects.erase("archive", f"media/{post_id}/")
        if erasing.again and erasing.post_id is None and _unsettled(post_id, meter):
            _look_again(erasing.user_id, post_id)  # before the item is deleted, through which a retry finds the post
        posts.TABLE.delete(post_id, meter=meter)
    return erased


def _unsettled(post_id: str, meter: Meter) -> bool:
    """Whether an upload of the hidden post may still be processed, or the post may just be on its way to the archive.

    Reads the post now: no upload can begin to write to a hidden post, so the post already shows one in progress.
    """
    attributes = ("post_id", "created_at", "media", "media_order")
    item = posts.TABLE.get({"post_id": post_id}, attributes=attributes, consistent=True, meter=meter)
    if item is None:  # another run has deleted it, which looked first
        return False
    if item.get("media", {}).get("M", {}).get("status") == {"S": "processing"}:
        return True
    now = clock.now()
    try:
        # An earlier upload than the one that is shown may be processed too.
        order = read_text(item, "media_order", post_id, "")
        if order and posts.uploaded_at(order) > now - SECOND_LOOK:
            return True
        return day_of(read_count(item, "created_at", post_id)) <= posts.old_day(day_of(now))
    except (BadRow, ValueError):
        return True


# --- a user's other data ---------------------------------------------------------------------------------------------


def erase_comments(erasing: Erasing) -> Step:
    """Erases comments on other people's posts, each together with that post's count."""
    for page in comments.written_by(erasing.user_id, meter=erasing.tally.meter):
        for some in batched(page.items, AT_ONCE, strict=False):
            erasing.tally.rows_read += len(some)
            yield Counter(comments=sum(in_threads(partial(_erase_comment, erasing), some, THREADS)))


def _erase_comment(erasing: Erasing, item: Row) -> int:
    key = {name: item[name]["S"] for name in comments.TABLE.key}
    if_exists = (Condition("bucket", "exists"),)
    counted = [
        {"Delete": comments.TABLE.delete_request(key, when=if_exists)},
        {"Update": posts.TABLE.update_request(posts.counted(key["post_id"], Counters(comments=-1)))},
    ]
    if not transact(
        counted, meter=erasing.tally.meter
    ):  # already deleted, only the placeholder is left; or its post no longer exists
        comments.TABLE.delete(key, meter=erasing.tally.meter)
    return 1


def erase_rows(table: Table, what: str, find: Callable[..., Iterator[Page]], erasing: Erasing) -> Step:
    """Erases rows that have no counter to update, by their keys."""
    for page in find(erasing.user_id, meter=erasing.tally.meter):
        keys = [{name: item[name]["S"] for name in table.key} for item in page.items]
        erasing.tally.rows_read += len(keys)
        yield Counter({what: table.delete_many(keys, meter=erasing.tally.meter, threads=THREADS)})


def erase_uploads(erasing: Erasing) -> Step:
    """Erases originals, including refused ones, in every version."""
    of_the_post = "" if erasing.post_id is None else f"{erasing.post_id}/"
    for folder in ("uploads", "quarantine/uploads"):
        yield Counter(uploads=objects.erase("uploads", f"{folder}/{erasing.user_id}/{of_the_post}"))


def erase_mails(erasing: Erasing) -> Step:
    """Erases the mail ledger's entries, without reading them."""
    mail_ledger.erase(erasing.user_id, clock.now(), meter=erasing.tally.meter)
    yield Counter()


def erase_archive(erasing: Erasing) -> Step:
    """Erases archived posts, and deleted comments archived with other people's posts."""
    last, meter = not erasing.again, erasing.tally.meter
    for _ in archive.erase(erasing.user_id, erasing.post_id, last=last, meter=meter):
        yield Counter(archived=1)
    if erasing.post_id is None or not last:
        return
    # Either an archiving run made these copies before it found the post erased, or they belong to another user's
    # archived post. `find` reads all lists, so it is called only if there are copies.
    copies = f"media/{erasing.post_id}/"
    if any(objects.keys("archive", copies)) and not archive.find([erasing.post_id], meter=meter):
        yield Counter(renditions=objects.erase("archive", copies))


def erase_reports(erasing: Erasing) -> Step:
    """Erases posts from the daily lists of popular posts and from reports: reports first, since the list finds them."""
    for content in analytics.all_days(meter=erasing.tally.meter):
        kept = tuple(post for post in content.popular if not _of(erasing, post))
        if kept == content.popular:
            continue
        objects.erase("archive", f"{analytics.REPORTS}{content.day}")
        day_report.publish(replace(content, popular=kept), meter=erasing.tally.meter)
        if not analytics.set_popular(content, kept, meter=erasing.tally.meter):
            raise Retry(f"the day {content.day} was counted again in the meantime", after=5)
        yield Counter(reports=1)


def _of(erasing: Erasing, post: analytics.PopularPost) -> bool:
    return post.author_id == erasing.user_id and erasing.post_id in (None, post.post_id)


STEPS: dict[str, Callable[[Erasing], Step]] = {
    "sessions": partial(erase_rows, sessions.SESSIONS, "sessions", partial(sessions.held_by, sessions.SESSIONS)),
    "tokens": partial(erase_rows, sessions.TOKENS, "tokens", partial(sessions.held_by, sessions.TOKENS)),
    "posts": erase_posts,
    "uploads": erase_uploads,
    "comments": erase_comments,
    "follows": partial(erase_rows, follows.TABLE, "follows", follows.of_both_sides),
    "blocks": partial(erase_rows, blocks.TABLE, "blocks", blocks.of_both_sides),
    "notifications": partial(erase_rows, notifications.TABLE, "notifications", notifications.about),
    "mails": erase_mails,
    "archive": erase_archive,
    "reports": erase_reports,
}
"""Every kind of user data, and how it is erased."""

STEPS_OF_A_POST = ("posts", "uploads", "archive", "reports")
"""The kinds that hold one post: first the post itself, if it is still the user's."""

handler = handler_for(erase_user_data)
