"""The background tasks about posts."""

import io

from django.tasks import TaskContext, task
from PIL import Image, ImageOps, UnidentifiedImageError

from nexus.django import policy
from posts.models import Post

EDGE = 320


@policy(max_attempts=4)
@task(takes_context=True)
def make_thumbnail(context: TaskContext, post_id: int) -> dict[str, int]:
    """Makes the post's thumbnail, or stores why it cannot be made."""
    post = Post.objects.only("original").get(pk=post_id)
    try:
        with Image.open(io.BytesIO(bytes(post.original))) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError):
        Post.objects.filter(pk=post_id).update(rejected="This file is not a supported picture.")
        return {"attempt": context.attempt, "bytes": 0}
    upright.thumbnail((EDGE, EDGE))
    file = io.BytesIO()
    upright.save(file, "WEBP", quality=80)
    Post.objects.filter(pk=post_id).update(thumbnail=file.getvalue(), rejected="")
    return {"attempt": context.attempt, "bytes": file.tell()}
