"""The measured peer: a Celery application on Redis with the same no-op task. Runs in .venv-bench.

BROKER=unix-socket-or-url RESULTS=0|1 LATE=0|1 HIREDIS=0|1 celery -A bench.runtime.celery_side worker ...
python -m bench.runtime.celery_side MESSAGES        (the producer; its figures as a line of JSON)
"""

import json
import os
import sys
import time

if os.environ.get("HIREDIS") != "1":
    sys.modules["hiredis"] = None  # type: ignore[assignment] # as if only celery[redis] were installed

from celery import Celery  # type: ignore[import-untyped,import-not-found,unused-ignore]

broker = os.environ.get("BROKER", "redis://127.0.0.1:6379/0")
app = Celery("noop", broker=broker, backend=broker if os.environ.get("RESULTS") == "1" else None)
app.conf.task_acks_late = os.environ.get("LATE") == "1"
app.conf.broker_connection_retry_on_startup = True


@app.task(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
def noop(user_id: str) -> dict[str, bool]:
    """One argument in, one field out, as on our side."""
    return {"done": bool(user_id)}


def main(messages: int) -> None:
    for n in range(50):
        noop.delay(f"user-{n}")
    began = time.process_time()
    for n in range(messages):
        noop.delay(f"user-{n}")
    print(json.dumps({"microseconds": (time.process_time() - began) / messages * 1e6}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
