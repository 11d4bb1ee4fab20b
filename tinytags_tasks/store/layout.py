"""Every path and name in the store, in one place; all relative to the store's root.

::

    corpora/<corpus>/corpus.json                 totals; written last, when every shard stands
    corpora/<corpus>/shards/00000.bin            row-major HWC bytes of up to shard_images images
    corpora/<corpus>/plan.json                   what is ingested, written first: definition, source, cut
    corpora/<corpus>/source-<hash>.parquet       the source's files or images in the order of their positions
    corpora/<corpus>/shards/00000.keywords.parquet  one keyword an image, where the corpus has keywords
    corpora/<corpus>/shards/00000.json           the shard's manifest: counts, sha256 of each block
    corpora/<corpus>/shards/00000.lease          who writes the shard now
    labelled/<training>.parquet/part-00000.parquet  a training's labelled set as Spark reads it
    trainings/<training>.json                    which model came of a labelled set and parameters
    trainings/<training>.lease                   who trains it now
    trainings/<name>-<hash>.lease                who publishes the model now
    models/<name>-<hash>/model.onnx, model.json  a published model and its card
    models/<name>-<hash>/report.html             the card for people
    runs/<run>/run.json                          what the run does: corpus, model, threshold, blocks, collection
    runs/<run>/scored/000000.parquet             one scored block
    runs/<run>/ledger/000000.json                what became of the block
    runs/<run>/leases/000000.block/<writer>      who writes the block now: scores, indexes or deletes it
    runs/<run>/leases/<writer>.lease             the writer's sign of life
    runs/<run>/audits/000001.json                what an audit found
    configsets/<configset>.zip                   a Solr configset that a run was made with; written before the run
    publications/<alias>/000001.json             what became live under the alias, one record a change
    publications/<alias>.lease                   who changes the alias now
    claims/<corpus>/000001.json                  which Dag run tags the corpus; the last one counts
"""

import re

from tinytags_tasks.errors import BadInputError

CORPORA = "corpora"
MODELS = "models"
RUNS = "runs"
PUBLICATIONS = "publications"
COLLECTION_PREFIX = "tinytags-"
WRITER_LEASE = ".lease"

_NAME = "[a-z0-9][a-z0-9_-]{0,99}"


def checked_name(name: str, kind: str) -> str:
    """Return a corpus', model's or run's name when it is safe in paths, URLs and queries.

    Raises
    ------
    BadInputError
        If it is not.
    """
    if not re.fullmatch(_NAME, name):
        raise BadInputError(
            f"{name!r} cannot be the name of a {kind}: use up to 100 lower-case letters, digits, '-' and '_', "
            "a letter or digit first"
        )
    return name


def corpus_folder(corpus: str) -> str:
    """Path of all of a corpus."""
    return f"{CORPORA}/{checked_name(corpus, 'corpus')}"


def corpus_file(corpus: str) -> str:
    """Path of a corpus' totals."""
    return f"{corpus_folder(corpus)}/corpus.json"


def shard_file(corpus: str, shard: int) -> str:
    """Path of a shard's bytes."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.bin"


def ingest_plan_file(corpus: str) -> str:
    """Path of what is ingested as a corpus."""
    return f"{corpus_folder(corpus)}/plan.json"


def source_file(corpus: str, listing_sha256: str) -> str:
    """Path of the listing of a corpus' source, named by its content so that a plan never finds another's."""
    return f"{corpus_folder(corpus)}/source-{listing_sha256[:16]}.parquet"


def shards_folder(corpus: str) -> str:
    """Path of a corpus' shards."""
    return f"{corpus_folder(corpus)}/shards"


def keywords_file(corpus: str, shard: int) -> str:
    """Path of the keywords of a shard's images."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.keywords.parquet"


def lease_file(corpus: str, shard: int) -> str:
    """Path of the lease on a shard that is being written."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.lease"


