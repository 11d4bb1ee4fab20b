"""The trigger forms of the Dags: one function for each form, and the fields that several forms have.

A form's values become the Dag run's ``params``; tasks read them with :func:`read_form`. The names of fields are public:
the command line, the block grid and users' own Dags trigger runs with them.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import Param, get_current_context
from tinytags_suggestions import corpus_names, model_versions, net_names, settings_or_none

Form = dict[str, Param]

NAMED = "named"
"""Selects the blocks whose numbers are in the form."""

_BLOCKS_PATTERN = r"^\s*(\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*)?\s*$"

_NAME = "[a-z0-9][a-z0-9_-]{0,99}"
_NAME_PATTERN, _NAME_OR_EMPTY_PATTERN = f"^{_NAME}$", f"^({_NAME})?$"
"""Of a run, an alias, or a corpus that exists."""

_GIVEN_NAME_OR_EMPTY_PATTERN = "^([a-z0-9][a-z0-9_-]{0,86})?$"
"""Of a corpus that is tagged: its runs' names are longer."""


def tagging_form() -> Form:
    """Return the form of the Dag ``tinytags``."""
    return {
        **_corpus_fields(),
        **_model_fields(),
        "threshold": Param(
            40,
            type="integer",
            minimum=0,
            maximum=100,
            title="Threshold",
            section="Run",
            description="Least confidence in percent of an image to keep: a logistic head's percentage for the tag, or "
            "the share of a forest's trees that agree on it",
        ),
        "similar": Param(
            settings.similar if (settings := settings_or_none()) else "auto",
            type="string",
            enum=["auto", "on", "off"],
            title="Similar pictures",
            section="Run",
            description="Whether similar pictures can be found, for which each document holds a vector; auto: up to a "
            "million images",
        ),
        "blocks_per_task": _blocks_per_task(5),
        "blocks": _trial_blocks(),
        "publish": Param(
            "yes",
            type="string",
            enum=["yes", "gate", "ask", "no"],
            title="Publish",
            section="Publishing",
            description="yes; gate: only if the run meets the limits below; ask: the same, and only once a person has "
            "approved it under Required Actions; no: it stays verified and can be published later",
        ),
        **_gate_fields(),
        "alias": _alias("Publishing"),
    }


def _corpus_fields() -> Form:
    return {
        "corpus": _text(
            "Corpus",
            pattern=_GIVEN_NAME_OR_EMPTY_PATTERN,
            examples=corpus_names(),
            section="Corpus",
            description="Name of a defined corpus (`tinytags corpus add` defines one); empty: the demo, which is "
            "created if it does not exist",
        ),
        "new_files": Param(
            "leave",
            type="string",
            enum=["leave", "append"],
            title="New files",
            section="Corpus",
            description="append: what is new in the source of a complete corpus is appended to it; leave: the log only "
            "tells how much that is",
        ),
        "shards_per_task": Param(
            0,
            type="integer",
            minimum=0,
            title="Shards per task",
            section="Corpus",
            description="Shards that one mapped task ingests; 0: about a quarter of a million images per task",
        ),
    }


def _model_fields() -> Form:
    return {
        "model": _text(
            "Model",
            examples=model_versions(),
            section="Model",
            description="A published model's version (`tinytags models list`); empty: train one on the labelled images",
        ),
        "labelled": _text(
            "Labelled images",
            section="Model",
            description="A folder with a folder for each tag, a Parquet file with pictures and a column label, or a "
            "WebDataset tar: a path that every worker has, or an address (hdfs:///..., s3://...); empty: the demo's",
        ),
        "tags": _text(
            "Tags",
            section="Model",
            description="Names of the labels, in the order of their numbers: with commas between, or the path of a "
            "file with a name a line; empty: those in the labelled images",
        ),
        "test": _text(
            "Test images",
            section="Model",
            description="A set like the one above, to measure the model's test accuracy; may be empty",
        ),
        "other": _text(
            "Images of other things",
            section="Model",
            description="A set like the one above, with label -1 for images of none of the tags and -2 for unclear "
            "ones; it shows how the model does on what a real corpus contains",
        ),
        **_head_fields(),
        "reviews": Param(
            "yes",
            type="string",
            enum=["yes", "no"],
            title="Learn from reviews",
            section="Model",
            description="yes: what people said of the corpus' pictures is learned, too, from 50 on; not by a model "
            "that sees pixels",
        ),
        "new_tags": Param(
            "no",
            type="string",
            enum=["yes", "no"],
            title="Learn new tags",
            section="Model",
            description="yes: tags that only reviews name are learned, too, from 5 pictures of each on",
        ),
        "held_out": Param(
            10,
            type="integer",
            minimum=0,
            maximum=50,
            title="Held out",
            section="Model",
            description="Percent of the labelled images on which a second model is measured; 0 saves that time",
        ),
    }


