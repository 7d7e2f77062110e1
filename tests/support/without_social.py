"""A pytest plugin under which `social` cannot be imported: it proves that the runtime's tests do not need it.

pytest -p tests.support.without_social tests/unit/runtime
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Missing:
    """A finder that reports one package as missing."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] == "social":
            raise ModuleNotFoundError(f"No module named {name!r}: the runtime does without it", name=name)
        return None


sys.meta_path.insert(0, _Missing)
