"""How models and runs leave the store: moved out of the way in one step, recorded, then deleted.

The move is what counts. A process that is killed before it has removed nothing; after it, the next removal or
`tinytags prune` does the rest.
"""

import socket
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import load_readable, now
from tinytags_tasks.store.record_series import append_record, record_numbers
from tinytags_tasks.store.run_records import Removal


@contextmanager
def sole_remover(storage: Storage, report: Callable[[str], None]) -> Generator[list[Removal]]:
    """Be the only process that removes while the block runs; yield what a killed one had begun, which is done now."""
    with Leases(storage).wait_for(layout.removals_lease_file(), "what is removed", report):
        yield _finish(storage)


def finish_removals(storage: Storage, report: Callable[[str], None]) -> list[Removal]:
    """Record and delete what killed processes moved out of the way, and return it."""
    if not _moved(storage):
        return []
    with sole_remover(storage, report) as done:
        for removal in done:
            report(removal.line)
        return done


def move_away(folder: str, by: str, storage: Storage) -> None:
    """Remove a model's or run's folder, in one step; the caller is the sole remover, and calls :func:`delete_moved`."""
    note, target = layout.removal_note(folder), layout.removed_folder(folder)
    storage.delete_leftovers(note)
    removal = Removal(folder=folder, number=uuid.uuid4().hex, by=by, host=socket.gethostname(), time=now())
    removal.save(storage, note)
    storage.make_folder(target.rpartition("/")[0])
    storage.rename(folder, target)


def move_back(folder: str, storage: Storage) -> None:
    """Undo :func:`move_away`."""
    storage.rename(layout.removed_folder(folder), folder)
    storage.delete(layout.removal_note(folder))


def delete_moved(folder: str, storage: Storage) -> Removal:
    """Record the removal of a folder that was moved away, then delete it."""
    moved = layout.removed_folder(folder)
    removal = Removal.load(storage, layout.removal_note(moved))
    if removal not in _readable(record_numbers(layout.removal_file, storage)[-1:], storage):
        append_record(removal, layout.removal_file, storage, is_sole_writer=True)
    _delete(moved, storage)
    return removal


def list_removals(storage: Storage, limit: int, *, on_damage: Callable[[str], None]) -> list[Removal]:
    """Return the latest removals, the last one at the end; ``on_damage`` is called for records that cannot be read."""
    return _readable(record_numbers(layout.removal_file, storage)[-limit:], storage, on_damage)


def _delete(moved: str, storage: Storage) -> None:
    """Delete a folder whose removal is recorded: the note goes last, so that it never misses in a part of a folder."""
    note = layout.removal_note(moved)
    for name in storage.names(moved):
        if f"{moved}/{name}" != note:
            storage.delete(f"{moved}/{name}")
    storage.delete(moved)


def _moved(storage: Storage) -> list[str]:
    kinds = storage.names(layout.REMOVED)
    return [f"{kind}/{name}" for kind in kinds for name in storage.names(f"{layout.REMOVED}/{kind}")]


def _finish(storage: Storage) -> list[Removal]:
    done = []
    for folder in _moved(storage):
        try:
            done.append(delete_moved(folder, storage))
        except (MissingError, CorruptError):  # it is recorded: the note was deleted, or broke, with the rest
            storage.delete(layout.removed_folder(folder))
    return done


def _readable(
    numbers: list[int], storage: Storage, on_damage: Callable[[str], None] = lambda problem: None
) -> list[Removal]:
    paths = [layout.removal_file(number) for number in numbers]
    return load_readable(paths, lambda path: Removal.load(storage, path), on_damage)
