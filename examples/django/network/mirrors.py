"""The project's models as the social network's: its tasks count, score, mail and erase for them. See docs/django.md."""

from django.db.models import Case, CharField, Value, When
from django.db.models.functions import Cast, Concat

from social.django import Follows, Posts, UserCounts, Users

# This site does not ask for an address. A user without one is in the network but gets no mail.
NO_ADDRESS = When(email="", then=Concat(Cast("pk", CharField()), Value("@example.invalid")))

MIRRORS = [
    Users(
        "auth.User",
        email=Case(NO_ADDRESS, default="email", output_field=CharField()),
        suppressed=Case(When(email="", then=Value("no address"))),
        name="username",
        created_at="date_joined",
        last_active_at="last_login",
    ),
    Posts("posts.Post", author_id="author", text="text", created_at="created_at", changed_at="created_at"),
    Follows("users.Follow", follower_id="follower", followed_id="followed"),
]
READ_BACKS = [UserCounts("users.Profile", "user", followers_count="followers_count", posts_count="posts_count")]
