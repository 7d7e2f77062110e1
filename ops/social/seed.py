"""Demo data: a believable small social network, the same for the same seed, written through the repositories.

Popularity follows a power law, most people are silent and some dormant, one hashtag bursts today, tokens have expired,
some posts are a year old and unread, last night's counts and scores are stale: every job has something to do. Ids
depend only on the seed, so seeding again replaces the same rows; times are relative to now.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from social.data import blocks, comments, follows, posts, sessions, users
from social.data.comments import Comment
from social.data.days import DAY_SECONDS, HOUR_SECONDS, day_of, start_of
from social.data.ids import new_key
from social.data.posts import Counters, Post, Visibility
from social.data.sessions import Session, Token
from social.data.users import ACTIVITY_DAYS, User

BURST_TAG = "launchday"
THREADS = 8
_EPOCH = 1_700_000_000  # where the ids' time begins; the rows' own times are relative to now


def _words(text: str) -> Sequence[str]:
    return tuple(text.split())


_FIRST = _words(
    "Ada Ben Chloé Dario Elif Farid Grace Hugo Inès Jun Kofi Léa Mina Noor Otto Priya Quinn Rosa Sam Théo Uma Vera Wen "
    "Yara Zoe"
)
_LAST = _words(
    "Almeida Bauer Chen Diallo Evans Fontaine García Haddad Ito Jansen Kowalska Lefèvre Moreau Novak Okafor Petit Rossi"
)
_WORDS = _words(
    "morning light on the river finally finished this small garden project after three weeks and it was worth every "
    "hour thinking about what makes a city walkable new recipe tonight with lemon and thyme who else is reading this "
    "book slow train through the mountains snow again first try at film photography in years the market opens at eight"
)
_TAGS = _words(
    "travel food photography music books running cycling garden coffee film design art science history nature code "
    "weekend morning recipe street portrait blackandwhite minimal diy tea hiking jazz poetry été 日本 übung"
)


@dataclass(slots=True)
class Network:
    """A generated network. Edges and blocks are (from, to, seconds since 1970)."""

    users: list[User] = field(default_factory=list)
    follows: list[tuple[str, str, int]] = field(default_factory=list)
    blocks: list[tuple[str, str, int]] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SeedReport:
    """Rows written by table, the DynamoDB request units used, and seconds."""

    rows: Mapping[str, int]
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.rows.values())


type OnProgress = Callable[[int, int, str], None]
"""Called with (rows written, total rows, table)."""


def seed(
    users: int = 10_000,
    seed: int = 1,
    on_progress: OnProgress = lambda _done, _total, _table: None,
    *,
    now: float | None = None,
) -> SeedReport:
    """Generates a network with `count` users and writes it. Other rows in the tables stay."""
    started = time.monotonic()
    moment = int(time.time() if now is None else now)
    rows = write(generate(users, seed, moment), moment, on_progress)
    return SeedReport(rows, round(time.monotonic() - started, 1))


def write(
    network: Network, now: int, on_progress: OnProgress = lambda _done, _total, _table: None
) -> Mapping[str, int]:
    """Writes a network. Returns the number of rows by table."""
    tables: Sequence[tuple[str, Sequence[object], Callable[[Sequence[object]], int]]] = (
        ("users", network.users, lambda some: users.put_many(some, threads=THREADS)),  # type: ignore[arg-type]
        ("follows", network.follows, lambda some: follows.put_many(some, threads=THREADS)),  # type: ignore[arg-type]
        ("blocks", network.blocks, lambda some: blocks.put_many(some, threads=THREADS)),  # type: ignore[arg-type]
        ("posts", network.posts, lambda some: posts.put_many(some, now=now, threads=THREADS)),  # type: ignore[arg-type]
        ("comments", network.comments, lambda some: comments.put_many(some, threads=THREADS)),  # type: ignore[arg-type]
        ("sessions", network.sessions, lambda some: sessions.put_sessions(some, threads=THREADS)),  # type: ignore[arg-type]
        ("tokens", network.tokens, lambda some: sessions.put_tokens(some, threads=THREADS)),  # type: ignore[arg-type]
    )
    total, done = sum(len(rows) for _, rows, _ in tables), 0
    for name, rows, put in tables:
        for start in range(0, len(rows), 1000):
            done += put(rows[start : start + 1000])
            on_progress(done, total, name)
    return {name: len(rows) for name, rows, _ in tables}


def generate(count: int, seed: int, now: int) -> Network:
    """The network for a seed, as of `now`."""
    chance = random.Random(seed)  # noqa: S311 - demo data
    network = Network(users=[_user(chance, number, now) for number in range(count)])
    popularity = _popularity(chance, count)
    _edges(chance, network, popularity, now)
    for user, weight in zip(network.users, popularity, strict=True):
        for _ in range(min(200, int(chance.paretovariate(1.3)) - (chance.random() < 0.35))):
            _post(chance, network, user, weight, now)
    _credentials(chance, network, now)
    _counts(chance, network)
    return network


def _key(chance: random.Random, number: int) -> str:
    return new_key(_EPOCH + number, chance.getrandbits(40))


def _user(chance: random.Random, number: int, now: int) -> User:
    first, last = chance.choice(_FIRST), chance.choice(_LAST)
    created = now - int(chance.uniform(0, 730) * DAY_SECONDS)
    # A third was active this week, a quarter this month, the others up to a year ago or never since registering.
    idle = chance.choices((chance.uniform(0, 7), chance.uniform(7, 30), chance.uniform(30, 400)), (35, 25, 40))[0]
    active = max(created, now - int(idle * DAY_SECONDS))
    days = 1 | chance.getrandbits(ACTIVITY_DAYS) & chance.getrandbits(ACTIVITY_DAYS)
    return User(
        user_id=_key(chance, number),
        email=f"{first}.{last}.{number}@example.com".lower().encode("ascii", "ignore").decode(),
        name=f"{first} {last}",
        created_at=created,
        last_active_day=day_of(active),
        locale=chance.choices(("en", "fr", "en-GB", "de"), (60, 25, 10, 5))[0],
        digest=chance.random() < 0.8,
        suppressed="bounce" if chance.random() < 0.01 else None,
        active_days=days,
    )


def _popularity(chance: random.Random, count: int) -> list[float]:
    """Zipf weights for the users in random order; the most popular has weight 1."""
    ranks = list(range(1, count + 1))
    chance.shuffle(ranks)
    return [rank**-0.85 for rank in ranks]


def _edges(chance: random.Random, network: Network, popularity: Sequence[float], now: int) -> None:
    people = network.users
    cumulative, total = [], 0.0
    for weight in popularity:
        total += weight
        cumulative.append(total)
    for user in people:
        wanted = min(len(people) - 1, int(chance.lognormvariate(1.2, 1.0)))
        followed = {other.user_id for other in chance.choices(people, cum_weights=cumulative, k=wanted)}
        for other in sorted(followed - {user.user_id}):
            network.follows.append((user.user_id, other, now - int(chance.uniform(0, 365) * DAY_SECONDS)))
        if chance.random() < 0.03:
            blocked = chance.choice(people).user_id
            if blocked != user.user_id:
                network.blocks.append((user.user_id, blocked, now - DAY_SECONDS))


def _post(chance: random.Random, network: Network, author: User, popularity: float, now: int) -> None:
    kind = chance.random()
    if kind < 0.12:
        age = chance.uniform(366, 700) * DAY_SECONDS
    elif kind < 0.35:
        age = chance.uniform(0, 36) * HOUR_SECONDS
    else:
        age = min(365.0, chance.expovariate(1 / 12)) * DAY_SECONDS
    created = max(now - int(age), 1_704_067_200)
    recent = age < 12 * HOUR_SECONDS
    tags = {
        chance.choice(_TAGS[: int(len(_TAGS) * chance.random()) + 1]) for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))
    }
    if recent and chance.random() < 0.4:
        tags.add(BURST_TAG)
    visibility: Visibility = chance.choices(("public", "followers", "private"), (85, 10, 5))[0]
    words = " ".join(chance.choice(_WORDS) for _ in range(chance.randint(4, 30)))
    post_id = _key(chance, len(network.posts))
    made_comments = [
        _comment(chance, network, post_id, created, now) for _ in range(_how_many_comments(chance, popularity))
    ]
    network.comments += made_comments
    silent = chance.random() < (0.7 if age > 366 * DAY_SECONDS else 0.2)
    views = chance.randrange(10) if silent else int(chance.lognormvariate(2.5 + 4 * popularity, 1.2))
    counters = Counters(
        likes=0 if silent else int(views * chance.betavariate(1.2, 8)),
        comments=len(made_comments),
        shares=0 if silent else int(views * chance.betavariate(0.5, 30)),
        views=views,
    )
    post = Post(
        post_id=post_id,
        author_id=author.user_id,
        created_at=created,
        text=words + "".join(f" #{tag}" for tag in sorted(tags)),
        visibility=visibility,
        hashtags=tuple(sorted(tags)),
        counters=counters,
    )
    # Two thirds of the posts were scored last night and have not changed since.
    scored = posts.engagement_score(counters) if chance.random() < 0.66 else 0
    network.posts.append(replace(post, engagement_score=scored))


def _how_many_comments(chance: random.Random, popularity: float) -> int:
    return 0 if chance.random() < 0.5 else min(40, int(chance.expovariate(1.0) * (1 + 20 * popularity)))


def _comment(chance: random.Random, network: Network, post_id: str, posted: int, now: int) -> Comment:
    at = min(now, posted + int(chance.expovariate(1 / (8 * HOUR_SECONDS))))
    words = " ".join(chance.choice(_WORDS) for _ in range(chance.randint(1, 12)))
    author = chance.choice(network.users).user_id
    return Comment(post_id, new_key(_EPOCH + posted % 10**6, chance.getrandbits(40)), author, at, words)


def _credentials(chance: random.Random, network: Network, now: int) -> None:
    for number, user in enumerate(network.users):
        seen = min(now, start_of(user.last_active_day) + chance.randrange(DAY_SECONDS))
        for device in range(chance.choice((1, 1, 1, 2, 3))):
            opened = seen - int(chance.uniform(0, 60) * DAY_SECONDS)
            until = opened + 90 * DAY_SECONDS
            session = Session(user.user_id, _key(chance, number * 4 + device), opened, max(opened, seen), until)
            network.sessions.append(session)
            issued = max(opened, seen - int(chance.uniform(0, 3) * DAY_SECONDS))
            life = chance.choice((1, 7, 30)) * DAY_SECONDS
            token = Token(user.user_id, _key(chance, number * 4 + device), issued, issued + life, session.session_id)
            network.tokens.append(token)


def _counts(chance: random.Random, network: Network) -> None:
    """Sets last night's counts: correct for two users in three, wrong for the others."""
    followers: dict[str, int] = {}
    following: dict[str, int] = {}
    posted: dict[str, int] = {}
    for source, target, _ in network.follows:
        following[source] = following.get(source, 0) + 1
        followers[target] = followers.get(target, 0) + 1
    for post in network.posts:
        posted[post.author_id] = posted.get(post.author_id, 0) + 1
    for place, user in enumerate(network.users):
        off = 0 if chance.random() < 0.66 else chance.randint(1, 3)
        network.users[place] = replace(
            user,
            followers_count=followers.get(user.user_id, 0) + off,
            following_count=following.get(user.user_id, 0),
            posts_count=math.floor(posted.get(user.user_id, 0) / (1 + off)),
        )
