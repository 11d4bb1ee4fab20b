"""What the page of a picture shows: all that is known about it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.corpus.places import SourcePlace
from tinytags_tasks.document_fields import document_field
from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.search.address import page_address, report_address
from tinytags_tasks.search.all_votes import NotKnownError, Share
from tinytags_tasks.search.cards import VERSION_LENGTH, Frame, picture_address, picture_source
from tinytags_tasks.search.context import LiveRun, PageContext
from tinytags_tasks.search.documents import neighbours
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.similar import similar_to
from tinytags_tasks.search.thumbnails import ENLARGED_BELOW, LONGEST_SIDE
from tinytags_tasks.search.view import stated_precision
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.review_log import of_version, standing_words
from tinytags_tasks.store.review_records import OPINIONS, SHOWING, Verdict

MOST_NEIGHBOURS = 5
"""Neighbours of either side."""

MOST_SIMILAR = 12

FIRST_BARS = 5
"""Tags whose votes are seen at once, the others can be unfolded."""

MOST_WORDS = 20
"""Words of people that are shown, the latest first."""

LARGE_SIDE = 512
"""About how many pixels a side an enlarged picture has."""

_SAYS = {
    Verdict.TAG: "it is {tag}",
    Verdict.NONE: "it shows none of the tags",
    Verdict.WRONG: "it is not {tag}",
    Verdict.UNCLEAR: "it cannot be told",
    Verdict.TAKEDOWN: "taken down",
    Verdict.RESTORE: "restored",
}


@dataclass(frozen=True)
class Fact:
    """A line about a picture; with an address if there is more to see."""

    name: str
    text: str
    address: str = ""
    is_elsewhere: bool = False
    title: str = ""


@dataclass(frozen=True)
class Bar:
    """A share of the votes."""

    name: str
    text: str
    percent: float


@dataclass(frozen=True)
class Opinion:
    """What a person said of a picture."""

    by: str
    time: str
    says: str
    is_public: bool
    reason: str


def picture_view(
    context: PageContext,
    image: TaggedImage | None,
    live: LiveRun | None,
    corpus: Corpus | None,
    *,
    name: str,
    position: int,
    digest: str,
    chosen: str = "",
) -> dict[str, Any]:
    """Return what the template of a picture's page shows.

    Parameters
    ----------
    context
        The page's.
    image
        Its document; None if readers cannot find it.
    live
        The live run of its corpus; None if there is none.
    corpus
        Its corpus as it is in the store; None if it is gone, or another version than the run's.
    name, digest, position
        Its corpus' name and version, and its position.
    chosen
        The run that the reader chose to search; empty if that is what is live. ``live`` is then that run.
    """
    width, height = _size(image, corpus)
    is_enlarged = max(width, height) < ENLARGED_BELOW
    scale = max(1, LARGE_SIDE // max(width, height)) if is_enlarged else 1
    before, after = _neighbours(context, name, position, live, chosen)
    similar = () if chosen else _similar(context, image, live)
    context.pictures.expect([*before, *after, *similar])
    frame = Frame(digest[:VERSION_LENGTH], width, height, is_enlarged, run=chosen)
    small = replace(frame, is_reduced=max(width, height) > LONGEST_SIDE)
    return {
        "corpus": name,
        "position": position,
        "image": image,
        "run": live.run if live else None,
        "scale": scale,
        "width": width,
        "height": height,
        "is_enlarged": is_enlarged,
        "facts": _facts(context, image, live, corpus, name, position, chosen),
        **_votes(context, image),
        "stated": stated_precision(image, context.searches.tables(SearchRequest(run=chosen))) if image else None,
        "meaning": document_field("confidence").meaning,
        "before": [_small(one, small) for one in before],
        "after": [_small(one, small) for one in after],
        "similar": [_small(one, small) for one in similar],
        **_addresses(name, position, frame, scale),
    }


def _addresses(corpus: str, position: int, frame: Frame, scale: int) -> dict[str, str]:
    """Return where a picture's page leads, and where its files are."""
    path = picture_address(corpus, position)
    pinned = {name: value for name, value in (("version", frame.version), ("run", frame.run)) if value}
    return {
        "address": picture_address(corpus, position, frame.run),
        "source": picture_source(corpus, position, frame),
        "large": f"{path}.png?{urlencode({'scale': scale, **pinned})}",
        "raw": f"{path}.bin" + (f"?{urlencode(pinned)}" if pinned else ""),
        "more_similar": f"/similar?{urlencode({'to': layout.document_id(corpus, position)})}",
    }


def opinions(
    context: PageContext, corpus: str, digest: str, position: int, *, are_private_shown: bool
) -> list[Opinion]:
    """Return what people said of a picture and did not take back, the latest first.

    Parameters
    ----------
    are_private_shown
        Whether the looks that only measure and teach are among them; readers do not see these.

    Raises
    ------
    EngineDownError
        If the words cannot be read.
    """
    words = context.logs.of(corpus).words
    own = words.filter(pc.equal(words.column("position"), position))
    if not are_private_shown:
        own = own.filter(own.column("is_public"))
    standing: pa.Table = standing_words(of_version(own, digest), (*OPINIONS, *SHOWING))
    return [
        Opinion(
            by=row["by"],
            time=row["time"][:16].replace("T", " "),
            says=_SAYS[Verdict(row["verdict"])].format(tag=row["tag"]),
            is_public=row["is_public"],
            reason=row["reason"],
        )
        for row in reversed(standing.to_pylist()[-MOST_WORDS:])
    ]


