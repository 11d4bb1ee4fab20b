"""Definitions of corpora: what is allowed, and how everything else is refused."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytags_tasks.corpus.definition import CorpusDefinition, definition_toml, make_definition, read_definition
from tinytags_tasks.errors import BadInputError

LEAST = {"source": "/pictures", "format": "folder"}


def define(**fields):
    return make_definition("birds", {**LEAST, **fields})


@pytest.fixture
def written(tmp_path):
    """Write a definition's file."""

    def write(text, name="birds.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def read_back(definition, folder):
    path = folder / f"{definition.name}.toml"
    path.write_text(definition_toml(definition), encoding="utf-8")
    return read_definition(path)


# What is allowed


def test_source_and_format_are_enough(written):
    definition = read_definition(written('source = "/pictures"\nformat = "folder"\n'))
    assert (definition.name, definition.source, definition.format) == ("birds", "/pictures", "folder")
    assert (definition.height, definition.width, definition.image_bytes) == (32, 32, 3_072)
    assert (definition.shard_images, definition.blocks_per_shard) == (1_000_000, 50)
    assert (definition.resize, definition.filter, definition.most_unreadable_percent) == ("crop", "box", 10.0)


def test_what_is_left_at_its_default_is_not_written():
    assert definition_toml(define()) == 'source = "/pictures"\nformat = "folder"\n'


def test_every_field_survives_its_file(tmp_path):
    definition = make_definition(
        "birds-2",
        {
            "source": "s3://bucket/*.bin",
            "format": "raw",
            "height": 48,
            "width": 64,
            "shard_images": 1_000,
            "blocks_per_shard": 7,
            "description": 'A "line"\nand [another] = one\r\n\ttab, é 猫 \\ \x7f',
            "pixel_order": "columns",
            "resize": "fit",
            "filter": "lanczos",
            "most_unreadable_percent": 0.5,
            "options": {
                "anon": True,
                "default_block_size": 10**400,
                "x": 0.25,
                "config_kwargs": {"s3": {"style": "path"}},
            },
        },
    )
    assert read_back(definition, tmp_path) == definition
    definition = define(format="parquet", image_column="img", keywords="label", keyword_stop_list="~/words.txt")
    assert read_back(definition, tmp_path) == definition


texts = st.text(max_size=20)
options = st.recursive(
    st.dictionaries(
        st.text("abcxyz_-. \"'é", min_size=1, max_size=5),
        texts | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        max_size=3,
    ),
    lambda inner: st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), inner, max_size=2),
    max_leaves=3,
)


@settings(deadline=None)
@given(source=texts.filter(bool), description=texts, column=texts, keywords=texts, options=options)
def test_whatever_text_is_in_it_survives(tmp_path_factory, source, description, column, keywords, options):
    definition = make_definition(
        "birds",
        {
            "source": f"/{source}",  # a relative one means the folder of the file
            "format": "parquet",
            "description": description,
            "image_column": column,
            "keywords": keywords,
            "options": options,
        },
    )
    assert read_back(definition, tmp_path_factory.mktemp("corpora")) == definition


