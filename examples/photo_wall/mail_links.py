"""The targets of links in mails: the unsubscribe page, and a placeholder for pages that this example lacks."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from social import mail_links

links = Blueprint("mail_links", __name__)


@links.get("/mail/unsubscribe")
def ask() -> ResponseReturnValue:
    """A page with a button. It changes nothing, since virus scanners follow links in mails too."""
    mail_links.verify(request.args.get("token", ""))
    text = "This ends the weekly mail with posts for you."
    return render_template("message.html", title="Unsubscribe", text=text, button="Unsubscribe")


@links.post("/mail/unsubscribe")
def unsubscribe() -> ResponseReturnValue:
    """Unsubscribes at once, for the button and for mail programs (RFC 8058): no login, no confirmation, no redirect."""
    mail_links.unsubscribe(request.args.get("token", ""))
    text = "The weekly mail with posts for you will not come any more."
    return render_template("message.html", title="You are unsubscribed", text=text)


@links.errorhandler(mail_links.InvalidToken)
def invalid(error: mail_links.InvalidToken) -> ResponseReturnValue:
    """A real application also links to its settings, where users sign in and choose."""
    text = f"This link does not work: {error}. Take the one in a newer mail."
    return render_template("message.html", title="Nothing was changed", text=text), 400


@links.get("/feed")
@links.get("/explore")
@links.get("/posts/<_page>")
@links.get("/settings/<_page>")
def elsewhere(_page: str = "") -> ResponseReturnValue:
    """The other pages that the mails link to (docs/mail.md)."""
    text = "The mails link to this page of a real application. The example has only the wall."
    return render_template("message.html", title="Not in this example", text=text)
