"""Saying something of pictures, by commands and by lists: what is refused, what is recorded, what readers see."""

import json
import re
from types import SimpleNamespace

import pytest
from published_runs import ALIAS, make_world
from small_run import CORPUS, KEYWORDS, make_corpus, pictures
from typer.testing import CliRunner

from tinytags_tasks.cli import app, common, corrections, reviews
from tinytags_tasks.errors import BadInputError, EngineDownError, TransientError
from tinytags_tasks.review import words as words_module
from tinytags_tasks.review.takedown_lists import parse_positions, read_takedown_list
from tinytags_tasks.review.takedowns import positions_of_keyword, taken_down
from tinytags_tasks.review.words import say
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import ReviewLog, read_words
from tinytags_tasks.store.review_records import Verdict, Word, picture_hash


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(world.runs[0])
    return world


@pytest.fixture
def world(prepared, tmp_path, monkeypatch):
    world = prepared.copy(tmp_path / "store")
    runtime = SimpleNamespace(storage=world.storage, solr=world.solr, settings=SimpleNamespace(alias=ALIAS))
    for module in (common, corrections, reviews):
        monkeypatch.setattr(module, "clients", lambda: runtime)
    monkeypatch.setenv("COLUMNS", "120")
    return world


@pytest.fixture
def corpus(world):
    return Corpus.load(world.storage, layout.corpus_file(CORPUS))


def tinytags(*arguments, code=0):
    outcome = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert outcome.exit_code == code, outcome.output
    return outcome.stdout


def documents(world):
    return world.solr.documents(world.runs[0].collection)


def requests(world) -> int:
    log = ReviewLog(CORPUS, world.storage)
    log.read()
    return log.last


# Commands


def test_correct_says_what_readers_see_and_how_long_it_took(world):
    said = tinytags("correct", CORPUS, "7", "0-1", "--tag", "gnu")
    run = world.runs[0].name
    pattern = rf"3 pictures are corrected \(request 1\); readers of run {run} see it: 3 documents written, 0 pictures "
    assert re.match(pattern + r"without one, after \d+\.\d s\n$", said)
    assert [documents(world)[f"pets:{at}"]["tag"] for at in (0, 1, 7)] == ["gnu"] * 3
    tinytags("correct", CORPUS, "pets:7", "--undo", "1")
    assert [documents(world)[f"pets:{at}"]["tag"] for at in (0, 1, 7)] == ["gnu", "gnu", "emu"]
    tinytags("correct", CORPUS, "7", "--not", "emu")
    tinytags("correct", CORPUS, "0,1", "--none")
    assert not {"pets:0", "pets:1", "pets:7"} & set(documents(world))


def test_a_tag_that_the_model_lacks_is_allowed_and_how_it_is_learned_is_said(world):
    outcome = CliRunner().invoke(app, ["correct", CORPUS, "7", "--tag", "gnu"], catch_exceptions=False)
    assert "does not know the tag 'gnu': a model learns it with `tinytags train --reviews pets" in outcome.stderr
    outcome = CliRunner().invoke(app, ["correct", CORPUS, "7", "--tag", "cat"], catch_exceptions=False)
    assert "does not know" not in outcome.stderr


@pytest.mark.parametrize("options", [(), ("--tag", "cat", "--none"), ("--not", "cat", "--undo", "1")])
def test_correct_takes_one_word(world, options):
    with pytest.raises(BadInputError, match="say one thing of the pictures"):
        tinytags("correct", CORPUS, "7", *options)


def test_take_downs_are_listed_written_read_and_taken_back(world, tmp_path):
    tinytags("takedown", "add", CORPUS, "3", "5-6", "--reason", "the owner, asked", "--by", "ann")
    assert not {"pets:3", "pets:5", "pets:6"} & set(documents(world))
    listed = json.loads(tinytags("takedown", "list", CORPUS, "--json"))
    assert [(row["position"], row["by"], row["reason"]) for row in listed] == [
        (at, "ann", "the owner, asked") for at in (3, 5, 6)
    ]
    assert "3 pictures of corpus pets are taken down" in tinytags("takedown", "list", CORPUS)
    file = tmp_path / "list.csv"
    tinytags("takedown", "list", CORPUS, "--to", file)
    with pytest.raises(BadInputError, match="exists already"):
        tinytags("takedown", "list", CORPUS, "--to", file)
    said = tinytags("takedown", "remove", CORPUS, "--from", file)
    assert said.startswith("3 pictures are no longer taken down")
    assert {"pets:3", "pets:5", "pets:6"} <= set(documents(world))
    tinytags("takedown", "add", CORPUS, "--from", file)
    assert not {"pets:3", "pets:5", "pets:6"} & set(documents(world))


