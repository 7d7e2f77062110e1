"""`nexus mail ...`: previews, sent mails, and mails whose delivery state is unknown."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ops.cli import common, output
from ops.cli.common import command, options
from ops.problems import ExitCode, usage
from ops.social import network

if TYPE_CHECKING:
    from ops.social import mail

app = common.app("Preview mails, list those that the local cloud sent, and settle those whose delivery is unknown.")

Kind = Annotated[
    str, typer.Argument(help="welcome|digest", metavar="KIND", autocompletion=lambda: ["welcome", "digest"])
]


def _kind(name: str) -> "mail.Kind":
    if name == "welcome":
        return "welcome"
    if name == "digest":
        return "digest"
    raise usage(f"There is no mail {name!r}", do=common.closest(name, ("welcome", "digest")))


@command(app, "preview")
def preview(
    kind: Kind,
    user: Annotated[str | None, typer.Option(help="A real user's mail; an invented reader's if left out.")] = None,
    locale: Annotated[str | None, typer.Option(help="In another language than the user's: en, fr, ...")] = None,
    browse: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
) -> int:
    """Render a mail to .local/mail and open it. Nothing is sent."""
    from ops.social import mail

    wanted = _kind(kind)
    if user is not None:
        network.connect()
    shown = mail.preview(wanted, user, locale=locale)
    if options.json:
        output.emit(shown)
        return ExitCode.DONE
    output.pairs({"subject": shown.subject, "html": shown.html, "text": shown.text})
    if browse and output.fancy():
        mail.open_preview(shown)
    return ExitCode.DONE


@command(app, "sent")
def sent(
    user: Annotated[str | None, typer.Option(help="Only the mails to this user.", metavar="ID")] = None,
    last: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 10,
) -> int:
    """The mails that the local cloud sent: written to .local/mail for reading. In an account SES keeps no copy."""
    from ops.social import mail

    deployment = network.connect()
    if deployment.stage != "local" or deployment.endpoint is None:
        why = "Only mails of the local cloud can be read."
        raise usage("SES keeps no copy of what it sent", why, "`nexus mail preview KIND --user ID` renders it again.")
    found = mail.sent(deployment.endpoint, user, last=last)
    if options.json:
        output.emit(found)
        return ExitCode.DONE
    output.table(
        [{"sent": output.time_of(one.at), "to": one.to, "subject": one.subject, "html": one.html} for one in found]
    )
    if found:
        output.note("Beside each .html is the text part, as .txt.")
    else:
        output.line(f"No mail was sent to {user}." if user else "No mail was sent.")
    return ExitCode.DONE


@command(app, "unknown")
def unknown(weeks: Annotated[int | None, typer.Option(min=1, help="Digests of this many weeks.")] = None) -> int:
    """Mails that SES may or may not have accepted: a function died between sending and recording.

    Reads every welcome mail ever sent: 0.004 dollars per million.
    """
    from ops.social import mail

    network.connect()
    with output.bar(shown=not options.json) as bar:
        found = mail.unknown(
            mail.WEEKS if weeks is None else weeks,
            on_progress=lambda done, total, read: bar(done, total, f"{read:,} mails read"),
        )
    if len(found) == mail.MOST:
        output.note(f"The search ended at {mail.MOST:,} mails. Settle these, then search again for the rest.")
    if options.json:
        output.emit([output.plain(entry) | {"claimed_at": output.moment(entry.claimed_at)} for entry in found])
        return ExitCode.DONE
    now = time.time()
    if found:
        output.table(
            [
                {
                    "mail": entry.kind,
                    "period": entry.period,
                    "user": entry.user_id,
                    "ago": output.age(now - entry.claimed_at),
                    "run": entry.run_id,
                }
                for entry in found
            ],
            right=("ago",),
        )
        output.note("`nexus mail decide KIND USER sent|send` settles one; `nexus logs RUN` may show which.")
    else:
        output.line("No mail's delivery is unknown.")
    return ExitCode.DONE


@command(app, "decide")
def decide(
    kind: Kind,
    user: Annotated[str, typer.Argument(help="Whose mail.", metavar="USER")],
    verdict: Annotated[str, typer.Argument(help="sent: leave it; send: let a new run send it.", metavar="sent|send")],
    week: Annotated[str | None, typer.Option(help="The digest's ISO week: 2026-W47.")] = None,
    yes: common.Yes = False,
) -> int:
    """Settle an unknown mail: mark it as sent, or release it to be sent."""
    from ops.social import mail

    wanted = _kind(kind)
    if verdict not in ("sent", "send"):
        raise usage(f"{verdict!r} is not a verdict", do="sent: it was sent, leave it. send: let a new run send it.")
    deployment = network.connect()
    word = "as sent" if verdict == "sent" else "as not sent, so that a new run sends it"
    common.confirm(deployment, f"Mark the {kind} mail of {user} in {deployment.stack} {word}?", yes=yes)
    mail.decide(wanted, user, verdict == "sent", week=week)
    common.done({"kind": kind, "user": user, "verdict": verdict}, f"The {kind} mail of {user} is marked {word}.")
    return ExitCode.DONE
