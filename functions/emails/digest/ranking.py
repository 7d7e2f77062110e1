"""Chooses the posts of one reader's digest: a pure function of the week's posts and the reader."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

POSTS_IN_A_DIGEST = 7
POSTS_OF_ONE_AUTHOR = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A public post of the week. `engagement` is its engagement_score, `created_at` seconds since 1970."""

    post_id: str
    author_id: str
    engagement: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Reader:
    """The reader of a digest, as sets of ids."""

    user_id: str
    follows: frozenset[str] = field(default_factory=frozenset)
    blocked: frozenset[str] = field(default_factory=frozenset)
    already_sent: frozenset[str] = field(default_factory=frozenset)


def is_eligible(post: Candidate, reader: Reader) -> bool:
    """Whether a post may appear in this reader's digest: not their own, not by a blocked author, not sent before."""
    return not (
        post.author_id == reader.user_id or post.author_id in reader.blocked or post.post_id in reader.already_sent
    )


def rank(
    posts: Iterable[Candidate],
    reader: Reader,
    *,
    limit: int = POSTS_IN_A_DIGEST,
    per_author: int = POSTS_OF_ONE_AUTHOR,
) -> Sequence[Candidate]:
    """The reader's digest, best first: posts of authors they follow, then the week's others, each by engagement.

    Ties go to the newer post, then to the smaller id, so the order does not depend on the order of `posts`. A post
    given twice counts once. At most `per_author` posts by one author, so that no single author fills a digest. Empty if
    no post is left.
    """
    new = {post.post_id: post for post in posts if is_eligible(post, reader)}
    best_first = sorted(
        new.values(),
        key=lambda post: (post.author_id not in reader.follows, -post.engagement, -post.created_at, post.post_id),
    )
    chosen: list[Candidate] = []
    by_author: Counter[str] = Counter()
    for post in best_first:
        if by_author[post.author_id] < per_author:
            by_author[post.author_id] += 1
            chosen.append(post)
    return chosen[:limit]