def _head_fields() -> Form:
    """Return the fields that say what is trained; none of them applies to an existing model."""
    return {
        "features": Param(
            "general32",
            type="string",
            pattern=_NAME_PATTERN,
            examples=net_names(),
            title="Features",
            section="Model",
            description="What a trained model sees: a net's embeddings (`tinytags nets list`), or pixels, as in the "
            "original system",
        ),
        "head": Param(
            "logistic",
            type="string",
            enum=["logistic", "forest"],
            title="Head",
            section="Model",
            description="What is trained on the features: logistic regression (percentages), or a forest (votes of "
            "trees)",
        ),
        "none": Param(
            "yes",
            type="string",
            enum=["yes", "no"],
            title="None of these",
            section="Model",
            description="yes: if the net has a background, the model can say that an image shows none of the tags; "
            "such an image is not kept",
        ),
        "trees": _head_parameter(10, 1, 1000, "Trees", "Of a forest only"),
        "depth": _head_parameter(10, 1, 30, "Depth", "Of a forest's trees only"),
        "bins": _head_parameter(50, 2, 65536, "Bins", "Of a forest only"),
        "regularization": _head_parameter(
            100,
            0,
            1_000_000,
            "Regularization",
            "Of a logistic head only: a higher value makes percentages more cautious",
        ),
        "iterations": _head_parameter(20, 1, 1_000, "Iterations", "Of a logistic head only: the most that are made"),
        "seed": Param(
            42,
            type="integer",
            title="Seed",
            section="Model",
            description="Seed of a forest's randomness, and of the choice of the images held out",
        ),
    }


def _head_parameter(default: int, low: int, high: int, title: str, description: str) -> Param:
    return Param(
        default,
        type="integer",
        minimum=low,
        maximum=high,
        title=title,
        section="Model",
        description=description,
    )


def backfill_form() -> Form:
    """Return the form of the Dag ``tinytags_backfill``."""
    return {
        "run": Param(
            "",
            type="string",
            pattern=_NAME_PATTERN,
            title="Run",
            section="Run",
            description="Name of the run (`tinytags runs` lists them)",
        ),
        "action": Param(
            "backfill",
            type="string",
            enum=["backfill", "delete"],
            title="Action",
            section="Run",
            description="backfill: redo blocks; delete: delete their documents from the index",
        ),
        "blocks": _text(
            "Blocks",
            pattern=_BLOCKS_PATTERN,
            section="Blocks",
            description="Numbers and ranges, such as 3, 17-20; empty if Select chooses the blocks",
        ),
        "select": Param(
            NAMED,
            type="string",
            enum=[NAMED, "failed", "missing", "audit"],
            title="Select",
            section="Blocks",
            description="named: the blocks above; failed; missing: not verified or incomplete; audit: what the run's "
            "last audit found",
        ),
        "blocks_per_task": _blocks_per_task(5),
    }


def retag_form() -> Form:
    """Return the form of the Dag ``tinytags_retag``."""
    return {
        "model": _text(
            "Model",
            examples=model_versions(),
            section="Run",
            description="Version of a published model; empty: for each corpus, the newest one that fits its images and "
            "knows all its live tags",
        ),
        "alias": _text(
            "Alias",
            pattern=_NAME_OR_EMPTY_PATTERN,
            section="Run",
            description="Only what is live under this alias; empty: what is live under any",
        ),
        "corpus": _corpus("Only the index of this corpus; empty: those of all corpora", section="Run"),
        "blocks": _trial_blocks(),
        "blocks_per_task": _blocks_per_task(5),
        **_gate_fields(documents=80),
    }


def learn_form() -> Form:
    """Return the form of the Dag ``tinytags_learn``."""
    settings = settings_or_none()
    return {
        "reviews": Param(
            (settings.retag_reviews if settings else None) or 250,
            type="integer",
            minimum=1,
            title="Reviews",
            description="How many pictures people must have spoken of, since a model last learned from a corpus",
        ),
    }


def grow_form() -> Form:
    """Return the form of the Dag ``tinytags_grow``."""
    return {
        "corpus": _corpus("Only this corpus; empty: each one that is complete"),
        "least_new": Param(
            1_000,
            type="integer",
            minimum=1,
            title="New images",
            description="How many images of a source must be new so that they are appended; each time begins a shard",
        ),
    }


