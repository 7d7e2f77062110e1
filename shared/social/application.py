"""The functions that the web application calls on user actions, so that the jobs find the data they rely on.

Each function writes all attributes of its event together: the day of activity at a login, the day's bucket and the
feed's shard of a post, the mark of a post whose counters changed. docs/web-application.md lists the duties. Times are
seconds since 1970 and default to now; ids are supplied by the application or generated here.
"""

from collections.abc import Sequence
from dataclasses import asdict

from nexus import clock
from nexus.aws.dynamodb import Condition, Value, Write
from nexus.aws.table import transact
from nexus.client import AsyncResult
from social import catalogue
from social.catalogue import ErasureReport
from social.data import archive, blocks, comments, follows, posts, sessions, users
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, day_of
from social.data.ids import new_key
from social.data.posts import Counters, Post, Visibility
from social.data.sessions import Session, Token
from social.data.users import User
from social.tags import found_in, normalise

SESSION_DAYS = 90
MAX_HASHTAGS = 30

# --- people ----------------------------------------------------------------------------------------------------------


def register(
    email: str,
    name: str,
    *,
    locale: str = "en",
    digest: bool = True,
    user_id: str | None = None,
    at: float | None = None,
) -> User:
    """Creates a user, active today. Raises ValueError if the id is taken, or could not be erased."""
    now = int(clock.now() if at is None else at)
    user = User(
        user_id=_new_id(user_id, now),
        email=users.normal_email(email),
        name=name,
        created_at=now,
        last_active_day=day_of(now),
        locale=locale,
        digest=digest,
    )
    if not users.create(user):
        raise ValueError(f"user {user.user_id} exists")
    return user


def _new_id(given: str | None, now: int) -> str:
    if given and ("/" in given or len(given) > 128):  # erase_user_data refuses it
        raise ValueError(f"the id {given!r} has a slash, or more than 128 characters")
    return given or new_key(now)


def change_user(
    user_id: str,
    *,
    name: str | None = None,
    email: str | None = None,
    locale: str | None = None,
    digest: bool | None = None,
) -> bool:
    """Changes the given fields of a user's profile; idempotent. False if the user does not exist.

    The next mail goes to the new address, in the new language. One request, or two if `email` is the current one.
    """
    given: dict[str, Value] = {"name": name, "email": email, "locale": locale, "digest": digest}
    return users.change(user_id, {name: value for name, value in given.items() if value is not None})


def delete_user(user_id: str) -> AsyncResult[ErasureReport] | None:
    """Deletes the account now, and sends erase_user_data to erase everything else; None if the user does not exist.

    The task is sent first and completes the deletion after a crash in between; SendFailed means that nothing has
    changed, and the call may be repeated. Two requests and a message.
    """
    if not users.exists(user_id):
        return None
    erasing = catalogue.erase_user_data.delay(user_id=user_id)
    users.TABLE.delete(user_id)
    return erasing


def record_login(user_id: str, token_id: str, *, session_id: str | None = None, at: float | None = None) -> Session:
    """Records a login: first the day of activity, so that no cleanup treats the user as inactive, then session and
    token.

    Raises LookupError if the user does not exist.
    """
    now = int(clock.now() if at is None else at)
    if not users.record_activity(user_id, day_of(now)):
        raise LookupError(f"no user {user_id}")
    until = now + SESSION_DAYS * DAY_SECONDS
    session = Session(user_id, session_id or new_key(now), created_at=now, last_seen_at=now, expires_at=until)
    sessions.put_sessions([session])
    sessions.put_tokens([Token(user_id, token_id, issued_at=now, expires_at=until, session_id=session.session_id)])
    return session


def record_activity(user_id: str, session_id: str, *, at: float | None = None) -> None:
    """Records a signed-in user's request. Call it on the first request of a UTC day: further calls cost a read and a
    write each.
    """
    now = int(clock.now() if at is None else at)
    users.record_activity(user_id, day_of(now))
    key = {"user_id": user_id, "session_id": session_id}
    sessions.SESSIONS.update(Write(key, set={"last_seen_at": now}, when=(Condition("last_seen_at", "<", now),)))


