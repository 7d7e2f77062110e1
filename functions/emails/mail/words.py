"""Users' text in a mail: names that cannot be links, excerpts, words that every program can break.

A mail carries other people's words under our name, and mail programs turn anything that looks like a link into one. So
a name never looks like a link, and an excerpt of a stranger's post has no working one.
"""

import re
import unicodedata
from functools import lru_cache

from social.text import JOINERS, is_blank, one_line, shortened

NAME_LIMIT = 40
EXCERPT_LIMIT = 220
WORD_LIMIT = 24
"""The most characters of an unbreakable word: Outlook for Windows breaks none, and has 400 px beside a thumbnail."""

_READ = 400
"""The most characters of a post or name to examine: the patterns are slower than linear."""

_KEPT = 1_000
"""Results cached: a segment quotes the week's popular posts in nearly every mail."""

_LETTER = r"[^\W\d_]"
_LABEL = r"[^\W_](?:[\w-]*[^\W_])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*\.{_LETTER}[\w-]*[^\W_]"

_LINK = re.compile(
    rf"""
      \b[a-z][a-z0-9+.-]*://\S* | \bwww\.\S+                              # a scheme or its replacement
    | (?<![:\w])//(?:\S*?\.|localhost)\S*                                # any host: //evil.com, //0.0, //+.+
    | \b(?:mailto|tel|sms|javascript|data|file):\S+
    | [^\s@]+@[^\s@]+                                                     # an address
    | \b[a-z]:\\\S* | \\\\\S+                                             # a path of Windows
    | \[[0-9a-f:.]*:[0-9a-f:.]*\]\S*                                      # an IPv6 address
    | (?<!\w)(?<!\d\.)(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?!\w|\.\d)(?:[:/?\#]\S*)?  # an IPv4 address
    | (?<![\w@]){_DOMAIN}\.?(?:[:/?\#][^\s.,;!?)]\S*|/)                   # a domain with a port, a path or a query
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Text that can only be a link or an address. Matched against the shown text and against `_judged`."""

_DOTTED = re.compile(rf"(?<![\w.@-]){_DOMAIN}")
"""Text that may be a domain (evil.com) or a name or a missing space (Mr.Bean, will.i.am, the end.Then)."""

_STOPS = str.maketrans(dict.fromkeys("\u3002\uff0e\uff61", "."))
"""Characters that browsers read as a dot in a domain (UTS 46), besides those that NFKC maps to one."""

_APART = "\u202f"
"""A narrow no-break space: after a dot it shows a name as a typesetter would, J. R. R. Tolkien, and ends a domain."""

_BREAKS_ANYWHERE = (
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
    r"\U0001f000-\U0001ffff\U00020000-\U0003ffff"
)
"""Scripts written without spaces, Hangul, and emoji."""

_DOT = re.compile(
    rf"(?<=[^\s!-#%-*,-/:;?@\[-\]{{}}])[.\uff0e\u2024\ufe52][{JOINERS}]*(?={_LETTER})"
    r"|(?<=[0-9a-z])[\u3002\uff61](?=[a-z])",
    re.IGNORECASE,
)
"""A dot within a word, after anything but punctuation: domains of emoji and symbols exist.

Between ideographs the ideographic one ends a sentence."""

_WORD = re.compile(rf"[^\s\-\u2010\u2026{_BREAKS_ANYWHERE}]{{{WORD_LIMIT + 1},}}")
"""A word that is too long, in scripts that break only at spaces and hyphens."""

_BREAKABLE = re.compile(r"[!-,.-~\u00a1-\u00ac\u00ae-\u052f]{13,}")
"""A longish word whose letters do not join, so that a break between two does no harm."""


def _judged(text: str) -> str:
    """The text as a mail program or browser may read it: compatibility forms folded, nothing invisible, dots as dots.

    Its length may differ from the text's.
    """
    return unicodedata.normalize("NFKC", re.sub(f"[{JOINERS}\ufe00-\ufe0f]", "", text)).translate(_STOPS)


def person_name(name: str | None) -> str:
    """A person's name for a heading or subject; empty if it cannot be shown: use the neutral name then.

    Signing up a stranger's address under the name `win at evil.com` must not put that into our welcome mail. Text that
    can only be a link is dropped. A name with dots is shown if it reads as one (Mr.Bean, J.R.R.Tolkien, will.i.am: an
    initial, or a capital after the last dot), with a narrow space after each dot, so that it cannot be a link either.
    """
    cleaned = one_line((name or "")[:_READ])
    if is_blank(cleaned):
        return ""
    shown = _fitted(cleaned, NAME_LIMIT)
    if _has_link(cleaned) or _has_link(shown):
        return ""
    return shown if all(_reads_as_a_name(dotted[0]) for dotted in _DOTTED.finditer(_judged(cleaned))) else ""


def _reads_as_a_name(dotted: str) -> bool:
    labels = dotted.split(".")
    return any(len(label) == 1 for label in labels) or (labels[-1][0].isupper() and not labels[-1].isupper())


def unlinked_dots(text: str) -> str:
    """The text with a narrow space after each dot between two letters, so that no program reads it as a domain."""
    return _DOT.sub(lambda match: match[0] + _APART, text)


@lru_cache(maxsize=_KEPT)
def excerpt(text: str, *, link: str) -> str:
    """A stranger's post as a mail shows it: links replaced by `link` (a word in the reader's language, or nothing).

    Text that may be a domain is changed so that it is not one.
    """
    shown = _fitted(_without_links(one_line(text[:_READ]), link), EXCERPT_LIMIT)
    if _has_link(shown):  # 1.2.3.4.5 is not an address, but a cut can make 1.2.3.4… of it
        shown = _fitted(_without_links(shown, link), EXCERPT_LIMIT)
    return shown


def _has_link(text: str) -> bool:
    return bool(_LINK.search(text) or _LINK.search(_judged(text)))


def _without_links(text: str, link: str) -> str:
    """The text as it is shown, and as a program may read it. The latter has no full-width letters or ligatures."""
    for read in (str, _judged):
        if _LINK.search(read(text)):
            text = one_line(_LINK.sub(lambda match: _replaced(match[0], link), read(text)))
    return text


def _fitted(text: str, limit: int) -> str:
    return shortened(_words_cut(unlinked_dots(text)), limit)


@lru_cache(maxsize=_KEPT)
def excerpt_of_friend(text: str) -> str:
    """The post of someone the reader follows: links work; long ones are shown without their path."""
    shown = re.sub(r"\bhttps?://(?:www\.)?(\S+)", lambda match: _host(match[1]), one_line(text[:_READ]))
    return shortened(_words_cut(shown), EXCERPT_LIMIT)


def _replaced(found: str, link: str) -> str:
    return link + (found[-1] if link and found[-1] in ".,;!?)" else "")


def _host(address: str) -> str:
    if len(address) <= WORD_LIMIT:
        return address
    return re.split(r"[/?#]", address, maxsplit=1)[0] + " …"


def _words_cut(text: str) -> str:
    return _WORD.sub(lambda match: shortened(match[0], WORD_LIMIT), text)


@lru_cache(maxsize=_KEPT)
def breakable(text: str) -> str:
    """The text with zero-width spaces in longish words, where programs that do not break words can break."""
    return _BREAKABLE.sub(lambda match: "\u200b".join(_pieces(match[0])), text)


def _pieces(word: str, size: int = 8) -> list[str]:
    return re.findall(rf"(?:.[\u0300-\u036f]*){{1,{size}}}", word)
