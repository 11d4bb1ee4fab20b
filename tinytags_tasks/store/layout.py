"""All paths and names in the store; paths are relative to the store's root.

::

    definitions/<corpus>.json                    a copy of the corpus' definition, for hosts without its file
    corpora/<corpus>/corpus.json                 totals; written last, once every shard is complete
    corpora/<corpus>/shards/00000.bin            row-major HWC bytes of up to shard_images images
    corpora/<corpus>/plan.json                   what is ingested; written first: definition and source
    corpora/<corpus>/corpus.lease                who is replacing the totals, because the corpus has grown
    corpora/<corpus>/growths/000001.json         what is appended to it; written before its shards
    corpora/<corpus>/refused.json                why what was begun last was refused
    corpora/<corpus>/source-<hash>.parquet       the source's files or images, in the order of positions
    corpora/<corpus>/shards/00000.keywords.parquet  one keyword per image, if the corpus has keywords
    corpora/<corpus>/shards/00000.json           the shard's manifest: counts and the sha256 of each block
    corpora/<corpus>/shards/00000.lease          who is writing the shard
    corpora/<corpus>/embeddings/<net>/000000.parquet  a block's embeddings
    corpora/<corpus>/embeddings/<net>/leases/...  who is embedding which block, as in a run's leases
    nets/<name>-<hash>/net.onnx, net.json        a net and its card
    nets/<name>-<hash>/background.parquet        embeddings of general pictures, if the net has a background
    labelled/<training>.parquet/part-00000.parquet  a training's labelled set, in the form that Spark reads
    labelled/<hash>.embeddings.parquet           the embeddings of a labelled set, by the hash of all that decides them
    labelled/<hash>.pictures.parquet             which pictures a labelled set has, to recognize them in a corpus
    trainings/<training>.json                    the model that a labelled set and parameters gave
    trainings/<training>.lease                   who is training it
    trainings/<name>-<hash>.lease                who is publishing the model
    models/<name>-<hash>/model.onnx, model.json  a published model and its card
    models/<name>-<hash>/report.html             the card in a form for people
    runs/<run>/run.json                          the run: corpus, model, threshold, blocks, collection
    runs/<run>/scored/000000.parquet             one scored block
    runs/<run>/ledger/000000.json                the state of the block
    runs/<run>/leases/000000.block/<writer>      who is writing the block: scoring, indexing or deleting
    runs/<run>/leases/<writer>.lease             shows that the writer is alive
    runs/<run>/audits/000001.json                what an audit found
    configsets/<configset>.zip                   a Solr configset of a run; written before the run
    publications/<alias>/000001.json             what became live under the alias, one record per change
    publications/<alias>.lease                   who is changing the alias
    publications/<alias>.next.json               what is about to become live, and from which confidence on
    reviews/<corpus>/log/000001.parquet          people's words on a corpus' pictures, one file a request; append-only
    reviews/<corpus>/log/000001-000256.parquet   the words of many requests, merged
    reviews/<corpus>/log.lease                   who is merging the log
    reviews/<corpus>/carried/<version>.json      up to which word other versions' words were carried over to this one
    reviews/<corpus>/frames/<run>.parquet        the pictures from which a run's reviews are drawn
    reviews/<corpus>/sets/<set>.json             pictures that somebody sent to review
    reviews/<corpus>/training.json               how the last model for the corpus was trained
    claims/<corpus>/000001.json                  the Dag run that tags the corpus; the last record counts
    removed/models/<version>, removed/runs/<run> what was removed and is being deleted; ``removal.json`` says by whom
    removals/000001.json                         who removed which model or run, and when; append-only
"""

import re

from tinytags_tasks.errors import BadInputError

CORPORA = "corpora"
DEFINITIONS = "definitions"
MODELS = "models"
NETS = "nets"
RUNS = "runs"
PUBLICATIONS = "publications"
CONFIGSETS = "configsets"
REVIEWS = "reviews"
REMOVED = "removed"
REMOVALS = "removals"
COLLECTION_PREFIX = "tinytags-"
WRITER_LEASE = ".lease"

_LONGEST = 100
_NAME = f"[a-z0-9][a-z0-9_-]{{0,{_LONGEST - 1}}}"
_HASH_LENGTH = 12

