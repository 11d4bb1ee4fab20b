"""Shard and block arithmetic, and block numbers as people write them."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytags_tasks.blocks import Partition, format_block_numbers, group_blocks, parse_block_numbers
from tinytags_tasks.cli.common import groups_of
from tinytags_tasks.errors import BadInputError

partitions = st.builds(Partition, st.integers(0, 1_000), st.integers(1, 300), st.integers(1, 60))


@given(partitions)
def test_every_position_is_in_exactly_one_block_and_blocks_follow_each_other(partition):
    blocks = [partition.block(number) for number in range(partition.blocks)]
    positions = [at for block in blocks for at in range(block.first, block.first + block.images)]
    assert positions == list(range(partition.images))


@given(partitions)
def test_the_blocks_of_a_shard_add_up_to_it(partition):
    for shard in range(partition.shards):
        blocks = partition.blocks_of_shard(shard)
        assert {block.shard for block in blocks} == {shard}
        assert len(blocks) == partition.blocks_per_shard
        assert sum(block.images for block in blocks) == partition.images_in_shard(shard)
        assert [block.offset for block in blocks] == [block.first - blocks[0].first for block in blocks]
    assert sum(partition.images_in_shard(shard) for shard in range(partition.shards)) == partition.images


@given(partitions)
def test_blocks_of_a_shard_differ_by_one_image_at_most(partition):
    for shard in range(partition.shards):
        sizes = [block.images for block in partition.blocks_of_shard(shard)]
        assert max(sizes) - min(sizes) <= 1


def test_the_80_million_tiny_images_are_80_shards_of_50_blocks():
    partition = Partition(79_302_017, 1_000_000, 50)
    assert (partition.shards, partition.blocks) == (80, 4_000)
    assert partition.images_in_shard(79) == 302_017
    last = partition.block(3_999)
    assert last.first + last.images == 79_302_017


def test_every_one_of_the_79_302_017_tiny_images_is_in_exactly_one_block():
    partition = Partition(79_302_017, 1_000_000, 50)
    at = 0
    for number in range(partition.blocks):
        block = partition.block(number)
        assert block.first == at == block.shard * 1_000_000 + block.offset
        at += block.images
    assert at == 79_302_017


@pytest.mark.parametrize("number", [-1, 50, 10**15])
def test_a_block_that_is_not_there_is_refused_with_those_that_are(number):
    with pytest.raises(BadInputError, match=f"block {number} is out of range: this corpus has blocks 0 to 49"):
        Partition(1_000, 1_000, 50).block(number)


def test_an_empty_corpus_says_that_it_has_no_blocks():
    with pytest.raises(BadInputError, match="has blocks none"):
        Partition(0).block(0)


@pytest.mark.parametrize("numbers", [(-1, 10, 10), (10, 0, 10), (10, 10, 0)])
def test_numbers_that_cut_nothing_are_refused(numbers):
    with pytest.raises(BadInputError, match="the numbers must be positive"):
        Partition(*numbers)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_what_is_formatted_is_parsed_back(numbers):
    assert parse_block_numbers(format_block_numbers(numbers), 301) == tuple(sorted(numbers))


def test_repeats_and_overlaps_count_once_and_in_order():
    assert parse_block_numbers(" 7, 3-5,4 - 6 ,3", 10) == (3, 4, 5, 6, 7)


@pytest.mark.parametrize("text", ["", "  "])
def test_no_text_means_all_blocks(text):
    assert parse_block_numbers(text, 4) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("5-3", "write 3-5"),
        ("x", "write numbers and ranges, such as 3,17-20"),
        ("1-", "write numbers and ranges"),
        ("-1", "write numbers and ranges"),
        ("1.5", "write numbers and ranges"),
        ("1,,2", "write numbers and ranges"),
        ("1 2", "write numbers and ranges"),
        ("9" * 40, "write numbers and ranges"),
        ("10", "this corpus has blocks 0 to 9"),
        ("3-10", "this corpus has blocks 0 to 9"),
        ("0-999999999999", "this corpus has blocks 0 to 9"),
    ],
)
def test_text_that_names_no_blocks_is_refused_with_the_remedy(text, remedy):
    with pytest.raises(BadInputError, match=remedy):
        parse_block_numbers(text, 10)


@given(st.integers(0, 1_000), st.integers(0, 60))
def test_groups_hold_every_block_once_and_in_order(blocks, blocks_per_task):
    groups = group_blocks(range(blocks), blocks_per_task)
    assert [number for group in groups for number in group] == list(range(blocks))
    assert all(1 <= len(group) <= (blocks_per_task or blocks) for group in groups)


@pytest.mark.parametrize(("blocks", "size"), [(1, 1), (400, 1), (401, 2), (4_000, 10)])
def test_automatic_groups_are_as_small_as_makes_at_most_400(blocks, size):
    groups = group_blocks(range(blocks), 0)
    assert len(groups) <= 400
    assert len(groups[0]) == size


def test_a_negative_group_size_is_refused():
    with pytest.raises(BadInputError, match="1 or more, or 0 for automatic"):
        group_blocks(range(5), -1)


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ([3], "shard 0, block 3"),
        ([17, 18, 3], "shard 0, blocks 3, 17-18"),
        ([49, 50], "shards 0-1, blocks 49-50"),
        (range(4_000), "shards 0-79, blocks 0-3999"),
    ],
)
def test_a_name_tells_shards_and_blocks(numbers: Iterable[int], name: str) -> None:
    assert Partition(79_302_017).name_blocks(numbers) == name


@pytest.mark.parametrize(
    "images, shard_images, blocks", [(1, 10, 3), (17, 5, 2), (25, 10, 3), (3, 10, 7), (100, 100, 1)]
)
def test_each_position_is_found_in_the_block_that_holds_it(images, shard_images, blocks):
    partition = Partition(images, shard_images, blocks)
    for number in range(partition.blocks):
        block = partition.block(number)
        assert [partition.block_at(at) for at in range(block.first, block.first + block.images)] == [
            number
        ] * block.images
    with pytest.raises(BadInputError, match=f"position {images} is out of range"):
        partition.block_at(images)


@pytest.mark.parametrize(
    ("blocks", "groups", "first"), [(0, 0, 0), (1, 1, 1), (20, 1, 20), (21, 2, 20), (9_000, 392, 23)]
)
def test_commands_do_twenty_blocks_or_more_at_a_time_in_four_hundred_calls_at_most(blocks, groups, first):
    found = groups_of(range(blocks))
    assert len(found) == groups
    assert [block for group in found for block in group] == list(range(blocks))
    assert not found or len(found[0]) == first
