"""The mirrors of the test project's models in the network."""

from django.db.models import Case, Q, Value, When
from django.db.models.functions import Concat

from social.django import (
    Blocks,
    Comments,
    Follows,
    Likes,
    PostFigures,
    Posts,
    Sessions,
    Tokens,
    Trends,
    UserCounts,
    Users,
)

MIRRORS = [
    Users(
        "project.Person",
        email="email",
        name=Concat("first", Value(" "), "last"),
        digest="wants_digest",
        created_at="joined",
        last_active_at="seen",
        changed_at="saved",
    ),
    Posts(
        "project.Post",
        author_id="author",
        text="words",
        created_at="made",
        visibility=Case(When(for_followers=True, then=Value("followers")), default=Value("public")),
        views_count="views",
        where=Q(draft=False),
        changed_at="saved",
    ),
    Follows("project.Follow", follower_id="follower", followed_id="followed"),
    Comments("project.Comment", post_id="post", author_id="author_id", text="words", created_at="made"),
    Likes("project.Post_likers", post_id="post"),
    Blocks("project.Person_blocks", user_id="from_person", blocked_id="to_person"),
    Sessions("project.Device", user_id="owner", created_at="made", expires_at="until"),
    Tokens("project.Refresh", user_id="owner", token_id="jti", issued_at="made", expires_at="until"),
]
READ_BACKS = [
    UserCounts("project.Person", "pk", followers_count="followers_count"),
    PostFigures("project.Post", "pk", engagement_score="score", media="media"),
    Trends("project.Tag", "name", score="score", uses="uses"),
]
