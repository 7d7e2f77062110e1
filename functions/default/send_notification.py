"""send_notification: an in-app notification to one user, shown once even if the message is delivered twice.

Its id follows from the run's, so a repeat finds the existing one, and sorts by the time of sending.

Nothing is written for an actor whom the user has blocked, or if the user or the actor no longer exists: the text may
name them, and a message can be late by hours, a dead letter by two weeks. A new user may arrive after the message, as a
mirrored row does, so an unknown one is looked up again a minute later.
"""

from nexus import clock
from nexus.errors import Retry
from nexus.ids import sortable_id
from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import NotificationSent, SendNotification
from social.data import blocks, notifications, users
from social.data.notifications import Notification


@implements(catalogue.send_notification)
def send_notification(args: SendNotification, run: Run) -> NotificationSent:
    """Writes the notification, or returns why there is none."""
    if not _exists(args.user_id, run):
        return NotificationSent(reason="no such user")
    if args.actor_id is not None:
        if blocks.has_blocked(args.user_id, args.actor_id):
            return NotificationSent(reason="the user has blocked the actor")
        if not _exists(args.actor_id, run):
            return NotificationSent(reason="no such actor")
    notification = Notification(
        user_id=args.user_id,
        notification_id=sortable_id(run.id, run.sent_at),
        kind=args.kind,
        text=args.text,
        created_at=int(clock.now()),
        link=args.link,
        actor_id=args.actor_id,
    )
    notifications.add(notification)
    return NotificationSent(notification_id=notification.notification_id)


def _exists(user_id: str, run: Run) -> bool:
    """Whether the user exists. Raises Retry if they may be late."""
    there = users.exists(user_id)
    if not there and run.attempt == 1:
        raise Retry(f"no user {user_id} yet", after=users.LATE)
    return there


handler = handler_for(send_notification)
