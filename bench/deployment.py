"""Sets up a measurement's process like one of the deployment: environment variables and importable modules."""

import os
import sys

from bench.tables import ROOT
from tests.support.template import ENVIRONMENT


def enter(*functions: str, **variables: str) -> None:
    """Sets a deployment's variables and the given ones, and makes the functions' modules importable."""
    os.environ.pop("AWS_ENDPOINT_URL", None)
    # Otherwise botocore sends an object in chunks with checksums, which the stand-in would store.
    os.environ |= ENVIRONMENT | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"} | variables
    sys.path += [str(ROOT / "functions" / name) for name in functions]
