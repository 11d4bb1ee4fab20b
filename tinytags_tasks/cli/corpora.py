"""Commands for corpora: define, inspect, ingest, verify."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, add_row, clients, make_table, print_table, refuse_damaged, say
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tinytags_tasks.corpus.definition import CorpusDefinition
    from tinytags_tasks.corpus.inspect import Inspection
    from tinytags_tasks.ingest.verify_embeddings import VerifiedEmbeddings
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.store.corpus_records import Corpus, Unreadable

app = typer.Typer()
corpus_app = typer.Typer(no_args_is_help=True, help="Define, inspect and verify corpora.")
app.add_typer(corpus_app, name="corpus")

Name = Annotated[str, typer.Argument(help="Name of the corpus.")]
PixelOrder = Annotated[
    str, typer.Option(help="Pixel order of a raw source: hwc, planes or columns.", show_default=False)
]
Filter = Annotated[str, typer.Option("--filter", help="Resize filter: box, bilinear, hamming, bicubic or lanczos.")]
Keywords = Annotated[
    str,
    typer.Option(
        help="Where keywords come from: path of tiny_metadata.bin, label, folder, a column, ending of a member.",
        show_default=False,
    ),
]
StopList = Annotated[
    str, typer.Option(help="A file of words; keywords that contain one of them are left out.", show_default=False)
]
FileSystemOptions = Annotated[
    list[str] | None,
    typer.Option(help="name=value for the source's file system, such as anon=true.", show_default=False),
]
Shards = Annotated[str, typer.Option(help="Shard numbers and ranges, such as 0,3-5.", show_default=False)]


@corpus_app.command()
def add(
    name: Name,
    source: Annotated[str, typer.Argument(help="A file, folder or pattern, or an hdfs, http(s) or s3 URL.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            help="What the source is, such as folder; default: a guess.",
            show_default=False,
        ),
    ] = "",
    height: Annotated[int | None, typer.Option(help="Height of the images; default: 32.", show_default=False)] = None,
    width: Annotated[int | None, typer.Option(help="Width of the images; default: 32.", show_default=False)] = None,
    shard_images: Annotated[
        int | None,
        typer.Option(help="Images per shard; default: about 3 GB of pixels, at most 1,000,000.", show_default=False),
    ] = None,
    blocks_per_shard: Annotated[
        int | None,
        typer.Option(
            help="Blocks per shard; default: about 60 MB of pixels each, and 50 if there are the images.",
            show_default=False,
        ),
    ] = None,
    description: Annotated[str, typer.Option(help="What the images show.")] = "",
    pixel_order: PixelOrder = "",
    resize: Annotated[str, typer.Option(help="How to resize pictures of another size: crop, fit or none.")] = "crop",
    filter_name: Filter = "box",
    image_column: Annotated[str, typer.Option(help="Image column of a Parquet source.", show_default=False)] = "",
    keywords: Keywords = "",
    keyword_stop_list: StopList = "",
    most_unreadable_percent: Annotated[float, typer.Option(help="Fail if more images are unreadable.")] = 10.0,
    option: FileSystemOptions = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing definition of this name.")] = False,
) -> None:
    """Define a corpus; nothing is ingested yet."""
    from tinytags_tasks.corpus.definition import make_definition
    from tinytags_tasks.corpus.definitions import add_definition
    from tinytags_tasks.corpus.formats.registry import find_format
    from tinytags_tasks.corpus.inspect import guess_definition

    runtime = clients()
    options = dict(_option(text) for text in option or [])
    fields: dict[str, object] = {"source": _absolute(source), "format": format_name or "folder", "options": options}
    if not format_name:
        guessed, notes = guess_definition(runtime.source_files(make_definition(name, fields)))
        fields["format"] = guessed.format
        pixel_order = pixel_order or guessed.pixel_order
        say(f"it looks like {guessed.format}" + "".join(f"\n{note}" for note in notes))
    given = {
        "height": height,
        "width": width,
        "shard_images": shard_images,
        "blocks_per_shard": blocks_per_shard,
        "description": description,
        "pixel_order": pixel_order or None,
        "resize": resize,
        "filter": filter_name,
        "image_column": image_column,
        "keywords": _absolute(keywords) if find_format(str(fields["format"])).keywords_are_a_file else keywords,
        "keyword_stop_list": _absolute(keyword_stop_list),
        "most_unreadable_percent": most_unreadable_percent,
    }
    fields |= {key: value for key, value in given.items() if value is not None}
    definition = make_definition(name, fields)
    folder = runtime.settings.corpora_folder
    saved = add_definition(folder, definition, runtime.storage, replace=replace)
    remedy = "ingest it with `tinytags ingest"
    if _stored_corpus(runtime, name):
        remedy = "append new files of its source with `tinytags corpus grow"
    print(f"{folder / (name + '.toml')}{'' if saved else ' exists already'}; {remedy} {name}`")


def _option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise BadInputError(f"--option {text!r}: write name=value, such as anon=true")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _absolute(path: str) -> str:
    """Return a local path as an Airflow task finds it; URLs are returned unchanged."""
    return str(Path(path).expanduser().absolute()) if path and "://" not in path else path


@corpus_app.command("list")
def list_corpora(as_json: AsJson = False) -> None:
    """List the defined corpora, and what the store has of them; exit code 1 if that is damaged."""
    from tinytags_tasks.corpus.definitions import find_definition, known_definitions, share_definitions

    runtime = clients()
    folder = runtime.settings.corpora_folder
    share_definitions(folder, runtime.storage)
    found: list[tuple[CorpusDefinition, Corpus | None]] = []
    unusable: dict[str, str] = {}
    for name in known_definitions(folder, runtime.storage):
        try:
            definition = find_definition(folder, name, runtime.storage)
            found.append((definition, _stored_corpus(runtime, name)))
        except FinalError as error:
            unusable[name] = str(error)
    if as_json:
        rows = [_as_json(definition, corpus) for definition, corpus in found]
        rows += [{"name": name, "error": error, "definition": None, "corpus": None} for name, error in unusable.items()]
        print(json.dumps(rows, indent=2))
    else:
        _print_corpora(found, [*unusable])
    refuse_damaged(unusable.values())


def _print_corpora(found: "list[tuple[CorpusDefinition, Corpus | None]]", unusable: list[str]) -> None:
    table = make_table("corpus", "format", "size", "images", "shards", "unreadable", "source")
    for definition, corpus in found:
        size = f"{definition.height}x{definition.width}"
        counts = (f"{corpus.images:,}", corpus.partition.shards, f"{corpus.unreadable:,}") if corpus else ("", "", "")
        add_row(table, definition.name, definition.format, size, *counts, definition.source)
    for name in unusable:
        add_row(table, name.encode(errors="replace").decode(), *[""] * 5, "cannot be used")
    print_table(table)
    if not (found or unusable):
        print("none yet; define one with `tinytags corpus add NAME SOURCE`")


def _stored_corpus(runtime: "Runtime", name: str) -> "Corpus | None":
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.corpus_records import Corpus

    path = layout.corpus_file(name)
    return Corpus.load(runtime.storage, path) if runtime.storage.exists(path) else None


def _as_json(definition: "CorpusDefinition", corpus: "Corpus | None") -> dict[str, object]:
    return {"definition": definition.model_dump(), "corpus": corpus.model_dump() if corpus else None}


@corpus_app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a corpus' definition and what the store has of it, including the images that could not be read."""
    from itertools import islice

    from tinytags_tasks.corpus.definition import definition_toml
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.ingest.plan_records import load_plan
    from tinytags_tasks.ingest.verify import iterate_unreadable

    runtime = clients()
    definition = find_definition(runtime.settings.corpora_folder, name, runtime.storage, renew=True)
    corpus = _stored_corpus(runtime, name)
    unreadable = iterate_unreadable(name, storage=runtime.storage) if corpus else iter(())
    left_out = load_plan(runtime.storage, name).left_out if corpus else ()
    if as_json:
        listed = {
            "unreadable": [
                {**image.model_dump(), "file": file} for image, file in _with_files(runtime, corpus, unreadable)
            ],
            "left_out": [group.model_dump() for group in left_out],
        }
        print(json.dumps({**_as_json(definition, corpus), **listed}, indent=2))
        return
    print(definition_toml(definition).rstrip())
    if corpus is None:
        print(f"\nnot in the store; ingest it with `tinytags ingest {name}`")
        return
    partition = corpus.partition
    print(
        f"\n{corpus.images:,} images of {corpus.height}x{corpus.width} in {partition.shards} shards, "
        f"{partition.blocks} blocks; {corpus.preparation}; ingested {corpus.created} from {corpus.source.path}"
    )
    for growth in corpus.growths:
        print(f"{growth.images:,} of the images appended {growth.created} from {growth.source.files:,} new files")
    for group in left_out:
        print(f"left out: {group}")
    if corpus.unreadable:
        print(f"{corpus.unreadable:,} unreadable images" + (", the first 50:" if corpus.unreadable > 50 else ":"))
        for image, file in _with_files(runtime, corpus, islice(unreadable, 50)):
            print(f"{image.position:>12,}  {f'{one_line(file)}: ' if file else ''}{image.reason}")


