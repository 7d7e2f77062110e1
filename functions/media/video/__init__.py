"""Clips: an MP4, a poster and a preview of each, made by a sandbox's child, which holds nothing worth stealing.

`supervisor` has it made and believes nothing that the child says; `worker` and what it imports are the only code here
that loads FFmpeg. AWS, posts and runs do not belong here; the pictures made of a poster belong to `pictures`.
"""

from video.job import Limits
from video.rules import container_of
from video.supervisor import Video, render

__all__ = ["Limits", "Video", "container_of", "render"]
