"""Solr configsets: their identity, their name in Solr, and the copy in the store that lets a run keep its own.

Comments and white space in its XML are not part of a configset's identity, so an upgrade that only explains a field
better does not affect any run. See ``docs/adr/0018-configsets.md``.
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
from tinytags_tasks.parts import SOLR
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage

CONFIGSET_FOLDER = SOLR / "tinytags" / "conf"

FOUNDING_IDENTITY = "212f605053bcaeb1836beefe061f4dc2984fd971724d50d011a5827f9d808d74"
"""Identity of the configset that was current when identities were introduced."""

FOUNDING_CONFIGSET = "tinytags-c38ce0817f"
"""Name of the founding configset in Solr, which collections already use: a hash of its bytes at that time.

Only this configset is not named after its identity, and only this one is not part of its runs' names.
"""

_NAME = r"tinytags-[0-9a-f]{10}"


@dataclass(frozen=True)
class Configset:
    """A configset's files, by their path in the configset."""

    files: Mapping[str, bytes]

    @cached_property
    def identity(self) -> str:
        """Hash of the configset's meaning.

        It covers, for each file in the order of paths: the path, a line feed, the number of bytes that follow, a line
        feed, and these bytes. They are the file's bytes, or, if the name ends in ``.xml``, its Canonical XML 2.0
        without comments and with trimmed text (https://www.w3.org/TR/xml-c14n2/).
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
        """Return a zip file for Solr; the same files give the same bytes."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path, content in sorted(self.files.items()):
                archive.writestr(zipfile.ZipInfo(path), content)
        return packed.getvalue()


def is_own_name(configset: str) -> bool:
    """Return whether a configset's name in Solr is one that TinyTags would give."""
    return re.fullmatch(_NAME, configset) is not None


def current_configset() -> Configset:
    """Return this checkout's configset, which new runs use.

    Raises
    ------
    MissingError
        If the checkout has no configset.
    BadInputError
        If a file whose name ends in ``.xml`` is not XML.
    """
    return read_configset(CONFIGSET_FOLDER)


def read_configset(folder: Path) -> Configset:
    """Return a folder's configset, without hidden files and editors' backups.

    Raises
    ------
    MissingError
        If the folder has no configset.
    BadInputError
        If a file whose name ends in ``.xml`` is not XML.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path.name[-1] != "~"]
    if not paths:
        raise MissingError(f"{folder}: contains no configset; is the checkout complete?")
    configset = Configset({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})
    try:
        _ = configset.identity
    except BadInputError as error:
        raise BadInputError(f"{folder}/{error}") from error
    return configset


def keep_configset(configset: Configset, storage: Storage) -> None:
    """Copy a configset to the store, unless the store already has one with the same name."""
    storage.write(layout.configset_file(configset.name), configset.packed(), overwrite=False)


def kept_configset(name: str, storage: Storage) -> Configset:
    """Return the configset with this name: the checkout's, or else the store's copy.

    Raises
    ------
    MissingError
        If neither has this configset.
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
        raise BadInputError(f"{path}: is not XML ({error})") from error
