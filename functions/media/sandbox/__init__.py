"""Where somebody else's bytes are decoded: in a process of their own, which holds nothing and can reach nothing.

    made = sandbox.run("pictures.worker", job, files, memory=1 << 30, output_bytes=1 << 28, seconds=60)

The bytes are hostile, and a decoder is a million lines of C. Three processes keep what they do apart:

- The function (`supervisor`) holds the credentials and decodes nothing. It opens the files and believes nothing that
  the others say.
- The server (`server`) has neither credentials nor hostile bytes. It starts once in a warm function, imports the
  decoders of pictures, and forks a child for each upload: a start of Python would cost a fifth of a picture, a fork
  costs a hundredth.
- The child gives up everything (`confinement`) before it reads the first byte, and lives for one upload: what takes it
  over meets no other upload. It is killed with all that it started.

Credentials, posts and AWS do not belong here, and neither does what a picture or a clip is.
"""

from sandbox.supervisor import Rendition, Unfinished, run, start, stop

__all__ = ["Rendition", "Unfinished", "run", "start", "stop"]
