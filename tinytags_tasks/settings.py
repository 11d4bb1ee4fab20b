"""Settings: ``TINYTAGS_*`` variables, then the addresses of the engines that ``tinytags up`` started."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import IN_CHECKOUT, PROJECT_ROOT
from tinytags_tasks.secrecy import without_password

HOME = PROJECT_ROOT / ".tinytags" if IN_CHECKOUT else Path.home() / ".tinytags"

ADDRESSES = ("webhdfs_url", "hdfs_url", "spark_url", "solr_url", "airflow_url", "search_url")
"""The settings that ``tinytags up`` records for the engines it started."""


Thumbnails = Literal["solr", "store"]
"""Where the images of a run's documents are kept: in the documents, or only in the store's shards."""

Similar = Literal["auto", "on", "off"]
"""Whether the documents of a run get vectors: ``auto`` gives them up to a size, if there are embeddings."""

Profile = Literal["normal", "small"]
"""How much memory the embedded engines get."""

SolrRole = Literal["admin", "writer", "reader"]
"""Who uses Solr: the admin manages configsets, collections and aliases, the writer documents; the reader searches."""

Login = tuple[str, str]
"""A user name and a password."""


class Settings(BaseSettings):
    """The configuration of TinyTags; it does not change once it has been read.

    Each field can be set by the environment variable ``TINYTAGS_<FIELD>``. An address that is set is that of a
    cluster's engine. If it is not set, the embedded engine is used, at the address recorded under :attr:`home`.
    """

    model_config = SettingsConfigDict(env_prefix="TINYTAGS_", frozen=True, extra="ignore")

    home: Path = Field(HOME, description="state of the embedded engines, demo files and passwords")
    cache: Path = Field(Path.home() / ".cache" / "tinytags", description="downloaded jars, shared by all checkouts")
    webhdfs_url: str | None = Field(
        None, description="the NameNode's HTTP address, http://host:9870, or a gateway's with its path; several with ;"
    )
    hdfs_url: str | None = Field(None, description="the NameNode's RPC address, for Spark, hdfs://host:8020")
    hdfs_user: str = Field("tinytags", description="the user that owns the store in HDFS")
    hdfs_kerberos: bool = Field(
        False,
        description="whether WebHDFS or its gateway asks for a Kerberos ticket, whose owner is the user then; needs "
        "the extra tinytags[kerberos]",
    )
    hdfs_replication: int | None = Field(
        None,
        ge=1,
        description="copies of what is written to HDFS, where a folder has no erasure coding; default: 1 in the "
        "embedded HDFS, else what the cluster's dfs.replication says",
    )
    store: str = Field("/tinytags", description="the folder in HDFS that holds everything")
    spark_url: str | None = Field(None, description="the Spark Connect server, sc://host:15002")
    spark_master: str | None = Field(
        None, description="the cluster on which Spark Connect runs its jobs, spark://host:7077; default: this machine"
    )
    spark_token: SecretStr | None = Field(None, description="the token that Spark requires; unset if it requires none")
    spark_tokens: Literal["generated"] | None = Field(
        None, description="set by `tinytags up`: the embedded Spark requires the token under home"
    )
    spark_archive: Path | None = Field(
        None,
        description="a packed environment (venv-pack, conda-pack) that Spark's executors unpack and use in place of "
        "their own Python; default: theirs",
    )
    spark_send_code: bool = Field(
        False, description="whether Spark's executors get this package's code if their Python lacks it or has another"
    )
    onnx_providers: str | None = Field(
        None,
        description="what runs nets on Spark's workers: ONNX Runtime's execution providers with commas between, first "
        "choice first; default: CUDAExecutionProvider if it is offered, then CPUExecutionProvider",
    )
    solr_url: str | None = Field(None, description="Solr, http://host:8983/solr")
    solr_admin_user: str = Field("admin", description="the user who manages Solr's configsets, collections and aliases")
    solr_admin_password: SecretStr | None = Field(None, description="their password; unset if Solr requires none")
    solr_writer_user: str = Field("writer", description="the user who writes and counts documents; may be the admin")
    solr_writer_password: SecretStr | None = Field(None, description="their password, as above")
    solr_reader_user: str = Field("reader", description="the user who searches")
    solr_reader_password: SecretStr | None = Field(None, description="their password, as above")
    solr_passwords: Literal["generated"] | None = Field(
        None, description="set by `tinytags up`: the embedded Solr requires the passwords under home"
    )
    solr_shards: int | None = Field(
        None, ge=1, description="shards of a new collection; default: one for every 20 million images of the run"
    )
    solr_replicas: int = Field(1, ge=1, description="replicas of each shard of a new collection")
    most_pixels: int = Field(
        100_000_000,
        ge=1,
        description="how many pixels a picture may have: to decode it takes 4 bytes a pixel; a JPEG that is made "
        "smaller while it is decoded may have ten times as many",
    )
    thumbnails: Thumbnails = Field(
        "solr", description="where the images of a new run's documents are kept: solr or store"
    )
    similar: Similar = Field(
        "auto",
        description="whether similar pictures can be found in a new run, whose documents then hold vectors: on, off or "
        "auto, which is on up to a million images",
    )
    alias: str = Field(
        "tinytags", pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$", description="the Solr alias that readers search"
    )
    keep_collections: int = Field(
        1, ge=0, description="earlier collections to keep for a rollback, besides the live one"
    )
    wait_hours: float = Field(
        6, ge=0, description="how long a task may wait for an engine that is away; 0: it uses up tries instead"
    )
    wait_pause_seconds: float = Field(
        10, gt=0, description="how long such a task keeps its slot; then it pauses three to twelve times as long"
    )
    approval_hours: float = Field(
        72, gt=0, le=8_760, description="how long a person may take to approve a publication; then it is rejected"
    )
    keep_log_days: int = Field(
        30,
        ge=0,
        le=36_500,
        description="for how many days Airflow's records and logs of Dag runs are kept; 0: for ever. The embedded "
        "Airflow deletes older ones every night, another one only if this is set",
    )
    airflow_url: str | None = Field(None, description="Airflow's API server, http://host:8080")
    airflow_public_url: str | None = Field(
        None,
        description="the address at which people open Airflow, for links, such as that of a proxy; default: the API "
        "server's",
    )
    airflow_user: str = Field("admin", description="the user who triggers runs")
    airflow_password: SecretStr | None = Field(None, description="their password; default: the generated password")
    airflow_database: SecretStr | None = Field(
        None,
        description="the PostgreSQL database of the embedded Airflow, postgresql+psycopg2://user:password@host/name; "
        "default: SQLite under home",
    )
    retag_cron: str | None = Field(
        None,
        description="when to tag live indexes again, as a cron expression in UTC; default: when there is a new model",
    )
    grow_cron: str | None = Field(
        None,
        description="when to append new files of their sources to corpora, as a cron expression in UTC; default: only "
        "when that is asked for",
    )
    retag_reviews: int | None = Field(
        None,
        ge=1,
        description="after how many reviews of a corpus its model learns again; default: only when a run is triggered",
    )
    audit_cron: str | None = Field(
        None, description="when to audit live indexes, as a cron expression in UTC; default: only by hand"
    )
    audit_repair: bool = Field(
        False, description="whether a scheduled audit starts a backfill of the blocks that differ"
    )
    search_url: str | None = Field(None, description="the search page's address, http://host:8765")
    search_public_url: str | None = Field(
        None,
        description="the address at which people open the search page, for links, such as that of a proxy; default: "
        "TINYTAGS_SEARCH_URL",
    )
    search_user: str = Field(
        "tinytags", description="an operator of the search page, besides the accounts of `tinytags accounts`"
    )
    search_password: SecretStr | None = Field(None, description="their password; default: the generated password")
    search_export_images: int = Field(
        100_000, ge=1, description="how many images the search page exports at once, at most"
    )
    search_base_path: str | None = Field(
        None, description="the path below which a proxy serves the search page, such as /tags; default: none"
    )
    search_trusted_proxies: str | None = Field(
        None,
        description="addresses and networks of proxies, with commas between, whose X-Forwarded-Prefix, -Proto, -Host, "
        "-Port and -For the search page believes; default: none",
    )
    search_rate_limit: int = Field(
        3000, ge=0, description="requests to the API that an account may make a minute; 0 for any number"
    )
    search_cors_origins: str | None = Field(
        None, description="origins, with commas between, whose scripts may use the API; default: none"
    )
    oidc_issuer: str | None = Field(
        None,
        description="the OpenID provider that people sign in to the search page with, such as "
        "https://login.example/realms/pictures; default: only names and passwords",
    )
    oidc_client_id: str | None = Field(None, description="the id by which the provider knows the search page")
    oidc_client_secret_file: Path | None = Field(
        None,
        description="the file with the client's secret, which only the user can read; default: oidc_client_secret "
        "among the secrets under home, and a client without a secret if there is none",
    )
    oidc_scopes: str = Field("openid profile email", description="the scopes that the provider is asked for")
    oidc_role_claim: str = Field(
        "roles", min_length=1, description="the claim that holds a person's roles; dots lead into objects"
    )
    oidc_readers: str | None = Field(
        None, description="values of that claim, with commas between, that make somebody a reader; * for everybody"
    )
    oidc_reviewers: str | None = Field(None, description="those that make somebody a reviewer, likewise")
    oidc_operators: str | None = Field(None, description="those that make somebody an operator, likewise")
    oidc_session_minutes: int = Field(
        480, ge=1, le=43_200, description="after how many minutes the provider is asked again who somebody is"
    )
    demo_source: Path = Field(
        PROJECT_ROOT.parent / "shared" / "data" if IN_CHECKOUT else HOME / "pictures",
        description="the folder with the demo's real images",
    )
    java_home: Path | None = Field(None, description="Java 17 or newer; default: the Java that is found")
    profile: Profile | None = Field(
        None,
        description="how much memory the embedded engines get: normal, or small for a machine of 6 GB; default: what "
        "suits the machine",
    )
    keeper_patience_seconds: float = Field(
        120, gt=0, description="how long an engine that was ready may not answer before the keeper starts it again"
    )
    corpora: Path | None = Field(None, description="the folder of corpus definitions; default: corpora under home")
    maven_repository: str | None = Field(None, description="a mirror to download jars from instead of Ivy's default")

    @property
    def addresses_file(self) -> Path:
        """The file in which ``tinytags up`` records the addresses of the engines it started."""
        return self.home / "addresses.json"

    @property
    def corpora_folder(self) -> Path:
        """The folder of corpus definitions, one TOML file per corpus."""
        return (self.corpora or self.home / "corpora").expanduser().absolute()

    @property
    def secrets_folder(self) -> Path:
        """The folder of generated passwords, which only the user can read."""
        return self.home / "secrets"

    @property
    def airflow_page(self) -> str | None:
        """Airflow's address for people; programs ask at :attr:`airflow_url`."""
        url = self.airflow_public_url or self.airflow_url
        return url and without_password(url).rstrip("/")

    @property
    def search_page(self) -> str | None:
        """The search page's address for people; programs ask at :attr:`search_url`."""
        url = self.search_public_url or self.search_url
        return url and without_password(url).rstrip("/")

    def password(self, name: str) -> str:
        """Return a password: from the settings, or else the one that ``tinytags up`` generated.

        Parameters
        ----------
        name
            The setting's name, such as ``search_password``.

        Raises
        ------
        BadInputError
            If it is neither set nor generated, or cannot be read.
        """
        configured: SecretStr | None = getattr(self, name, None)
        path = self.secrets_folder / name
        try:
            password = configured.get_secret_value() if configured else path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(
                f"no {name.replace('_', ' ')} ({path} cannot be read): run `tinytags up`, "
                f"or set TINYTAGS_{name.upper()}"
            ) from error
        if not password:
            raise BadInputError(f"the password in {path} is empty: remove the file and run `tinytags up`")
        return password

    def spark_connect_token(self) -> str:
        """Return the token that Spark Connect requires; empty if it requires none.

        Raises
        ------
        BadInputError
            If the token cannot be read.
        """
        return self.password("spark_token") if self.spark_token or self.spark_tokens else ""

    def with_connections(self, hdfs: Any, solr: Any) -> "Settings":  # noqa: ANN401 - this package knows no Airflow
        """Return a copy of the settings that uses the addresses and logins of Airflow's connections.

        Parameters
        ----------
        hdfs, solr
            Airflow ``Connection`` objects; None if there is no such connection. The extra ``url`` is the whole address.
            Without it, the address is made of the connection's parts. HDFS' extra ``rpc`` is ``hdfs_url``, ``kerberos``
            says whether it asks for a ticket. The login of Solr's connection, if it has one, is
            used as both the admin and the writer.

        Raises
        ------
        BadInputError
            If a connection has neither a host nor the extra ``url``, or an extra has a value that it cannot have.
        """
        overrides: dict[str, object] = {}
        if hdfs:
            first = _address_of(hdfs, default_path="")
            overrides["webhdfs_url"] = ";".join(filter(None, (first, hdfs.extra_dejson.get("others"))))
            overrides["hdfs_url"] = hdfs.extra_dejson.get("rpc") or self.hdfs_url
            overrides["hdfs_user"] = hdfs.login or self.hdfs_user
            overrides["hdfs_kerberos"] = _switch_of(hdfs, "kerberos", self.hdfs_kerberos)
        if solr:
            url = _address_of(solr, default_path="/solr")
            overrides["solr_url"] = url
            if solr.login:
                for role in ("admin", "writer"):
                    overrides[f"solr_{role}_user"] = solr.login
                    overrides[f"solr_{role}_password"] = SecretStr(solr.password or "")
            if url != self.solr_url:
                overrides["solr_passwords"] = None  # the passwords under home belong to the embedded Solr
        return self.model_copy(update=overrides)

    def solr_login(self, role: SolrRole) -> Login | None:
        """Return a user's login for Solr; None if Solr does not require authentication.

        Raises
        ------
        BadInputError
            If the password cannot be read.
        """
        name = f"solr_{role}_password"
        if not getattr(self, name) and self.solr_passwords is None:
            return None
        return getattr(self, f"solr_{role}_user"), self.password(name)

    def address(self, name: str) -> str:
        """Return an engine's address.

        Parameters
        ----------
        name
            One of :data:`ADDRESSES`.

        Raises
        ------
        BadInputError
            If it is neither set nor recorded.
        """
        url: str | None = getattr(self, name)
        if not url:
            raise BadInputError(
                f"no address for {name.removesuffix('_url')}: start the engines with `tinytags up`, "
                f"or set TINYTAGS_{name.upper()}{_IN_CONNECTION.get(name, '')}"
            )
        for each in url.split(";") if name in _WEB_ADDRESSES else ():
            _refuse_vague(name, each.strip())
        if name == "solr_url" and not urlsplit(url).path:
            return f"{url}/solr"  # where every Solr is, unless a proxy says otherwise
        return url.rstrip("/")


