"""Settings: ``TINYTAGS_*`` variables, then the addresses of the engines that ``tinytags up`` started."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tinytags_tasks.errors import BadInputError

PROJECT_ROOT = Path(__file__).resolve().parents[1]

ADDRESSES = ("webhdfs_url", "hdfs_url", "spark_url", "solr_url", "airflow_url", "search_url")
"""The settings that ``tinytags up`` records for the engines it started."""


Thumbnails = Literal["solr", "store"]
"""Where the images of a run's documents are: in the documents, or only in the store's shards."""

SolrRole = Literal["admin", "writer", "reader"]
"""Who asks Solr: for configsets, collections and aliases; for documents, to write and count them; for a search."""

Login = tuple[str, str]
"""A user and their password."""


class Settings(BaseSettings):
    """What TinyTags is told about its surroundings; frozen once read.

    Every field is the environment variable ``TINYTAGS_<FIELD>``. An address that is set points at a cluster's engine;
    one that is not is the embedded engine's, as recorded under :attr:`home`.
    """

    model_config = SettingsConfigDict(env_prefix="TINYTAGS_", frozen=True, extra="ignore")

    home: Path = Field(PROJECT_ROOT / ".tinytags", description="state of the embedded engines, demo files, passwords")
    cache: Path = Field(Path.home() / ".cache" / "tinytags", description="downloaded jars, shared between checkouts")
    webhdfs_url: str | None = Field(None, description="the NameNode's HTTP address, http://host:9870")
    hdfs_url: str | None = Field(None, description="the NameNode's RPC address as Spark sees it, hdfs://host:8020")
    hdfs_user: str = Field("tinytags", description="the user that owns the store in HDFS")
    store: str = Field("/tinytags", description="the folder in HDFS that holds everything")
    spark_url: str | None = Field(None, description="the Spark Connect server, sc://host:15002")
    spark_token: SecretStr | None = Field(None, description="the token it asks for; none: it does not ask for one")
    spark_tokens: Literal["generated"] | None = Field(
        None, description="`tinytags up` says by it that its own Spark asks for the token under home"
    )
    solr_url: str | None = Field(None, description="Solr, http://host:8983/solr")
    solr_admin_user: str = Field("admin", description="who makes Solr's configsets, collections and aliases")
    solr_admin_password: SecretStr | None = Field(None, description="their password; none: Solr does not ask for one")
    solr_writer_user: str = Field("writer", description="who writes and counts documents; may be the admin")
    solr_writer_password: SecretStr | None = Field(None, description="their password, as above")
    solr_reader_user: str = Field("reader", description="who searches; all that the search page knows")
    solr_reader_password: SecretStr | None = Field(None, description="their password, as above")
    solr_passwords: Literal["generated"] | None = Field(
        None, description="`tinytags up` says by it that its own Solr asks for the passwords under home"
    )
    solr_shards: int = Field(1, ge=1, description="shards of a new collection")
    solr_replicas: int = Field(1, ge=1, description="replicas of each shard of a new collection")
    thumbnails: Thumbnails = Field("solr", description="where a new run's documents have their images: solr or store")
    alias: str = Field("tinytags", pattern=r"^[a-z0-9_-]+$", description="the Solr alias that readers search")
    keep_collections: int = Field(1, ge=0, description="collections to keep behind the live one, to roll back to")
    airflow_url: str | None = Field(None, description="Airflow's API server, http://host:8080")
    airflow_user: str = Field("admin", description="who triggers runs")
    airflow_password: SecretStr | None = Field(None, description="their password; default: the generated one")
    retag_cron: str | None = Field(
        None, description="when live indexes are tagged again, a cron line in UTC; none: when a model is new"
    )
    audit_cron: str | None = Field(None, description="when what is live is audited, a cron line in UTC; none: by hand")
    audit_repair: bool = Field(False, description="whether such an audit starts the backfill of what differs")
    search_url: str | None = Field(None, description="the search page")
    search_user: str = Field("tinytags", description="who may open the search page")
    search_password: SecretStr | None = Field(None, description="their password; default: the generated one")
    demo_source: Path = Field(PROJECT_ROOT.parent / "shared" / "data", description="where the demo's real images lie")
    java_home: Path | None = Field(None, description="a Java 17 or newer to use instead of the one found")
    corpora: Path | None = Field(None, description="the folder of corpus definitions; default: corpora in the home")
    maven_repository: str | None = Field(None, description="a mirror to fetch jars from instead of Ivy's own default")

    @property
    def addresses_file(self) -> Path:
        """Where ``tinytags up`` records the addresses of what it started."""
        return self.home / "addresses.json"

    @property
    def corpora_folder(self) -> Path:
        """The definitions of corpora, a TOML file each."""
        return (self.corpora or self.home / "corpora").expanduser().absolute()

    @property
    def secrets_folder(self) -> Path:
        """Generated passwords, readable by the user only."""
        return self.home / "secrets"

    def password(self, name: str) -> str:
        """Return a password: the one that is set, else the one that ``tinytags up`` generated.

        Parameters
        ----------
        name
            Such as ``search_password``.

        Raises
        ------
        BadInputError
            When it is neither set nor generated.
        """
        told: SecretStr | None = getattr(self, name)
        path = self.secrets_folder / name
        try:
            password = told.get_secret_value() if told else path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(
                f"no {name.replace('_', ' ')} ({path} cannot be read): run `tinytags up`, "
                f"or set TINYTAGS_{name.upper()}"
            ) from error
        if not password:
            raise BadInputError(f"the password in {path} is empty: remove the file and run `tinytags up`")
        return password

    def spark_connect_token(self) -> str:
        """Return the token that Spark Connect asks for; empty where it asks for none.

        Raises
        ------
        BadInputError
            When the embedded Spark's token is not there.
        """
        return self.password("spark_token") if self.spark_token or self.spark_tokens else ""

    def with_connections(self, hdfs: Any, solr: Any) -> "Settings":  # noqa: ANN401 - this package knows no Airflow
        """Return the settings with what Airflow's connections tell; what these leave open stays as it is.

        Parameters
        ----------
        hdfs, solr
            ``Connection`` of Airflow; None where there is none. The login of Solr's, where it has one, is both the
            admin and the writer.
        """
        told: dict[str, object] = {}
        if hdfs:
            told["webhdfs_url"] = f"{hdfs.schema or 'http'}://{hdfs.host}:{hdfs.port}"
            told["hdfs_url"] = hdfs.extra_dejson.get("rpc", self.hdfs_url)
            told["hdfs_user"] = hdfs.login or self.hdfs_user
        if solr:
            url = f"{solr.schema or 'http'}://{solr.host}:{solr.port}{solr.extra_dejson.get('path', '/solr')}"
            told["solr_url"] = url
            if solr.login:
                for role in ("admin", "writer"):
                    told[f"solr_{role}_user"] = solr.login
                    told[f"solr_{role}_password"] = SecretStr(solr.password or "")
            if url != self.solr_url:
                told["solr_passwords"] = None  # those under home are the embedded Solr's
        return self.model_copy(update=told)

    def solr_login(self, role: SolrRole) -> Login | None:
        """Return how one introduces oneself to Solr; None where it does not ask who calls.

        Raises
        ------
        BadInputError
            When the embedded Solr's password is not there.
        """
        name = f"solr_{role}_password"
        if not getattr(self, name) and self.solr_passwords is None:
            return None
        return getattr(self, f"solr_{role}_user"), self.password(name)

    def address(self, name: str) -> str:
        """Return one engine's address.

        Parameters
        ----------
        name
            One of :data:`ADDRESSES`.

        Raises
        ------
        BadInputError
            When it is neither set nor recorded.
        """
        url: str | None = getattr(self, name)
        if not url:
            raise BadInputError(
                f"no address for {name.removesuffix('_url')}: start the engines with `tinytags up`, "
                f"or set TINYTAGS_{name.upper()}"
            )
        return url.rstrip("/")


def load_settings() -> Settings:
    """Read the environment and the recorded addresses.

    Raises
    ------
    BadInputError
        When a variable's value cannot be used, or the recorded addresses cannot be read.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "TINYTAGS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise BadInputError(f"{name}: {first['msg']} (got {first['input']!r})") from error
    settings = settings.model_copy(
        update={
            "home": settings.home.expanduser().absolute(),
            "cache": settings.cache.expanduser().absolute(),
            "demo_source": settings.demo_source.expanduser().absolute(),
        }
    )
    if not settings.addresses_file.exists():
        return settings
    try:
        recorded = json.loads(settings.addresses_file.read_text())
        unset = {
            name: str(recorded[name]) for name in ADDRESSES if getattr(settings, name) is None and recorded.get(name)
        }
        for address, secrets in (("solr_url", "solr_passwords"), ("spark_url", "spark_tokens")):
            if address in unset and recorded.get(secrets):
                unset[secrets] = str(recorded[secrets])  # of this engine, and of no other
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInputError(f"{settings.addresses_file} is damaged ({error}): run `tinytags up` again") from error
    return settings.model_copy(update=unset)
