"""Errors as the user sees them: what, why, what to do, and the command's exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every `nexus` command."""

    DONE = 0
    WRONG = 1
    """The subject is unhealthy: the stack has a problem, a run failed or is unknown, a check did not pass."""
    USAGE = 2
    """The command, a name or an argument is wrong; nothing was changed."""
    UNREACHABLE = 3
    """No stack, no credentials, no connection."""
    DENIED = 4
    """The credentials lack a permission."""
    NOT_CONFIRMED = 5
    """The user answered no, or could not be asked; nothing was changed."""
    STILL_RUNNING = 6
    """The --timeout expired."""
    INTERRUPTED = 130


REPAIR = "`nexus repair` restores it."
"""The remedy for a part of the stack that is missing or was changed by hand."""


class Problem(Exception):
    """Ends a command: `what` happened, `why`, and what to `do` about it."""

    def __init__(self, what: str, why: str = "", do: str = "", code: ExitCode = ExitCode.WRONG) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.do = do
        self.code = code


def usage(what: str, why: str = "", do: str = "") -> Problem:
    """A Problem with the command line."""
    return Problem(what, why, do, ExitCode.USAGE)


def explained(error: BaseException) -> Problem | None:
    """The Problem for an AWS or runtime exception that a user can cause; None for any other, which is a bug."""
    import sys

    if isinstance(error, Problem):
        return error
    if "botocore.exceptions" in sys.modules:
        problem = _of_botocore(error)
        if problem is not None:
            return problem
    if "nexus.errors" in sys.modules and (problem := _of_nexus(error)) is not None:
        return problem
    if isinstance(error, OSError) and error.strerror:  # a full disk, a file that may not be read or written
        where = f": {error.filename}" if error.filename else ""
        return Problem(f"{error.strerror}{where}")
    return None


_LOCAL = "For the local cloud: `nexus up`. For an account: `--profile NAME`, or export AWS_PROFILE."


def _of_botocore(error: BaseException | None) -> Problem | None:
    from botocore import exceptions as aws

    match error:
        case aws.NoCredentialsError() | aws.PartialCredentialsError() | aws.CredentialRetrievalError():
            return Problem("No AWS credentials were found", str(error), _LOCAL, ExitCode.UNREACHABLE)
        case aws.TokenRetrievalError() | aws.SSOError():
            return Problem("The sign-in has expired", str(error), "Run `aws sso login`.", ExitCode.UNREACHABLE)
        case aws.ProfileNotFound():
            return Problem(
                str(error), "", "`aws configure list-profiles` lists the existing ones.", ExitCode.UNREACHABLE
            )
        case aws.NoRegionError():
            do = 'Give --region, or export AWS_REGION. For a further stack of the local cloud: `eval "$(nexus env)"`.'
            return Problem("No region is set", "", do, ExitCode.UNREACHABLE)
        case aws.EndpointConnectionError() | aws.ConnectionClosedError() | aws.HTTPClientError():
            do = "Is the region right? Is AWS_ENDPOINT_URL meant to be set? Is the local cloud running (`nexus up`)?"
            return Problem("AWS does not respond", str(error), do, ExitCode.UNREACHABLE)
        case aws.ClientError():
            return _of_client_error(error)
        case aws.BotoCoreError():
            return Problem("The request to AWS failed", str(error), code=ExitCode.UNREACHABLE)
    return None


_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_REFUSED = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthFailure",
}
_BUSY = {"TooManyRequestsException", "RequestLimitExceeded", "ProvisionedThroughputExceededException", "SlowDown"}
_CHANGING = {"ResourceInUseException", "ResourceConflictException", "OperationAbortedException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", "AuthorizationError"}


def _of_client_error(error: BaseException) -> Problem:
    response = getattr(error, "response", {})
    code = response.get("Error", {}).get("Code", "")
    message = response.get("Error", {}).get("Message", str(error))
    operation = getattr(error, "operation_name", "a request")
    if code in _EXPIRED:
        do = "Sign in again (`aws sso login`) or renew the keys, and repeat the command."
        return Problem("The credentials have expired", message, do, ExitCode.UNREACHABLE)
    if code in _REFUSED:
        return Problem("AWS rejects the credentials", message, _LOCAL, ExitCode.UNREACHABLE)
    if code in _DENIED or code.endswith("AccessDenied"):
        do = "docs/operations.md lists what each command needs."
        return Problem(f"Permission denied: {operation} was denied", message, do, ExitCode.DENIED)
    if "NonExistentQueue" in code or code in ("QueueDoesNotExist", "ResourceNotFoundException", "NoSuchBucket"):
        do = "`nexus status` shows what is missing, `nexus repair` restores it."
        return Problem(f"A part of the stack is missing: {operation} found nothing", message, do)
    if code in _CHANGING:
        return Problem(f"{operation} was refused: an earlier change is in progress", message, "Try again in a minute.")
    if "hrottl" in code or code in _BUSY:
        return Problem(f"AWS throttles {operation}", message, "Try again in a minute.")
    return Problem(f"{operation} failed: {code}", message)


def _of_nexus(error: BaseException) -> Problem | None:
    from nexus import errors

    match error:
        case errors.InvalidMessage() | errors.UnknownTask():
            return usage(str(error))
        case errors.SendFailed() if (problem := _of_botocore(error.__cause__)) is not None:
            return problem
        case errors.ConfigurationError():
            return Problem(str(error), code=ExitCode.UNREACHABLE)
        case errors.NexusError():
            return Problem(str(error))
    return None