def shard_manifest_file(corpus: str, shard: int) -> str:
    """Path of a shard's manifest."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.json"


def claim_file(corpus: str, number: int) -> str:
    """Path of the record of a Dag run that tags, or tagged, a corpus."""
    return f"claims/{checked_name(corpus, 'corpus')}/{number:06d}.json"


def labelled_file(training: str) -> str:
    """Path of a training's labelled set as Spark reads it: a folder of Parquet files."""
    return f"labelled/{checked_name(training, 'training')}.parquet"


def training_file(training: str) -> str:
    """Path of the record of a training, named by the hash of all that decides its outcome."""
    return f"trainings/{checked_name(training, 'training')}.json"


def training_lease_file(training: str) -> str:
    """Path of the lease on a training."""
    return f"trainings/{checked_name(training, 'training')}.lease"


def model_lease_file(version: str) -> str:
    """Path of the lease on a model that is being published; not among the models, which are listed by their folders."""
    return f"trainings/{checked_name(version, 'model version')}.lease"


def model_folder(version: str) -> str:
    """Path of a published model's folder."""
    return f"{MODELS}/{checked_name(version, 'model version')}"


def model_file(version: str) -> str:
    """Path of a model's ONNX file."""
    return f"{model_folder(version)}/model.onnx"


def card_file(version: str) -> str:
    """Path of a model's card."""
    return f"{model_folder(version)}/model.json"


def report_file(version: str) -> str:
    """Path of a model's report."""
    return f"{model_folder(version)}/report.html"


def run_file(run: str) -> str:
    """Path of a run's record."""
    return f"{RUNS}/{checked_name(run, 'run')}/run.json"


def scored_folder(run: str) -> str:
    """Path of a run's scored blocks."""
    return f"{RUNS}/{checked_name(run, 'run')}/scored"


def scored_file(run: str, block: int) -> str:
    """Path of a scored block."""
    return f"{scored_folder(run)}/{block:06d}.parquet"


def ledger_folder(run: str) -> str:
    """Path of a run's ledger."""
    return f"{RUNS}/{checked_name(run, 'run')}/ledger"


def ledger_file(run: str, block: int) -> str:
    """Path of a block's record in a run's ledger."""
    return f"{ledger_folder(run)}/{block:06d}.json"


def leases_folder(run: str) -> str:
    """Path of the leases on a run's blocks."""
    return f"{run_folder(run)}/leases"


def block_lease_folder(run: str, block: int) -> str:
    """Path of the lease on a block that is being written; it holds the writer's name."""
    return f"{leases_folder(run)}/{block:06d}.block"


def writer_lease_file(run: str, writer: str) -> str:
    """Path of a writer's sign of life."""
    return f"{leases_folder(run)}/{writer}{WRITER_LEASE}"


def audit_file(run: str, number: int) -> str:
    """Path of one audit of a run; numbers begin with 1."""
    return f"{run_folder(run)}/audits/{number:06d}.json"


def run_folder(run: str) -> str:
    """Path of all of a run."""
    return f"{RUNS}/{checked_name(run, 'run')}"


def configset_file(configset: str) -> str:
    """Path of the copy of a Solr configset, by its name in Solr."""
    return f"configsets/{checked_name(configset, 'configset')}.zip"


def publications_folder(alias: str) -> str:
    """Path of an alias' history."""
    return f"{PUBLICATIONS}/{checked_name(alias, 'alias')}"


def publication_file(alias: str, number: int) -> str:
    """Path of one record of an alias' history; numbers begin with 1."""
    return f"{publications_folder(alias)}/{number:06d}.json"


def alias_lease_file(alias: str) -> str:
    """Path of the lease on an alias that is being changed."""
    return f"{publications_folder(alias)}.lease"


def file_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def collection_name(run: str) -> str:
    """Name of a run's Solr collection."""
    return f"{COLLECTION_PREFIX}{checked_name(run, 'run')}"


def document_id(corpus: str, position: int) -> str:
    """Id of an image's document."""
    return f"{corpus}:{position}"


def run_of_collection(collection: str) -> str:
    """Name of the run that a collection would be of; empty when its name is none of ours."""
    run = collection.removeprefix(COLLECTION_PREFIX)
    return run if run != collection and re.fullmatch(_NAME, run) else ""