def test_a_definition_that_was_read_from_a_record_is_the_same():
    definition = define(options={"anon": True, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9000", "n": 1}})
    assert CorpusDefinition.model_validate_json(definition.model_dump_json()) == definition


# What is refused

WRONG = {
    "name": ("Birds", r"'Birds' cannot be the name of a corpus: use up to 100 lower-case letters"),
    "source": ("", "source: String should have at least 1 character"),
    "format": (
        "jpeg",
        "there is no format jpeg (formats are parquet, webdataset, folder, cifar-pickle, cifar-binary, tiny-",
    ),
    "height": (0, "height: Input should be greater than or equal to 1"),
    "width": (1_025, "width: Input should be less than or equal to 1024"),
    "shard_images": ("1000", "shard_images: Input should be a valid integer"),
    "blocks_per_shard": (0, "blocks_per_shard: Input should be greater than or equal to 1"),
    "description": (7, "description: Input should be a valid string"),
    "pixel_order": ("rows", "pixel_order: Input should be 'hwc', 'planes' or 'columns'"),
    "resize": ("stretch", "resize: Input should be 'crop', 'fit' or 'none'"),
    "filter": ("nearest", "filter: Input should be 'box', 'bilinear', 'hamming', 'bicubic' or 'lanczos'"),
    "image_column": ("img", "image_column does not apply to the format folder: leave it out"),
    "keywords": ("label", "keywords of the format folder may be folder; correct them, or leave them out"),
    "keyword_stop_list": ("/words", "keyword_stop_list is set, but keywords is not: say where the keywords come from"),
    "most_unreadable_percent": (100.1, "most_unreadable_percent: Input should be less than or equal to 100"),
    "options": ({"when": [1]}, "options.when: must be text, a number, true, false, or a table of them"),
    "format_options": ({"depth": 8}, "the format folder has no format_options: leave them out"),
}


@pytest.mark.parametrize("field", CorpusDefinition.model_fields)
def test_a_field_that_is_wrong_is_named_with_what_is_right(field):
    value, message = WRONG[field]
    name, fields = ("Birds", LEAST) if field == "name" else ("birds", {**LEAST, field: value})
    with pytest.raises(BadInputError) as caught:
        make_definition(name, fields, where="corpora/birds.toml")
    assert str(caught.value).startswith("corpora/birds.toml: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("field", ["height", "shard_images"])
@pytest.mark.parametrize("value", [True, 32.5, -1, None, [32], {}])
def test_what_is_no_count_is_refused(field, value):
    with pytest.raises(BadInputError, match=f"^corpus birds: {field}: Input should be"):
        define(**{field: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "10", True])
def test_what_is_no_share_is_refused(value):
    with pytest.raises(BadInputError, match="most_unreadable_percent: Input should be"):
        define(most_unreadable_percent=value)


@pytest.mark.parametrize("missing", LEAST)
def test_what_must_be_there_is_named(missing):
    with pytest.raises(BadInputError, match=f"corpus birds: {missing}: Field required"):
        make_definition("birds", {name: value for name, value in LEAST.items() if name != missing})


def test_a_misspelt_field_is_named_with_the_nearest_one():
    with pytest.raises(BadInputError, match=r"corpus birds: hight: .*; did you mean height\?"):
        define(hight=32)
    with pytest.raises(BadInputError, match=r"corpus birds: sorce: .*; did you mean source\?"):
        make_definition("birds", {"sorce": "/pictures", "format": "folder"})


def test_a_field_that_is_unknown_is_named_with_those_that_are_known():
    with pytest.raises(BadInputError, match=r"corpus birds: hight: Extra .*; fields are ") as caught:
        define(hight=32)
    known = re.split(r"[ ,]+", str(caught.value).partition("fields are ")[2])
    assert sorted(known) == sorted(set(CorpusDefinition.model_fields) - {"name"})


@pytest.mark.parametrize(
    "name", ["", "a b", "A", "../a", "a/b", "ä", "a.b", "-a", "_a", "a\n", "a" * 101, "con:1", "a\0", "%41", "猫"]
)
def test_a_name_that_is_not_safe_everywhere_is_refused(name):
    with pytest.raises(BadInputError, match="cannot be the name of a corpus: use up to 100 lower-case letters"):
        make_definition(name, LEAST)


def test_a_file_whose_name_is_no_corpus_name_is_named(written):
    path = written('source = "/pictures"\nformat = "folder"', "My Birds.toml")
    with pytest.raises(BadInputError, match=r"/My Birds\.toml: 'My Birds' cannot be the name"):
        read_definition(path)


def test_a_name_within_the_file_must_be_the_files(written):
    text = 'source = "/pictures"\nformat = "folder"\nname = "{}"\n'
    assert read_definition(written(text.format("birds"))).name == "birds"
    with pytest.raises(
        BadInputError, match=r"birds\.toml: name: the file name is the corpus' name; leave this field out"
    ):
        read_definition(written(text.format("cats")))


@pytest.mark.parametrize("format_name", ["tiny-images", "cifar-binary", "cifar-pickle"])
@pytest.mark.parametrize("size", [{"height": 64}, {"width": 31}])
def test_formats_of_one_size_take_no_other(format_name, size):
    assert define(format=format_name, height=32, width=32).image_bytes == 3_072
    with pytest.raises(BadInputError, match=f"images of the format {format_name} are 32x32; leave height and width"):
        define(format=format_name, **size)


@pytest.mark.parametrize("format_name", ["tiny-images", "cifar-binary", "folder", "webdataset"])
def test_only_a_raw_source_has_a_pixel_order(format_name):
    with pytest.raises(BadInputError, match=f"pixel_order does not apply to the format {format_name}: leave it out"):
        define(format=format_name, pixel_order="planes")


@pytest.mark.parametrize(
    ("format_name", "keywords", "message"),
    [
        ("raw", "label", "the format raw has no keywords; leave them out"),
        ("cifar-binary", "labels", "keywords of the format cifar-binary may be label or coarse_label"),
        ("cifar-pickle", "fine", "keywords of the format cifar-pickle may be label or coarse_label"),
        ("folder", "name", "keywords of the format folder may be folder"),
    ],
)
def test_keywords_that_a_format_has_not_are_refused(format_name, keywords, message):
    with pytest.raises(BadInputError, match=message):
        define(format=format_name, keywords=keywords)


SECRETS = ["key", "secret", "token", "password", "aws_secret_access_key", "AccessKeyId", "Authorization", "set_cookie"]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("depth", range(4))
def test_a_secret_is_refused_at_any_depth_and_not_repeated(name, depth):
    options = {name: "hunter2"}
    for level in range(depth):
        options = {"anon": False, f"level{level}": options}
    with pytest.raises(
        BadInputError, match=rf"options\.(level\d\.)*{name}: a definition must not contain secrets; fsspec"
    ) as caught:
        define(options=options)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "https://me:hunter2@host/pictures"},
        {"source": "s3://ID:hunter2@bucket/pictures"},
        {"format": "tiny-images", "keywords": "https://me:hunter2@host/tiny_metadata.bin"},
        {"options": {"client_kwargs": {"endpoint_url": "https://me:hunter2@host:9000"}}},
    ],
)
def test_a_password_within_an_address_is_refused_and_not_repeated(fields):
    with pytest.raises(BadInputError, match="a definition must not contain secrets") as caught:
        define(**fields)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2Fb&X-Amz-Signature=hunter2", "X-Amz-Credential"),
        ("X-Goog-Signature=hunter2", "X-Goog-Signature"),
        ("AWSAccessKeyId=a&Expires=1&Signature=hunter2", "AWSAccessKeyId"),
        ("sv=2022-11-02&sp=r&sig=hunter2", "sig"),
        ("download=1&access_token=hunter2", "access_token"),
        ("api%5Fkey=hunter2", "api_key"),
    ],
)
@pytest.mark.parametrize("field", ["source", "keywords", "options"])
def test_a_presigned_address_is_refused_and_not_repeated(query, named, field):
    address = f"https://host/pictures.zip?{query}"
    fields = {"options": {"mirror": address}} if field == "options" else {field: address, "format": "tiny-images"}
    with pytest.raises(BadInputError, match=rf"{field}.*parameter {named} is a secret.*FSSPEC_HTTPS=") as caught:
        define(**fields)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_an_access_token_as_the_user_of_an_address_is_refused():
    with pytest.raises(BadInputError, match="must not contain secrets"):
        define(source="https://hunter2@host/pictures/")


