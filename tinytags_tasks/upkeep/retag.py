"""Re-tagging: which live indexes lack the newest model that fits them, or the current configset.

And what is put beside a new run to judge it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinytags_tasks.blocks import block_numbers_argument
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.publish.publications import read_history, run_of, with_missing_change
from tinytags_tasks.settings import Thumbnails
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import FOUNDING_CONFIGSET, current_configset
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import list_models, misfit
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, Publication, Run
from tinytags_tasks.upkeep import diff


@dataclass(frozen=True)
class RetagRequest:
    """What is looked at.

    Attributes
    ----------
    model
        The model's version; empty takes the newest that fits each corpus and knows all tags of its live index.
    alias
        Only what is live under it; empty takes every alias that TinyTags ever published under.
    """

    model: str = ""
    alias: str = ""


@dataclass(frozen=True)
class Retag:
    """A live index that another model shall tag, or that shall get another configset.

    Attributes
    ----------
    alias, live_run
        What readers search, and the run that they see.
    corpus, model, threshold, thumbnails
        Of the run to plan: the live one's, but for the model.
    reason
        Why.
    """

    alias: str
    live_run: str
    corpus: str
    model: str
    threshold: int
    thumbnails: Thumbnails
    reason: str


@dataclass(frozen=True)
class RetagResult:
    """What is to be tagged again; and why each other alias is left as it is."""

    due: tuple[Retag, ...]
    left: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """What a new run changes, in numbers of images; all None and a reason where the runs cannot be compared."""

    same: int | None
    changed: int | None
    gained: int | None
    lost: int | None
    reason: str = ""


def plan_retags(
    request: RetagRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> RetagResult:
    """Tell which live indexes are due, and change nothing.

    A model whose run was rolled back under an alias is due there only when it is named. So is the current configset, if
    the live index lacks nothing but that.

    Raises
    ------
    MissingError
        When the named model is not there, or nothing is live under the named alias.
    BadInputError
        When the named model does not fit what is live under the named alias.
    """
    cards = list_models(storage)
    if request.model:
        cards = [card for card in cards if card.version == request.model]
        if not cards:
            raise MissingError(f"model {request.model}: there is no such model; `tinytags models list` lists them")
    live = solr.aliases()
    known = [name for name in storage.names(layout.PUBLICATIONS) if "." not in name]
    if request.alias and request.alias not in live:
        raise MissingError(f"alias {request.alias} points at nothing: publish a run with `tinytags publish RUN`")
    due: list[Retag] = []
    left: dict[str, str] = {}
    for alias in [request.alias] if request.alias else known:
        found = _look(alias, live.get(alias, ""), cards, request, storage)
        if isinstance(found, Retag):
            due.append(found)
            report(f"{alias}: {found.corpus} is to be tagged by {found.model}: {found.reason}")
        else:
            left[alias] = found
            report(f"{alias}: left as it is: {found}")
    return RetagResult(tuple(due), left)


def compare_with_live(
    old: str,
    new: str,
    *,
    storage: Storage,
    blocks: tuple[int, ...] | None = None,
    report: Callable[[str], None] = print,
) -> Comparison:
    """Return how a new run differs from the live one, and report it in a line.

    Parameters
    ----------
    old, new
        The runs.
    storage
        Where their scored files are.
    blocks
        Only these, as of a trial; None compares all.
    report
        Gets the line.

    Raises
    ------
    CorruptError
        If a scored file is damaged.
    """
    try:
        found = diff.compare_runs(diff.DiffRequest(old, new, blocks), storage=storage, report=report)
    except (MissingError, BadInputError) as error:  # pruned, or ingested again: no reason not to tag again
        report(f"{new} is compared with nothing: {error}")
        return Comparison(None, None, None, None, str(error))
    only = f" --blocks {block_numbers_argument(blocks)}" if blocks is not None else ""
    report(
        f"{new} against {old}: {found.same:,} images keep their tag, {found.changed:,} get another one, "
        f"{found.gained:,} are gained, {found.lost:,} lost; `tinytags diff {old} {new}{only}` shows which"
    )
    return Comparison(found.same, found.changed, found.gained, found.lost)


def _look(
    alias: str, collection: str, cards: Sequence[ModelCard], request: RetagRequest, storage: Storage
) -> Retag | str:
    """Return what is due under an alias, or why nothing is."""
    run = run_of(collection, storage) if collection else None
    if run is None:
        return f"{collection} is no run's of this store" if collection else "it points at nothing"
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    fitting = [card for card in cards if not misfit(card, corpus)]
    if not request.model:  # nobody said that readers shall lose tags, or get those of another subject
        tags = {tag for card in cards if card.version == run.model for tag in card.tags}
        fitting = [card for card in fitting if tags <= set(card.tags)]
    if not fitting:
        if request.model and request.alias:
            raise BadInputError(
                f"model {request.model} does not fit corpus {corpus.name}, which is live under {alias}: "
                f"{misfit(cards[0], corpus)}"
            )
        return f"no such model fits corpus {corpus.name}"
    model = fitting[-1].version
    configset = current_configset().name
    if model != run.model:
        reason = f"run {run.name} used {run.model}"
    elif configset != _configset_of(run):
        reason = f"run {run.name} used it as well, but was made with configset {_configset_of(run)}, not {configset}"
    else:
        return f"run {run.name} was tagged by {model} already"
    history = with_missing_change(read_history(alias, storage), collection, storage)
    if not request.model and _was_taken_back(model, configset, history, run, storage):
        return f"{model} was rolled back here; name the model to try it again"
    return Retag(alias, run.name, run.corpus, model, run.threshold, run.thumbnails, reason)


def _configset_of(run: Run) -> str:
    """Return what a run's name says of its configset: a run of another one than the founding one says which."""
    return run.configset or FOUNDING_CONFIGSET


def _was_taken_back(model: str, configset: str, history: Sequence[Publication], live: Run, storage: Storage) -> bool:
    """Tell whether a corpus' run of this model was rolled back; of the live model, one with this configset."""
    found = (run_of(record.previous, storage) for record in history if record.change is Change.ROLLED_BACK)
    runs = [run for run in found if run is not None and run.corpus == live.corpus and run.model == model]
    return any(model != live.model or _configset_of(run) == configset for run in runs)