LONGEST_GIVEN = _LONGEST - _HASH_LENGTH - 1
"""The most characters of a name that a person gives to a corpus, model or net: a run and a version add `-` and a hash.

All names that are made from it then fit wherever they go. The longest are a collection's, of 109 characters, its
folder's in Solr, and a temporary file's in HDFS, of less than 200; file systems take 255, Airflow's ids 250.
"""

LONGEST_POSITION = 12
"""Digits of a position in an address or an id, at most."""


def checked_name(name: str, kind: str) -> str:
    """Return the name of a corpus, model or run, after checking that it is safe in paths, URLs and queries.

    Raises
    ------
    BadInputError
        If it is not safe.
    """
    if not re.fullmatch(_NAME, name):
        raise BadInputError(
            f"{name!r} cannot be the name of a {kind}: use up to 100 lower-case letters, digits, '-' and '_', "
            "beginning with a letter or digit"
        )
    return name


def given_name(name: str, kind: str) -> str:
    """Return the name that a person gives to a corpus, model or net, after checking that all names made from it fit.

    Raises
    ------
    BadInputError
        If it is not safe, or too long.
    """
    if len(checked_name(name, kind)) > LONGEST_GIVEN:
        raise BadInputError(
            f"{name!r} is too long for the name of a {kind}: it has {len(name)} characters; use up to {LONGEST_GIVEN}, "
            f"because names made from it are {_HASH_LENGTH + 1} longer"
        )
    return name


def definition_file(corpus: str) -> str:
    """Path of the store's copy of a corpus' definition."""
    return f"{DEFINITIONS}/{checked_name(corpus, 'corpus')}.json"


def corpus_folder(corpus: str) -> str:
    """Path of a corpus' folder."""
    return f"{CORPORA}/{checked_name(corpus, 'corpus')}"


def corpus_file(corpus: str) -> str:
    """Path of a corpus' totals."""
    return f"{corpus_folder(corpus)}/corpus.json"


def corpus_lease_file(corpus: str) -> str:
    """Path of the lease on a corpus' totals, for whoever replaces them because it has grown."""
    return f"{corpus_folder(corpus)}/corpus.lease"


def shard_file(corpus: str, shard: int) -> str:
    """Path of a shard's bytes."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.bin"


def ingest_plan_file(corpus: str) -> str:
    """Path of a corpus' ingestion plan."""
    return f"{corpus_folder(corpus)}/plan.json"


def growth_file(corpus: str, number: int) -> str:
    """Path of the plan of a corpus' growth, by its number, from 1."""
    return f"{corpus_folder(corpus)}/growths/{number:06d}.json"


def ingest_refusal_file(corpus: str) -> str:
    """Path of the record that an ingestion was refused."""
    return f"{corpus_folder(corpus)}/refused.json"


def source_file(corpus: str, listing_sha256: str) -> str:
    """Path of the listing of a corpus' source; named by a hash, so that a plan never finds another plan's listing."""
    return f"{corpus_folder(corpus)}/source-{listing_sha256[:16]}.parquet"


def shards_folder(corpus: str) -> str:
    """Path of the folder of a corpus' shards."""
    return f"{corpus_folder(corpus)}/shards"


def keywords_file(corpus: str, shard: int) -> str:
    """Path of the keywords of a shard's images."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.keywords.parquet"


def lease_file(corpus: str, shard: int) -> str:
    """Path of the lease on a shard."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.lease"


def shard_manifest_file(corpus: str, shard: int) -> str:
    """Path of a shard's manifest."""
    return f"{corpus_folder(corpus)}/shards/{shard:05d}.json"


def all_embeddings_folder(corpus: str) -> str:
    """Path of the folder of a corpus' embeddings, with a folder for each net."""
    return f"{corpus_folder(corpus)}/embeddings"


def embeddings_folder(corpus: str, net: str) -> str:
    """Path of the folder of a corpus' embeddings by one net."""
    return f"{all_embeddings_folder(corpus)}/{checked_name(net, 'net')}"


def embeddings_file(corpus: str, net: str, block: int) -> str:
    """Path of a block's embeddings."""
    return f"{embeddings_folder(corpus, net)}/{embedding_file_name(block)}"


def embedding_file_name(block: int) -> str:
    """Name of the file of a block's embeddings in a net's folder."""
    return f"{block:06d}.parquet"


