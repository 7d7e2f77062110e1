"""Models of the test project, which tests/support/django_project/mirrors.py maps to the network's rows."""

import uuid
from typing import Any, ClassVar

from django.db import models


class Person(models.Model):
    email: Any = models.EmailField(blank=True)
    first: Any = models.CharField(max_length=100)
    last: Any = models.CharField(max_length=100, blank=True)
    wants_digest: Any = models.BooleanField(default=True)
    joined: Any = models.DateTimeField(auto_now_add=True)
    seen: Any = models.DateTimeField(null=True)
    saved: Any = models.DateTimeField(auto_now=True)
    followers_count: Any = models.IntegerField(default=0)
    blocks: Any = models.ManyToManyField("self", symmetrical=False, related_name="blocked_by")

    class Meta:
        app_label = "project"


class Follow(models.Model):
    follower: Any = models.ForeignKey(Person, models.CASCADE, related_name="+")
    followed: Any = models.ForeignKey(Person, models.CASCADE, related_name="+")

    class Meta:
        app_label = "project"


class Post(models.Model):
    author: Any = models.ForeignKey(Person, models.CASCADE)
    words: Any = models.TextField()
    picture: Any = models.BinaryField(default=b"")
    draft: Any = models.BooleanField(default=False)
    for_followers: Any = models.BooleanField(default=False)
    made: Any = models.DateTimeField(auto_now_add=True)
    saved: Any = models.DateTimeField(auto_now=True)
    views: Any = models.IntegerField(default=0)
    likers: Any = models.ManyToManyField(Person, related_name="liked")
    score: Any = models.IntegerField(default=0)
    media: Any = models.JSONField(null=True)

    class Meta:
        app_label = "project"


class Comment(models.Model):
    post: Any = models.ForeignKey(Post, models.CASCADE)
    author: Any = models.ForeignKey(Person, models.CASCADE)
    words: Any = models.TextField()
    made: Any = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "project"
        ordering: ClassVar = ["-made"]


class Device(models.Model):
    owner: Any = models.ForeignKey(Person, models.CASCADE)
    made: Any = models.DateTimeField(auto_now_add=True)
    until: Any = models.DateTimeField()

    class Meta:
        app_label = "project"


class Refresh(models.Model):
    owner: Any = models.ForeignKey(Person, models.CASCADE)
    jti: Any = models.CharField(max_length=64)
    made: Any = models.DateTimeField(auto_now_add=True)
    until: Any = models.DateTimeField()

    class Meta:
        app_label = "project"


class Member(models.Model):
    id: Any = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email: Any = models.EmailField()
    made: Any = models.DateTimeField(auto_now_add=True)
    friends: Any = models.ManyToManyField("self")

    class Meta:
        app_label = "project"


class MemberByAnotherName(Member):
    class Meta:
        app_label = "project"
        proxy = True


class Pair(models.Model):
    pk: Any = models.CompositePrimaryKey("one_id", "other_id")
    one: Any = models.ForeignKey(Member, models.CASCADE, related_name="+")
    other: Any = models.ForeignKey(Member, models.CASCADE, related_name="+")

    class Meta:
        app_label = "project"


class Tag(models.Model):
    name: Any = models.CharField(max_length=100, unique=True)
    score: Any = models.IntegerField(default=0)
    uses: Any = models.IntegerField(default=0)

    class Meta:
        app_label = "project"