def _size(image: TaggedImage | None, corpus: Corpus | None) -> tuple[int, int]:
    if image is not None and image.image is not None:
        return image.image.shape[1], image.image.shape[0]
    return (corpus.width, corpus.height) if corpus else (32, 32)


def _neighbours(
    context: PageContext, corpus: str, position: int, live: LiveRun | None, chosen: str
) -> tuple[Sequence[TaggedImage], Sequence[TaggedImage]]:
    if live is None:
        return [], []
    with suppress(TinyTagsError):  # the page is worth showing without
        hidden = context.searches.hidden(SearchRequest(run=chosen))
        collection = live.run.collection if chosen else ""
        return neighbours(context.settings, corpus, position, MOST_NEIGHBOURS, hidden, collection)
    return [], []


def _similar(context: PageContext, image: TaggedImage | None, live: LiveRun | None) -> Sequence[TaggedImage]:
    """Return the pictures that look most like this one; none if the run's pictures cannot be compared."""
    if image is None or live is None or not live.run.similar:
        return ()
    with suppress(TinyTagsError):  # the page is worth showing without
        asked = SearchRequest(corpora=(image.corpus,), similar_to=image.id, rows=MOST_SIMILAR + 1)
        return [one for one in similar_to(context, asked).images if one.id != image.id][:MOST_SIMILAR]
    return ()


def _small(image: TaggedImage, frame: Frame) -> dict[str, Any]:
    """Return another picture of the corpus as the page shows it."""
    return {
        "address": picture_address(image.corpus, image.position, frame.run),
        "source": picture_source(image.corpus, image.position, frame),
        "label": f"{image.values['tag']}, image {image.position}",
    }


def _votes(context: PageContext, image: TaggedImage | None) -> dict[str, Any]:
    """Return the votes as bars, the first ones apart; those that the run stored, and why, if others are not known."""
    if image is None or image.values.get("corrected"):
        return {"bars": [], "more_bars": [], "why_not": ""}
    try:
        shares = context.all_votes.of(image, lambda: context.runtime.storage, context.waiting)
    except NotKnownError as error:
        return {"bars": _stored_votes(context, image), "more_bars": [], "why_not": str(error)}
    bars = [Bar(share.tag, _share_text(share), 100 * share.votes / share.total) for share in shares]
    return {"bars": bars[:FIRST_BARS], "more_bars": bars[FIRST_BARS:], "why_not": ""}


def _share_text(share: Share) -> str:
    return f"{share.votes:.1f} %" if share.is_percent else f"{share.votes:.0f} of {share.total}"


def _stored_votes(context: PageContext, image: TaggedImage) -> list[Bar]:
    """Return the votes that a run stores: the tag's, and so all others' together."""
    votes = int(image.values["votes"] or 0)
    with suppress(TinyTagsError):
        card = ModelCard.load(context.runtime.storage, layout.card_file(str(image.values["model"])))
        total, unit = (card.trees, f" of {card.trees}") if card.output == "votes" else (100, " %")
        shares = (str(image.values["tag"]), votes), ("all other tags together", total - votes)
        if 0 < votes <= total:
            return [Bar(name, f"{share}{unit}", 100 * share / total) for name, share in shares]
    return []


def _facts(
    context: PageContext,
    image: TaggedImage | None,
    live: LiveRun | None,
    corpus: Corpus | None,
    name: str,
    position: int,
    chosen: str,
) -> list[Fact]:
    facts = []
    if image and image.values.get("keyword"):
        keyword = str(image.values["keyword"])
        address = page_address(SearchRequest(keyword=keyword, run=chosen))
        facts.append(Fact("Keyword", keyword, address, title=document_field("keyword").meaning))
    facts.append(Fact("Corpus", name, "/about", title=corpus.description if corpus else ""))
    facts.append(Fact("Position", f"{position:,}" + (f" of {corpus.images:,}" if corpus else "")))
    if corpus:
        facts += _places(context, live, corpus, position)
    if live and image:
        run = live.run
        model = str(image.values["model"])
        facts.append(Fact("Model", model, report_address(model), title="its report"))
        facts.append(Fact("Run", run.name, f"/runs#{run.name}", title=run.description))
    return facts


def _places(context: PageContext, live: LiveRun | None, corpus: Corpus, position: int) -> list[Fact]:
    block = corpus.partition.block_at(position)
    grid = ""
    if context.grid and live:
        grid = f"{context.grid}?{urlencode({'run': live.run.name, 'block': block})}"
    facts = [
        Fact("Shard", f"{corpus.partition.place(position)[0]:,}"),
        Fact("Block", f"{block:,}", grid, is_elsewhere=True, title="in Airflow's grid of blocks" if grid else ""),
    ]
    place: SourcePlace | None = context.source_places.find(corpus, position)
    if place:
        facts.append(Fact("File", str(place)))
        facts.append(Fact("Source", place.source))
    return facts
