"""The parameters of a training, and the file that passes them on."""

import pytest

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.train.parameters import TrainRequest, read_parameters, write_parameters


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("trees", 0, "trees is 0: it must be 1 to 1000"),
        ("trees", 1001, "trees is 1001"),
        ("depth", 31, "depth is 31: it must be 1 to 30"),
        ("bins", 1, "bins is 1: it must be 2 to 65536"),
        ("seed", 2**63, "seed is 9223372036854775808"),
        ("height", 0, "height is 0: it must be 1 to 1024"),
        ("width", 1025, "width is 1025"),
        ("held_out", 51, "held_out is 51: it must be 0 to 50"),
        ("trees", 1.5, "trees is 1.5: it must be a whole number"),
        ("depth", True, "depth is True: it must be a whole number"),
        ("name", "No Name", "'No Name' cannot be the name of a model"),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_its_name(field, value, message):
    with pytest.raises(BadInputError, match=message):
        TrainRequest("labelled.parquet", **{"head": "forest", field: value})


def test_parameters_that_are_written_are_read(tmp_path):
    path = tmp_path / "chosen.toml"
    request = TrainRequest("labelled.parquet", trees=7, depth=5, bins=20, seed=-3, features="pixels", head="forest")
    write_parameters(path, request.parameters, ["chosen\nby a test"])
    assert read_parameters(path) == {"trees": 7, "depth": 5, "bins": 20, "seed": -3}
    assert path.read_text().startswith("# chosen\n# by a test\n")
    chosen = {"features": "pixels", "head": "forest", **read_parameters(path)}
    assert TrainRequest("labelled.parquet", **chosen) == request
    assert [each.name for each in tmp_path.iterdir()] == ["chosen.toml"]


def test_a_file_may_set_some_parameters_only(tmp_path):
    path = tmp_path / "chosen.toml"
    path.write_text("depth = 8\n")
    assert read_parameters(path) == {"depth": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("depth = 8\nleaves = 3\n", "leaves is not a parameter of a forest; those are trees, depth, bins, seed"),
        ("[forest]\ndepth = 8\n", "forest is not a parameter"),
        ("depth = 99\n", "depth is 99: it must be 1 to 30"),
        ("depth = '8'\n", "depth is '8': it must be a whole number"),
        ("depth = nan\n", "depth is nan: it must be a whole number"),
        ("depth eight\n", "not a readable TOML file"),
    ],
)
def test_a_parameters_file_that_cannot_be_used_says_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "chosen.toml"
    path.write_text(content)
    with pytest.raises(BadInputError, match=rf"chosen\.toml: {message}"):
        read_parameters(path)


def test_parameters_that_are_not_there_or_cannot_be_written_are_named(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.toml: no such file; `tinytags lab` writes one with --out"):
        read_parameters(tmp_path / "none.toml")
    with pytest.raises(BadInputError, match=r"no-folder/chosen\.toml: cannot be written"):
        write_parameters(tmp_path / "no-folder" / "chosen.toml", {"trees": 1}, [])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match=r"binary\.toml: not a readable TOML file"):
        read_parameters(tmp_path / "binary.toml")