def is_signed_in(user_id: str, session_id: str, *, at: float | None = None) -> bool:
    """Whether a session is valid: not signed out, not expired, and newer than the last revocation of the user's tokens.

    Check it on every request: a cookie alone stays valid for its whole lifetime, for any holder. Two reads.
    """
    session = sessions.session(user_id, session_id, clock.now() if at is None else at)
    valid_from = users.tokens_valid_from(user_id)
    return session is not None and valid_from is not None and session.created_at >= valid_from


def sign_out(user_id: str, session_id: str) -> None:
    """Ends a session and its refresh tokens; does nothing if it has ended."""
    sessions.end_session(user_id, session_id)


def rotate_token(user_id: str, old_token_id: str, new_token_id: str, *, at: float | None = None) -> bool:
    """Replaces the old refresh token by the new one in one transaction; False if the old one may not be used.

    The transaction checks `tokens_valid_from` too: no token survives its revocation by being replaced at that moment.
    """
    now = int(clock.now() if at is None else at)
    old = sessions.token(user_id, old_token_id, now)
    if old is None:
        return False
    if old.session_id:
        record_activity(user_id, old.session_id, at=now)
    else:
        users.record_activity(user_id, day_of(now))
    until = now + SESSION_DAYS * DAY_SECONDS
    new = Token(user_id, new_token_id, issued_at=now, expires_at=until, session_id=old.session_id)
    there = Condition("expires_at", "=", old.expires_at)
    return transact(
        [
            {"ConditionCheck": users.TABLE.check_request(user_id, when=users.accepts_tokens_of(old.issued_at))},
            {"Delete": sessions.TOKENS.delete_request({"user_id": user_id, "token_id": old_token_id}, when=(there,))},
            {"Put": sessions.TOKENS.put_request(asdict(new), new=True)},
        ]
    )


def follow(follower_id: str, followed_id: str, *, at: float | None = None) -> bool:
    """Creates a follow. False if it exists, or if both are the same user. The nightly job updates the counts."""
    if follower_id == followed_id:
        return False
    return follows.add(follower_id, followed_id, int(clock.now() if at is None else at))


def unfollow(follower_id: str, followed_id: str) -> None:
    """Ends a follow; does nothing if there was none."""
    follows.remove(follower_id, followed_id)


def block(user_id: str, blocked_id: str, *, at: float | None = None) -> None:
    """Hides the blocked user from the user, and ends follows in both directions."""
    blocks.add(user_id, blocked_id, int(clock.now() if at is None else at))
    follows.remove(user_id, blocked_id)
    follows.remove(blocked_id, user_id)


def unblock(user_id: str, blocked_id: str) -> None:
    """Ends a block; does nothing if there was none."""
    blocks.remove(user_id, blocked_id)


# --- posts -----------------------------------------------------------------------------------------------------------


def new_post(
    author_id: str,
    text: str,
    *,
    visibility: Visibility = "public",
    tags: Sequence[str] | None = None,
    post_id: str | None = None,
    at: float | None = None,
) -> Post:
    """Creates a post; its hashtags are those in the text unless given. Raises ValueError as `register` does.

    Call it before requesting an upload (`social.uploads.presigned_post`): media processing looks for the post.
    """
    now = int(clock.now() if at is None else at)
    post = Post(
        post_id=_new_id(post_id, now),
        author_id=author_id,
        created_at=now,
        text=text,
        visibility=visibility,
        hashtags=hashtags_of(text, tags),
    )
    if not posts.create(post, now=int(clock.now())):
        raise ValueError(f"post {post.post_id} exists")
    return post


def hashtags_of(text: str, tags: Sequence[str] | None) -> tuple[str, ...]:
    """The given tags, normalised, or those in the text if None; at most MAX_HASHTAGS."""
    return hashtags_in(text) if tags is None else _normalised(tags)


def hashtags_in(text: str) -> tuple[str, ...]:
    """The hashtags of a text, normalised, without duplicates, in order; at most MAX_HASHTAGS."""
    return found_in(text)[:MAX_HASHTAGS]


