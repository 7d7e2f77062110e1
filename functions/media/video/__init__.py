"""Clips: an MP4, a poster and a preview of each, made by a sandbox's child, which has no secrets.

`supervisor` runs the child and does not trust its output; only `worker` and its imports load FFmpeg.
AWS, posts and runs do not belong here; the pictures made of a poster belong to `pictures`.
"""

from video.job import Limits
from video.rules import container_of
from video.supervisor import Video, render

__all__ = ["Limits", "Video", "container_of", "render"]
