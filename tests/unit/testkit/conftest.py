"""An application's tests as the plugin runs them."""

from nexus.pytest import nexus_tasks

__all__ = ["nexus_tasks"]
