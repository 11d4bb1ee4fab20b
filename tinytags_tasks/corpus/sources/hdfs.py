"""Sources in HDFS, through the store's own WebHDFS client."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.webhdfs import WebHdfs

_OPTIONS = {
    "user": "user",
    "token": "token",
    "proxy_to": "acting_for",
    "session_verify": "verify",
    "session_cert": "certificate",
}
"""A definition's options, named as fsspec names them, and what they are to :class:`WebHdfs`."""

_OWN_OPTIONS = ("kerberos", "use_https", "gateway")


class HdfsFiles:
    """As much of fsspec's interface to a file system as sources ask for.

    Parameters
    ----------
    hdfs
        The HDFS that is read.
    """

    protocol = "webhdfs"

    def __init__(self, hdfs: WebHdfs) -> None:
        self._hdfs = hdfs
        self.url: str = hdfs.client.url
        self.urls: tuple[str, ...] = tuple(hdfs.client.urls)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Do nothing: there is no cache."""

    def info(self, path: str) -> dict[str, Any]:
        """Return what HDFS knows of a file or folder."""
        return _entry(path, self._hdfs.client.status(path))

    def ls(self, path: str, detail: bool = True) -> list[dict[str, Any]]:
        """Return what is in a folder."""
        return [
            _entry(f"{path.rstrip('/')}/{name}", status) for name, status in self._hdfs.client.list(path, status=True)
        ]

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        """Return bytes of a file, fewer where it ends."""
        return self._hdfs.read(path, start, end - start)


def _entry(path: str, status: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": path,
        "size": status["length"],
        "type": str(status["type"]).lower(),
        "modificationTime": status["modificationTime"],
    }


def open_hdfs(
    source: str, options: Mapping[str, Any], *, webhdfs_url: str | None, hdfs_user: str | None, hdfs_kerberos: bool
) -> tuple[HdfsFiles, str]:
    """Return the HDFS of a source, and the source's path in it; nothing is contacted.

    Parameters
    ----------
    source
        ``hdfs:///path`` in the store's own HDFS, or ``webhdfs://host:port/path`` in another one.
    options
        The definition's options, as fsspec names them, and ``gateway``: the path of a gateway such as Knox, if
        another HDFS is behind one. That and ``use_https`` have no effect on the store's own HDFS.
    webhdfs_url, hdfs_user, hdfs_kerberos
        Where ``hdfs:///path`` is, as the store's own address says, the user who reads it, and whether it asks for a
        Kerberos ticket instead.

    Raises
    ------
    BadInputError
        If the address does not name an HDFS, or an option is unknown.
    """
    import fsspec.config

    options = {**fsspec.config.conf.get("webhdfs", {}), **options}  # such as FSSPEC_WEBHDFS_TOKEN
    if unknown := set(options) - set(_OPTIONS) - set(_OWN_OPTIONS):
        raise BadInputError(
            f"{source}: HDFS has no option {min(unknown)}; options are {', '.join(sorted((*_OPTIONS, *_OWN_OPTIONS)))}"
        )
    scheme, _, rest = source.partition("://")
    host, _, path = rest.partition("/")
    if scheme == "hdfs" and host:
        raise BadInputError(
            f"{source}: write hdfs:///path for the HDFS that TinyTags keeps its store in, or webhdfs://host:9870/path "
            "for another one"
        )
    named = urlsplit(f"//{host}")
    address = _http_address(named, options) if host else (webhdfs_url or "").rstrip("/")
    parts = [part for part in address.split(";") if part]
    if not (parts and all(urlsplit(part).hostname for part in parts)):
        raise BadInputError(f"{source}: no HDFS is known; start one with `tinytags up`, or set TINYTAGS_WEBHDFS_URL")
    given = {own: options[name] for name, own in _OPTIONS.items() if name in options}
    if options.get("kerberos", hdfs_kerberos and not host):
        given["kerberos"] = True
    elif not {"user", "token"} & set(options):
        given["user"] = named.username or hdfs_user or ""
    return HdfsFiles(WebHdfs(address, **given)), f"/{path.strip('/')}"


def _http_address(named: SplitResult, options: Mapping[str, Any]) -> str:
    """Return the HTTP address of the host that a source names, or of its gateway, without a user."""
    scheme = "https" if options.get("use_https") else "http"
    name = f"[{named.hostname}]" if ":" in (named.hostname or "") else named.hostname or ""
    gateway = str(options.get("gateway", "")).strip("/")
    return f"{scheme}://{name}:{named.port or 9870}/{gateway}".rstrip("/")
