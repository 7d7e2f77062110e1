"""Clips: an MP4, a poster and a preview of each, made by a worker process that holds nothing worth stealing.

`supervisor` starts that process and believes nothing it says; `worker` and what it imports are the only code here that
loads FFmpeg. AWS, posts and runs do not belong here; the pictures made of a poster belong to `pictures`.
"""

from video.job import Limits
from video.rules import container_of
from video.supervisor import Rendition, Unfinished, Video, render

__all__ = ["Limits", "Rendition", "Unfinished", "Video", "container_of", "render"]
