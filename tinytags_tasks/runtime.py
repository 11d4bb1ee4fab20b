"""Builds the pipeline's clients from the settings; the search page and the grid have Solr users of their own."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinytags_tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinytags_tasks.clients.solr import SolrClient
    from tinytags_tasks.corpus.definition import CorpusDefinition
    from tinytags_tasks.corpus.sources.files import SourceFiles
    from tinytags_tasks.store.protocol import Storage, StoreAddress


PAGE_SECONDS = 20.0
"""How long a page waits for an answer of the store; that is as long as for Solr's."""


@dataclass(frozen=True)
class Runtime:
    """Clients of the engines that are configured, each built when it is first used.

    Attributes
    ----------
    settings
        The addresses and logins.
    as_writer
        Whether Solr is only asked as the writer, who can manage nothing, and no engine is waited for long; for the
        search page.
    """

    settings: Settings = field(default_factory=load_settings)
    as_writer: bool = False

    @cached_property
    def store_address(self) -> "StoreAddress":
        """The store's address."""
        from tinytags_tasks.store.protocol import ANSWER_SECONDS, StoreAddress

        return StoreAddress(
            root=self.settings.store,
            webhdfs_url=self.settings.address("webhdfs_url"),
            hdfs_url=self.settings.address("hdfs_url"),
            user=self.settings.hdfs_user,
            kerberos=self.settings.hdfs_kerberos,
            answer_seconds=PAGE_SECONDS if self.as_writer else ANSWER_SECONDS,
            replication=self.settings.hdfs_replication,
        )

    @cached_property
    def storage(self) -> "Storage":
        """The store."""
        from tinytags_tasks.store.opening import open_store

        return open_store(self.store_address)

    def source_files(self, definition: "CorpusDefinition") -> "SourceFiles":
        """Return the files of a corpus' source."""
        return self.files_at(definition.source, definition.options)

    def files_at(self, source: str, options: "Mapping[str, Any] | None" = None) -> "SourceFiles":
        """Return the files at a path or an address; ``hdfs:///`` means the store's own HDFS."""
        from tinytags_tasks.corpus.sources.files import SourceFiles

        return SourceFiles(
            source,
            options,
            webhdfs_url=self.settings.webhdfs_url,
            hdfs_user=self.settings.hdfs_user,
            hdfs_kerberos=self.settings.hdfs_kerberos,
        )

    @cached_property
    def solr(self) -> "SolrClient":
        """Solr, for the pipeline and for corrections; searches have their own client, which is only a reader."""
        from tinytags_tasks.clients.solr import SolrClient
        from tinytags_tasks.clients.solr_http import PAUSES_SECONDS

        return SolrClient(
            self.settings.address("solr_url"),
            admin=None if self.as_writer else self.settings.solr_login("admin"),
            writer=self.settings.solr_login("writer"),
            as_writer=self.as_writer,
            pauses_seconds=PAUSES_SECONDS[:1] if self.as_writer else PAUSES_SECONDS,  # a page does not wait for long
        )

    @cached_property
    def onnx_providers(self) -> tuple[str, ...]:
        """The execution providers of ONNX Runtime that Spark's workers run nets on; first choice first."""
        from tinytags_tasks.nets.running import choose_providers

        return choose_providers(self.settings.onnx_providers)

    def connect_spark(self) -> Any:  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
        """Open a Spark session, which the caller must stop."""
        from tinytags_tasks.clients.spark import connect_spark

        settings = self.settings
        return connect_spark(
            settings.address("spark_url"),
            settings.spark_connect_token(),
            settings.spark_archive,
            send_code=settings.spark_send_code,
        )
