"""Measures the run history: its cost per run, and the requests and time of a search of a million runs.

    make bench-history                              (or: python -m bench.history [--runs 1000000] [--latency 8])

The runs are on the stand-in of bench.jobs, in this process. It serves one request at a time; its own CPU time is
subtracted, and each request additionally waits `--latency` milliseconds.
"""

import argparse
import random
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from bench import deployment, tables
from bench.jobs import stand_in
from bench.jobs.stand_in import StandIn
from nexus import prices
from nexus.aws import sdk
from nexus.aws.dynamodb import to_item
from nexus.backend import backend
from nexus.backend.store import Write
from nexus.envelope import Envelope
from nexus.ids import new_id
from nexus.runs import history, transitions
from nexus.runs.record import RunError

DAYS, USERS, FAILED = 7, 100_000, 0.01
BY_USER = ("send_notification", "refresh_user_statistics", "send_welcome_email", "revoke_user_tokens")
OTHER = ("process_media_upload", "record_mail_feedback", "update_trending_hashtags", "cleanup_old_posts")
WEIGHTS = (50, 15, 4, 1, 25, 4, 0.9, 0.1)
NOW = 1_800_000_000.0


def main() -> None:
    parser = argparse.ArgumentParser(description="What the run history costs, and how long searches take.")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=8.0, help="milliseconds that each request waits")
    options = parser.parse_args()
    deployment.enter(NEXUS_CLIENT="boto3")  # its events allow adding latency
    costs()
    searches(options.runs, options.latency / 1000)


# --- what a run costs ---


def costs() -> None:
    """Write units per run, with and without the index."""
    lives = {
        "sent, claimed, SUCCESS": ({"kind": "x"}, None),
        "the same, with a searchable argument": ({"user_id": "u-1"}, None),
        "sent, claimed, FAILURE": ({"user_id": "u-1"}, RunError("Timeout", "too slow")),
    }
    rows = []
    for name, (args, error) in lives.items():
        with_it, without = (_life(args, error, kept=kept) for kept in (True, False))
        rows.append([name, f"{with_it:.2f}", f"{without:.2f}", f"{(with_it - without) * prices.WRITE_UNIT * 1e6:.3f}"])
    header = ["a run", "write units", "without the history", "dollars more per million"]
    tables.show("history-costs", tables.markdown(header, rows))


def _life(args: dict[str, Any], error: RunError | None, *, kept: bool) -> float:
    """Average units per run, over a hundred runs."""
    table = stand_in.tables()["task-runs"]
    if not kept:
        del table.indexes["history"]
    with StandIn([table]).installed() as cloud:
        for _ in range(100):
            envelope = Envelope(id=new_id(), task="send_notification", args=args)
            store = backend().store
            store.apply(transitions.pending(envelope, "default", 2_000_000_000))
            by = transitions.Claim("t", "default", NOW, NOW + 60, 2_000_000_000)
            claim = transitions.claim(envelope, {"id": envelope.id, "status": "PENDING"}, by, 4)
            assert isinstance(claim, Write)
            store.apply(claim)
            end = (
                transitions.fail(envelope.id, "t", error, NOW)
                if error
                else transitions.succeed(envelope.id, "t", '{"sent":true}', NOW)
            )
            store.apply(end)
        return cloud.spent.write_units / 100


# --- searches ---


