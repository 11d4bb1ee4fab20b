"""A run's name: how it is made, and how a run's record is checked against it and rebuilt from it.

The name is a hash of all that decides what the run makes, so the record can be found again by trying the models and
thresholds that there are; see ``docs/adr/0017-identities.md``.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.settings import Thumbnails
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import FOUNDING_CONFIGSET, current_configset, is_own_name
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import Run

_THUMBNAILS: tuple[Thumbnails, ...] = ("solr", "store")
_THRESHOLDS = range(101)


def run_name(
    corpus: Corpus, model: str, threshold: int, thumbnails: Thumbnails, configset: str, similar: str = ""
) -> str:
    """Return the name of a run; see ``docs/adr/0017-identities.md`` before changing a character.

    Runs whose images are in Solr, runs with the founding configset or from before configsets were recorded, runs
    without vectors, and runs of a corpus that never grew have the names that they had before there was a choice.
    """
    return _hashed(corpus.name, corpus.digest, corpus.growth, model, threshold, thumbnails, configset, similar)


def _hashed(
    corpus: str,
    digest: str,
    growth: str,
    model: str,
    threshold: int,
    thumbnails: Thumbnails,
    configset: str,
    similar: str,
) -> str:
    in_store = [thumbnails] if thumbnails == "store" else []
    later_configset = [configset] if configset not in ("", FOUNDING_CONFIGSET) else []
    with_vectors = [f"similar by {similar}"] if similar else []
    grown = [f"grown to {growth}"] if growth else []
    decisive = json.dumps([digest, model, threshold, *in_store, *later_configset, *with_vectors, *grown])
    return f"{corpus}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"


def make_run(
    corpus: Corpus, card: ModelCard, threshold: int, thumbnails: Thumbnails, configset: str, similar: str = ""
) -> Run:
    """Return the record of a run that is planned now."""
    name = run_name(corpus, card.version, threshold, thumbnails, configset, similar)
    return Run(
        name=name,
        corpus=corpus.name,
        corpus_digest=corpus.digest,
        description="; ".join(filter(None, (corpus.description, preparation_note(corpus, card)))),
        model=card.version,
        threshold=threshold,
        thumbnails=thumbnails,
        images=corpus.images,
        blocks=corpus.partition.blocks,
        collection=layout.collection_name(name),
        created=now(),
        configset=configset,
        similar=similar,
        growth=corpus.growth,
    )


def corpus_of_run(run: Run, storage: Storage) -> Corpus:
    """Return a run's corpus as it was when the run was planned, without what was appended to it since then.

    If another corpus was ingested under its name, that one is returned: see :func:`refuse_another_corpus`.

    Raises
    ------
    MissingError, CorruptError
        If it is gone, or lacks images that the run has, or its record is damaged.
    """
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    return corpus.as_of(run.growth) if corpus.digest == run.corpus_digest else corpus


def present_corpus(run: Run, storage: Storage) -> Corpus | None:
    """Return a run's corpus as :func:`corpus_of_run` does; None if the store does not have it as the run scored it."""
    path = layout.corpus_file(run.corpus)
    corpus = Corpus.load(storage, path) if storage.exists(path) else None
    if corpus is None or corpus.digest != run.corpus_digest or not corpus.has_grown_to(run.growth):
        return None
    return corpus.as_of(run.growth)


def preparation_note(corpus: Corpus, card: ModelCard) -> str:
    """Return a note if a corpus' images were prepared in another way than those that the model learned from.

    How a picture was prepared is part of what a model learned, so the note is shown wherever the run is. Empty if both
    are the same, or the model's preparation is not known. If the model was trained for this corpus, the note also tells
    what a probe of the images themselves found.
    """
    notes = []
    if card.preparation and card.preparation != corpus.preparation:
        notes.append(f"its images: {corpus.preparation}; those that the model learned from: {card.preparation}")
    if card.probe and card.probe.corpus_digest == corpus.digest and card.probe.warning:
        notes.append(card.probe.warning)
    return "; ".join(notes)


