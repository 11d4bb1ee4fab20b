"""What every stored record is: one JSON file that says in which format it was written."""

from contextlib import suppress
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from tinytags_tasks.errors import CorruptError, NewerFormatError
from tinytags_tasks.storage import Storage

_WRITE_AGAIN = "delete it and run the stage that writes it again"


def check_format(found: object, known: int, where: str) -> int:
    """Return the format of what is stored; what has no number was written before there were any, in format 1.

    Raises
    ------
    NewerFormatError
        When it is newer than the known one.
    CorruptError
        When it is no format's number.
    """
    number = 1 if found is None else found
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise CorruptError(f"{where}: damaged (its format is {number!r}); {_WRITE_AGAIN}")
    if number > known:
        raise NewerFormatError(
            f"{where}: made by a newer TinyTags (format {number}, this one reads up to {known}); upgrade this TinyTags "
            "to the version that wrote it, or a later one"
        )
    return number


class Part(BaseModel):
    """A part of records; what it holds is of its record's format."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def replaced(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return self.model_copy(update=changes)


class Record(Part):
    """A record that is one JSON file in the store.

    Attributes
    ----------
    FORMAT
        The number of its present format, raised by a change that an older TinyTags must not ignore; see
        ``docs/adr/0017-identities.md``.
    """

    FORMAT: ClassVar[int] = 1

    @classmethod
    def upgraded(cls, fields: dict[str, Any], number: int) -> dict[str, Any]:
        """Return the fields of an older format, ``number``, as the present one has them."""
        return fields

    @classmethod
    def parse(cls, stored: bytes, where: str) -> Self:
        """Return a record from its JSON.

        Parameters
        ----------
        stored
            The JSON, of the present format or an older one.
        where
            What to name in an error: its path.

        Raises
        ------
        NewerFormatError
            When a newer TinyTags wrote it.
        CorruptError
            When it is cut short or of another kind.
        """
        fields: object = None
        with suppress(ValueError):  # the validation says what is wrong
            fields = from_json(stored)
        if isinstance(fields, dict):
            number = check_format(fields.pop("format", None), cls.FORMAT, where)
            if number < cls.FORMAT:
                stored = to_json(cls.upgraded(fields, number))
        try:
            return cls.model_validate_json(stored)
        except ValidationError as error:
            problem = error.errors()[0]
            raise CorruptError(f"{where}: no usable {cls.__name__} ({problem['msg']}); {_WRITE_AGAIN}") from error

    @classmethod
    def load(cls, storage: Storage, path: str) -> Self:
        """Read a record.

        Raises
        ------
        MissingError
            When there is none.
        NewerFormatError
            When a newer TinyTags wrote it.
        CorruptError
            When it is cut short or of another kind.
        """
        return cls.parse(storage.read(path), path)

    def stored(self) -> bytes:
        """Return the JSON that the store holds: the format's number, then the fields."""
        return to_json({"format": self.FORMAT, **self.model_dump(mode="json")}, indent=1)

    def save(self, storage: Storage, path: str, *, overwrite: bool = True) -> bool:
        """Write the record in one atomic step; False when it was there and must not be overwritten."""
        return storage.write(path, self.stored(), overwrite=overwrite)
