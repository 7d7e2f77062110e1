"""Measures what pictures and clips cost. Makes the modules of the media function importable."""

import sys

from bench.tables import ROOT

sys.path[:0] = [str(ROOT / folder) for folder in ("shared", "functions/media")]
