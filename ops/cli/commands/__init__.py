"""The commands, by topic. Only typer is imported here; the rest is imported when a command runs."""

from ops.cli import common
from ops.cli.commands import cost, developing, dlq, inspecting, local, queues, runs, schedules, stack, tasks, watching


class _Groups(common.Group):
    headings = (
        ("The stack", ("status", "doctor", "validate", "repair", "versions", "rollback", "up", "down", "env")),
        ("Tasks", ("send", "result", "runs", "revoke", "logs", "inspect")),
        ("Writing tasks", ("dev", "new")),
        ("Watching", ("web", "monitor", "events", "audit")),
        ("Money", ("cost", "budget")),
        ("Queues", ("pause", "resume", "restart", "concurrency", "purge", "dlq")),
        ("Schedules", ("schedule",)),
        ("The social network", ("test", "seed", "backfill", "upload", "mail", "report")),
    )


app = common.app(
    "Operates a deployment of nexus-tasks: the local cloud, or a stack in AWS.\n\n"
    "Every command takes --json, --stack, --profile and --region, before or after its name. Without --stack they use "
    "NEXUS_STACK, else the local cloud of this checkout.\n\n"
    "Exit codes: 0 done, 1 the stack or run has a fault, 2 usage, 3 cannot reach the stack, 4 not allowed, "
    "5 not confirmed, 6 still running.",
    _Groups,
    completion=True,
)

for module in (stack, local, tasks, runs, developing, watching, queues, cost):
    module.add_to(app)
app.add_typer(inspecting.app, name="inspect")
app.add_typer(dlq.app, name="dlq")
app.add_typer(schedules.app, name="schedule")
