"""Posts."""

from typing import ClassVar

from django.conf import settings
from django.db import models


class Post(models.Model):
    """A picture with a text. A larger site keeps pictures in S3; here they are in the database, which needs no setup.

    `thumbnail` is made by `posts.tasks.make_thumbnail`; `rejected` is why there is none.
    """

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="posts")
    text = models.CharField(max_length=500)
    original = models.BinaryField()
    thumbnail = models.BinaryField(null=True, blank=True)
    rejected = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Newest first."""

        ordering: ClassVar = ["-created_at"]

    def __str__(self) -> str:
        return self.text
