"""revoke_user_tokens: every session and refresh token of one user, now.

Deletes what was issued before `issued_before` (default: the task's start); later logins stay valid. The user is marked
first (`tokens_valid_from`), so that the application can reject access tokens that are still in use.
"""

from nexus import clock
from nexus.errors import Reject
from nexus.worker import Run, handler_for, implements
from social import catalogue
from social.catalogue import RevokedTokens, RevokeUserTokens
from social.data import sessions, users


@implements(catalogue.revoke_user_tokens)
def revoke_user_tokens(args: RevokeUserTokens, run: Run) -> RevokedTokens:
    """Deletes, and returns how many. Idempotent. Rejects an unknown user."""
    before = int(clock.now()) + 1 if args.issued_before is None else args.issued_before
    if not users.refuse_tokens_before(args.user_id, before):
        raise Reject(f"no user {args.user_id}")
    ended, revoked = sessions.end_all(args.user_id, before)
    run.logger.info("revoked", sessions=ended, tokens=revoked)
    return RevokedTokens(user_id=args.user_id, tokens=revoked, sessions=ended)


handler = handler_for(revoke_user_tokens)