def embedding_leases_folder(corpus: str, net: str) -> str:
    """Path of the folder of leases on a corpus' embeddings by one net."""
    return f"{embeddings_folder(corpus, net)}/leases"


def net_folder(version: str) -> str:
    """Path of a net's folder."""
    return f"{NETS}/{checked_name(version, 'net')}"


def net_file(version: str) -> str:
    """Path of a net's ONNX file."""
    return f"{net_folder(version)}/net.onnx"


def net_card_file(version: str) -> str:
    """Path of a net's card."""
    return f"{net_folder(version)}/net.json"


def background_file(version: str) -> str:
    """Path of the background that came with a net."""
    return f"{net_folder(version)}/background.parquet"


def net_lease_file(version: str) -> str:
    """Path of the lease on publishing a net; it is not among the nets, because these are listed by folder."""
    return f"trainings/{checked_name(version, 'net')}.net.lease"


def claim_file(corpus: str, number: int) -> str:
    """Path of the record of a Dag run that tags or tagged a corpus."""
    return f"claims/{checked_name(corpus, 'corpus')}/{number:06d}.json"


def labelled_file(training: str) -> str:
    """Path of a training's labelled set, in the form that Spark reads: a folder of Parquet files."""
    return f"labelled/{checked_name(training, 'training')}.parquet"


def labelled_embeddings_file(identity: str) -> str:
    """Path of a labelled set's embeddings; ``identity`` hashes the set, its preparation and the net."""
    return f"labelled/{checked_name(identity, 'labelled set')}.embeddings.parquet"


def labelled_pictures_file(identity: str) -> str:
    """Path of the hashes of a labelled set's pictures; ``identity`` hashes the set and its preparation."""
    return f"labelled/{checked_name(identity, 'labelled set')}.pictures.parquet"


def training_file(training: str) -> str:
    """Path of the record of a training; its name is the hash of everything that determines the outcome."""
    return f"trainings/{checked_name(training, 'training')}.json"


def training_lease_file(training: str) -> str:
    """Path of the lease on a training."""
    return f"trainings/{checked_name(training, 'training')}.lease"


def model_lease_file(version: str) -> str:
    """Path of the lease on publishing a model; it is not among the models, because these are listed by folder."""
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
    """Path of the folder of a run's scored blocks."""
    return f"{RUNS}/{checked_name(run, 'run')}/scored"


def scored_file(run: str, block: int) -> str:
    """Path of a scored block."""
    return f"{scored_folder(run)}/{block:06d}.parquet"


def ledger_folder(run: str) -> str:
    """Path of the folder of a run's ledger."""
    return f"{RUNS}/{checked_name(run, 'run')}/ledger"


def ledger_file(run: str, block: int) -> str:
    """Path of a block's record in a run's ledger."""
    return f"{ledger_folder(run)}/{ledger_file_name(block)}"


def ledger_file_name(block: int) -> str:
    """Name of a block's record in a run's ledger."""
    return f"{block:06d}.json"


def leases_folder(run: str) -> str:
    """Path of the folder of leases on a run's blocks."""
    return f"{run_folder(run)}/leases"


def block_lease_folder(leases: str, block: int) -> str:
    """Path of the lease on a block, in a folder of leases: a folder that contains the writer's name."""
    return f"{leases}/{block:06d}.block"


def writer_lease_file(leases: str, writer: str) -> str:
    """Path of the lease that shows that a writer is alive, in a folder of leases."""
    return f"{leases}/{writer}{WRITER_LEASE}"


def audit_file(run: str, number: int) -> str:
    """Path of an audit of a run; numbers begin with 1."""
    return f"{run_folder(run)}/audits/{number:06d}.json"


def review_log_folder(corpus: str) -> str:
    """Path of the folder of people's words on a corpus' pictures."""
    return f"{REVIEWS}/{checked_name(corpus, 'corpus')}/log"


def review_log_file(corpus: str, first: int, last: int = 0) -> str:
    """Path of the words of one request, or of those of a range of requests, merged; numbers begin with 1."""
    numbers = f"{first:06d}-{last:06d}" if last else f"{first:06d}"
    return f"{review_log_folder(corpus)}/{numbers}.parquet"


def review_log_lease_file(corpus: str) -> str:
    """Path of the lease on merging a corpus' review log."""
    return f"{review_log_folder(corpus)}.lease"


