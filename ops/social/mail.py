"""Mail for operators: previews, sent mails, and mails whose delivery state is unknown.

The preview renders with the templates of this checkout (functions/emails), for a made-up reader or for a real user of
the deployment. It sends nothing and writes only files. Sent mails are read from the local cloud's outbox; SES has none.
"""

import json
import re
import sys
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nexus.aws.table import in_threads
from nexus.errors import ConfigurationError
from nexus.settings import settings
from ops.aws import client
from ops.checkout import ROOT
from ops.problems import Problem, usage
from social.data import days, follows, mail_ledger, posts, users
from social.data.mail_ledger import Entry
from social.weeks import week_of, weeks_before

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from mail.rendering import Mail, Picture, Story
    from mail.settings import MailSettings
    from nexus.aws.dynamodb import Row
    from social.data.mail_ledger import Mailing

EMAILS = ROOT / "functions" / "emails"
FOLDER = ROOT / ".local" / "mail"
SAMPLE_WEEK = (date(2026, 11, 16), date(2026, 11, 22))
WEEKS = 5
"""How many weeks of digests `unknown` searches."""

MOST = 1_000
"""The most mails that `unknown` returns."""

THREADS = 8

type Kind = Literal["welcome", "digest"]


@dataclass(frozen=True, slots=True)
class Preview:
    """A rendered mail and where it was written."""

    subject: str
    html: Path
    text: Path


def preview(kind: Kind, user_id: str | None = None, *, locale: str | None = None, folder: Path = FOLDER) -> Preview:
    """Renders a mail into `folder`: for a made-up reader, or as the deployment would send it to a user now.

    `locale` overrides the reader's. Raises Problem for a language without translation, and for a user who does not
    exist or has nothing new in their digest.
    """
    _import_emails()
    if locale is not None:
        _check_language(locale)
    folder.mkdir(parents=True, exist_ok=True)
    mail = _sample(kind, locale, folder) if user_id is None else _for_user(kind, user_id, locale, folder)
    shown = Preview(mail.subject, folder / f"{kind}.html", folder / f"{kind}.txt")
    shown.html.write_text(mail.html, encoding="utf-8")
    shown.text.write_text(f"Subject: {mail.subject}\n\n{mail.text}", encoding="utf-8")
    return shown


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail in the local cloud's outbox, and where its parts were written."""

    at: datetime
    to: str
    subject: str
    html: Path
    text: Path


def sent(endpoint: str, user_id: str | None = None, *, last: int = 10, folder: Path = FOLDER) -> list[Sent]:
    """The mails that the local cloud at `endpoint` accepted, newest first, saved to `folder`; all or one user's."""
    with urllib.request.urlopen(f"{endpoint}/_ministack/ses/messages", timeout=10) as response:  # noqa: S310 - our own
        outboxes = json.load(response)["messages"].values()
    messages = [message for outbox in outboxes for message in outbox]
    if user_id is not None:
        address = _user(user_id).email
        messages = [message for message in messages if address in message["To"]]
    messages.sort(key=lambda message: message["Timestamp"], reverse=True)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for message in messages[:last]:
        html = folder / f"sent-{message['MessageId'].partition('@')[0]}.html"
        at = datetime.fromtimestamp(message["Timestamp"], UTC)
        one = Sent(at, ", ".join(message["To"]), message["Subject"], html, html.with_suffix(".txt"))
        one.html.write_text(message["BodyHtml"], encoding="utf-8")
        one.text.write_text(f"Subject: {one.subject}\n\n{message['BodyText']}", encoding="utf-8")
        found.append(one)
    return found


def open_preview(shown: Preview) -> bool:
    """Opens the HTML in the user's browser; False if there is no browser."""
    import webbrowser

    return webbrowser.open(shown.html.resolve().as_uri())