_IN_CONNECTION = {"hdfs_url": " or, in Airflow, the extra `rpc` of the connection tinytags_hdfs (hdfs://namenode:8020)"}
"""Where else an address may be said that a connection's own does not include."""

_WEB_ADDRESSES = {
    "webhdfs_url": "http://host:9870",
    "solr_url": "http://host:8983/solr",
    "airflow_url": "http://host:8080",
    "search_url": "http://host:8765",
}
"""Addresses of web servers, with an example for messages."""


def is_web_address(url: str) -> bool:
    """Return whether a URL has what an address of a web server needs: http or https, a host, and no impossible port."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an IPv6 address, or a port that is no number
        return False


def _refuse_vague(name: str, url: str) -> None:
    if not is_web_address(url):
        raise BadInputError(
            f"{without_password(url)!r} is not a web address: write TINYTAGS_{name.upper()} as {_WEB_ADDRESSES[name]}, "
            "https:// likewise; the port and the path may be left out"
        )


def _address_of(connection: Any, default_path: str) -> str:  # noqa: ANN401 - this package knows no Airflow
    """Return the address in an Airflow connection, whose host may be a whole address."""
    extra = connection.extra_dejson
    if url := str(extra.get("url") or ""):
        return url.rstrip("/")
    host = str(connection.host or "")
    if not host:
        raise BadInputError(
            f"Airflow's connection {connection.conn_id} has no host: set it, or the extra `url` to the whole address"
        )
    path = extra.get("path", default_path)
    if "://" in host:
        address = urlsplit(host)
        port = f":{connection.port}" if connection.port and address.port is None else ""
        return f"{address.scheme}://{address.netloc}{port}{address.path.rstrip('/') or path}"
    if ":" in host and not host.startswith("["):  # IPv6
        host = f"[{host}]"
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'http'}://{host}{port}{path}"


def _switch_of(connection: Any, name: str, default: bool) -> bool:  # noqa: ANN401 - as above
    """Return whether an extra of an Airflow connection is on; in a connection's URI it is a word."""
    value = connection.extra_dejson.get(name, default)
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError as error:
        raise BadInputError(
            f"Airflow's connection {connection.conn_id}: the extra `{name}` is {value!r}; write true or false"
        ) from error


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Return a warning for each variable that looks like a setting and is none, with the nearest name.

    Parameters
    ----------
    names
        The names of the environment's variables.
    """
    from tinytags_tasks.near_names import nearest

    prefix = "TINYTAGS_"
    known = {name.upper() for name in Settings.model_fields} | {"POOLS"}
    warnings = []
    for name in sorted(name for name in names if name.upper().startswith(prefix)):
        setting = name.upper().removeprefix(prefix)
        if setting not in known:
            near = nearest(setting, sorted(known))
            meant = f": do you mean {prefix}{near[0]}?" if near else ""
            warnings.append(f"{name} is not a setting, and has no effect{meant}")
    return warnings


def load_settings() -> Settings:
    """Return the settings from the environment and the recorded addresses.

    Raises
    ------
    BadInputError
        If a variable's value cannot be used, or the file of recorded addresses is damaged.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "TINYTAGS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise BadInputError(f"{name}: {first['msg']} (got {first['input']!r})") from error
    paths = {name: value.expanduser().absolute() for name, value in settings if isinstance(value, Path)}
    settings = settings.model_copy(update=paths)  # engines have other working folders
    if not settings.addresses_file.exists():
        return settings
    try:
        recorded = json.loads(settings.addresses_file.read_text())
        unset = {
            name: str(recorded[name]) for name in ADDRESSES if getattr(settings, name) is None and recorded.get(name)
        }
        for address, secrets in (("solr_url", "solr_passwords"), ("spark_url", "spark_tokens")):
            if address in unset and recorded.get(secrets):
                unset[secrets] = str(recorded[secrets])  # only for the engine that was started with them
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInputError(f"{settings.addresses_file} is damaged ({error}): run `tinytags up` again") from error
    return settings.model_copy(update=unset)