def carried_words_file(corpus: str, digest: str) -> str:
    """Path of the record of what was carried over to a version of a corpus."""
    return f"{REVIEWS}/{checked_name(corpus, 'corpus')}/carried/{digest[:16]}.json"


def last_training_file(corpus: str) -> str:
    """Path of the record of how the last model for a corpus was trained."""
    return f"{REVIEWS}/{checked_name(corpus, 'corpus')}/training.json"


def frame_file(corpus: str, run: str) -> str:
    """Path of the pictures from which a run's reviews are drawn."""
    return f"{REVIEWS}/{checked_name(corpus, 'corpus')}/frames/{checked_name(run, 'run')}.parquet"


def review_sets_folder(corpus: str) -> str:
    """Path of all pictures of a corpus that somebody sent to review."""
    return f"{REVIEWS}/{checked_name(corpus, 'corpus')}/sets"


def review_set_file(corpus: str, name: str) -> str:
    """Path of pictures that somebody sent to review."""
    return f"{review_sets_folder(corpus)}/{checked_name(name, 'set')}.json"


def run_folder(run: str) -> str:
    """Path of a run's folder."""
    return f"{RUNS}/{checked_name(run, 'run')}"


def configset_file(configset: str) -> str:
    """Path of the copy of a Solr configset, by its name in Solr."""
    return f"{CONFIGSETS}/{checked_name(configset, 'configset')}.zip"


def publications_folder(alias: str) -> str:
    """Path of the folder of an alias' history."""
    return f"{PUBLICATIONS}/{checked_name(alias, 'alias')}"


def publication_file(alias: str, number: int) -> str:
    """Path of a record in an alias' history; numbers begin with 1."""
    return f"{publications_folder(alias)}/{number:06d}.json"


def next_publication_file(alias: str) -> str:
    """Path of the record of what is about to become live under an alias."""
    return f"{publications_folder(alias)}.next.json"


def alias_lease_file(alias: str) -> str:
    """Path of the lease on an alias."""
    return f"{publications_folder(alias)}.lease"


def removed_folder(folder: str) -> str:
    """Path to which a model's or run's folder is moved when it is removed."""
    return f"{REMOVED}/{folder}"


def removal_note(folder: str) -> str:
    """Path of the record of a removal in the folder that is removed."""
    return f"{folder}/removal.json"


def removal_file(number: int) -> str:
    """Path of the record of a removal; numbers begin with 1."""
    return f"{REMOVALS}/{number:06d}.json"


def removals_lease_file() -> str:
    """Path of the lease on removing models and runs."""
    return f"{REMOVALS}.lease"


def file_name(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2]


def collection_name(run: str) -> str:
    """Name of a run's Solr collection."""
    return f"{COLLECTION_PREFIX}{checked_name(run, 'run')}"


def path_name(path: str) -> str:
    """Return the name of the corpus, model, run or alias that a path in the store belongs to."""
    return path.split("/")[1] if "/" in path else path


def path_number(path: str) -> int:
    """Return the number of the shard, block or record that a path in the store belongs to; -1 without one."""
    number = file_name(path).partition(".")[0]
    return int(number) if number.isdecimal() else -1


def read_document_id(text: str) -> tuple[str, int]:
    """Return the corpus and the position of a document's id.

    Raises
    ------
    BadInputError
        If it is none.
    """
    corpus, _, position = text.rpartition(":")
    if not (corpus and position.isascii() and position.isdigit() and len(position) <= LONGEST_POSITION):
        raise BadInputError(f"{text[:100]!r} is no picture's id: an id is <corpus>:<position>, such as demo:17")
    return checked_name(corpus, "corpus"), int(position)


def document_id(corpus: str, position: int) -> str:
    """Id of an image's document."""
    return f"{corpus}:{position}"


def run_of_collection(collection: str) -> str:
    """Name of the run that a collection belongs to by its name; empty if the name is not one of ours."""
    run = collection.removeprefix(COLLECTION_PREFIX)
    return run if run != collection and re.fullmatch(_NAME, run) else ""


def corpus_of_run(run: str) -> str:
    """Name of the corpus that a run is of by its name; empty if the name is not one that a run is given."""
    match = re.fullmatch(rf"({_NAME})-[0-9a-f]{{{_HASH_LENGTH}}}", run)
    return match[1] if match else ""
