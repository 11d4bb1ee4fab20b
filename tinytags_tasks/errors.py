"""The one error tree; the branch says what to do.

::

    TinyTagsError
    ├── TransientError          worth a retry: an engine away or busy, a write that lost a race
    │   ├── EngineDownError     nothing answers at an engine's address
    │   └── LostWriteError      another writer deleted the temporary file of a write
    └── FinalError              a retry changes nothing
        ├── BadInputError       what the user gave cannot be used: a file, a number, a name
        ├── MissingError        something that should be in the store is not
        ├── CorruptError        stored bytes are not what was written
        ├── NewerFormatError    a newer TinyTags wrote it
        └── ReconcileError      counts that must be equal are not

Airflow tasks turn :class:`FinalError` into ``AirflowFailException`` in one place (``dags/tinytags_airflow.py``); the
command line turns any of them into one line and exit code 2. A message names what, where (file, block, offset) and the
remedy.
"""


class TinyTagsError(Exception):
    """Base of everything that TinyTags raises on purpose."""


class TransientError(TinyTagsError):
    """Worth a retry: the same call may succeed later."""


class EngineDownError(TransientError):
    """Nothing answers at an engine's address."""


class LostWriteError(TransientError):
    """Another writer deleted the temporary file of a write before it was renamed."""


class FinalError(TinyTagsError):
    """A retry changes nothing: somebody has to act."""


class BadInputError(FinalError):
    """What the user gave cannot be used."""


class MissingError(FinalError):
    """Something that should be in the store is not."""


class CorruptError(FinalError):
    """Stored bytes are not what was written."""


class NewerFormatError(FinalError):
    """A newer TinyTags wrote it; what this one would make of it is not to be trusted."""


class ReconcileError(FinalError):
    """Counts that must be equal are not."""


def http_status(error: TinyTagsError) -> int:
    """Return the HTTP status of an answer that reports an error."""
    if isinstance(error, TransientError):
        return 503
    if isinstance(error, MissingError):
        return 404
    return 400 if isinstance(error, BadInputError) else 500