def _with_files(
    runtime: "Runtime", corpus: "Corpus | None", images: "Iterable[Unreadable]"
) -> "list[tuple[Unreadable, str | None]]":
    """Return unreadable images with the file that each is in, if that is known."""
    from tinytags_tasks.corpus.places import ListedPlaces

    found = list(images)
    if corpus is None or not found:
        return []
    try:
        listed = ListedPlaces(runtime.storage, corpus.name, corpus.sources)
        places = listed.find(image.position for image in found)
    except FinalError:  # a corpus of an older TinyTags has no listing
        places = {}
    return [(image, str(place) if (place := places.get(image.position)) else None) for image in found]


@corpus_app.command()
def keywords(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, help="How many, the most frequent first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the keywords of an ingested corpus, and how many images have each."""
    from tinytags_tasks.ingest.keyword_counts import count_keywords

    counts = count_keywords(name, storage=clients().storage)
    if as_json:
        print(json.dumps([{"keyword": keyword, "images": count} for keyword, count in counts], indent=2))
        return
    table = make_table("keyword", "images")
    for keyword, count in counts[:limit]:
        add_row(table, keyword, f"{count:,}")
    print_table(table)
    if len(counts) > limit:
        print(f"{limit:,} of {len(counts):,} keywords; --limit {len(counts)} shows all")


@corpus_app.command()
def remove(
    name: Name,
    delete_stored: Annotated[
        bool, typer.Option("--data", help="Also delete its shards and embeddings from the store.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete the shards even if runs need them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the definition of a corpus; its source is never changed."""
    from tinytags_tasks.corpus.definitions import forget_definition, known_definitions
    from tinytags_tasks.near_names import choices
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.ledger import list_runs

    runtime = clients()
    folder = layout.corpus_folder(name)
    stored = delete_stored and runtime.storage.exists(folder)
    if stored:
        runs = [run.name for run in list_runs(runtime.storage) if run.corpus == name]
        if runs and not force:
            raise BadInputError(
                f"corpus {name}: {len(runs)} runs use its shards ({', '.join(runs[:5])}), which indexing needs; "
                "--force deletes them anyway"
            )
        if not yes and not typer.confirm(f"Delete everything in {folder} of the store?"):
            raise typer.Exit(1)
        # The totals first: a corpus without them counts as not ingested.
        runtime.storage.delete(layout.corpus_file(name))
        runtime.storage.delete(folder)
    removed = forget_definition(runtime.settings.corpora_folder, name, runtime.storage)
    if not (removed or stored):
        names = choices(name, known_definitions(runtime.settings.corpora_folder, runtime.storage))
        raise BadInputError(f"{name}: no such corpus is defined; `tinytags corpus list` lists all ({names})")
    print(f"removed {name}" + (" and its shards" if stored else ""))


@corpus_app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="A file, folder, pattern or URL, or the name of a defined corpus.")],
    sheet: Annotated[Path | None, typer.Option(help="File for the picture sheet (PNG).")] = None,
    height: Annotated[int, typer.Option(help="Height of a raw source's images.")] = 32,
    width: Annotated[int, typer.Option(help="Width of a raw source's images.")] = 32,
    keywords: Keywords = "",
    first: Annotated[int, typer.Option("--from", min=0, help="Position of the first image that is shown.")] = 0,
    is_random: Annotated[bool, typer.Option("--random", help="Show images at random positions.")] = False,
    option: FileSystemOptions = None,
    as_json: AsJson = False,
) -> None:
    """Describe a source, its keywords, and draw its first images or others; nothing is written to the store."""
    from tinytags_tasks.corpus.definition import make_definition
    from tinytags_tasks.corpus.formats.registry import find_format
    from tinytags_tasks.corpus.inspect import choose_sheet, draw_sheet, guess_definition, inspect_source
    from tinytags_tasks.corpus.registry import list_definitions, load_definition

    runtime = clients()
    notes: tuple[str, ...] = ()
    if source in list_definitions(runtime.settings.corpora_folder):
        definition = load_definition(runtime.settings.corpora_folder, source)
        files = runtime.source_files(definition)
    else:
        fields: dict[str, object] = {"source": _absolute(source), "format": "raw", "height": height, "width": width}
        fields["options"] = dict(_option(text) for text in option or [])
        files = runtime.source_files(make_definition("inspected", fields))
        definition, notes = guess_definition(files, height=height, width=width)
    if keywords:
        place = _absolute(keywords) if find_format(definition.format).keywords_are_a_file else keywords
        given = definition.model_dump(exclude={"name"}, exclude_defaults=True)
        definition = make_definition(definition.name, {**given, "keywords": place}, where="--keywords")
    path = choose_sheet(files, definition.name, sheet)
    found = inspect_source(definition, files, notes, first=first, is_random=is_random)
    if as_json:
        shown = {
            "definition": definition.model_dump(),
            "images": found.images,
            "files": found.files,
            "size_bytes": found.size_bytes,
            "unreadable": {str(position): reason for position, reason in found.unreadable.items()},
            "unreadable_files": {str(position): path for position, path in found.unreadable_files.items()},
            "histogram": found.histogram.tolist(),
            "notes": [*found.notes],
            "positions": found.positions,
            "sizes": dict(found.sizes),
            "keywords": asdict(found.keywords),
            "left_out": [group.model_dump() for group in found.left_out],
            "sheet": str(path),
        }
        print(json.dumps(shown, indent=2))
    else:
        _print_inspection(found)
    draw_sheet(found, path)  # last: where it cannot be written, what was found has been said
    if not as_json:
        print(f"sheet     {path}: images, and a histogram of their bytes")


def _print_inspection(found: "Inspection") -> None:
    from tinytags_tasks.corpus.formats.registry import find_format

    definition = found.definition
    details = (getattr(definition, field) for field in sorted(find_format(definition.format).fields))
    print("format    " + ", ".join(filter(None, (definition.format, *details))))
    print(f"files     {found.files:,}, {found.size_bytes:,} bytes")
    print(f"images    {found.images:,} of {definition.height}x{definition.width}")
    if found.sizes:
        print(f"sizes     {_most(list(found.sizes.items()))}, width x height of {found.looked_at:,} looked at")
    if found.keywords.counts:
        print(f"keywords  {found.keywords.where}, in {found.keywords.images:,} images: {_most(found.keywords.counts)}")
    if found.keywords.possible:
        others = ", ".join(found.keywords.possible)
        print(f"          or {others}" if found.keywords.counts else f"keywords  {others}, if chosen")
    for position, reason in list(found.unreadable.items())[:10]:
        print(f"unreadable {position:,}: {one_line(found.unreadable_files[position])}: {reason}")
    for note in found.notes:
        print(f"note      {note}")
    for group in found.left_out:
        print(f"left out  {group}")
    means = (found.histogram * range(256)).sum(axis=1) / found.histogram.sum(axis=1).clip(min=1)
    print("means     " + ", ".join(f"{colour} {mean:.0f}" for colour, mean in zip("RGB", means, strict=True)))


def _most(counts: "Sequence[tuple[str, int]]") -> str:
    """Return the most frequent values with their counts, and how many others there are."""
    shown = ", ".join(f"{value} ({count:,})" for value, count in counts[:8])
    return f"{shown} and {len(counts) - 8:,} more" if len(counts) > 8 else shown


@corpus_app.command()
def verify(
    name: Name,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte of the store and the source.")] = False,
    without_source: Annotated[bool, typer.Option("--without-source", help="Check only the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that the store has what the source had when it was ingested, and embeddings of exactly that."""
    from tinytags_tasks.ingest.plan_records import load_plan
    from tinytags_tasks.ingest.verify import verify_corpus

    runtime = clients()
    plan = load_plan(runtime.storage, name)
    files = None if without_source else runtime.source_files(plan.definition)
    found = verify_corpus(name, storage=runtime.storage, files=files, deep=deep, report=say)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    elif found.is_intact:
        how = "every byte" if deep else "sizes, checksums and the source's ends; --deep reads everything"
        print(f"corpus {name}: {found.images:,} images in {found.shards} shards match the source (compared: {how})")
        for embeddings in found.embeddings:
            print(f"embeddings by {embeddings.net}: {embeddings.blocks:,} blocks are intact")
    if found.damaged:
        shards = ",".join(map(str, sorted(found.damaged)))
        first = min(found.damaged)
        raise CorruptError(
            f"corpus {name}: {len(found.damaged)} of {found.shards} shards are damaged (shard {first}: "
            f"{found.damaged[first]}); rewrite them with `tinytags ingest {name} --redo {shards}`"
        )
    if found.source:
        raise CorruptError(found.source)
    for embeddings in found.embeddings:
        if embeddings.damaged:
            raise _damaged_embeddings(name, embeddings)


def _damaged_embeddings(corpus: str, found: "VerifiedEmbeddings") -> CorruptError:
    from tinytags_tasks.blocks import block_numbers_argument

    first = min(found.damaged)
    return CorruptError(
        f"corpus {corpus}: embeddings by {found.net} of {len(found.damaged)} of {found.blocks} blocks are damaged "
        f"(block {first}: {found.damaged[first]}); make all of them again with `tinytags embed {corpus} "
        f"--net {found.net} --blocks {block_numbers_argument(found.damaged)} --redo`"
    )


@app.command()
def ingest(name: Name, redo: Shards = "") -> None:
    """Write every image of a corpus into shards in HDFS; only missing shards are written."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.ingest.step import ingest_corpus

    runtime = clients()
    definition = find_definition(runtime.settings.corpora_folder, name, runtime.storage, renew=True)
    numbers = parse_block_numbers(redo, 1_000_000) if redo.strip() else ()
    result = ingest_corpus(
        definition, storage=runtime.storage, files=runtime.source_files(definition), redo=numbers, report=say
    )
    print(
        f"corpus {result.corpus}: {result.images:,} images in {result.shards} shards, {result.blocks} blocks, "
        f"{result.unreadable:,} unreadable"
        + (f"; `tinytags corpus show {name}` names them" if result.unreadable else "")
    )


@corpus_app.command()
def grow(name: Name) -> None:
    """Append what is new in a corpus' source, in new shards; all that is there stays as it is."""
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.ingest.step import ingest_corpus

    runtime = clients()
    definition = find_definition(runtime.settings.corpora_folder, name, runtime.storage, renew=True)
    result = ingest_corpus(
        definition, storage=runtime.storage, files=runtime.source_files(definition), grow=True, report=say
    )
    old = result.images - result.new_images
    print(
        f"corpus {result.corpus}: {old:,} images were there, {result.new_images:,} are new; {result.shards} shards, "
        f"{result.blocks} blocks"
        + (f"; tag it with `tinytags run {name}`" if result.new_images else "")
        + (f"; `tinytags corpus show {name}` names the unreadable ones" if result.unreadable else "")
    )