def check_run(run: Run, corpus: Corpus) -> None:
    """Refuse a run's record that contradicts its own name or its corpus.

    A corpus that was removed and ingested again from other images, or without those that were appended, is no damage of
    the run, so that nothing but the run's name is compared then.

    Raises
    ------
    CorruptError
        Naming the field.
    """
    names = {
        _hashed(
            run.corpus,
            run.corpus_digest,
            run.growth,
            run.model,
            run.threshold,
            run.thumbnails,
            configset,
            run.similar,
        )
        for configset in (run.configset, "")  # recorded after the run was named, if it is from before configsets were
    }
    expected: dict[str, str | int] = {
        "name": run.name if run.name in names else min(names),
        "collection": layout.collection_name(run.name),
    }
    if corpus.digest == run.corpus_digest and corpus.has_grown_to(run.growth):
        corpus = corpus.as_of(run.growth)
        expected |= {"corpus": corpus.name, "images": corpus.images, "blocks": corpus.partition.blocks}
    for field, value in expected.items():
        if (found := getattr(run, field)) != value:
            path = layout.run_file(run.name)
            what = (
                "its corpus, model, threshold, images' place, configset and vectors do not make its name"
                if field == "name"
                else f"{field} is {found}, and must be {value}"
            )
            raise CorruptError(f"{path}: damaged ({what}); {Run.remedy(path)}")


def refuse_another_corpus(run: Run, corpus: Corpus) -> None:
    """Refuse a run whose corpus was removed and ingested again from other images: its blocks cannot be judged by it.

    Raises
    ------
    CorruptError
        If the corpus is another one.
    """
    if corpus.digest != run.corpus_digest:
        raise CorruptError(
            f"corpus {corpus.name} is not the one that run {run.name} was planned on; make a new run with "
            f"`tinytags run {corpus.name}`"
        )


def load_run(name: str, storage: Storage) -> Run:
    """Read a run's record, checked against its name and its corpus if that can be read.

    Raises
    ------
    MissingError
        If there is no such run.
    CorruptError
        If its record is damaged.
    """
    path = layout.run_file(name)
    run = Run.load(storage, path)
    if run.name != name:
        raise CorruptError(f"{path}: damaged (it is the record of run {run.name}); {Run.remedy(path)}")
    with suppress(MissingError):
        check_run(run, Corpus.load(storage, layout.corpus_file(run.corpus)))
    return run


def rebuild_run(name: str, storage: Storage) -> Run:
    """Return a run's record as it must have been: its name proves the corpus, model, threshold, configset and vectors.

    Only when it was planned, and when it was pruned, is taken from the damaged file if that still says so.

    Raises
    ------
    MissingError
        If no corpus and model in the store make this name.
    """
    path = layout.run_file(name)
    for corpus, card in itertools.product(_corpora(name, storage), _cards(storage)):
        choices = itertools.product(_THRESHOLDS, _THUMBNAILS, _configsets(storage), ["", *storage.names(layout.NETS)])
        for threshold, thumbnails, configset, similar in choices:
            if run_name(corpus, card.version, threshold, thumbnails, configset, similar) == name:
                made = make_run(corpus, card, threshold, thumbnails, configset, similar)
                return made.replaced(**_remembered(path, storage))
    raise MissingError(
        f"{path}: damaged, and no corpus and model in the store make a run of this name; restore the file from a copy, "
        "or make a new run with `tinytags run`"
    )


def _corpora(run: str, storage: Storage) -> Iterable[Corpus]:
    corpus = run.rpartition("-")[0]
    if corpus and storage.exists(layout.corpus_file(corpus)):
        found = Corpus.load(storage, layout.corpus_file(corpus))
        for growth in found.growth_hashes:
            yield found.as_of(growth)


def _cards(storage: Storage) -> Iterable[ModelCard]:
    for version in storage.names(layout.MODELS):
        with suppress(MissingError, CorruptError):  # another model's damage is not this run's
            yield ModelCard.load(storage, layout.card_file(version))


def _configsets(storage: Storage) -> list[str]:
    kept = [name.removesuffix(".zip") for name in storage.names(layout.CONFIGSETS)]
    with suppress(MissingError):
        kept.append(current_configset().name)
    return list(dict.fromkeys([FOUNDING_CONFIGSET, *filter(is_own_name, kept)]))


def _remembered(path: str, storage: Storage) -> dict[str, str]:
    """Return the times that a damaged record still tells, as far as they are times."""
    with suppress(MissingError, CorruptError, ValueError, AttributeError):
        fields = json.loads(storage.read(path))
        found = {}
        for field in ("created", "pruned"):
            with suppress(TypeError, ValueError):
                found[field] = datetime.fromisoformat(fields.get(field)).isoformat(timespec="seconds")
        return found
    return {}