def unknown(
    weeks: int = WEEKS,
    *,
    older_than: float = 900.0,
    on_progress: "Callable[[int, int, int], None]" = lambda _done, _total, _read: None,
) -> list[Entry]:
    """The mails that SES may or may not have accepted, oldest first; ends when it has found MOST.

    Searches all welcome mails and the digests of the last `weeks` ISO weeks: 31,000 read units and 250 requests per
    million mails, THREADS at a time. Leaves out claims younger than `older_than` seconds: a function may be sending
    those now. `on_progress` is called with the number of partitions searched, of all, and of mails read.
    """
    now = time.time()
    mailings = [mail_ledger.WELCOME, *(mail_ledger.digest(weeks_before(week_of(now), n)) for n in range(weeks))]
    found, read = list[Entry](), 0
    left: dict[tuple[Mailing, int], Row | None]  # each with where its next page begins
    left = {(mailing, shard): None for mailing in mailings for shard in range(mail_ledger.SHARDS)}
    total = len(left)
    while left and len(found) < MOST:
        some = list(islice(left.items(), THREADS))
        pages = in_threads(lambda one: mail_ledger.unknown(*one[0], start=one[1]), some, THREADS)
        for (partition, _), page in zip(some, pages, strict=True):
            read += page.scanned
            found += [entry for entry in map(mail_ledger.read, page.items) if now - entry.claimed_at >= older_than]
            if page.next_key:
                left[partition] = page.next_key
            else:
                del left[partition]
        on_progress(total - len(left), total, read)
    return sorted(found, key=lambda entry: (entry.claimed_at, entry.user_id))[:MOST]


def decide(kind: Kind, user_id: str, was_sent: bool, *, week: str | None = None) -> None:
    """Records a person's decision on an unknown mail: treat it as sent, or release it for a new run to send.

    Raises Problem if the mail is not unknown.
    """
    if kind == "digest" and week is None:
        raise usage("A digest needs its week.", do="Give it as 2026-W47: `nexus mail unknown` shows it.")
    mailing = mail_ledger.WELCOME if kind == "welcome" or week is None else mail_ledger.digest(week)
    if not mail_ledger.decide(mailing, user_id, was_sent, int(time.time())):
        raise Problem(
            f"The {kind} mail of {user_id} is not unknown.", do="`nexus mail unknown` lists the unknown ones."
        )


# --- rendering -------------------------------------------------------------------------------------------------------


def _import_emails() -> None:
    """Makes the modules of functions/emails importable, as in the Lambda function."""
    if str(EMAILS) not in sys.path:
        sys.path.append(str(EMAILS))


def _sample(kind: Kind, locale: str | None, folder: Path) -> "Mail":
    from mail import languages, rendering

    language, sender = languages.choose(locale), sample_settings(folder)
    link = sender.unsubscribe("preview")
    if kind == "welcome":
        return rendering.welcome(language, sender, name="Ada", unsubscribe_url=link)
    first, last = SAMPLE_WEEK
    stories = sample_stories(folder)
    return rendering.digest(
        language, sender, name="Ada", stories=stories, first_day=first, last_day=last, unsubscribe_url=link
    )


def _for_user(kind: Kind, user_id: str, locale: str | None, folder: Path) -> "Mail":
    import digest.edition
    from mail import languages, rendering

    user = _user(user_id)
    language, sender = languages.choose(locale or user.locale), deployed_settings()
    # With a working link, anyone who sees the preview could unsubscribe the user.
    link = sender.unsubscribe("preview")
    if kind == "welcome":
        return rendering.welcome(language, sender, name=user.name, unsubscribe_url=link)
    until = int(time.time())
    since = until - 7 * days.DAY_SECONDS
    path = folder / "edition.sqlite"
    path.unlink(missing_ok=True)
    for shard in range(posts.FEED_SHARDS):
        digest.edition.rank_shard(path, shard, since, until)
    digest.edition.build(path, ())
    edition = digest.edition.open_edition(path)
    with closing(edition.database):
        stories = edition.stories_for(user_id, follows.followed_by(user_id, limit=2_000), frozenset())
    path.unlink()
    if not stories:
        raise Problem(f"There is nothing new for {user_id} this week.", "Readers with nothing new get no mail.")
    first, last = digest.edition.days_named(until)
    return rendering.digest(
        language, sender, name=user.name, stories=stories, first_day=first, last_day=last, unsubscribe_url=link
    )


def _user(user_id: str) -> users.User:
    user = users.get(user_id)
    if user is None:
        raise Problem(f"There is no user {user_id}.")
    return user


def _check_language(locale: str) -> None:
    """Raises Problem for a locale without translation, whose mails would be in English."""
    from mail import languages

    if re.split("[-_.]", locale.lower())[0] != languages.choose(locale).code.split("-")[0]:
        raise usage(f"There are no mails in {locale!r}", do=f"There are: {', '.join(languages.available())}.")


