"""Decodes untrusted bytes in a separate process that has no secrets and no access to files, network or AWS.

    made = sandbox.run("pictures.worker", job, files, memory=1 << 30, output_bytes=1 << 28, seconds=60)

The bytes may be hostile, and a decoder is a million lines of C. Three processes isolate them:

- The function (`supervisor`) holds the credentials and decodes nothing. It opens the files and does not trust the
  others' output.
- The server (`server`) has neither credentials nor hostile bytes. It starts once in a warm function, imports the
  decoders of pictures, and forks a child for each upload: starting Python would cost a fifth of a picture, a
  fork costs a hundredth.
- The child gives up everything (`confinement`) before it reads the first byte, and lives for one upload, so an
  exploit reaches no other upload. It is killed with all its descendants.

Credentials, posts and AWS do not belong here, nor does knowledge of pictures or clips.
"""

from sandbox.supervisor import OutOfTime, Rendition, Unavailable, Unfinished, checked, run, start, stop

__all__ = ["OutOfTime", "Rendition", "Unavailable", "Unfinished", "checked", "run", "start", "stop"]
