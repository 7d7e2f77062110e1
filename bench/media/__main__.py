"""`make bench-media`: the cost of a picture, of its stages and its sandbox, an upload's latency, the cost of a clip."""

import shutil
import subprocess
import sys

if not shutil.which("ffmpeg"):
    sys.exit("bench-media compares with the ffmpeg command: install it (apt-get install ffmpeg) and run this again")
missed = []
for part in ("pictures", "picture_stages", "sandbox_cost", "latency", "video"):
    # Each runs in its own process, so that its memory does not count in another's peak.
    print(f"\n{part}\n", flush=True)
    if subprocess.run([sys.executable, "-m", f"bench.media.{part}"], check=False).returncode:
        missed.append(part)
if missed:
    sys.exit(f"failed, or missed a target: {', '.join(missed)}")
