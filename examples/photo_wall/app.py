"""The photo wall's server: registers users, issues upload forms, and shows the results.

    make example        http://localhost:8000, on the local cloud

It uses the background jobs only through the catalogue and the upload form, and needs only the client
(`pip install ./shared`) and Flask. The browser uploads to S3 and downloads from it directly, so this process handles no
files.

Signing in has no password: it is an example. Everything else (escaping, content security policy, ownership of photos)
is as in a real application.
"""

import mimetypes
import os
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ConnectionError as NotReached
from botocore.exceptions import HTTPClientError
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    session,
)
from flask.typing import ResponseReturnValue

from examples.photo_wall.mail_links import links
from nexus import clock
from nexus.aws.sdk import client
from nexus.client import AsyncResult
from nexus.errors import SendFailed
from nexus.settings import settings
from social import application
from social.catalogue import send_welcome_email
from social.data import posts, users
from social.data.days import day_of
from social.data.posts import Media, Post
from social.renditions import sources
from social.uploads import MAX_BYTES, presigned_post

PHOTOS_SHOWN = 60
LINK_SECONDS = 3600
NAME_LENGTH = 80
CAPTION_LENGTH = 300
ID_LENGTH = 64
LANGUAGES = ("en", "fr")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")

pages = Blueprint("pages", __name__)


def create_app(secret_key: str | None = None) -> Flask:
    """The application. Without a key (PHOTO_WALL_SECRET), sessions end with the process."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secret_key or os.environ.get("PHOTO_WALL_SECRET") or secrets.token_hex(32),
        SESSION_COOKIE_NAME="photo_wall",
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_REFRESH_EACH_REQUEST=False,  # a response in flight during sign-out would sign the user in again
        PERMANENT_SESSION_LIFETIME=timedelta(days=application.SESSION_DAYS),
        MAX_CONTENT_LENGTH=64 * 1024,  # form fields only: files do not come this way
    )
    app.register_blueprint(pages)
    app.register_blueprint(links)
    return app


# --- registering -------------------------------------------------------------------------------------------------


@pages.get("/")
def home() -> ResponseReturnValue:
    """The signed-in user's wall, else the registration form."""
    if g.user_id is None:
        return render_template("register.html", faults={}, given={}, limits=_limits())
    user = users.get(g.user_id)
    if user is None:  # the local cloud loses all users when it stops
        session.clear()
        return redirect("/")
    photos = [_shown(post) for post in _photos_of(user.user_id)]
    return render_template("wall.html", user=user, photos=photos, limits=_limits(), welcome=session.get("welcome"))


@pages.post("/register")
def register() -> ResponseReturnValue:
    """Creates a user and signs them in. The welcome mail is a task; this request does not wait for it."""
    given = {name: request.form.get(name, "").strip() for name in ("name", "email")}
    faults: dict[str, str] = {}
    if not 1 <= len(given["name"]) <= NAME_LENGTH:
        faults["name"] = f"Give a name of 1 to {NAME_LENGTH} characters."
    if len(given["email"]) > 254 or not _ADDRESS.fullmatch(given["email"]):
        faults["email"] = "Give an address such as ada@example.com."
    elif users.by_email(given["email"]):
        faults["email"] = "This address is already registered."
    if faults:
        return render_template("register.html", faults=faults, given=given, limits=_limits()), 422
    locale = request.accept_languages.best_match(LANGUAGES, default="en")
    user = application.register(given["email"], given["name"], locale=locale)
    try:
        welcome = send_welcome_email.delay(user_id=user.user_id).id
    except SendFailed:  # do not fail registration for a mail; an application with a database uses nexus.outbox
        welcome = None
    signed_in = application.record_login(user.user_id, token_id=secrets.token_urlsafe(16))
    session.permanent = True
    session.update(user_id=user.user_id, session_id=signed_in.session_id, day=day_of(clock.now()), welcome=welcome)
    return redirect("/")


@pages.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """Ends the session, here and wherever else its cookie is."""
    if g.user_id is not None:
        application.sign_out(g.user_id, session["session_id"])
    session.clear()
    return redirect("/")


@pages.get("/welcome")
def welcome() -> ResponseReturnValue:
    """The state of the welcome mail: its run's status, and the task's outcome once there is one."""
    if g.user_id is None or session.get("welcome") is None:
        abort(404)
    handle = AsyncResult(session["welcome"], send_welcome_email.result)
    record = handle.record()
    report = handle.result if record.status == "SUCCESS" else None
    if record.ended:
        session.pop("welcome")
    return jsonify(status=record.status, ended=record.ended, outcome=report.outcome if report else None)


# --- photos ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewPhoto:
    """The browser's description of a file before the upload."""

    file_name: str
    content_type: str
    size: int
    caption: str

    @classmethod
    def of(cls, body: Any) -> "NewPhoto":
        """Parses the request's JSON. Raises ValueError with a message for the user."""
        about = body if isinstance(body, dict) else {}
        name, kind, size, caption = (about.get(key) for key in ("name", "type", "size", "caption"))
        if not isinstance(name, str) or not isinstance(kind, str) or type(size) is not int or size < 1:
            raise ValueError("The file is empty, or has no name.")
        if size > MAX_BYTES:
            raise ValueError(f"The file is larger than {MAX_BYTES // 1024**2} MB.")
        # Browsers do not know the type of some phone files (HEIC), so use the name.
        kind = kind or mimetypes.guess_type(name)[0] or ""
        if not kind.startswith(("image/", "video/")):
            raise ValueError("The file is neither a picture nor a video.")
        if not isinstance(caption, str) or len(caption.strip()) > CAPTION_LENGTH:
            raise ValueError(f"The caption is longer than {CAPTION_LENGTH} characters.")
        if not _is_text(caption):
            raise ValueError("The caption is not text.")
        return cls(name, kind, size, caption.strip())


