"""Maps a Django project's own models to the network's users, posts, follows and so on, so the nine tasks work on them.

    INSTALLED_APPS = [..., "nexus.django", "social.django"]
    SOCIAL = {"STACK": "nexus-prod", "MIRRORS": "mysite.mirrors"}

    # mysite/mirrors.py
    from social.django import Follows, Posts, Users
    MIRRORS = [
        Users("auth.User", email="email", name="username", created_at="date_joined", last_active_at="last_login"),
        Posts("posts.Post", author_id="author_id", text="text", created_at="created_at"),
        Follows("users.Follow", follower_id="follower_id", followed_id="followed_id"),
    ]

A change of a row writes a task into the outbox, in the row's own transaction. The task writes the row's state when it
runs, and checks again afterwards: so changes may be delivered in any order, and more than once. See docs/django.md.
"""

from social.django.conf import network
from social.django.kinds import Blocks, Comments, Follows, Likes, Posts, Sessions, Tokens, Users
from social.django.reading import PostFigures, Trends, UserCounts, attach
from social.django.signals import mirrored

__all__ = [
    "Blocks",
    "Comments",
    "Follows",
    "Likes",
    "PostFigures",
    "Posts",
    "Sessions",
    "Tokens",
    "Trends",
    "UserCounts",
    "Users",
    "attach",
    "mirrored",
    "network",
]
