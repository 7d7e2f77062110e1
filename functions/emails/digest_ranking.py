"""Chooses the posts of one reader's digest: a pure function of the week's posts and of who the reader is."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

POSTS_IN_A_DIGEST = 7
POSTS_OF_ONE_AUTHOR = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A post of the week. `engagement` is its engagement_score, `created_at` seconds since the epoch."""

    post_id: str
    author_id: str
    visibility: str
    engagement: float
    created_at: float


@dataclass(frozen=True, slots=True)
class Reader:
    """Whom the digest is for: what the ranking needs to know of him, as sets of ids."""

    user_id: str
    follows: frozenset[str] = field(default_factory=frozenset)
    blocked: frozenset[str] = field(default_factory=frozenset)
    already_sent: frozenset[str] = field(default_factory=frozenset)


def may_read(post: Candidate, reader: Reader) -> bool:
    """Whether this post may stand in this reader's digest at all.

    Public posts may; followers-only posts may for a follower; anything else (private, or a visibility that this code
    does not know) may not. Never his own, never one by someone he blocked, never one that he has been sent.
    """
    if post.author_id == reader.user_id or post.author_id in reader.blocked or post.post_id in reader.already_sent:
        return False
    return post.visibility == "public" or (post.visibility == "followers" and post.author_id in reader.follows)


def rank(
    posts: Iterable[Candidate],
    reader: Reader,
    *,
    limit: int = POSTS_IN_A_DIGEST,
    per_author: int = POSTS_OF_ONE_AUTHOR,
) -> Sequence[Candidate]:
    """The reader's digest, best first: posts of authors he follows, then the week's others, each by engagement.

    Ties go to the newer post, then to the smaller id, so the order does not depend on the order of `posts`. A post
    given twice counts once. At most `per_author` posts by one author, so that nobody fills a digest alone. Empty
    when nothing is left to tell.
    """
    readable = {post.post_id: post for post in posts if may_read(post, reader)}
    best_first = sorted(
        readable.values(),
        key=lambda post: (post.author_id not in reader.follows, -post.engagement, -post.created_at, post.post_id),
    )
    chosen: list[Candidate] = []
    by_author: Counter[str] = Counter()
    for post in best_first:
        if len(chosen) == limit:
            break
        if by_author[post.author_id] < per_author:
            by_author[post.author_id] += 1
            chosen.append(post)
    return chosen
