"""Sources at an address: how each kind is opened and read in parts, and what its errors mean."""

from collections.abc import Mapping, Sequence
from typing import Any

from tinytags_tasks.corpus.sources.hdfs import open_hdfs
from tinytags_tasks.errors import BadInputError, EngineDownError, TinyTagsError, TransientError
from tinytags_tasks.secrecy import without_secrets
from tinytags_tasks.store.hdfs_errors import (
    AWAY_STATUSES,
    FORBIDDEN_STATUSES,
    RedirectFailedError,
    away,
    is_forbidden,
    problem_of_datanode,
    strip_secrets,
)
from tinytags_tasks.store.kerberos import KdcAwayError, KerberosError

SOURCE = "the corpus' source"

_TRANSIENT_STATUSES = {408, 425}


class ForbiddenError(BadInputError):
    """A file or folder of a source may not be read."""


class WebPageError(BadInputError):
    """A web server sends a page, such as a folder's index, where a file was expected."""


def open_remote(
    source: str,
    options: Mapping[str, Any],
    *,
    webhdfs_url: str | None,
    hdfs_user: str | None,
    hdfs_kerberos: bool,
) -> tuple[Any, str]:
    """Return the file system of a source, and the source's path in it; no server is contacted.

    Parameters
    ----------
    source
        An address.
    options
        Options of the file system.
    webhdfs_url, hdfs_user, hdfs_kerberos
        Where ``hdfs:///path`` is, the user who reads HDFS, and whether it asks for a Kerberos ticket instead.

    Raises
    ------
    BadInputError
        If the address is incomplete.
    """
    import fsspec

    scheme, _, rest = source.partition("://")
    if scheme in ("hdfs", "webhdfs"):
        return open_hdfs(source, options, webhdfs_url=webhdfs_url, hdfs_user=hdfs_user, hdfs_kerberos=hdfs_kerberos)
    if not rest.strip("/"):
        raise BadInputError(
            f"{without_secrets(source)}: incomplete; write for example https://host/path or s3://bucket/path"
        )
    flat = {"use_listings_cache": False} if scheme in ("s3", "s3a") else {}  # it would cache every object's entry
    remote, root = fsspec.url_to_fs(source, **{**flat, **options})
    return remote, str(root)


def read_range(remote: Any, path: str, offset: int, length: int) -> bytes:  # noqa: ANN401 - fsspec has no types
    """Return bytes of a file, fewer where it ends.

    Raises
    ------
    BadInputError
        If its server does not support ranges.
    """
    protocols = (remote.protocol,) if isinstance(remote.protocol, str) else remote.protocol
    if "http" not in protocols:
        return bytes(remote.cat_file(path, start=offset, end=offset + length))
    # If a server ignores the range, cat_file takes the whole file; an opened file refuses it.
    with remote.open(path, "rb", block_size=1, cache_type="none", size=offset + length) as file:
        file.seek(offset)
        try:
            return bytes(file.read(length))
        except ValueError as error:
            raise BadInputError(
                f"{without_secrets(path)}: its server does not support ranges; download it and ingest the copy"
            ) from error


def remote_error(error: Exception, path: str, urls: Sequence[str] = ()) -> TinyTagsError | None:
    """Translate an error of a file system; None if it is not one. No message has the query of an address.

    Parameters
    ----------
    error
        As fsspec, or the library below it, raised it.
    path
        What was requested.
    urls
        The addresses of the NameNodes of a source in HDFS.
    """
    import aiohttp
    import requests
    import urllib3
    from botocore import exceptions as boto  # type: ignore[import-untyped]
    from hdfs import HdfsError

    path = without_secrets(path)
    if isinstance(error, HdfsError):
        return _hdfs_error(error, path)
    if isinstance(error, requests.RequestException):
        strip_secrets(error)
    if isinstance(error, KdcAwayError):
        return EngineDownError(f"{path}: {error}", SOURCE)
    if isinstance(error, KerberosError):
        return BadInputError(f"{path}: {error}")
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, aiohttp.ClientError | OSError | ValueError):
        error = cause  # over http, fsspec reports every failure as a missing file
    reason = without_secrets(f"{type(error).__name__}: {error}")
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return BadInputError(f"{path}: no such file or folder; correct the address")
    if isinstance(error, PermissionError) or status in FORBIDDEN_STATUSES:
        return ForbiddenError(f"{path}: permission denied ({reason}); check its permissions and your credentials")
    if status == 416:
        return BadInputError(f"{path}: ends before the requested bytes; it was truncated")
    if status in AWAY_STATUSES:
        return EngineDownError(f"{path}: its server cannot answer now ({reason})", SOURCE)
    if status in _TRANSIENT_STATUSES or status >= 500:
        return TransientError(f"{path}: cannot be read now ({reason})")
    if status >= 300:
        return BadInputError(f"{path}: its server refuses ({reason}); correct the address or the options")
    if isinstance(error, aiohttp.ClientSSLError | requests.exceptions.SSLError | boto.SSLError):
        return BadInputError(f"{path}: the certificate of its server is not valid ({reason}); correct the address")
    if isinstance(
        error,
        ConnectionError
        | TimeoutError
        | aiohttp.ClientConnectionError
        | requests.ConnectionError
        | requests.Timeout
        | RedirectFailedError
        | urllib3.exceptions.HTTPError
        | boto.ConnectionError
        | boto.HTTPClientError,
    ):
        node = problem_of_datanode(error, urls) if urls and isinstance(error, requests.RequestException) else ""
        return EngineDownError(f"{path}: {node or 'its server does not answer'} ({reason})", SOURCE)
    if isinstance(error, boto.CredentialRetrievalError | boto.MetadataRetrievalError | boto.IncompleteReadError):
        return TransientError(f"{path}: cannot be read now ({reason})")
    if isinstance(error, ImportError | ValueError | TypeError | NotImplementedError | boto.BotoCoreError):
        return BadInputError(
            f"{path}: cannot be read ({reason}); use a path, or an hdfs, http(s) or s3 address, and options of its "
            "file system"
        )
    libraries = ("aiohttp", "botocore", "aiobotocore")
    if isinstance(error, OSError | RuntimeError) or type(error).__module__.split(".")[0] in libraries:
        return TransientError(f"{path}: cannot be read now ({reason})")
    return None


def _hdfs_error(error: Any, path: str) -> TinyTagsError:  # noqa: ANN401 - hdfs has no types
    """Return what HDFS' refusal means."""
    exception, message = error.exception, without_secrets(f"{error.exception or 'HdfsError'}: {error}")
    if exception == "FileNotFoundException":
        return BadInputError(f"{path}: no such file or folder; correct the address")
    if exception in ("IllegalArgumentException", "UnsupportedOperationException", "InvalidPathException"):
        return BadInputError(f"{path}: cannot be read ({message}); correct the address or the options")
    if problem := away(exception or "", str(error)):
        return EngineDownError(f"{path}: {problem} ({message})", SOURCE)
    if is_forbidden(error):
        return ForbiddenError(f"{path}: permission denied ({message}); check its permissions and your credentials")
    return TransientError(f"{path}: cannot be read now ({message})")


def _status(error: Exception) -> int:
    """Return the HTTP status of an error; 0 if it has none."""
    import aiohttp
    import requests
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]

    if isinstance(error, aiohttp.ClientResponseError):
        return error.status
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code
    for answered in (error, error.__cause__, error.__context__):
        if isinstance(answered, ClientError):
            return int(answered.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0