def test_taking_down_again_records_nothing_and_ends_what_was_left(world, monkeypatch):
    def away(*arguments, **options):
        raise EngineDownError("Solr does not answer")

    with monkeypatch.context() as patch:
        patch.setattr("tinytags_tasks.publish.corrections.correct_live", away)
        with pytest.raises(
            TransientError, match=r"1 pictures are taken down \(request 1\), but readers do not see all"
        ):
            tinytags("takedown", "add", CORPUS, "3", "--reason", "asked")
    assert "pets:3" in documents(world)
    said = tinytags("takedown", "add", CORPUS, "3", "--reason", "asked")
    assert said.startswith("nothing new was recorded; readers of run")
    assert "pets:3" not in documents(world) and requests(world) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("3",), "a take-down needs a reason"),
        (("--reason", "asked"), "choose pictures in one way"),
        (("3", "--keyword", "Tabby", "--reason", "asked"), "choose pictures in one way"),
        (("11", "--reason", "asked"), "position 11 is not in corpus pets, which has 11 images"),
        (("x", "--reason", "asked"), "'x' is no position"),
        (("5-3", "--reason", "asked"), "'5-3' is no position"),
        (("--keyword", "Tabby", "--reason", "asked"), "corpus pets has no keywords"),
        (("3", "--reason", "a" * 201), "a reason has at most 200 characters"),
    ],
)
def test_take_downs_that_cannot_be_are_refused(world, arguments, message):
    with pytest.raises(BadInputError, match=message):
        tinytags("takedown", "add", CORPUS, *arguments)
    assert requests(world) == 0


def test_an_import_that_names_a_picture_which_is_not_there_records_nothing(world, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("position,label\n3,cat\n11,dog\n")
    with pytest.raises(BadInputError) as refused:
        tinytags("reviews", "import", CORPUS, file)
    assert str(refused.value) == (
        f"{file}, line 3: position 11 is not in corpus {CORPUS}, which has 11 images, from 0; nothing was recorded"
    )
    assert requests(world) == 0
    file.write_text("position,label\n3,cat\n10,none\n")
    assert "2 words imported" in tinytags("reviews", "import", CORPUS, file)
    assert requests(world) == 1


def test_a_keyword_means_all_pictures_that_have_it(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    corpus = make_corpus(storage, keywords=KEYWORDS)
    assert positions_of_keyword(corpus, "Tabby", storage).tolist() == [0, 9]
    assert positions_of_keyword(corpus, "猫", storage).tolist() == [10]
    with pytest.raises(BadInputError, match="no picture of corpus pets has the keyword 'tabby'"):
        positions_of_keyword(corpus, "tabby", storage)


# Lists


def read(tmp_path, corpus, text, reason=""):
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_takedown_list(path, corpus, reason)


@pytest.mark.parametrize(
    "text, expected",
    [
        ('position,reason\n3,asked\n5,"a, b"\n', {3: "asked", 5: "a, b"}),
        ("\ufeffReason,Position,other\r\nasked,3,x\r\n", {3: "asked"}),
        ("3\n\n5", {3: "all", 5: "all"}),
        ("3,asked\n5,\n", {3: "asked", 5: "all"}),
    ],
)
def test_lists_are_read_with_or_without_a_header(tmp_path, corpus, text, expected):
    assert read(tmp_path, corpus, text, "all") == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("position,reason\n3,asked\n5", "line 3: is not whole: it has another number of columns"),
        ('position,reason\n3,asked\n5,"half', "line 3: unexpected end of data; nothing was recorded"),
        ("position,reason\n3,asked\n4,asked\n3,again\n", "line 4: position 3 is in line 2 as well"),
        ("position,reason\n11,asked\n", "line 2: position 11 is not in the corpus, which has 11 images"),
        ("position,reason\n-1,asked\n", "line 2: '-1' is no position"),
        ("position,reason\n3.0,asked\n", "line 2: '3.0' is no position"),
        ("position\n3\n", "line 2: position 3 has no reason; give one for all with --reason"),
        ("name,reason\n3,asked\n", "line 1 names no column 'position'"),
        ("position,reason\n", "has no positions"),
        (b"position,reason\n3,\xff\n", "byte 18 is not UTF-8"),
        ("99\n" * 7, "line 5: .*; and 2 more lines; nothing was recorded"),
    ],
)
def test_lists_that_cannot_be_used_are_refused_with_their_lines(tmp_path, corpus, text, message):
    with pytest.raises(BadInputError, match=message):
        read(tmp_path, corpus, text)


