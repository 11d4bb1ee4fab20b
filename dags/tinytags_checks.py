"""What Dags refuse before any work starts and a form cannot: contradictions, unknown names, engines that are down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinytags_forms import NAMED
from tinytags_suggestions import remember_models

from tinytags_tasks.airflow_names import SPARK

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime

DEMO = "demo"
"""The corpus that an empty name stands for."""

_MOST_BLOCKS = 1_000_000
"""More than any corpus has."""


def refuse_contradictions(form: dict[str, Any], clients: Runtime) -> None:
    """Refuse a form of the Dag ``tinytags`` that contradicts itself, or names an unknown corpus or labelled set.

    Raises
    ------
    BadInputError
        Which says what to change.
    """
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.corpus.class_names import given_tags
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.corpus.labelled import refuse_missing, refuse_unnamed
    from tinytags_tasks.corpus.labelled_copy import is_address
    from tinytags_tasks.errors import BadInputError

    if form["corpus"]:
        find_definition(clients.settings.corpora_folder, form["corpus"], clients.storage)
    if form["tags"] and not form["labelled"]:
        raise BadInputError("Tags are the names of labels, and there are no labelled images: name these, or clear Tags")
    if form["labelled"] and not form["model"]:
        refuse_missing(form["labelled"], form["test"], form["other"], open_source=clients.files_at)
        if form["tags"]:
            given_tags(form["tags"])
        elif not is_address(form["labelled"]):
            refuse_unnamed(Path(form["labelled"]))
    if form["blocks"].strip():
        parse_block_numbers(form["blocks"], _MOST_BLOCKS)  # the corpus may not be ingested yet
    limits = ("gate_documents", "gate_precision", "gate_measured_precision")
    has_gate = any(form[limit] is not None for limit in limits)
    if form["publish"] == "gate" and not has_gate:
        raise BadInputError("the gate has no limit: set the minimum documents or a minimum precision, or choose yes")
    if form["publish"] == "yes" and has_gate:
        raise BadInputError("the gate has limits, but yes ignores them: choose gate, or clear its fields")


def refuse_unknown(form: dict[str, Any], clients: Runtime) -> None:
    """Refuse a model or net that does not exist, and blocks that an ingested corpus does not have.

    Raises
    ------
    MissingError, BadInputError
        Which say what exists.
    """
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.errors import MissingError
    from tinytags_tasks.near_names import choices
    from tinytags_tasks.nets.catalogue import load_net_card
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.corpus_records import Corpus
    from tinytags_tasks.store.model_records import PIXELS, ModelCard

    models = remember_models(clients)
    if form["model"]:
        if form["model"] not in models:
            known = choices(form["model"], models[::-1])
            raise MissingError(f"model {form['model']} does not exist ({known})")
        ModelCard.load(clients.storage, layout.card_file(form["model"]))
    elif form["features"] != PIXELS:
        load_net_card(clients.storage, form["features"])
    corpus_file = layout.corpus_file(form["corpus"] or DEMO)
    if form["blocks"].strip() and clients.storage.exists(corpus_file):
        parse_block_numbers(form["blocks"], Corpus.load(clients.storage, corpus_file).partition.blocks)


def refuse_unreachable(clients: Runtime) -> None:
    """Make sure that HDFS, Solr and Spark answer.

    Raises
    ------
    EngineDownError
        If one does not.
    """
    from tinytags_tasks.errors import EngineDownError
    from tinytags_tasks.services.spark import spark_unready
    from tinytags_tasks.store import layout

    clients.storage.names(layout.RUNS)
    clients.solr.aliases()
    if problem := spark_unready(clients.settings.address("spark_url")):
        raise EngineDownError(
            f"{problem}; see `tinytags status`, start it with `tinytags up`, or fix Airflow's connection {SPARK}",
            "Spark",
        )


def refuse_vague_deletion(form: dict[str, Any], clients: Runtime) -> None:
    """Refuse a deletion that does not name blocks, or names blocks that the run does not have.

    Raises
    ------
    BadInputError
        Which says what to change.
    """
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run

    if form["action"] != "delete":
        return
    if form["select"] != NAMED or not form["blocks"].strip():
        raise BadInputError("name the blocks to delete by their numbers, such as 3, 17-20")
    run = Run.load(clients.storage, layout.run_file(form["run"]))
    run.refuse_pruned()
    parse_block_numbers(form["blocks"], run.blocks)