def _normalised(texts: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[normalise(text)] = None
        except ValueError:
            continue
    return tuple(found)[:MAX_HASHTAGS]


def set_visibility(post_id: str, visibility: Visibility) -> bool:
    """Sets who may see a post; the feed index has only public ones. One request.

    False if the post does not exist, or is being archived.
    """
    return posts.show_to(post_id, visibility)


def edit_post(post_id: str, text: str, *, tags: Sequence[str] | None = None, at: float | None = None) -> bool:
    """Sets a post's text; its hashtags are those in the text unless given. Counters and rank are kept. One request.

    Repeating it changes only `edited_at`. False if the post does not exist, or is being archived. Votes that its
    hashtags cast in an hour already counted remain, because they are anonymous.
    """
    return posts.edit(post_id, text, hashtags_of(text, tags), int(clock.now() if at is None else at))


def delete_post(post_id: str, *, author_id: str | None = None) -> AsyncResult[ErasureReport] | None:
    """Hides a post now, and sends erase_user_data to erase it; None if the post does not exist.

    This includes its comments, its upload, its renditions and its copies in the archive. The task is sent first, as for
    `delete_user`. Two requests and a message.

    An archived post is found only with its `author_id`: take it from your database, never from the request. The costs
    are the same.
    """
    post = posts.get(post_id, consistent=True)
    if post is None:
        if author_id is None or not archive.may_hold(author_id, post_id):
            return None
        return catalogue.erase_user_data.delay(user_id=author_id, post_id=post_id, remains=True)
    erasing = catalogue.erase_user_data.delay(user_id=post.author_id, post_id=post_id)
    posts.hide(post_id)
    return erasing


def count(post_id: str, *, likes: int = 0, shares: int = 0, views: int = 0) -> bool:
    """Adds to a post's counters (negative values subtract) and marks it for scoring, in one write.

    False if the post does not exist or a counter would fall below zero; then nothing was changed. Call it once per new
    like: the application stores who liked what, and can put both in one transaction with `count_request`.
    """
    return posts.TABLE.update(posts.counted(post_id, Counters(likes=likes, shares=shares, views=views)))


def set_counters(
    post_id: str,
    *,
    likes: int | None = None,
    comments: int | None = None,
    shares: int | None = None,
    views: int | None = None,
) -> bool:
    """Sets the given counters, for an application that counts by itself, and marks the post for scoring; one write.

    False if the post does not exist, or is being archived. Raises ValueError for a number below zero.
    """
    given = zip(posts.COUNTERS, (likes, comments, shares, views), strict=True)
    counters = {name: number for name, number in given if number is not None}
    if negative := [f"{name} is {number}" for name, number in counters.items() if number < 0]:
        raise ValueError(f"{negative[0]}: a counter is 0 or more")
    return posts.set_counters(post_id, counters)


def count_request(post_id: str, *, likes: int = 0, shares: int = 0, views: int = 0) -> dict[str, object]:
    """The same as an action of TransactWriteItems."""
    change = posts.counted(post_id, Counters(likes=likes, shares=shares, views=views))
    return {"Update": posts.TABLE.update_request(change)}


def comment(
    post_id: str, author_id: str, text: str, *, comment_id: str | None = None, at: float | None = None
) -> Comment | None:
    """Creates a comment, counted in the same transaction; None if the post does not exist, or the comment does."""
    now = int(clock.now() if at is None else at)
    made = Comment(post_id, comment_id or new_key(now), author_id, now, text)
    written = transact(
        [
            {"Put": comments.TABLE.put_request(comments.to_values(made), new=True)},
            {"Update": posts.TABLE.update_request(posts.counted(post_id, Counters(comments=1)))},
        ]
    )
    return made if written else None


def edit_comment(post_id: str, comment_id: str, text: str) -> bool:
    """Sets a comment's text. One request. False if the comment does not exist, or has been deleted."""
    key = {"post_id": post_id, "comment_id": comment_id}
    return comments.TABLE.update(Write(key, set={"text": text}, when=(Condition("deleted_at", "missing"),)))


def delete_comment(post_id: str, comment_id: str, *, at: float | None = None) -> bool:
    """Hides a comment and stops counting it, keeping its place in the thread; False if it was hidden already."""
    now = int(clock.now() if at is None else at)
    gone = comments.hidden(post_id, comment_id, now)
    return transact(
        [
            {"Update": comments.TABLE.update_request(gone)},
            {"Update": posts.TABLE.update_request(posts.counted(post_id, Counters(comments=-1)))},
        ]
    )
