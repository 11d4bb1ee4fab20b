"""The base of every stored record: one JSON file with the number of its format and a checksum of its fields."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from tinytags_tasks.errors import CorruptError, FinalError, NewerFormatError
from tinytags_tasks.store.protocol import Storage

CHECKSUM_KEY = "record_sha256"
"""Key of a record's checksum in its JSON; records from before there were checksums have none."""


def check_format(found: object, known: int, where: str, remedy: str) -> int:
    """Return the number of a stored format; 1 if it has no number.

    Parameters
    ----------
    found
        The stored number; None if there is none.
    known
        The newest format that this version reads.
    where, remedy
        The path and what to do about damage, for the error.

    Raises
    ------
    NewerFormatError
        If it is newer than the known one.
    CorruptError
        If it is not a format's number.
    """
    number = 1 if found is None else found
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise CorruptError(f"{where}: damaged (its format is {number!r}); {remedy}")
    if number > known:
        raise NewerFormatError(
            f"{where}: made by a newer TinyTags (format {number}, this one reads up to {known}); upgrade this TinyTags "
            "to the version that wrote it, or a later one"
        )
    return number


class Part(BaseModel):
    """A part of a record, covered by the format of that record."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def replaced(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return self.model_copy(update=changes)


class Record(Part):
    """A record that is one JSON file in the store.

    Attributes
    ----------
    FORMAT
        The number of its current format. A change that an older TinyTags must not ignore raises it; see
        ``docs/adr/0017-identities.md``.
    """

    FORMAT: ClassVar[int] = 1

    @property
    def written_format(self) -> int:
        """The number that it is stored with: an earlier one if an older TinyTags may read this very record."""
        return self.FORMAT

    @classmethod
    def upgraded(cls, fields: dict[str, Any], number: int) -> dict[str, Any]:
        """Return the fields of an older format, ``number``, as the current format has them."""
        return fields

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return what to do if the record at a path is damaged: the command that writes it again."""
        raise NotImplementedError

    @classmethod
    def parse(cls, stored: bytes, where: str) -> Self:
        """Return a record from its JSON.

        Parameters
        ----------
        stored
            The JSON, in the current format or an older one.
        where
            Its path, for error messages.

        Raises
        ------
        NewerFormatError
            If a newer TinyTags wrote it.
        CorruptError
            If it is incomplete, of another kind, or not what was written.
        """
        fields: object = None
        with suppress(ValueError):  # the validation reports what is wrong
            fields = from_json(stored)
        if isinstance(fields, dict):
            number = check_format(fields.get("format"), cls.FORMAT, where, cls.remedy(where))
            cls._check_checksum(fields, where)
            fields = {name: value for name, value in fields.items() if name not in ("format", CHECKSUM_KEY)}
            if number < cls.FORMAT:
                stored = to_json(cls.upgraded(fields, number))
        try:
            return cls.model_validate_json(stored)
        except ValidationError as error:
            problem = error.errors()[0]
            raise CorruptError(f"{where}: no usable {cls.__name__} ({problem['msg']}); {cls.remedy(where)}") from error

    @classmethod
    def _check_checksum(cls, fields: dict[str, Any], where: str) -> None:
        """Refuse fields that differ from those that were written; fields without a checksum are accepted."""
        if CHECKSUM_KEY in fields:
            if fields[CHECKSUM_KEY] != _fields_checksum(fields):
                raise CorruptError(
                    f"{where}: damaged (its fields are not those that were written: their checksum differs); "
                    f"{cls.remedy(where)}"
                )
        elif any(_is_checksum(fields[name]) for name in fields.keys() - cls.model_fields.keys()):
            raise CorruptError(f"{where}: damaged (its checksum has another name); {cls.remedy(where)}")

    @classmethod
    def load(cls, storage: Storage, path: str) -> Self:
        """Read a record.

        Raises
        ------
        MissingError
            If it does not exist.
        NewerFormatError
            If a newer TinyTags wrote it.
        CorruptError
            If it is incomplete, of another kind, or not what was written.
        """
        try:
            stored = storage.read(path)
        except CorruptError as error:
            raise CorruptError(f"{error}; {cls.remedy(path)}") from error
        return cls.parse(stored, path)

    def stored(self) -> bytes:
        """Return the JSON that the store holds: the format's number, the fields, and a checksum of both."""
        fields = {"format": self.written_format, **self.model_dump(mode="json")}
        return to_json({**fields, CHECKSUM_KEY: _fields_checksum(from_json(to_json(fields)))}, indent=1)

    def save(self, storage: Storage, path: str, *, overwrite: bool = True) -> bool:
        """Write the record in one atomic step; return False if it exists and must not be overwritten."""
        return storage.write(path, self.stored(), overwrite=overwrite)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def load_readable(
    names: Iterable[str], load: Callable[[str], AnyRecord], on_damage: Callable[[str], None] | None
) -> list[AnyRecord]:
    """Return the records of some names, for lists that one damaged record must not stop.

    Parameters
    ----------
    names
        The names.
    load
        Returns the record of a name.
    on_damage
        Called for each record that cannot be read, with what is wrong and the remedy. None raises this as an error.

    Raises
    ------
    FinalError
        If a record cannot be read and ``on_damage`` is None.
    """
    records = []
    for name in names:
        try:
            records.append(load(name))
        except FinalError as error:
            if on_damage is None:
                raise
            on_damage(str(error))
    return records


def _fields_checksum(fields: dict[str, Any]) -> str:
    """Return the sha256 of fields in JSON, whatever their order and spacing; the checksum itself is left out.

    Fields that this version does not know count as well: a later version may have added them.
    """
    others = {name: value for name, value in fields.items() if name != CHECKSUM_KEY}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_checksum(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def now() -> str:
    """Return the current time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def now_after(earlier: Iterable[str]) -> str:
    """Return the current time, or the second after the latest of earlier ones.

    Records that are sorted by time are then in the order in which they were made, even if two were made in one second,
    or the clock was set back.
    """
    known = (datetime.fromisoformat(time) for time in earlier)
    following = ((time if time.tzinfo else time.replace(tzinfo=UTC)) + timedelta(seconds=1) for time in known)
    return max([datetime.fromisoformat(now()), *following]).isoformat(timespec="seconds")