def searches(count: int, latency: float) -> None:
    """A page of 50 of each kind of search."""
    from ops import catalogue
    from ops import history as searching
    from ops.history import Query
    from social.catalogue import QUEUES

    catalogue.use("social.catalogue", tuple(QUEUES))
    table = stand_in.tables()["task-runs"]
    table.load(runs(count))
    for index in table.indexes.values():
        table.partition(index, "")
    user = f"u-{USERS // 3}"
    newest_first = [run_id for (run_id,) in table.items]
    ids = {ago: newest_first[ago * count // (DAYS * 86_400)] for ago in (60, 3_600, 80_000, 5 * 86_400)}
    wanted = {
        "the newest": Query(),
        "a task": Query(task="process_media_upload"),
        "a rare task": Query(task="cleanup_old_posts"),
        "a queue": Query(queue="emails"),
        "FAILURE": Query(status="FAILURE"),
        "FAILURE of a rare task": Query(task="cleanup_old_posts", status="FAILURE"),
        "an error": Query(error="BucketGone"),
        "an error that never occurred": Query(error="no such error"),
        "the hour five days ago": Query(since=NOW - 5 * 86_400, until=NOW - 5 * 86_400 + 3600),
        "user_id": Query(args={"user_id": user}),
        "a user_id without runs": Query(args={"user_id": "u-none"}),
        "user_id and a task": Query(args={"user_id": user}, task="send_notification"),
        "the first 8 of an id, five days old": Query(id=ids[5 * 86_400][:8]),
        "the last 8 of an id, a minute old": Query(id=ids[60][-8:]),
        "the last 8 of an id, an hour old": Query(id=ids[3_600][-8:]),
        "the last 8 of an id, 22 hours old": Query(id=ids[80_000][-8:]),
        "the last 8 of an id, older than a day": Query(id=ids[5 * 86_400][-8:]),
    }
    print(f"\n{count:,} runs of {DAYS} days, {latency * 1000:.0f} ms a request")
    rows = []
    with StandIn([table]).installed() as cloud, patch.object(time, "time", lambda: NOW):
        events = sdk.client("dynamodb").meta.events
        events.register_first("before-send.dynamodb", lambda **_: time.sleep(latency))
        searching.find(Query(), 50, patience=60.0)  # imports and connections
        for name, query in wanted.items():
            cloud.reset()
            began = time.perf_counter()
            found = searching.find(query, 50, patience=60.0)
            spent = cloud.spent
            took = time.perf_counter() - began - spent.own_seconds
            units, dollars = spent.read_units, spent.read_units * prices.READ_UNIT
            row = [len(found.runs), f"{took:.2f}", spent.dynamodb_requests, f"{units:,.0f}", f"{dollars:.6f}"]
            rows.append([name, *map(str, row)])
    header = ["search", "found", "seconds", "requests", "read units", "dollars"]
    tables.show("history-searches", tables.markdown(header, rows))


def runs(count: int, now: float = NOW) -> Iterator[dict[str, Any]]:
    """A week's run records as the runtime writes them, without fields that no search reads."""
    chance = random.Random(7)
    step = DAYS * 86_400 / count
    names = [{"S": name} for name in (*BY_USER, *OTHER)]
    queues = {name: {"S": queue} for name, queue in zip((*BY_USER, *OTHER), _queues(), strict=True)}
    success, failure = {"S": "SUCCESS"}, {"S": "FAILURE"}
    for n in range(count):
        sent_at = now - n * step
        run_id = f"{int(sent_at * 1000):012x}"
        run_id = f"{run_id[:8]}-{run_id[8:]}-7{chance.getrandbits(12):03x}-8000-{chance.getrandbits(48):012x}"
        task = chance.choices(names, WEIGHTS)[0]
        argument = f"user_id=u-{chance.randrange(USERS)}" if task["S"] in BY_USER else None
        item = {"id": {"S": run_id}, "task": task, "queue": queues[task["S"]], "sent_at": {"N": f"{sent_at:.3f}"}}
        if argument is not None:
            item |= to_item({"argument": argument, "args": f'{{"user_id":"{argument[8:]}"}}'})
        if chance.random() < FAILED:
            error = RunError(chance.choices(("Timeout", "BucketGone"), (99, 1))[0], "the third attempt failed as well")
            item |= {"status": failure, **to_item({"error": f'{{"type":"{error.type}","message":"{error.message}"}}'})}
            item |= to_item({"history": history.of_status("FAILURE", run_id), "why": history.reason(error)})
        else:
            item |= {"status": success, **to_item({"history": history.of_task(task["S"], run_id, argument)})}
        yield item


def _queues() -> list[str]:
    from social import catalogue

    return [str(getattr(catalogue, name).queue) for name in (*BY_USER, *OTHER)]


if __name__ == "__main__":
    main()