def audit_form() -> Form:
    """Return the form of the Dag ``tinytags_audit``."""
    return {
        "run": _run("Name of a run; empty: what is live under the alias, a run for each corpus"),
        "corpus": _corpus("Only the live run of this corpus; empty: those of all corpora"),
        "alias": _alias("Params"),
        "sample": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Sample",
            description="How many pictures to compare byte by byte with their shard, from where the last audit ended; "
            "empty: a thirtieth of all",
        ),
        "deep": Param(
            False,
            type="boolean",
            title="Deep",
            description="Compare every picture byte by byte",
        ),
        "repair": Param(
            _is_on("TINYTAGS_AUDIT_REPAIR"),
            type="boolean",
            title="Repair",
            description="Redo blocks that differ, with the Dag tinytags_backfill",
        ),
    }


def prune_form() -> Form:
    """Return the form of the Dag ``tinytags_prune``."""
    settings = settings_or_none()
    return {
        "really": Param(
            False, type="boolean", title="Really", description="On: drop what is shown; off: show it and change nothing"
        ),
        "keep": Param(
            settings.keep_collections if settings else 1,
            type="integer",
            minimum=0,
            title="Keep",
            description="How many collections of each corpus to keep for rollbacks, besides the live one",
        ),
        "scored": Param(
            False,
            type="boolean",
            title="Scored files, too",
            description="Also delete the scored files of runs whose collection is dropped; to index such a run again, "
            "it must be scored again",
        ),
        "alias": _alias("Params"),
    }


def clean_form() -> Form:
    """Return the form of the Dag ``tinytags_clean``."""
    settings = settings_or_none()
    return {
        "days": Param(
            (settings.keep_log_days if settings else None) or 30,
            type="integer",
            minimum=1,
            title="Days",
            description="How old records and logs of Dag runs may become",
        ),
    }


def rollback_form() -> Form:
    """Return the form of the Dag ``tinytags_rollback``."""
    return {
        "run": _run("The run to roll back, which must be live; empty: whichever is live of the corpus"),
        "corpus": _corpus("The corpus to roll back; may be empty if a run is named, or only one corpus is live"),
        "alias": _alias("Params"),
    }


def read_form() -> dict[str, Any]:
    """Return the values of the form; Airflow turns an empty text into null, which is an empty text again here."""
    context = get_current_context()
    fields = context["dag"].params
    return {
        name: "" if value is None and "string" in fields.get_param(name).schema["type"] else value
        for name, value in context["params"].items()
    }


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def _text(title: str, description: str, **schema: Any) -> Param:  # noqa: ANN401 - JSON Schema's keywords
    """Return a text field that may stay empty: Airflow's form requires a value if the type does not allow null."""
    return Param(None, type=["null", "string"], title=title, description=description, **schema)


def _run(description: str) -> Param:
    return _text("Run", description, pattern=_NAME_OR_EMPTY_PATTERN)


def _corpus(description: str, **schema: str) -> Param:
    return _text("Corpus", description, pattern=_NAME_OR_EMPTY_PATTERN, examples=corpus_names(), **schema)


def _alias(section: str) -> Param:
    settings = settings_or_none()
    return Param(
        settings.alias if settings else "tinytags",
        type="string",
        pattern=_NAME_PATTERN,
        title="Alias",
        section=section,
        description="The alias that readers search",
    )


def _gate_fields(documents: float | None = None) -> Form:
    return {
        "gate_documents": Param(
            documents,
            type=["null", "number"],
            minimum=0,
            title="Minimum documents",
            section="Publishing",
            description="Gate: least number of documents, in percent of those that are live of the corpus now; a run "
            "with fewer is not published",
        ),
        "gate_precision": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=100,
            title="Minimum precision",
            section="Publishing",
            description="Gate: least precision in percent at the run's threshold, as the model's card says; a run with "
            "less is not published",
        ),
        "gate_measured_precision": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=100,
            title="Minimum measured precision",
            section="Publishing",
            description="Gate: readers see each tag from the lowest confidence on whose precision, as reviews measured "
            "it on this corpus, is at least this percentage with 95 % certainty; tags that cannot reach it are not "
            "shown, and a run that nobody reviewed is not published. Empty: what the live run of the same corpus was "
            "published at stays in force, even if Publish is yes; 0: every tag is shown",
        ),
    }


def _trial_blocks() -> Param:
    return _text(
        "Only blocks",
        pattern=_BLOCKS_PATTERN,
        section="Run",
        description="Numbers and ranges, such as 3, 17-20, make this a trial, which is never published; empty: all "
        "blocks",
    )


def _blocks_per_task(blocks: int) -> Param:
    return Param(
        blocks,
        type="integer",
        minimum=0,
        title="Blocks per task",
        section="Run",
        description="Blocks that one mapped task embeds, scores and indexes; 0: as many as give at most 400 tasks. "
        "If Airflow's max_map_length allows fewer tasks, each takes more blocks",
    )
