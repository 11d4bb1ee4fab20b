"""Learning a net: what it is recognised by, its folder, packing, shipping; and where PyTorch is installed, learning."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from faulty_storage import files_under
from made_nets import jpeg, named, student_arrays
from small_run import quiet

from tinytags_tasks import cli
from tinytags_tasks.cli import net_train
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, TransientError
from tinytags_tasks.nets.catalogue import load_net_card, read_background, read_net
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.recipe import make_net as recipe
from tinytags_tasks.nets.recipe.classes import TAGS, UNKNOWN, tag_shown_by
from tinytags_tasks.nets.recipe.make_net import Sources, make_net, pack, ship
from tinytags_tasks.nets.recipe.pictures import joined, prepare, read_folder, wordnet_names
from tinytags_tasks.nets.recipe.training import NetTraining
from tinytags_tasks.nets.recipe.work import Progress, Timer, Work
from tinytags_tasks.nets.running import embed, open_session

TINY = NetTraining(
    name="mine",
    size="tiny",
    teacher_epochs=1,
    student_epochs=2,
    rounding_epochs=1,
    batch=16,
    preparations=3,
)


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources(
        labelled=named("pets.parquet", ("cat", "dog"), 60),
        general=named("things", ("n01443537", "spoon"), 40, seed=100),
        general_names={"n01443537": "goldfish, Carassius auratus"},
        licence="ours",
    )


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / "work", quiet)


# The command


@pytest.fixture
def run(storage, tmp_path, monkeypatch, capsys):
    """Return a function that runs a command and returns its exit code, output and errors."""
    runtime = SimpleNamespace(storage=storage, settings=SimpleNamespace(home=tmp_path / "home"), files_at=SourceFiles)
    monkeypatch.setattr(net_train, "clients", lambda: runtime)

    def run_command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinytags", "nets", "train", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run_command


def test_without_pytorch_one_line_says_how_to_get_it(run, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe.importlib.util, "find_spec", lambda name: None)
    code, _, errors = run("missing.parquet", "--name", "mine")
    assert code == 2
    assert errors == (
        "tinytags: error: learning a net needs PyTorch, which is not installed: pip install 'tinytags[nets]'\n"
    )
    assert not (tmp_path / "home").exists()


@pytest.fixture
def with_torch(monkeypatch):
    """Let the command believe that PyTorch is installed."""
    monkeypatch.setattr(recipe.importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.parquet",), "missing.parquet: no such file; give the path of a labelled file or folder"),
        (("memory://sets/missing",), "memory://sets/missing: no such file or folder; correct the address"),
        (("missing.parquet", "--size", "huge"), "size is 'huge': it must be general32, small, tiny"),
        (("missing.parquet", "--batch", "1"), "batch is 1: it must be from 8 to 65,536"),
        (("missing.parquet", "--student-epochs", "0"), "student_epochs is 0.0: it must be from 0.01"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(run, with_torch, storage, words, message):
    code, _, errors = run(*words, "--name", "mine")
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert files_under(storage.root) == {}


def test_the_command_reads_both_sets_and_the_options(run, with_torch, monkeypatch, tmp_path):
    pets = tmp_path / "pets.parquet"
    write_labelled_parquet(pets, np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 0, 1]), ("cat", "dog"))
    (tmp_path / "things" / "spoon").mkdir(parents=True)
    (tmp_path / "things" / "spoon" / "a.jpg").write_bytes(jpeg((9, 9, 9), 0))
    given = {}

    def fake(training: NetTraining, sources: Sources, **options: object) -> SimpleNamespace:
        given.update(training=training, sources=sources, **options)
        return SimpleNamespace(version="mine-0123456789ab")

    monkeypatch.setattr(recipe, "make_net", fake)
    options = ("--general", str(tmp_path / "things"), "--size", "tiny", "--teacher-epochs", "0", "--seed", "7")
    code, printed, _ = run(str(pets), "--name", "mine", *options)
    assert (code, printed) == (0, "mine-0123456789ab\n")
    assert (given["training"].size, given["training"].teacher_epochs, given["training"].seed) == ("tiny", 0, 7)
    assert given["sources"].labelled.names == ("cat", "dog")
    assert given["sources"].general.names == ("spoon",)
    assert given["folder"]("mine-abc") == tmp_path / "home" / "trainings" / "mine-abc"


def test_the_command_takes_sets_at_addresses_and_the_card_will_name_these(run, with_torch, monkeypatch, tmp_path, put):
    pets = tmp_path / "pets.parquet"
    write_labelled_parquet(pets, np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 0, 1]), ("cat", "dog"))
    put("/sets/pets.parquet", pets.read_bytes())
    put("/sets/things/train/n01443537/a.jpg", jpeg((9, 9, 9), 0))
    put("/sets/things/words.txt", b"n01443537\tgoldfish")
    found: list[Sources] = []

    def fake(training: NetTraining, sources: Sources, **options: object) -> SimpleNamespace:
        found.append(sources)
        return SimpleNamespace(version="mine-0123456789ab")

    monkeypatch.setattr(recipe, "make_net", fake)
    assert run("memory://sets/pets.parquet", "--name", "mine", "--general", "memory://sets/things")[0] == 0
    assert run(str(pets), "--name", "mine")[0] == 0
    there, here = found
    assert (there.labelled.source, there.general.source) == ("memory://sets/pets.parquet", "memory://sets/things")
    assert there.labelled.sha256 == here.labelled.sha256
    assert there.general_names == {"n01443537": "goldfish"}


# What a training is recognised by, and how long it takes


def test_the_defaults_look_at_as_many_pictures_as_the_net_that_ships_saw():
    training = NetTraining(name="general32")
    seen = {phase: training.steps(phase, 150_000) * training.batch for phase in ("teacher", "student", "rounding")}
    card = {"teacher": 13_489_152, "student": 40_648_704, "rounding": 1_382_400}
    assert all(abs(seen[phase] / card[phase] - 1) < 0.03 for phase in card)


def test_a_training_is_another_one_if_its_pictures_or_parameters_differ(sources):
    identity = TINY.identity(sources.labelled, sources.general)
    assert identity.startswith("mine-")
    assert identity == TINY.identity(named("pets.parquet", ("cat", "dog"), 60), sources.general)
    others = {
        TINY.identity(sources.labelled, None),
        TINY.identity(sources.general, sources.labelled),
        NetTraining(name="mine", seed=1).identity(sources.labelled, sources.general),
    }
    assert identity not in others
    assert len(others) == 3


def test_progress_says_how_long_the_rest_will_take():
    said, clock = [], iter([0.0, 5.0, 20.0, 25.0, 60.0])
    progress = Progress("student", 100, said.append, done=20, every_seconds=10, clock=lambda: next(clock))
    for done in (21, 40, 50, 90):
        progress.at(done)
    # 20 in 20 seconds, after 20 that were there before: 60 more; then 70 in 60 seconds: 10 more.
    assert said == ["student: 40 %, 60 s left", "student: 90 %, 9 s left"]


def test_a_checkpoint_is_due_when_its_time_has_passed():
    clock = iter([0.0, 30.0, 61.0, 90.0, 122.0])
    timer = Timer(60, clock=lambda: next(clock))
    assert [timer.is_due() for _ in range(4)] == [False, True, False, True]


# The folder


def test_a_file_that_cannot_be_written_leaves_the_one_before(work):
    work.write_text("teacher.checkpoint", "whole")

    def killed(path):
        path.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.write("teacher.checkpoint", killed)
    assert work.path("teacher.checkpoint").read_text() == "whole"
    with work.hold("mine-1"):
        assert sorted(path.name for path in work.folder.iterdir()) == ["lock", "teacher.checkpoint", "training.txt"]


def test_only_one_process_learns_in_a_folder(work):
    busy = pytest.raises(TransientError, match="another process is learning here")
    with work.hold("mine-1"), busy, work.hold("mine-1"):
        pass
    with work.hold("mine-1"):
        pass


def test_a_folder_of_another_training_is_refused(work):
    with work.hold("mine-1"):
        pass
    with pytest.raises(BadInputError, match=r"belongs to another training \(mine-1, not mine-2\)"), work.hold("mine-2"):
        pass


# Pictures


def test_packing_that_was_killed_goes_on_and_ends_in_the_same_pictures(tmp_path, sources, monkeypatch):
    monkeypatch.setattr(recipe, "_PACKED_AT_ONCE", 16)
    encoded = sources.general.encoded
    clean = np.array(pack(Work(tmp_path / "clean", quiet), encoded, TINY))
    packed: list[int] = []
    pack_part = recipe._pack_part

    def dies_at_the_third(part, target, start, *rest):
        packed.append(start)
        if len(packed) == 3:
            raise KeyboardInterrupt
        pack_part(part, target, start, *rest)

    monkeypatch.setattr(recipe, "_pack_part", dies_at_the_third)
    work = Work(tmp_path / "killed", quiet)
    with pytest.raises(KeyboardInterrupt):
        pack(work, encoded, TINY)
    np.testing.assert_array_equal(pack(work, encoded, TINY), clean)
    assert packed == [0, 16, 32, 32]
    assert clean.shape == (40, 3, 32, 32, 3)


def test_a_picture_is_prepared_in_the_same_ways_again():
    encoded = jpeg((90, 120, 30), 5)
    np.testing.assert_array_equal(prepare(encoded, 3, 5), prepare(encoded, 3, 5))
    assert not np.array_equal(prepare(encoded, 3, 5)[2:], prepare(encoded, 4, 5)[2:])


def test_a_folder_has_a_class_in_each_folder_and_of_tiny_imagenet_only_the_training_pictures(tmp_path):
    for place in ("train/n01/images", "train/n02/images", "val/images"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.JPEG").write_bytes(jpeg((1, 2, 3), 0))
    (tmp_path / "words.txt").write_text("n01\tgoldfish\nn02\tspoon\n")
    found = read_folder(tmp_path)
    assert (found.names, found.labels.tolist()) == (("n01", "n02"), [0, 1])
    assert wordnet_names(tmp_path)["n02"] == "spoon"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="empty: has no pictures in folders"):
        read_folder(tmp_path / "empty")


@pytest.mark.parametrize(
    ("class_id", "names", "tags", "shown"),
    [
        ("n02123045", "tabby, tabby cat", TAGS, TAGS.index("cat")),
        ("n02125311", "cougar, puma", TAGS, UNKNOWN),
        ("n07753592", "banana", TAGS, len(TAGS)),
        ("Cat", "Cat", ("dog", "cat"), 1),
        ("n02123045", "tabby, tabby cat", ("dog", "cat"), UNKNOWN),
        ("n02085620", "Chihuahua", ("dog", "cat"), UNKNOWN),
        ("spoon", "spoon", ("dog", "cat"), 2),
    ],
)
def test_a_general_class_shows_a_tag_or_none_or_can_be_argued(class_id, names, tags, shown):
    assert tag_shown_by(class_id, names, tags) == shown


def test_labelled_pictures_have_no_class_and_general_ones_show_none(sources):
    pictures = joined(sources.labelled, sources.general, sources.general_names)
    assert set(pictures.classes[:60].tolist()) == {UNKNOWN}
    assert set(pictures.tags[:60].tolist()) == {0, 1}
    assert set(pictures.classes[60:].tolist()) == {0, 1}
    assert set(pictures.tags[60:].tolist()) == {2}


# Shipping


def test_what_was_learned_is_published_with_its_background_and_card(work, sources, storage):
    with work.path("student.npz").open("wb") as file:
        np.savez(file, **student_arrays())
    work.write_text("learned.json", '{"figures": {"student: test pictures right": 0.5}, "parameters": {"torch": "x"}}')
    card = ship(work, TINY, sources, storage)
    assert load_net_card(storage, "mine") == card
    assert (card.dimensions, card.arithmetic, card.licence) == (64, "int8", "ours")
    assert card.data == ("pets.parquet: 60 pictures, 2 classes", "things: 40 pictures, 2 classes")
    assert (card.parameters["size"], card.parameters["torch"]) == ("tiny", "x")
    background = read_background(storage, card)
    assert background.embeddings.shape == (40, 64)
    assert set(background.classes) == {"goldfish, Carassius auratus", "spoon"}
    assert "fish" in background.kinds[background.classes.index("goldfish, Carassius auratus")]
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32 * 32 * 3), dtype=np.uint8)
    graph = embedding_graph(read_net(storage, card.version), card, 32, 32)
    assert embed(open_session(graph, "a test"), pixels).any()
    again = ship(work, TINY, sources, storage)
    assert again.version == card.version


# Learning


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_training_that_was_killed_ends_in_the_same_net(tmp_path, sources, storage, monkeypatch):
    from tinytags_tasks.nets.recipe import phases

    def learn(folder: str):
        said: list[str] = []
        options = {"folder": lambda identity: tmp_path / folder, "storage": storage, "report": said.append}
        return make_net(TINY, sources, checkpoint_seconds=0, **options), said

    whole, _ = learn("whole")
    for name, step in (("teacher", 3), ("student", 5), ("rounding", 2)):

        def dies(setup, phase, learner, optimizer, batches, done, *, name=name, step=step, keep=phases._keep):
            keep(setup, phase, learner, optimizer, batches, done)
            if (phase.name, done) == (name, step):
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(phases, "_keep", dies)
            with pytest.raises(KeyboardInterrupt):
                learn("killed")
    resumed, said = learn("killed")
    assert any(line.startswith("rounding: goes on after") for line in said)
    assert resumed.version == whole.version
    assert not (tmp_path / "killed" / "pictures.npy").exists()