def deployed_settings() -> "MailSettings":
    """The mail settings of the deployed function. Raises Problem if it has none."""
    from mail.settings import from_environment

    name = settings().function_name("emails")
    configuration = client("lambda").get_function_configuration(FunctionName=name, Qualifier="live")
    try:
        return from_environment(configuration.get("Environment", {}).get("Variables", {}))
    except ConfigurationError as error:
        raise Problem(f"The function {name} has no usable mail settings.", str(error)) from None


# --- a made-up reader ------------------------------------------------------------------------------------------------


def sample_settings(folder: Path) -> "MailSettings":
    """Settings whose pictures are files in `folder`."""
    from mail.settings import MailSettings

    return MailSettings(
        sender="hello@nexus.example",
        digest_sender="digest@nexus.example",
        sender_name="Nexus",
        base_url="https://nexus.example",
        media_url=folder.resolve().as_uri(),
        postal_address="1 Example Street, Springfield",
    )


def sample_stories(folder: Path) -> "Sequence[Story]":
    """A week with every case: tall and wide pictures, a clip, no picture, no text, long words, one like."""
    from mail.rendering import Story

    coast = (
        "Three days on the coast with a tent and an old film camera. The light at five in the morning is worth every "
        "soaked sock. Here are the twelve frames that survived, and the story of the one that got away from me."
    )
    socks = "I wrote down all I wish I had known before my first marathon. Most of it is about socks."
    return [
        Story("p-1", "Maya Chen", coast, 1284, 97, 41, followed=True, picture=_picture(folder, "coast", 1080, 720)),
        Story("p-2", "Tomás Ó Súilleabháin", "New bike day!", 212, 18, 0, followed=True),
        Story("p-3", "Ana", "", 88, 3, 1, followed=True, picture=_picture(folder, "clip", 720, 1280, is_video=True)),
        Story("p-4", "Priya Raghunathan", socks, 4021, 312, 508, False, _picture(folder, "socks", 1080, 1080)),
        Story("p-5", "Zoë & <Co>", "R&D is <b>not</b> a department.", 3100, 120, 77, followed=False),
        Story(
            "p-6",
            "Donaudampfschifffahrtsg…",
            f"https://long.example/{'unbroken' * 12}long",
            1,
            0,
            0,
            False,
        ),
    ]


def _picture(folder: Path, name: str, width: int, height: int, *, is_video: bool = False) -> "Picture":
    """A drawn landscape of three ridges under a sky, in the two renditions used in mail."""
    from mail.rendering import Image as Shown
    from mail.rendering import Picture

    folder.mkdir(parents=True, exist_ok=True)
    hues = {"coast": 14, "clip": 150, "socks": 190}
    lead = _landscape(width, min(height, width * 3 // 4), hues[name])
    lead.save(folder / f"{name}.jpg", quality=82)
    _landscape(224, 224, hues[name]).save(folder / f"{name}-square.jpg", quality=82)
    return Picture(Shown(f"{name}.jpg", *lead.size), Shown(f"{name}-square.jpg", 224, 224), is_video)


def _landscape(width: int, height: int, hue: int) -> "Image":
    import math

    from PIL import Image, ImageDraw

    sky = Image.linear_gradient("L").resize((width, height))
    light = Image.new("HSV", (width, height), (hue, 90, 255)).convert("RGB")
    dark = Image.new("HSV", (width, height), ((hue + 200) % 256, 120, 170)).convert("RGB")
    picture = Image.composite(light, dark, sky)
    draw = ImageDraw.Draw(picture)
    radius = min(width, height) // 9
    sun = (width * 2 // 3, height * 2 // 5)
    draw.ellipse((sun[0] - radius, sun[1] - radius, sun[0] + radius, sun[1] + radius), fill="#fff3d6")
    for ridge in range(3):
        base = height * (0.58 + 0.13 * ridge)
        crest = [
            (x, base + height * 0.07 * math.sin(x / width * (7 + 3 * ridge) + hue + ridge))
            for x in range(0, width + 8, 8)
        ]
        shade = Image.new("HSV", (1, 1), ((hue + 170) % 256, 130, 130 - 38 * ridge)).convert("RGB").getpixel((0, 0))
        draw.polygon([(0, height), *crest, (width, height)], fill=shade)
    return picture


__all__ = ["Preview", "Sent", "decide", "open_preview", "preview", "sent", "unknown"]
