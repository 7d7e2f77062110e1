"""What the measurements run as: a process of the deployment, as far as variables and modules go."""

import os
import sys
from pathlib import Path

from tests.support.template import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]


def enter(*functions: str, **variables: str) -> None:
    """Gives this process a deployment's variables, and these, and the modules of these functions."""
    os.environ.pop("AWS_ENDPOINT_URL", None)
    # Otherwise botocore sends an object in chunks, each with its checksum: not what the stand-in is to keep.
    os.environ |= ENVIRONMENT | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"} | variables
    sys.path += [str(ROOT / "functions" / name) for name in functions]