@pytest.mark.parametrize("query", ["keyword=cat", "path=/a/b&page=2", "monkey=1", "versionId=3", "design=x", "key"])
def test_an_address_with_harmless_parameters_is_taken(query):
    assert define(source=f"https://host/a?{query}").source.endswith(query)


@pytest.mark.parametrize("source", ["https://host:8080/a@b:c@d", "/a:b@c", "webhdfs://me@host:9870/a", "s3://b/a:b@c"])
def test_an_address_with_marks_but_no_password_is_taken(source):
    assert define(source=source).source == source


@pytest.mark.parametrize("value", [None, [1], float("nan"), float("inf"), {"deep": [1]}])
def test_an_option_that_a_file_cannot_hold_is_refused(value):
    with pytest.raises(
        BadInputError, match=r"options\.x(\.deep)?: must be text, a number, true, false, or a table of them"
    ):
        define(options={"x": value})


def test_text_that_no_file_can_hold_is_refused():
    with pytest.raises(BadInputError, match="source: Input should be a valid string"):
        define(source="/pictures/\udcff")


# Files


def test_a_file_that_is_not_there_is_named_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.toml: no such file; define the corpus with `tinytags corpus add`"):
        read_definition(tmp_path / "none.toml")


def test_a_byte_order_mark_is_read_over(written):
    text = b'\xef\xbb\xbfsource = "/pictures"\nformat = "folder"\n'
    assert read_definition(written(text)) == make_definition("birds", LEAST)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("pictures", "{}/pictures"),
        ("../sets/*.bin", "{}/../sets/*.bin"),
        ("/pictures", "/pictures"),
        ("~/pictures", "~/pictures"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("file:///pictures", "file:///pictures"),
    ],
)
def test_a_relative_path_means_the_definitions_folder(written, tmp_path, monkeypatch, given, meant):
    path = written(
        f'source = "{given}"\nformat = "tiny-images"\nkeywords = "{given}"\nkeyword_stop_list = "words.txt"\n'
    )
    monkeypatch.chdir("/")
    meant = meant.format(tmp_path)
    for read in (path, Path(os.path.relpath(path))):
        definition = read_definition(read)
        assert (definition.source, definition.keywords) == (meant, meant)
        assert definition.keyword_stop_list == f"{tmp_path}/words.txt"
    folder = written('source = "x"\nformat = "folder"\nkeywords = "folder"\n', "ants.toml")
    assert read_definition(folder).keywords == "folder"


@pytest.mark.parametrize(
    "content",
    [
        b"x = " + b"9" * 5_000,
        b"x = " + b"[" * 5_000,
        b"source = ",
        b"[[[",
        b"source = 'a'\nsource = 'b'\n",
        b"\xff\xfe",
        b"x = 1e",
    ],
)
def test_what_is_no_toml_is_refused(written, content):
    with pytest.raises(BadInputError, match=r"birds\.toml: not a readable TOML file \("):
        read_definition(written(content))


def test_a_folder_is_no_definition(tmp_path):
    (tmp_path / "birds.toml").mkdir()
    with pytest.raises(BadInputError, match=r"birds\.toml: not a readable TOML file"):
        read_definition(tmp_path / "birds.toml")


def test_a_date_among_the_options_is_refused(written):
    text = 'source = "/pictures"\nformat = "folder"\n[options]\nwhen = 2020-01-01\n'
    with pytest.raises(BadInputError, match=r"birds\.toml: options\.when: must be text, a number"):
        read_definition(written(text))
