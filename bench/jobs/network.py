"""The network that the jobs are measured on: one day's activity, as items of the stand-in's tables.

It has a tenth of the reference network's follows (10 per user instead of 100) and the rest of a day's work in full: per
user 0.075 new posts, 0.1 comments, and 0.15 posts whose counters have changed; changed counts for every fourth user;
0.3% of the users newly dormant; and a week of posts that have become a year old, one in ten of them with hardly any
views. `past` adds posts that no job needs to read.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from bench.jobs.stand_in import Table
from nexus.aws.dynamodb import to_item
from social.data import comments, posts, users
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, add_days, day_of, start_of
from social.data.ids import new_key
from social.data.posts import Counters, Post
from social.data.sessions import Session, Token
from social.data.users import User

NOW = 1_800_000_000 + 1_000
FOLLOWS = 10
POSTS_A_DAY = 0.075
COMMENTS_A_DAY = 0.1
MOVED = 0.15
DORMANT = 0.003
CHANGED = 0.25
QUIET = 0.1
DAYS = 8
WORDS = "slow train through the mountains and snow again, first try at film photography in years #travel #photo"


def fill(tables: Mapping[str, Table], people: int, *, past: float = 1.0, seed: int = 1) -> None:
    """Fills the tables with a network of `people` users."""
    chance = random.Random(seed)
    ids = [new_key(NOW - 10**7 + number, chance.getrandbits(40)) for number in range(people)]
    tables["posts"].load(to_item(values) for values in _posts(chance, ids, past))
    tables["comments"].load(to_item(comments.to_values(comment)) for comment in _comments(chance, ids))
    edges = list(_edges(chance, ids))
    tables["follows"].load(_edge_items(ids, edges))
    tables["users"].load(_users(chance, ids, tables, edges))
    tables["sessions"].load(to_item(values) for values in _sessions(chance, ids))
    tables["tokens"].load(to_item(values) for values in _tokens(chance, ids))


def _posts(chance: random.Random, ids: list[str], past: float) -> Iterator[Any]:
    people, today = len(ids), start_of(day_of(NOW))
    a_day = max(1, round(people * POSTS_A_DAY))
    number = 0

    def post(created_at: int, counters: Counters, scored: bool, tags: tuple[str, ...]) -> Any:
        nonlocal number
        number += 1
        score = posts.engagement_score(counters) if scored else 0
        key = new_key(created_at, chance.getrandbits(40))
        author = ids[int(len(ids) * chance.random() ** 2)]
        visibility = chance.choices(("public", "followers", "private"), (85, 10, 5))[0]
        made = Post(key, author, created_at, WORDS, visibility, tags, counters, score)  # type: ignore[arg-type]
        return posts.to_values(made, now=0)

    to_move = round(people * MOVED)
    for ago in range(DAYS):
        length = NOW - today if ago == 0 else DAY_SECONDS
        for _ in range(round(a_day * length / DAY_SECONDS)):
            created_at = today - ago * DAY_SECONDS + chance.randrange(length)
            tags = tuple(f"tag{int(3000 * chance.random() ** 3)}" for _ in range(chance.choice((0, 1, 2))))
            views = int(chance.lognormvariate(4, 1.5)) + 1
            counters = Counters(views // 9, views // 30, views // 80, views)
            moved = to_move > 0
            to_move -= moved
            yield post(created_at, counters, not moved, tags)
    year_old = start_of(posts.old_day(day_of(NOW)))
    for ago in range(7):
        for place in range(a_day):
            quiet = place < a_day * QUIET
            counters = Counters(views=chance.randrange(10)) if quiet else Counters(3, 1, 0, 50)
            yield post(year_old - ago * DAY_SECONDS + chance.randrange(DAY_SECONDS), counters, True, ())
    for _ in range(round(people * past)):
        yield post(today - chance.randrange(30, 300) * DAY_SECONDS, Counters(3, 1, 0, 50), True, ("old",))


def _comments(chance: random.Random, ids: list[str]) -> Iterator[Comment]:
    today = start_of(day_of(NOW))
    for ago in range(3):
        for _ in range(round(len(ids) * COMMENTS_A_DAY)):
            at = today - ago * DAY_SECONDS + chance.randrange(DAY_SECONDS)
            yield Comment(
                new_key(at, chance.getrandbits(40)), new_key(at, chance.getrandbits(40)), ids[0], at, "so true"
            )


def _edges(chance: random.Random, ids: list[str]) -> Iterator[tuple[int, int]]:
    """Distinct (follower, followed) pairs; the followed users by a power law."""
    people = len(ids)
    for follower in range(people):
        wanted = min(people - 1, FOLLOWS)
        followed: set[int] = set()
        while len(followed) < wanted:
            other = int(people * chance.random() ** 3)
            if other != follower:
                followed.add(other)
        yield from ((follower, other) for other in followed)


def _edge_items(ids: list[str], edges: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    texts, at = [{"S": one} for one in ids], {"N": str(NOW)}
    return ({"follower_id": texts[a], "followed_id": texts[b], "created_at": at} for a, b in edges)


def _users(
    chance: random.Random, ids: list[str], tables: Mapping[str, Table], edges: list[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    followers, following = [0] * len(ids), [0] * len(ids)
    for a, b in edges:
        following[a] += 1
        followers[b] += 1
    posted: dict[str, int] = {}
    for item in tables["posts"].items.values():
        author = item["author_id"]["S"]
        posted[author] = posted.get(author, 0) + 1
    today = day_of(NOW)
    for place, user_id in enumerate(ids):
        idle = _idle(place, len(ids))
        user = User(
            user_id=user_id,
            email=f"first.last.{place}@example.com",
            name="First Lastname",
            created_at=NOW - 300 * DAY_SECONDS,
            last_active_day=add_days(today, -idle),
            active_days=chance.getrandbits(36) | 1,
            followers_count=followers[place] + (chance.random() < CHANGED),
            following_count=following[place],
            posts_count=posted.get(user_id, 0),
        )
        item = to_item(users.to_values(user))
        if idle > 40:
            item["signed_out_at"] = {"N": str(NOW - 10**6)}
        yield item


def _idle(place: int, people: int) -> int:
    """Days since the user was active: 0.3% have just become dormant, 40% long ago; the others are active each week."""
    share = (place * 7919 % people) / people
    if share < DORMANT:
        return 31
    return 100 if share < 0.4 else place % 7


def _signed_in(ids: list[str]) -> Iterator[tuple[str, int]]:
    """(user, when last seen) of every user with sessions and tokens."""
    for place, user_id in enumerate(ids):
        idle = _idle(place, len(ids))
        if idle <= 40:
            yield user_id, NOW - idle * DAY_SECONDS - (DAY_SECONDS if idle == 31 else 0)


def _sessions(chance: random.Random, ids: list[str]) -> Iterator[Any]:
    for user_id, seen in _signed_in(ids):
        session = Session(user_id, new_key(seen, chance.getrandbits(40)), seen, seen, NOW + 30 * DAY_SECONDS)
        yield asdict(session)


def _tokens(chance: random.Random, ids: list[str]) -> Iterator[Any]:
    for user_id, issued in _signed_in(ids):
        for _ in range(2):
            expires = NOW - 3_600 if chance.random() < 0.03 else NOW + 20 * DAY_SECONDS
            token = Token(user_id, new_key(issued, chance.getrandbits(40)), issued, expires)
            yield asdict(token)
