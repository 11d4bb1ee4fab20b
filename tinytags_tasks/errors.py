"""The error tree. The branch of an error says what to do about it.

::

    TinyTagsError
    ├── TransientError          worth a retry: a process was killed, a write lost a race
    │   ├── WaitError           nothing failed: the work has to wait
    │   │   ├── EngineDownError     for an engine: it is down, or says that it cannot work now
    │   │   └── OtherWriterError    for another writer of the same thing
    │   └── LostWriteError      another writer deleted the temporary file of a write
    └── FinalError              a retry would fail again
        ├── BadInputError       the user's input cannot be used: a file, a number, a name
        ├── MissingError        something that should be in the store is missing
        ├── CorruptError        stored bytes are not what was written
        ├── NewerFormatError    a newer version of TinyTags wrote it
        └── ReconcileError      counts that must be equal differ

Airflow tasks turn :class:`FinalError` into ``AirflowFailException``, and wait for what a :class:`WaitError` names, in
one place (``dags/tinytags_airflow.py``); the command line prints one line for any of them and exits with code 2. A
message says what is wrong, where (file, block, offset), and what to do about it.
"""

import ssl
from collections.abc import Iterator


class TinyTagsError(Exception):
    """Base class of everything that TinyTags raises deliberately."""


class TransientError(TinyTagsError):
    """A failure that is worth a retry: the same call may succeed later."""


class WaitError(TransientError):
    """Nothing failed, but the work has to wait; ``awaited`` says for what, such as "Solr"."""

    awaited = "another process"


class EngineDownError(WaitError):
    """An engine is away: nothing answers at its address, or it says that it cannot work at the moment.

    Parameters
    ----------
    message
        The error message.
    engine
        The engine's name, for people.
    """

    def __init__(self, message: str, engine: str = "an engine") -> None:
        super().__init__(message)
        self.awaited = engine


class OtherWriterError(WaitError):
    """Another writer is at work on the same thing: once it has ended, the work may be done already."""

    awaited = "another writer"


class LostWriteError(TransientError):
    """Another writer deleted the temporary file of a write before it was renamed."""


class FinalError(TinyTagsError):
    """A failure that a retry cannot fix: someone has to act."""


class BadInputError(FinalError):
    """The user's input cannot be used."""


class MissingError(FinalError):
    """Something that should be in the store is missing."""


class CorruptError(FinalError):
    """Stored bytes are not what was written."""


class NewerFormatError(FinalError):
    """A newer version of TinyTags wrote it, so this version could misread it."""


class ReconcileError(FinalError):
    """Counts that must be equal differ."""


def explained(error: FinalError, message: str) -> FinalError:
    """Return an error with another message, of the same class, and with the first error as its cause.

    A class from elsewhere may need more than a message, so its nearest base of this module takes its place.
    """
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == __name__ and issubclass(kind, FinalError))
    made: FinalError = kind(message)
    made.__cause__ = error
    return made


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and what led to it, however a library has wrapped it; the innermost comes last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        nested = (argument for argument in cause.args if isinstance(argument, BaseException))
        cause = cause.__cause__ or cause.__context__ or next(nested, None)


def refused_certificate(error: BaseException, where: str, engine: str) -> FinalError | None:
    """Return what the error of a connection means if it is the server's certificate; None if it is not.

    Parameters
    ----------
    error
        As the client raised it.
    where
        The address of what was asked for.
    engine
        The server's name, for people.
    """
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FinalError(
                f"{where}: the certificate of {engine} is not valid ({type(cause).__name__}: {cause}); name the file "
                "of its authority in SSL_CERT_FILE"
            )
    return None


def http_status(error: TinyTagsError) -> int:
    """Return the HTTP status of a response that reports an error."""
    if isinstance(error, TransientError):
        return 503
    if isinstance(error, MissingError):
        return 404
    return 400 if isinstance(error, BadInputError) else 500


def joined_lines(error: BaseException) -> str:
    """Return the message of a library's error with its lines joined by spaces, as Arrow and Pillow write several."""
    return " ".join(str(error).split())


def one_line(message: object) -> str:
    """Return a message as one line: characters that a terminal would obey, such as a line's end, are escaped."""
    text = str(message)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
