"""Re-tagging: finds live indexes that lack the newest model that fits them, or the current configset.

A new run is compared with the live one before it is published.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinytags_tasks.blocks import block_numbers_argument
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.nets.vectors import choose_vectors
from tinytags_tasks.publish import diff
from tinytags_tasks.publish.live import collections_of, run_of
from tinytags_tasks.publish.publications import of_corpus, read_history, with_missing_change
from tinytags_tasks.settings import Similar, Thumbnails, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import FOUNDING_CONFIGSET, current_configset, kept_configset
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import list_models, load_card, misfit
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, Publication, Run


@dataclass(frozen=True)
class RetagRequest:
    """Which live indexes to check, and for which model.

    Attributes
    ----------
    model
        The model's version. Empty selects the newest model that fits each corpus and knows all tags of its live index.
    alias
        The only alias to check; empty selects every alias that TinyTags ever published under.
    corpus
        The only corpus to check; empty selects every corpus that is live.
    """

    model: str = ""
    alias: str = ""
    corpus: str = ""


@dataclass(frozen=True)
class Retag:
    """A live index that is due for another model or another configset.

    Attributes
    ----------
    alias, live_run
        What readers search, and the run that is live there.
    corpus, model, threshold, thumbnails, similar
        What to plan the new run with: the same as the live run's, except for the model.
    reason
        Why it is due.
    """

    alias: str
    live_run: str
    corpus: str
    model: str
    threshold: int
    thumbnails: Thumbnails
    similar: Similar
    reason: str


@dataclass(frozen=True)
class RetagResult:
    """What to tag again.

    Attributes
    ----------
    due
        The live indexes to tag again.
    skipped
        Why others are not: by alias, or by alias and corpus as in ``"tinytags pets"`` if several corpora are live.
    """

    due: tuple[Retag, ...]
    skipped: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """What a new run changes, in numbers of images; all are None, with a reason, if the runs cannot be compared."""

    same: int | None
    changed: int | None
    gained: int | None
    lost: int | None
    reason: str = ""


def plan_retags(
    request: RetagRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> RetagResult:
    """Return which live indexes are due, without changing anything.

    A model whose run was rolled back under an alias is due there only if it is named. The same applies if
    the live index lacks only the current configset, and a run with that was rolled back.

    Raises
    ------
    MissingError
        If the named model does not exist, or nothing is live under the named alias, or nothing of the named corpus.
    BadInputError
        If the named model fits nothing of what is live under the named alias.
    """
    if request.model:
        cards = [load_card(storage, request.model)]
    else:
        cards = list_models(storage, on_damage=lambda problem: report(f"a model is not considered: {problem}"))
    live = solr.aliases()
    known = [name for name in storage.names(layout.PUBLICATIONS) if "." not in name]
    if request.alias and request.alias not in live:
        raise MissingError(f"alias {request.alias} points at nothing: publish a run with `tinytags publish RUN`")
    due: list[Retag] = []
    skipped: dict[str, str] = {}
    misfits: list[BadInputError] = []
    for alias in [request.alias] if request.alias else known:
        collections = collections_of(live.get(alias, ""))
        for collection in collections or ("",):
            name = alias if len(collections) < 2 else f"{alias} {collection}"
            try:
                run = run_of(collection, storage) if collection else None
                if request.corpus and (run is None or run.corpus != request.corpus):
                    continue
                if run and len(collections) > 1:
                    name = f"{alias} {run.corpus}"
                found = _find_retag(alias, collection, run, cards, request, storage, report)
            except BadInputError as error:  # what else is live may fit
                misfits.append(error)
                found = str(error)
            except CorruptError as error:  # what else is live does not depend on it
                found = str(error)
            if isinstance(found, Retag):
                due.append(found)
                report(f"{alias}: {found.corpus} is due for {found.model}: {found.reason}")
            else:
                skipped[name] = found
                report(f"{name} is skipped: {found}")
    if request.alias and misfits and len(misfits) == len(due) + len(skipped):
        raise misfits[0]
    if request.corpus and not (due or skipped):
        under = f" under {request.alias}" if request.alias else ""
        raise MissingError(
            f"nothing of corpus {request.corpus} is live{under}: publish a run with `tinytags publish RUN`"
        )
    return RetagResult(tuple(due), skipped)


def compare_with_live(
    old: str,
    new: str,
    *,
    storage: Storage,
    blocks: tuple[int, ...] | None = None,
    report: Callable[[str], None] = print,
) -> Comparison:
    """Return how a new run differs from the live one, and report it in one line.

    Parameters
    ----------
    old, new
        The names of the runs.
    storage
        The store that has their scored files.
    blocks
        The only blocks to compare, such as those of a trial; None compares all.
    report
        Called with the line.

    Raises
    ------
    CorruptError
        If a scored file is damaged.
    """
    try:
        found = diff.compare_runs(diff.DiffRequest(old, new, blocks), storage=storage, report=report)
    except (MissingError, BadInputError) as error:  # pruned, or ingested again: it can be tagged again even so
        report(f"{new} cannot be compared with the live run: {error}")
        return Comparison(None, None, None, None, str(error))
    only = f" --blocks {block_numbers_argument(blocks)}" if blocks is not None else ""
    report(
        f"{new} compared with {old}: {found.same:,} images keep their tag, {found.changed:,} change it, "
        f"{found.gained:,} gained, {found.lost:,} lost; `tinytags diff {old} {new}{only}` shows which"
    )
    return Comparison(found.same, found.changed, found.gained, found.lost)


def _find_retag(
    alias: str,
    collection: str,
    run: Run | None,
    cards: Sequence[ModelCard],
    request: RetagRequest,
    storage: Storage,
    report: Callable[[str], None],
) -> Retag | str:
    """Return what is due of a live collection, or the reason why nothing is.

    Raises
    ------
    BadInputError
        If the named model does not fit its corpus.
    """
    if run is None:
        return f"{collection} does not belong to a run of this store" if collection else "it points at nothing"
    try:
        corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    except (MissingError, CorruptError) as error:  # the other aliases do not depend on it
        return str(error)
    fitting = [card for card in cards if not misfit(card, corpus)]
    if not request.model:  # only a named model may take tags from readers, or bring those of another subject
        live_card = next((card for card in cards if card.version == run.model), None)
        if live_card is None:
            return f"the card of its model {run.model} cannot be read, so its tags are unknown; name a model"
        tags = set(live_card.tags)
        # What another corpus' reviews taught, its own weight and prior included, is not for this one.
        fitting = [card for card in fitting if card.reviews is None or card.reviews.corpus == corpus.name]
        fitting = [card for card in fitting if tags <= set(card.tags)]
    if not fitting:
        if request.model:
            raise BadInputError(
                f"model {request.model} does not fit corpus {corpus.name}, which is live under {alias}: "
                f"{misfit(cards[0], corpus)}"
            )
        return f"no model that knows all its tags fits corpus {corpus.name}"
    model = fitting[-1].version
    configset = current_configset().name
    if model != run.model:
        reason = f"run {run.name} used {run.model}"
    elif configset != _configset_of(run):
        reason = f"run {run.name} also used it, but was made with configset {_configset_of(run)}, not {configset}"
    elif run.corpus_digest == corpus.digest and run.growth != corpus.growth:
        reason = f"corpus {corpus.name} has {corpus.images - run.images:,} images that run {run.name} does not have"
    else:
        return f"run {run.name} was already tagged by {model}"
    recorded = of_corpus(run.corpus, read_history(alias, storage))
    history = with_missing_change(recorded, [collection], storage)
    if not request.model and _was_rolled_back(model, configset, corpus.growth, history, run, storage):
        return f"{model} was rolled back here; name the model to try it again"
    similar = _similar(run, corpus, fitting[-1], storage, report)
    return Retag(alias, run.name, run.corpus, model, run.threshold, run.thumbnails, similar, reason)


def _similar(run: Run, corpus: Corpus, card: ModelCard, storage: Storage, report: Callable[[str], None]) -> Similar:
    """Return whether a new run gets vectors: as the live one, if the new model can have them."""
    similar: Similar = "on" if run.similar else load_settings().similar
    if similar == "on":
        try:
            choose_vectors("on", corpus, card, storage, report)
        except BadInputError as error:
            report(f"corpus {corpus.name} is tagged again without vectors: {error}")
            return "auto"
    return "off" if not run.similar and _was_turned_off(run, corpus, storage) else similar


def _was_turned_off(run: Run, corpus: Corpus, storage: Storage) -> bool:
    """Return whether a run lacks vectors that it would have had by itself: somebody did not want them."""
    try:
        fields = kept_configset(_configset_of(run), storage).files.get("schema.xml", b"")
        live_card = load_card(storage, run.model)
    except (MissingError, CorruptError):
        return False
    return b'<field name="vector"' in fields and bool(choose_vectors("auto", corpus, live_card, storage, _quiet))


def _quiet(line: str) -> None:
    """Report nothing: what the live run could have is not what the new one gets."""


def _configset_of(run: Run) -> str:
    """Return the configset that a run's name implies: the founding one, which names leave out, if none is recorded."""
    return run.configset or FOUNDING_CONFIGSET


def _was_rolled_back(
    model: str, configset: str, growth: str, history: Sequence[Publication], live: Run, storage: Storage
) -> bool:
    """Return whether a run of this corpus and model was rolled back.

    For the live model, it must be one with this configset, on the corpus as it has grown by now.
    """
    back = [
        record for record in history if record.change is Change.ROLLED_BACK and record.previous != record.collection
    ]
    found = (run_of(record.previous, storage) for record in back)
    runs = [run for run in found if run is not None and run.corpus == live.corpus and run.model == model]
    return any(model != live.model or (_configset_of(run), run.growth) == (configset, growth) for run in runs)
