"""Parquet as other programs write it: nulls, lists, nested and repeated columns, partitions, dictionaries."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_parquet_images import IMG, birds, class_labels, listed, png, read, structs

from tinytags_tasks.errors import BadInputError


@pytest.fixture
def write(tmp_path):
    def write_table(table, name="birds.parquet", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
        return path

    return write_table


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("empty", [pa.nulls(2), pa.array([{"bytes": None, "path": "x"}] * 2)])
def test_a_column_that_is_null_in_one_file_has_no_images_there(write, tmp_path, names, empty):
    write(birds([0, 1], word=["duck", "gull"]), f"{names[0]}.parquet")
    write({"img": empty, "word": pa.nulls(2)}, f"{names[1]}.parquet")
    items = listed(tmp_path, keywords="word")
    _, unreadable, keywords, encoded = read(tmp_path, items, keywords="word")
    start = 0 if names[0] == "a" else 2
    assert encoded[start : start + 2] == [png(0), png(1)]
    assert keywords[start : start + 2] == ["duck", "gull"]
    assert unreadable == dict.fromkeys({0, 1, 2, 3} - {start, start + 1}, "its row has no image")
    assert keywords.count(None) == 2


def test_a_null_column_of_another_name_is_no_column_of_images(write, tmp_path):
    write(birds([0]), "a.parquet")
    write({"note": pa.nulls(1)}, "b.parquet")
    with pytest.raises(BadInputError, match=r"b\.parquet: has images in note, and .*a\.parquet has images in img"):
        listed(tmp_path)


def test_only_nulls_are_no_images(write):
    with pytest.raises(BadInputError, match=r"all its columns that may hold images are empty \(img\)"):
        listed(write({"img": pa.nulls(3), "word": ["a"] * 3}))


def test_names_of_labels_still_have_to_agree_when_the_first_file_has_none(write, tmp_path):
    write({"img": structs([png(0)]), "label": pa.nulls(1)}, "a.parquet")
    for name, labels in (("b", ["duck", "gull"]), ("c", ["gull", "duck"])):
        write(pa.table(birds([1], label=[0])).replace_schema_metadata(class_labels(label=labels)), f"{name}.parquet")
    with pytest.raises(BadInputError, match=r"c\.parquet: has .*b\.parquet has images"):
        listed(tmp_path, keywords="label")


@pytest.mark.parametrize(
    "empty", [{"img": pa.array([], IMG)}, {"img": pa.nulls(0)}, {"x": pa.array([], pa.int8())}, {}]
)
def test_files_without_rows_need_no_columns(write, tmp_path, empty):
    write(empty, "a.parquet")
    write(birds([1]), "b.parquet")
    items = listed(tmp_path)
    assert [item.images for item in items] == [0, 1]
    assert read(tmp_path, items)[3] == [png(1)]


@pytest.mark.parametrize("kind", [pa.list_(pa.binary()), pa.large_list(pa.binary()), pa.list_(IMG)])
def test_a_list_of_one_image_is_that_image(write, kind):
    def row(*numbers):
        return [{"bytes": png(number)} if kind == pa.list_(IMG) else png(number) for number in numbers]

    rows = [row(0), [], None, row(1, 2), [None], row(3)]
    path = write({"images": pa.array(rows, kind), "word": list("abcdef")}, row_group_size=2)
    items = listed(path, keywords="word")
    _, unreadable, keywords, encoded = read(path, items, keywords="word")
    none = "its row has no image"
    assert unreadable == {1: none, 2: none, 3: "its row has 2 images, where one is expected", 4: none}
    assert encoded == [png(0), b"", b"", b"", b"", png(3)]
    assert keywords == list("abcdef")
    assert read(path, items, 5, 1)[3] == [png(3)]


def test_a_list_of_just_one_image_by_its_type_is_read_too(write):
    path = write({"images": pa.array([[png(4)], [png(5)]], pa.list_(pa.binary(), 1))})
    assert read(path, listed(path))[3] == [png(4), png(5)]


def nested(numbers) -> pa.Table:
    samples = [{"image": {"bytes": png(number), "path": ""}, "about": {"word": f"w{number}"}} for number in numbers]
    samples[1] = None
    kind = pa.struct([("image", IMG), ("about", pa.struct([("word", pa.string())]))])
    return pa.table({"id": list(range(len(samples))), "sample": pa.array(samples, kind)})


@pytest.mark.parametrize("column", ["", "sample.image", "sample.image.bytes"])
def test_images_and_keywords_may_be_in_structs(write, column):
    path = write(nested(range(4)), row_group_size=3)
    fields = {"image_column": column, "keywords": "sample.about.word"}
    items = listed(path, **fields)
    _, unreadable, keywords, encoded = read(path, items, **fields)
    assert encoded == [png(0), b"", png(2), png(3)]
    assert keywords == ["w0", None, "w2", "w3"]
    assert unreadable == {1: "its row has no image"}


def test_the_bytes_of_a_struct_may_be_named(write):
    path = write(birds([1, 2], thumbnail=pa.array([b"x", b"y"])))
    assert read(path, listed(path), image_column="img.bytes")[3] == [png(1), png(2)]


@pytest.mark.parametrize("name", ["sample.nothing", "sample", "sample.image", "id.x"])
def test_keywords_in_structs_that_are_none_are_refused(write, name):
    with pytest.raises(BadInputError, match=rf"(no column {name} of keywords|its column {name} is struct)"):
        listed(write(nested(range(2))), keywords=name)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_and_labels_may_be_dictionary_encoded(write, kind):
    images = pa.array([png(1), png(2), png(1), None], kind).dictionary_encode()
    path = write({"img": images, "label": pa.array([3, 3, None, 4]).dictionary_encode()})
    items = listed(path, keywords="label")
    _, unreadable, keywords, encoded = read(path, items, keywords="label")
    assert encoded == [png(1), png(2), png(1), b""]
    assert keywords == ["3", "3", None, "4"]
    assert list(unreadable) == [3]


def test_a_column_twice_is_refused_if_it_is_read_and_else_passed_over(write):
    images, words = structs([png(1)]), pa.array(["a"])
    for table, name in (
        (pa.Table.from_arrays([images, images], ["img", "img"]), "img"),
        (pa.Table.from_arrays([images, words, words], ["img", "word", "word"]), "word"),
    ):
        with pytest.raises(BadInputError, match=rf"birds\.parquet: has 2 columns of the name {name}; give each column"):
            listed(write(table), keywords="word")
    path = write(pa.Table.from_arrays([images, words, words], ["img", "word", "word"]))
    assert read(path, listed(path))[3] == [png(1)]


def test_keywords_may_be_the_names_of_partition_folders(write, tmp_path):
    write(birds([0]), "label=a%20cat/year=2020/part-0.parquet")
    write(birds([1, 2]), "label=__HIVE_DEFAULT_PARTITION__/year=2020/part-0.parquet")
    write(birds([3]), "label=gull/year=2021/part-0.parquet")
    items = listed(tmp_path, keywords="label")
    _, _, keywords, encoded = read(tmp_path, items, keywords="label")
    found = dict(zip(encoded, keywords, strict=True))
    assert found == {png(0): "a cat", png(1): None, png(2): None, png(3): "gull"}
    assert set(read(tmp_path, items, keywords="year")[2]) == {"2020", "2021"}
    with pytest.raises(BadInputError, match="has no column colour of keywords"):
        listed(tmp_path, keywords="colour")
