"""The social network's stack, for the commands about its data."""

from typing import TYPE_CHECKING

from ops.problems import usage

if TYPE_CHECKING:
    from ops.deployment import Deployment

CATALOGUE = "social.catalogue"


def connect() -> "Deployment":
    """The deployment that this command line selects. Raises Problem also if it serves another application."""
    from ops import catalogue
    from ops.cli import common

    deployment = common.connect()
    if CATALOGUE not in catalogue.modules():
        serves = ", ".join(catalogue.modules()) or "a catalogue that it does not name"
        what = f"{deployment.stack} is not a stack of the social network"
        raise usage(what, f"It serves {serves}; this command is about users, posts and mail.")
    return deployment
