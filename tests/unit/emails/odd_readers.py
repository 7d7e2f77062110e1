"""Varied readers, authors, posts and weeks: all scripts, hostile names, long words, much text and none."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

from PIL import Image as Pillow

from mail import rendering
from mail.languages import Language
from mail.rendering import Image, Mail, Picture, Story
from mail.settings import MailSettings
from mail.words import person_name
from social.data.posts import Counters

NAMES = (
    "Ada",
    None,
    "Wolfgang Amadeus Theophilus Mozart von Salzburg",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamter",
    "W" * 300,
    "عمر الشريف",
    "שרה כהן",
    "李明",
    "さくら",
    "Αλέξανδρος Παπαδόπουλος",
    "Владимир Владимирович",
    "नरेन्द्र मोदी",
    "สมชาย ใจดี",
    "👩\u200d👩\u200d👧\u200d👦 Family",
    "🇫🇷" * 30,
    "J.R.R.Tolkien",
    "win at evil.com",
    "<script>alert(1)</script>",
    '"Q" & <b>R</b>',
    "a\u202eb",
    "\u3164",
    "Z\u0310\u0310\u0310\u0310\u0310\u0310\u0310\u0310a\u0310\u0310l\u0310g\u0310o",
    "Sam (they/them)",
    "نام با\u200cنیم‌فاصله",
    "Ada عمر Ada",
    "i" * 39,
    "WWWWWWWWWWWWWWWWWWWWWWWW",
    "O\u2019Hara-Smith-Jones-Williams-Brown-Taylor",
    "1234567890123456789012345678901234567890",
    "__________________________________",
    "{name} {product} %s",
    "Ngô Đình Diệm",
)

TEXTS = (
    "Three days on the coast with a tent and an old film camera. The light at five in the morning is worth it.",
    "",
    "x" * 400,
    "https://evil.com/" + "a" * 300,
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz " * 4,
    "صباح الخير من البحر، كانت الأمواج عالية هذا الصباح والسماء صافية.",
    "今日は朝から海へ行きました。波が高くて、空がとてもきれいでした。写真は十二枚だけ残りました。" * 6,
    "วันนี้ไปทะเลแต่เช้าคลื่นสูงมากและท้องฟ้าก็สวยงามมากมีภาพถ่ายเหลือเพียงสิบสองภาพเท่านั้น" * 3,
    "#" + "hashtag" * 40,
    "&&&& <<<< >>>> '''' \"\"\"\"" * 30,
    "a.b " * 100,
    "🎉" * 220,
    "line one\nline two\t\x1b[31mred",
    "short",
    "W" * 24 + " " + "M" * 24,
)

WEEKS = (date(2026, 11, 16), date(2026, 11, 23), date(2026, 12, 28), date(2028, 2, 28), date(2026, 9, 28))
COUNTS = (
    Counters(),
    Counters(likes=1),
    Counters(likes=1284, comments=97, shares=41),
    Counters(likes=12_345_678, shares=2),
)


def settings(folder: Path) -> MailSettings:
    """A deployment whose pictures are files in `folder`."""
    return MailSettings(
        sender="no-reply@nexus.example",
        digest_sender="digest@nexus.example",
        sender_name="Nexus",
        base_url="https://nexus.example",
        media_url=folder.resolve().as_uri(),
        postal_address="1 Example Street, Springfield",
    )


def pictures(folder: Path) -> Sequence[Picture | None]:
    """None; one as it is made for mail; a clip's; and an old post's, a tall JPEG alone."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"wide": (1080, 608), "square": (224, 224), "lead": (1080, 810), "tall": (1080, 1920), "small": (90, 60)}
    files = {}
    for name, size in sizes.items():
        Pillow.linear_gradient("L").resize(size).convert("RGB").save(folder / f"{name}.jpg", quality=40)
        files[name] = Image(f"{name}.jpg", *size)
    return (
        None,
        Picture(files["wide"], files["square"]),
        Picture(files["lead"], files["square"], is_video=True),
        Picture(files["tall"], files["tall"]),
        Picture(files["small"], files["small"]),
    )


LINK = "https://nexus.example/mail/unsubscribe?token=" + "t" * 180


def digests(language: Language, folder: Path) -> Iterator[Mail]:
    """A digest to each of the readers: of one to seven posts, from people whom they follow or not."""
    shown = pictures(folder)
    for number, name in enumerate(NAMES):
        stories = [
            Story(
                post_id=f"p-{number}-{place}",
                author=person_name(NAMES[(number + 7 * place + 1) % len(NAMES)]),
                text=TEXTS[(number + 4 * place) % len(TEXTS)],
                likes=COUNTS[(number + place) % 4].likes,
                comments=COUNTS[(number + place) % 4].comments,
                shares=COUNTS[(number + place) % 4].shares,
                followed=place < number % 4,
                picture=shown[(number + 2 * place) % len(shown)],
            )
            for place in range(1 + number % 7)
        ]
        monday = WEEKS[number % len(WEEKS)]
        yield rendering.digest(
            language,
            settings(folder),
            name=name,
            stories=stories,
            first_day=monday,
            last_day=monday + timedelta(days=6),
            unsubscribe_url=LINK,
        )


def welcomes(language: Language, folder: Path) -> Iterator[Mail]:
    """A welcome to each of the readers."""
    for name in NAMES:
        yield rendering.welcome(language, settings(folder), name=name, unsubscribe_url=LINK)
