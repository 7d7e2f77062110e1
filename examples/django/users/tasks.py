"""The background tasks about users. Each is idempotent, so it may be retried."""

from django.contrib.auth import get_user_model
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.tasks import task
from django.utils import timezone

from nexus.django import policy
from nexus.errors import Reject
from users.models import Follow, Notification, Profile


@policy(max_attempts=4)
@task
def welcome(user_id: int) -> str:
    """Welcomes a newly registered user, at most once."""
    user = get_user_model().objects.filter(pk=user_id).first()
    if user is None:
        raise Reject(f"there is no user {user_id}")
    _, made = Notification.objects.get_or_create(
        key=f"welcome-{user.pk}", defaults={"user": user, "text": f"Welcome, {user.get_username()}!"}
    )
    return "sent" if made else "sent before"


@policy(max_attempts=4, time_limit=100, unique=True)
@task
def update_user_statistics() -> dict[str, int]:
    """Counts every user's followers and posts, in two statements."""
    from posts.models import Post

    users = get_user_model()
    missing = users.objects.filter(profile=None)
    made = Profile.objects.bulk_create([Profile(user=user) for user in missing.iterator()], ignore_conflicts=True)
    followers = Follow.objects.filter(followed=OuterRef("user")).values("followed").annotate(n=Count("*")).values("n")
    posts = Post.objects.filter(author=OuterRef("user")).values("author").annotate(n=Count("*")).values("n")
    counted = Profile.objects.update(
        followers_count=Coalesce(Subquery(followers), 0),
        posts_count=Coalesce(Subquery(posts), 0),
        counted_at=timezone.now(),
    )
    return {"counted": counted, "new": len(made)}
