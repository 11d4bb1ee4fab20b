"""Solr configsets: what one means, its name in Solr, and the copy in the store that lets a run keep its own.

A configset's identity is what it means: comments and white space in its XML do not count, so an upgrade that explains a
field better leaves every run as it is. See ``docs/adr/0018-configsets.md``.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.settings import PROJECT_ROOT
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage

CONFIGSET_FOLDER = PROJECT_ROOT / "solr" / "tinytags" / "conf"

FOUNDING_IDENTITY = "212f605053bcaeb1836beefe061f4dc2984fd971724d50d011a5827f9d808d74"
"""Identity of the configset that was current when configsets got one."""

FOUNDING_CONFIGSET = "tinytags-c38ce0817f"
"""Name of the founding configset in Solr, where collections have it already: a hash of its bytes as they were then.

Of all configsets only this one is not named by its identity, and leaves the name of its runs as it was.
"""

_NAME = r"tinytags-[0-9a-f]{10}"


@dataclass(frozen=True)
class Configset:
    """A configset's files, by their path in it."""

    files: Mapping[str, bytes]

    @cached_property
    def identity(self) -> str:
        """Hash of what it means.

        For each file in the order of their paths: the path, a line end, the number of bytes that follow, a line end,
        and these bytes. They are the file's; of one that ends in ``.xml`` they are its Canonical XML 2.0 without
        comments and with trimmed text (https://www.w3.org/TR/xml-c14n2/).
        """
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            meaning = _canonical_xml(path, content) if path.endswith(".xml") else content
            digest.update(f"{path}\n{len(meaning)}\n".encode() + meaning)
        return digest.hexdigest()

    @property
    def name(self) -> str:
        """Its name in Solr."""
        return FOUNDING_CONFIGSET if self.identity == FOUNDING_IDENTITY else f"tinytags-{self.identity[:10]}"

    def packed(self) -> bytes:
        """Return it as a zip file, as Solr takes it; the same files give the same bytes."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path, content in sorted(self.files.items()):
                archive.writestr(zipfile.ZipInfo(path), content)
        return packed.getvalue()


def is_own_name(configset: str) -> bool:
    """Tell whether a configset's name in Solr is one that TinyTags gives."""
    return re.fullmatch(_NAME, configset) is not None


def current_configset() -> Configset:
    """Return the configset of this checkout, which new runs get.

    Raises
    ------
    MissingError
        If the checkout has none.
    BadInputError
        If one of its files is not XML although its name says so.
    """
    return read_configset(CONFIGSET_FOLDER)


def read_configset(folder: Path) -> Configset:
    """Return a folder's configset, without hidden files and an editor's backups.

    Raises
    ------
    MissingError
        If there is none.
    BadInputError
        If one of its files is not XML although its name says so.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path.name[-1] != "~"]
    if not paths:
        raise MissingError(f"{folder}: there is no configset; is the checkout complete?")
    configset = Configset({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})
    try:
        _ = configset.identity
    except BadInputError as error:
        raise BadInputError(f"{folder}/{error}") from error
    return configset


def keep_configset(configset: Configset, storage: Storage) -> None:
    """Copy a configset into the store, unless it has one of the same meaning."""
    storage.write(layout.configset_file(configset.name), configset.packed(), overwrite=False)


def kept_configset(name: str, storage: Storage) -> Configset:
    """Return the configset of this name: the checkout's, else the store's copy.

    Raises
    ------
    MissingError
        If neither has it.
    CorruptError
        If the copy is damaged.
    """
    current = current_configset()
    if current.name == name:
        return current
    path = layout.configset_file(name)
    try:
        stored = storage.read(path)
    except MissingError as error:
        raise MissingError(
            f"{path}: the store has no copy of configset {name}, and this checkout has {current.name}: check out the "
            "version that the run was made with, or make a new run with `tinytags run`"
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(stored)) as archive:
            found = Configset({path: archive.read(path) for path in archive.namelist()})
            is_whole = found.name == name
    except (zipfile.BadZipFile, BadInputError) as error:
        raise CorruptError(f"{path}: damaged ({error}); make a new run with `tinytags run`") from error
    if not is_whole:
        raise CorruptError(f"{path}: holds another configset, {found.name}; make a new run with `tinytags run`")
    return found


def _canonical_xml(path: str, content: bytes) -> bytes:
    try:
        return ElementTree.canonicalize(from_file=io.BytesIO(content), strip_text=True).encode()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise BadInputError(f"{path}: no XML ({error})") from error
