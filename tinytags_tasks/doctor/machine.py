"""The machine itself: Python, Java, disk, and the folders that TinyTags writes."""

import os
import platform
from collections.abc import Iterator

from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.services.control import GROUPS, external_addresses, is_external
from tinytags_tasks.services.disk import disk_is_full, disk_is_low
from tinytags_tasks.services.jars import jars_folder
from tinytags_tasks.services.java import find_java, version_of
from tinytags_tasks.settings import Settings, unknown_variables

_JAVA = ("hdfs", "solr", "spark")
"""The groups whose engines run in Java."""

_FETCHED = ("hdfs", "solr")
"""Those whose jars are fetched into the cache, which an image for containers brings and nobody may write."""

_area = Area("machine")


def examine_machine(settings: Settings) -> Iterator[Finding]:
    """Yield what this machine lacks for the engines that it runs, and for the commands."""
    yield _area.ok("python", platform.python_version())
    external = external_addresses()
    embedded = [group.name for group in GROUPS if not is_external(group, external)]
    if set(embedded) & set(_JAVA):
        yield from _area.each("java", lambda: _java(settings))
    if full := disk_is_full(settings.home):
        yield _area.fails("disk", full)
    elif low := disk_is_low(settings.home):
        yield _area.warning("disk", low, "move TINYTAGS_HOME to a larger disk, or run `tinytags prune`")
    else:
        yield _area.ok("disk", f"{settings.home} has room")
    written = {"TINYTAGS_HOME": settings.home}
    if any(name in embedded and not jars_folder(settings, name).is_dir() for name in _FETCHED):
        written["TINYTAGS_CACHE"] = settings.cache
    for name, folder in written.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(existing, os.W_OK):
            yield _area.fails("rights", f"{existing} cannot be written", f"set {name} to a folder of your own")
    for warning in unknown_variables(os.environ):
        yield _area.warning("settings", warning, "correct or unset it")


def _java(settings: Settings) -> Iterator[Finding]:
    java = find_java(settings)
    yield _area.ok("java", f"{version_of(java)} ({java})")
