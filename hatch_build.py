"""Puts Dags, plugins and Solr's configset into a wheel, where ``tinytags_tasks/parts.py`` looks for them."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PartsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds them to wheels, and not to an installation in place, which would hold copies that grow old."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders, under the package."""
        if version != "editable":
            for folder in ("dags", "plugins", "solr"):
                build_data["force_include"][folder] = f"tinytags_tasks/beside/{folder}"
