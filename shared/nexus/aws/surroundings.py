"""AWS settings that environment variables give directly: region, endpoint, credentials, TLS trust.

With anything else (a profile, a configuration file, a proxy, FIPS, another partition), or if a test intercepts
botocore's requests, botocore's own client is used.
"""

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexus.settings import Settings

if TYPE_CHECKING:
    from ssl import SSLContext

CONNECTIONS = 16
USER_AGENT = "nexus-tasks/0.1"
"""Replaces botocore's, which is built twice for each request, at an eighth of the request's CPU."""

SERVICES = ("dynamodb", "sqs")
BOTOCORES = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_DATA_PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)
"""Variables that only botocore understands, in upper or lower case."""

FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
REGIONS = re.compile(r"(us|us-gov|eu|ap|sa|ca|mx|me|il|af)-(north|south|east|west|central)+-\d")


def plain_endpoint(service: str, settings: Settings) -> str | None:
    """The URL of a service; None where botocore's client has to be used."""
    if service not in SERVICES or settings.client == "boto3" or not REGIONS.fullmatch(settings.region):
        return None
    given = os.environ.get
    if any(given(name) or given(name.lower()) for name in BOTOCORES):
        return None
    if any(_is_file(given(name) or usual) for name, usual in FILES.items()):
        return None
    if (bundle := _given_bundle()) and not _is_file(bundle):
        return None
    if bool(given("AWS_ACCESS_KEY_ID")) != bool(given("AWS_SECRET_ACCESS_KEY")) or _answered_in_botocore():
        return None
    endpoint = given(f"AWS_ENDPOINT_URL_{service.upper()}") or given("AWS_ENDPOINT_URL")
    if endpoint:
        return endpoint if re.fullmatch(r"https?://[^/?#@\s]+/?", endpoint) else None
    return f"https://{service}.{settings.region}.amazonaws.com"


def _is_file(path: str) -> bool:
    """Uses os.path, which raises no error for a missing home directory or an unreadable folder."""
    return os.path.isfile(os.path.expanduser(path))  # noqa: PTH111, PTH113


def _answered_in_botocore() -> bool:
    """Whether something intercepts botocore's requests, as moto does from the moment it is imported."""
    handlers: Any = getattr(sys.modules.get("botocore.handlers"), "BUILTIN_HANDLERS", ())
    return any(handler[0].startswith("before-send") for handler in handlers)


@cache
def tls() -> "SSLContext":
    """The context that verifies a server's certificate as botocore does, with the same bundle."""
    import ssl

    context = ssl.create_default_context(cafile=_given_bundle() or _usual_bundle())
    # Python 3.13's default refuses certificates, such as those of a company's proxy, that do not follow RFC 5280.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _given_bundle() -> str | None:
    return os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")


def _usual_bundle() -> str:
    try:
        from certifi import where
    except ImportError:
        import botocore

        return str(Path(botocore.__file__).with_name("cacert.pem"))
    return where()


def credentials(found: Callable[[], Any]) -> Callable[[], tuple[str, str, str | None]]:
    """Returns the provider of request credentials: from the variables, as in a function, else those that botocore has
    `found`.

    Botocore's are read for each request, because they may have been refreshed. Raises NoCredentialsError.
    """
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if key and secret and not os.environ.get("AWS_CREDENTIAL_EXPIRATION"):
        token = os.environ.get("AWS_SECURITY_TOKEN") or os.environ.get("AWS_SESSION_TOKEN") or None
        return lambda: (key, secret, token)

    def given() -> tuple[str, str, str | None]:
        frozen = found().get_frozen_credentials()
        return frozen.access_key, frozen.secret_key, frozen.token

    return given
