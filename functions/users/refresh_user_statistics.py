"""refresh_user_statistics: one user's followers_count, following_count and posts_count, now.

Three counting queries: the user's edges, the index `followers` and the posts' index by author. A celebrity's
followers take many pages; a run short of time continues in another invocation. The counts carry the second at which
counting began, so neither a nightly count that began earlier nor this one overwrites what was counted later.
"""

from collections.abc import Callable, Iterator

from nexus import clock
from nexus.aws.table import Page
from nexus.errors import Reject
from nexus.worker import Continuation, Run, handler_for, implements
from social import catalogue
from social.catalogue import RefreshUserStatistics, UserStatistics
from social.data import follows, posts, users
from social.data.users import COUNTS, Counts

QUERIES: dict[str, Callable[..., Iterator[Page]]] = {
    "followers_count": follows.count_followers,
    "following_count": follows.count_followed,
    "posts_count": posts.count_by,
}


@implements(catalogue.refresh_user_statistics)
def refresh_user_statistics(args: RefreshUserStatistics, run: Run) -> UserStatistics | Continuation:
    """Counts and writes. Rejects an unknown user."""
    cursor = run.cursor or {}
    started_at = int(cursor.get("started_at", clock.now()))
    counts = {name: int(cursor.get(name, 0)) for name in COUNTS}
    first = COUNTS.index(cursor["counting"]) if cursor else 0
    for place, name in enumerate(COUNTS[first:], first):
        start = cursor.get("start") if place == first else None
        for page in QUERIES[name](args.user_id, start=start):
            counts[name] += page.scanned
            if run.short_of_time and page.next_key is not None:
                return run.continue_from({"started_at": started_at, "counting": name, "start": page.next_key, **counts})
    written = users.set_counts([Counts(args.user_id, **counts, counted_at=started_at)])[0]
    if not written and not users.exists(args.user_id):
        raise Reject(f"no user {args.user_id}")
    return UserStatistics(user_id=args.user_id, **counts)


handler = handler_for(refresh_user_statistics)