def test_of_a_list_of_a_million_rows_only_the_first_mistakes_are_named(tmp_path, corpus):
    large = corpus.replaced(images=1_000_000)
    rows = "".join(f"{position},asked\n" for position in range(1_000_000))
    found = read(tmp_path, large, rows)
    assert (len(found), found[999_999]) == (1_000_000, "asked")
    with pytest.raises(BadInputError) as refused:
        read(tmp_path, corpus, "".join(f"{position},asked\n" for position in range(20_000)))
    message = str(refused.value)
    assert "line 12: position 11 is not in the corpus" in message
    assert message.endswith("; and 19,984 more lines; nothing was recorded")
    assert message.count("\n") == 0


def test_a_list_that_does_not_exist_is_one_line(tmp_path, corpus):
    with pytest.raises(BadInputError, match=r"absent\.csv: cannot be read \(No such file"):
        read_takedown_list(tmp_path / "absent.csv", corpus)


def test_positions_are_numbers_ranges_and_ids(corpus):
    assert parse_positions(["3", "5-7,3", "pets:9"], corpus) == [3, 5, 6, 7, 9]


# Words


def test_a_word_keeps_the_hash_of_its_picture(world, corpus):
    say(corpus, [Word(7, Verdict.NONE), Word(2, Verdict.NONE)], by="ann", storage=world.storage)
    rows = read_words(corpus, world.storage).to_pylist()
    assert {row["position"]: row["picture"] for row in rows} == {
        at: picture_hash(pictures()[at].tobytes()) for at in (2, 7)
    }


def test_many_words_become_several_requests_and_say_how_far_they_are(world, corpus, monkeypatch):
    monkeypatch.setattr(words_module, "WORDS_AT_ONCE", 4)
    monkeypatch.setattr(words_module, "_REPORT_SECONDS", 0.0)
    told: list[str] = []
    words = [Word(at, Verdict.NONE) for at in range(11)]
    assert say(corpus, words, by="ann", storage=world.storage, report=told.append) == 3
    assert [line.split(";")[0] for line in told] == [f"{n} of 11 words are recorded" for n in (4, 8, 11)]


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "there is nothing to record"),
        ([Word(3, Verdict.NONE), Word(12, Verdict.NONE), Word(13, Verdict.NONE)], "position 12 is not in .*1 others"),
        ([Word(3, Verdict.NONE), Word(3, Verdict.TAG, "cat")], "gets two words at once, 'none' and 'tag cat'"),
        ([Word(3, Verdict.TAKEDOWN, reason="a"), Word(3, Verdict.RESTORE)], "'takedown' and 'restore'"),
        ([Word(3, Verdict.UNDO, undoes=1)], "request 1 has no word on position 3"),
        ([Word(3, Verdict.NONE, picture=b"x" * 16)], "does not show the picture that the word was said of"),
    ],
)
def test_words_that_cannot_be_are_refused_before_anything_is_written(world, corpus, words, message):
    with pytest.raises(BadInputError, match=message):
        say(corpus, words, by="ann", storage=world.storage)
    assert requests(world) == 0


def test_a_word_needs_someone_who_says_it(world, corpus):
    with pytest.raises(BadInputError, match="needs the name of who says it"):
        say(corpus, [Word(3, Verdict.NONE)], by=" ", storage=world.storage)


