"""The properties of the digest's ranking: whose posts it has, in which order, and which never."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from digest.ranking import Candidate, Reader, is_eligible, rank

PEOPLE = [f"u{number}" for number in range(7)]
READER = "u0"

candidates = st.builds(
    Candidate,
    post_id=st.integers(0, 40).map("p{}".format),
    author_id=st.sampled_from(PEOPLE),
    engagement=st.integers(0, 12),
    created_at=st.integers(0, 6),
)
weeks = st.lists(candidates, max_size=40, unique_by=lambda post: post.post_id)
some_people = st.frozensets(st.sampled_from(PEOPLE), max_size=5)
readers = st.builds(
    Reader,
    user_id=st.just(READER),
    follows=some_people,
    blocked=some_people,
    already_sent=st.frozensets(st.integers(0, 40).map("p{}".format), max_size=10),
)
many = settings(max_examples=150)


@many
@given(weeks, readers)
def test_a_reader_gets_no_excluded_post(week: list[Candidate], reader: Reader) -> None:
    for post in rank(week, reader):
        assert post in week
        assert post.author_id != reader.user_id
        assert post.author_id not in reader.blocked
        assert post.post_id not in reader.already_sent


@many
@given(weeks, readers)
def test_followed_authors_come_first_and_each_part_is_ordered_by_engagement(
    week: list[Candidate], reader: Reader
) -> None:
    chosen = rank(week, reader)
    followed = [post.author_id in reader.follows for post in chosen]
    assert followed == sorted(followed, reverse=True)
    for part in (True, False):
        scores = [post.engagement for post, by_followed in zip(chosen, followed, strict=True) if by_followed is part]
        assert scores == sorted(scores, reverse=True)


@many
@given(weeks, readers, st.integers(1, 9), st.integers(1, 4))
def test_no_better_post_is_left_out_of_a_ranking(
    week: list[Candidate], reader: Reader, limit: int, per_author: int
) -> None:
    """What is left out is worse than all that is in, or by an author who has their share, or not for this reader."""
    chosen = rank(week, reader, limit=limit, per_author=per_author)
    by_author = Counter(post.author_id for post in chosen)
    assert len(chosen) <= limit
    assert all(count <= per_author for count in by_author.values())

    def worth(post: Candidate) -> tuple[bool, float]:
        return post.author_id in reader.follows, post.engagement

    for post in week:
        if post in chosen or not is_eligible(post, reader):
            continue
        full = by_author[post.author_id] == per_author
        if not full:
            assert len(chosen) == limit
            assert worth(post) <= worth(chosen[-1])
        else:
            assert worth(post) <= min(worth(one) for one in chosen if one.author_id == post.author_id)


@many
@given(weeks, readers, st.randoms(use_true_random=False))
def test_the_order_in_which_posts_were_read_does_not_matter(
    week: list[Candidate], reader: Reader, random: object
) -> None:
    shuffled = [*week, *week[:5]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rank(shuffled, reader) == rank(week, reader)


@many
@given(weeks, readers)
def test_a_reader_gets_no_post_twice(week: list[Candidate], reader: Reader) -> None:
    """Digest after digest, the reader sees each post once, and in the end nothing is left."""
    seen: set[str] = set()
    for _ in range(60):
        chosen = rank(week, replace(reader, already_sent=reader.already_sent | seen))
        if not chosen:
            break
        ids = {post.post_id for post in chosen}
        assert not ids & seen
        seen |= ids
    assert not rank(week, replace(reader, already_sent=reader.already_sent | seen))
    assert seen == {post.post_id for post in week if is_eligible(post, reader)}


def test_followed_authors_come_first_then_engagement_then_time() -> None:
    reader = Reader("ada", follows=frozenset({"bea"}), blocked=frozenset({"eve"}))
    week = [
        Candidate("top", "cleo", 900, 3),
        Candidate("hers", "bea", 5, 1),
        Candidate("blocked", "eve", 999, 2),
        Candidate("own", "ada", 998, 2),
        Candidate("tie-newer", "dan", 7, 9),
        Candidate("tie-older", "fay", 7, 8),
    ]
    assert [post.post_id for post in rank(week, reader)] == ["hers", "top", "tie-newer", "tie-older"]