def _json() -> Any:
    """The request's JSON; None if it is not JSON or nested too deeply."""
    try:
        return request.get_json(silent=True)
    except RecursionError:
        return None


def _is_text(text: str) -> bool:
    """JSON can contain half of a surrogate pair ("\\ud800"), which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pages.post("/photos")
def new_photo() -> ResponseReturnValue:
    """Creates a post, and returns the form with which the browser uploads its file to S3."""
    if g.user_id is None:
        abort(401)
    try:
        photo = NewPhoto.of(_json())
        post_id = secrets.token_hex(12)
        form = presigned_post(
            g.user_id, post_id, photo.file_name, content_type=photo.content_type, max_bytes=photo.size
        )
    except ValueError as error:
        return jsonify(error=str(error)), 422
    # Before the upload: the task that processes it looks for the post.
    post = application.new_post(g.user_id, photo.caption, post_id=post_id)
    return jsonify(photo=_shown(post), upload={"url": form.url, "fields": form.fields}), 201


@pages.get("/photos/<post_id>")
def photo(post_id: str) -> ResponseReturnValue:
    """A photo's state; the browser polls until `status` is ready or rejected."""
    post = posts.get(post_id, consistent=True) if len(post_id) <= ID_LENGTH else None
    if post is None or post.author_id != g.user_id:
        abort(404)
    return jsonify(_shown(post))


@pages.get("/media/<path:key>")
def rendition(key: str) -> ResponseReturnValue:
    """A picture in a mail: the stack's MediaUrl is this URL, where a real deployment has a CDN."""
    return redirect(_link(key))


def _photos_of(user_id: str) -> list[Post]:
    """The user's posts that have a file, newest first."""
    newest = posts.TABLE.query(
        user_id,
        index=posts.BY_AUTHOR,
        attributes=("post_id",),
        newest_first=True,
        limit=PHOTOS_SHOWN,
    )
    ids = [item["post_id"]["S"] for item in next(newest).items]
    found = [post for post in posts.get_many(ids) if isinstance(post, Post) and post.media]
    return sorted(found, key=lambda post: post.created_at, reverse=True)


def _shown(post: Post) -> dict[str, Any]:
    """A photo's data for the page, as JSON."""
    media = post.media or Media(status="processing")
    return {
        "id": post.post_id,
        "caption": post.text,
        "status": media.status,
        "reason": media.reason,
        "kind": media.kind,
        "width": media.width,
        "height": media.height,
        "placeholder": media.placeholder,
        "colour": media.colour,
        "progress": media.progress,
        "renditions": {
            name: {
                "url": _link(made.key),
                "width": made.width,
                "height": made.height,
                "bytes": made.bytes,
                "type": made.content_type,
            }
            for name, made in media.renditions.items()
        },
        "sources": [
            {"type": source.type, "srcset": source.srcset(_link), "url": _link(source.largest.key)}
            for source in sources(media)
        ],
    }


def _link(key: str) -> str:
    """A rendition's URL, valid for an hour: the media bucket is private. A CDN would have a permanent one."""
    return client("s3").generate_presigned_url(
        "get_object", Params={"Bucket": settings().bucket("media"), "Key": key}, ExpiresIn=LINK_SECONDS
    )


def _limits() -> dict[str, int]:
    return {"bytes": MAX_BYTES, "caption": CAPTION_LENGTH, "name": NAME_LENGTH}


# --- every request -----------------------------------------------------------------------------------------------


@pages.before_app_request
def _who() -> None:
    """Loads the signed-in user if the cookie's session is valid. The first request of a UTC day records the user's
    activity; jobs treat users without any as dormant.

    Refuses a form sent from another site's page, except for unsubscribing: there a token authorises it, and a
    webmail's page may send it.
    """
    ours = request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
    if request.method == "POST" and not ours and request.endpoint != "mail_links.unsubscribe":
        abort(403)
    g.user_id = None if request.endpoint == "static" else session.get("user_id")
    if g.user_id is not None and not application.is_signed_in(g.user_id, session["session_id"]):
        session.clear()
        g.user_id = None
    today = day_of(clock.now())
    if g.user_id is not None and session["day"] != today:
        application.record_activity(g.user_id, session["session_id"])
        session["day"] = today


@pages.after_app_request
def _guard(response: Response) -> Response:
    """Sets headers: a page may only run its own scripts, upload to one bucket and show files from the other."""
    uploads, media = _origins()
    response.headers["Content-Security-Policy"] = (
        f"default-src 'self'; img-src 'self' blob: {media}; media-src {media}; connect-src 'self' {uploads}; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


@pages.app_errorhandler(NotReached)
@pages.app_errorhandler(HTTPClientError)
def _no_cloud(_error: Exception) -> ResponseReturnValue:
    """Returns HTML to a browser that asks for it explicitly, JSON to the wall's script, which accepts anything."""
    title, remedy = "The local cloud does not respond", "`make up` starts it. Then try again."
    if request.accept_mimetypes.best_match(("application/json", "text/html")) == "text/html":
        return render_template("message.html", title=title, text=remedy), 503
    return jsonify(error=f"{title}. {remedy}"), 503


def _origins() -> tuple[str, str]:
    """The origins (scheme and host) of the upload and media buckets."""
    if "origins" not in current_app.extensions:
        addresses = presigned_post("any", "any", "any").url, _link("any")
        current_app.extensions["origins"] = tuple("{0.scheme}://{0.netloc}".format(urlsplit(a)) for a in addresses)
    origins: tuple[str, str] = current_app.extensions["origins"]
    return origins