def test_words_on_what_a_run_of_another_version_shows_are_refused(world, corpus):
    run = world.runs[0]
    changed = corpus.replaced(digest="another")
    with pytest.raises(BadInputError, match="shows another version of corpus pets"):
        say(changed, [Word(3, Verdict.NONE)], by="ann", run=run.name, storage=world.storage)
    say(corpus, [Word(3, Verdict.NONE)], by="ann", run=run.name, storage=world.storage)


def test_take_downs_are_public_and_to_take_back_is_as_public_as_what_was_said(world, corpus):
    def public(*words):
        number = say(corpus, words, by="ann", storage=world.storage)
        return [row["is_public"] for row in read_words(corpus, world.storage).to_pylist() if row["number"] == number]

    assert public(Word(3, Verdict.TAKEDOWN, reason="asked")) == [True]
    assert public(Word(4, Verdict.NONE)) == [False]
    assert public(Word(3, Verdict.UNDO, undoes=1), Word(4, Verdict.UNDO, undoes=2, is_public=True)) == [True, False]


def test_what_is_taken_down_is_known_as_soon_as_it_is_said(world, corpus):
    assert taken_down(corpus, world.storage).tolist() == []
    say(corpus, [Word(at, Verdict.TAKEDOWN, reason="asked") for at in (7, 3)], by="ann", storage=world.storage)
    assert taken_down(corpus, world.storage).tolist() == [3, 7]
    say(corpus, [Word(3, Verdict.RESTORE)], by="ann", storage=world.storage)
    assert taken_down(corpus, world.storage).tolist() == [7]
    assert taken_down(corpus.replaced(digest="another"), world.storage).tolist() == []


# What the commands say of several requests, and of another version


def test_all_numbers_of_a_large_request_are_named_and_taken_back_together(world, monkeypatch):
    monkeypatch.setattr(words_module, "WORDS_AT_ONCE", 4)
    before = documents(world).copy()
    assert "11 pictures are corrected (requests 1 to 3)" in tinytags("correct", CORPUS, "0-10", "--tag", "gnu")
    said = tinytags("reviews", "undo", CORPUS, "1-2", "3")
    assert "11 pictures are as they were before that (requests 4 to 6); readers of run" in said
    assert documents(world) == before


@pytest.mark.parametrize("numbers", [("2",), ("1", "x"), ("1-99999",)])
def test_requests_that_cannot_be_taken_back_are_refused(world, numbers):
    tinytags("correct", CORPUS, "3", "--tag", "gnu")
    with pytest.raises(BadInputError, match=r"no such word on the present version|names no requests|more than 1,000"):
        tinytags("reviews", "undo", CORPUS, *numbers)
    assert requests(world) == 1


def test_pictures_are_shown_again_for_the_reasons_in_the_list(world, tmp_path):
    tinytags("takedown", "add", CORPUS, "3", "5", "--reason", "asked")
    file = tmp_path / "list.csv"
    file.write_text("position,reason\n3,a mistake\n5,\n")
    tinytags("takedown", "remove", CORPUS, "--from", file, "--reason", "the owner agreed")
    restored = [row for row in ReviewLog(CORPUS, world.storage).read().to_pylist() if row["verdict"] == "restore"]
    assert [row["reason"] for row in restored] == ["a mistake", "the owner agreed"]


def test_positions_of_a_version_that_readers_do_not_see_are_refused_unless_said_on_purpose(world, corpus):
    corpus.replaced(digest="another").save(world.storage, layout.corpus_file(CORPUS))
    with pytest.raises(BadInputError, match=r"another version of corpus pets.*--unpublished if the positions"):
        tinytags("takedown", "add", CORPUS, "3", "--reason", "asked")
    assert requests(world) == 0
    said = tinytags("takedown", "add", CORPUS, "3", "--reason", "asked", "--unpublished")
    assert "readers see no run of this version" in said


def test_a_tag_neither_begins_nor_ends_with_a_space(world):
    with pytest.raises(BadInputError, match="neither begins nor ends with a space"):
        tinytags("correct", CORPUS, "3", "--tag", " gnu")
