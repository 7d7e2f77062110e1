"""`make bench-media`: what a picture costs, what its sandbox adds, how long an upload takes, then what a clip costs."""

import subprocess
import sys

for part in ("pictures", "sandbox_cost", "latency", "video"):
    # Each in a separate process: one's memory would raise the other's peaks.
    print(f"\n{part}\n", flush=True)
    done = subprocess.run([sys.executable, "-m", f"bench.media.{part}"], check=False)
    if done.returncode:
        sys.exit(done.returncode)
