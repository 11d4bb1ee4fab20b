"""The definition of a corpus: one TOML file per corpus, written by a person or by ``tinytags corpus add``."""

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tinytags_tasks.blocks import (
    LEAST_BLOCKS,
    MOST_BLOCKS_PER_SHARD,
    MOST_SHARD_IMAGES,
    fewer_blocks,
    smaller_shard_images,
    usual_blocks_per_shard,
    usual_shard_images,
)
from tinytags_tasks.corpus.formats.base import DEFAULT_PIXEL_ORDER, PixelOrder
from tinytags_tasks.corpus.formats.registry import find_format
from tinytags_tasks.corpus.pictures.prepare import Filter, Resize
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.near_names import nearest
from tinytags_tasks.secrecy import LOGIN, secret_part
from tinytags_tasks.store import layout

_SECRET_NAME = re.compile(r"key|secret|token|passw|credential|auth|cookie|signature", re.IGNORECASE)


class CorpusDefinition(BaseModel):
    """A corpus as a person defines it.

    Attributes
    ----------
    name
        The corpus' name: the file name of the definition.
    source
        A file, a folder or a pattern (``*``) on this machine, or an address: ``hdfs://``, ``https://``, ``s3://``.
    format
        The name of the source's format; see :mod:`tinytags_tasks.corpus.formats.registry`.
    height, width
        Size of the corpus' images, in pixels.
    shard_images, blocks_per_shard
        How it is cut into shards and blocks. By default, a block has about 60 MB of pixels, and a shard about 3 GB:
        see :func:`~tinytags_tasks.blocks.usual_shard_images`. Few images make fewer blocks, and smaller shards.
    description
        What the pictures show, for people.
    pixel_order
        The order of a raw image's pixels, for a format that allows several.
    resize, filter
        How pictures of another size are fitted to the corpus' size.
    image_column
        The column of images, for a format that has columns; empty finds it.
    keywords
        Where each image's keyword comes from, in the format's own terms: the path of a file, a label, a column; empty
        leaves keywords out.
    keyword_stop_list
        A file with one word per line; a keyword that contains one of them is left out, its image is not.
    most_unreadable_percent
        The ingestion fails if more images than these are unreadable.
    options
        What the source's file system takes, such as ``anon = true``: text, numbers, true, false, and tables of them;
        never a secret.
    format_options
        Options of a format that another package provides; of the same types.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    name: str
    source: str = Field(min_length=1)
    format: str
    height: int = Field(32, ge=1, le=1024)
    width: int = Field(32, ge=1, le=1024)
    shard_images: int = Field(MOST_SHARD_IMAGES, ge=1)
    blocks_per_shard: int = Field(LEAST_BLOCKS, ge=1, le=MOST_BLOCKS_PER_SHARD)
    description: str = ""
    pixel_order: PixelOrder = DEFAULT_PIXEL_ORDER
    resize: Resize = "crop"
    filter: Filter = "box"
    image_column: str = ""
    keywords: str = ""
    keyword_stop_list: str = ""
    most_unreadable_percent: float = Field(10.0, ge=0, le=100)
    options: dict[str, Any] = {}
    # Left out if empty, so that an older TinyTags can read the plans of the formats that it knows.
    format_options: dict[str, Any] = Field({}, exclude_if=lambda options: not options)

    @field_validator("format")
    @classmethod
    def _check_format(cls, name: str) -> str:
        find_format(name)
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        layout.given_name(self.name, "corpus")
        _check_options(self.format_options, "format_options")
        find_format(self.format).check(self)
        if self.keyword_stop_list and not self.keywords:
            raise ValueError("keyword_stop_list is set, but keywords is not: say where the keywords come from")
        _check_options(self.options, "options")
        for name in ("source", "keywords"):
            _check_address(getattr(self, name), name)
        self._cut()
        return self

    def _cut(self) -> None:
        """Set what is not given of the cut; it does not count as given then."""
        if "shard_images" not in self.model_fields_set:
            object.__setattr__(self, "shard_images", usual_shard_images(self.image_bytes))
        if "blocks_per_shard" not in self.model_fields_set:
            blocks = usual_blocks_per_shard(self.shard_images, self.image_bytes)
            object.__setattr__(self, "blocks_per_shard", blocks)

    def cut_as(self, shard_images: int, blocks_per_shard: int) -> Self:
        """Return the definition of a corpus that was cut like this, unless this one says otherwise."""
        known = {"shard_images": shard_images, "blocks_per_shard": blocks_per_shard}
        missing = known.keys() - self.model_fields_set
        return self.model_copy(update={name: known[name] for name in missing})

    def cut_for(self, images: int) -> Self:
        """Return the definition of a corpus of so many images that was never cut, unless this one says how to.

        The corpus may grow: its blocks have about 60 MB of pixels also where shards are full.
        """
        if "blocks_per_shard" in self.model_fields_set:
            return self
        images = min(images, self.shard_images)
        if "shard_images" in self.model_fields_set:
            blocks = fewer_blocks(self.blocks_per_shard, images, self.shard_images * self.image_bytes)
            return self.model_copy(update={"blocks_per_shard": blocks}) if blocks < self.blocks_per_shard else self
        blocks = fewer_blocks(self.blocks_per_shard, images, images * self.image_bytes)
        if blocks == self.blocks_per_shard:
            return self
        shard_images = smaller_shard_images(blocks, self.image_bytes)
        return self.model_copy(update={"blocks_per_shard": blocks, "shard_images": shard_images})

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * 3


def _check_options(options: Mapping[str, Any], where: str) -> None:
    for name, value in options.items():
        if _SECRET_NAME.search(name):
            raise _holds_no_secret(f"{where}.{name}")
        if isinstance(value, dict):
            _check_options(value, f"{where}.{name}")
        elif isinstance(value, str):
            _check_address(value, f"{where}.{name}")
        elif not (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
            raise ValueError(f"{where}.{name}: must be text, a number, true, false, or a table of them")


def _check_address(address: str, where: str) -> None:
    part = secret_part(address)
    if part == LOGIN:
        raise _holds_no_secret(where)
    if part is not None:
        raise ValueError(
            f"{where}: its parameter {part} is a secret, which would be stored with the corpus; leave the parameters "
            "out, and give fsspec the credentials in the environment (FSSPEC_S3_KEY, FSSPEC_S3_SECRET) or the "
            "parameters themselves (FSSPEC_HTTPS='{\"params\": {...}}'), or download the files"
        )


def _holds_no_secret(where: str) -> ValueError:
    return ValueError(
        f"{where}: a definition must not contain secrets; fsspec reads them from the environment (FSSPEC_S3_KEY, "
        "FSSPEC_S3_SECRET), and for s3 also from ~/.aws"
    )


def make_definition(name: str, fields: dict[str, object], *, where: str = "") -> CorpusDefinition:
    """Return a checked definition.

    Parameters
    ----------
    name
        The corpus' name.
    fields
        All other fields, as a TOML file gives them.
    where
        What an error message names.

    Raises
    ------
    BadInputError
        If a field is missing, unknown or out of range.
    """
    if fields.get("name", name) != name:
        raise BadInputError(
            f"{where or f'corpus {name}'}: name: the file name is the corpus' name; leave this field out"
        )
    try:
        definition = CorpusDefinition.model_validate({**fields, "name": name})
    except BadInputError as error:
        raise BadInputError(f"{where}: {error}" if where else str(error)) from error
    except ValidationError as error:
        # A misspelt field comes before the one that is missing because of it.
        problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        hint = _hint(field) if problem["type"] == "extra_forbidden" else ""
        raise BadInputError(f"{where or f'corpus {name}'}: {field + ': ' if field else ''}{message}{hint}") from error
    if definition.blocks_per_shard > definition.shard_images:  # records of earlier versions may say so
        raise BadInputError(
            f"{where or f'corpus {name}'}: blocks_per_shard is {definition.blocks_per_shard:,}, but a shard has "
            f"{definition.shard_images:,} images (shard_images): give as many blocks at most"
        )
    return definition


def _hint(unknown: str) -> str:
    known = sorted(set(CorpusDefinition.model_fields) - {"name"})
    meant = f"; did you mean {near[0]}?" if (near := nearest(unknown, known)) else ""
    return f"{meant} (a newer TinyTags may know it); fields are {', '.join(known)}"


def read_definition(path: Path) -> CorpusDefinition:
    """Read the definition of a corpus; the file name is its name.

    Relative paths in it mean the folder that it is in, whoever reads it.

    Raises
    ------
    BadInputError
        If the file does not exist, is not TOML, or a field is wrong.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file; define the corpus with `tinytags corpus add`") from error
    except (OSError, ValueError, RecursionError) as error:  # a number may be too long, or tables too deep
        raise BadInputError(f"{path}: not a readable TOML file ({error})") from error
    definition = make_definition(path.stem, fields, where=str(path))
    places = {"source", "keyword_stop_list"}
    if find_format(definition.format).keywords_are_a_file:
        places.add("keywords")
    given = {name: getattr(definition, name) for name in places}
    return definition.model_copy(
        update={name: str(path.absolute().parent / place) for name, place in given.items() if _is_relative(place)}
    )


def _is_relative(place: str) -> bool:
    return bool(place) and "://" not in place and not place.startswith(("/", "~"))


def definition_toml(definition: CorpusDefinition) -> str:
    """Return a definition as TOML, without fields that have their default value."""
    return tomli_w.dumps(definition.model_dump(exclude={"name"}, exclude_defaults=True))
