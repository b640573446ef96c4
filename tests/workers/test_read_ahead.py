"""The run reads what no worker has begun, and emits first what is read."""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tap_braze_export.clock import WAIT_SLICE_SECONDS, Interruption
from tap_braze_export.errors import DamagedFileError, TapError
from tap_braze_export.files.spool import Spool
from tap_braze_export.settings import Settings
from tap_braze_export.workers.file_reader import FileReader, ReadBlock
from tap_braze_export.workers.read_ahead import ReadAhead
from tests.support.deliveries import FakeDelivery, bucket_file, gzip_file, lines
from tests.support.fakes import FakeClock
from tests.support.rows import EXPORT, parse, read, selected
from tests.support.workers import FakeExecutor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tap_braze_export.deliveries import Delivery
    from tap_braze_export.workers.executor import Executor

SELECTIONS = selected(only=["users"])
ALL_PLAIN = frozenset(SELECTIONS)
NOBODY = "tcp://127.0.0.1:1"
"""The address of a scheduler that is not there."""


@contextmanager
def reading(
    folder: Path,
    executor: Executor | None = None,
    *,
    clock: FakeClock | None = None,
    plain_streams: frozenset[str] = ALL_PLAIN,
    **settings: Any,
) -> Iterator[ReadAhead]:
    """Read with workers that do what the test says, or with those of the settings."""
    clock = clock or FakeClock()
    spool = Spool(str(folder / "spool"), clock=clock)
    spool.open()
    given = Settings.of({"api_url": "https://braze", "api_key": "key", "workers": 2, **settings})
    reader = FileReader(SELECTIONS, plain_streams=plain_streams)
    make = (lambda: executor) if executor else None
    with ReadAhead(given, reader, spool=spool, clock=clock, executor=make) as read_ahead:
        yield read_ahead
    assert not [*(folder / "spool" / "runs").iterdir()]


def in_bucket(*names: str) -> list[FakeDelivery]:
    """Deliveries of files in a bucket; a user of the same name is in each."""
    return [FakeDelivery(bucket_file(name), [[name]]) for name in names]


def ids(blocks: Iterable[ReadBlock]) -> list[str]:
    """The users of these blocks."""
    return [row["braze_id"] for block in blocks for row in map(parse, block.rows["users"].jsonl.splitlines())]


def emit(read_ahead: ReadAhead, listed: list[FakeDelivery]) -> str:
    """Emit the next delivery, which is listed no longer then; return its name."""
    delivery, blocks = read_ahead.next(listed)
    assert isinstance(delivery, FakeDelivery)
    assert ids(blocks)
    listed.remove(delivery)
    return delivery.name


def result(name: str) -> list[ReadBlock]:
    """The result of a worker for a file with one user, of that name."""
    return [ReadBlock.of(read(*lines([name]), selections=SELECTIONS))]


# Who reads which file


def test_run_without_workers_reads_every_file_in_order(tmp_path: Path) -> None:
    listed = in_bucket("a", "b", "c")
    with reading(tmp_path, workers=1) as read_ahead:
        assert read_ahead.capacity == 0
        assert [emit(read_ahead, listed) for _ in "abc"] == ["a", "b", "c"]


def test_workers_get_the_files_after_the_first(tmp_path: Path) -> None:
    """As many as keep them busy; the run reads the first."""
    executor = FakeExecutor(capacity=2)
    listed = in_bucket("a", "b", "c", "d", "e")
    with reading(tmp_path, executor) as read_ahead:
        assert emit(read_ahead, listed) == "a"
        assert executor.submitted == ["b", "c"]
        executor.begin("b")
        assert emit(read_ahead, listed) == "c"
        assert executor.submitted == ["b", "c", "d"]
    assert executor.is_closed


def test_two_workers_never_begin_what_the_run_reads(tmp_path: Path) -> None:
    """The run takes the first file back that no worker has begun; a worker that wants it then gets another."""
    executor = FakeExecutor(capacity=4)
    listed = in_bucket("a", "b", "c", "d", "e", "f")
    with reading(tmp_path, executor) as read_ahead:
        emit(read_ahead, listed)
        executor.begin("b", "c")
        assert emit(read_ahead, listed) == "d"
        assert not executor.futures["d"].set_running_or_notify_cancel()
        assert executor.waiting == ["e", "f"]


def test_run_reads_the_rest_of_a_slow_worker(tmp_path: Path) -> None:
    """It waits for the one file that the worker has begun, and for no other."""

    def finish(executor: FakeExecutor) -> None:
        executor.finish("b", result("b"))

    executor = FakeExecutor(2, finish)
    listed = in_bucket("a", "b", "c", "d", "e")
    with reading(tmp_path, executor) as read_ahead:
        emitted = [emit(read_ahead, listed)]
        executor.begin("b")
        emitted += [emit(read_ahead, listed) for _ in range(4)]
    assert emitted == ["a", "c", "d", "e", "b"]
    assert executor.waits == [WAIT_SLICE_SECONDS]


def test_run_waits_for_the_first_result_if_all_files_are_begun(tmp_path: Path) -> None:
    def finish(executor: FakeExecutor) -> None:
        if len(executor.waits) == 3:
            executor.finish("c", result("c"))

    executor = FakeExecutor(4, finish)
    listed = in_bucket("a", "b", "c")
    with reading(tmp_path, executor) as read_ahead:
        emit(read_ahead, listed)
        executor.begin("b", "c")
        assert emit(read_ahead, listed) == "c"
    assert executor.waits == [WAIT_SLICE_SECONDS] * 3


def test_first_result_that_is_there_is_emitted_first(tmp_path: Path) -> None:
    """In the order of the list, and before anything is read here."""
    executor = FakeExecutor(4)
    listed = in_bucket("a", "b", "c", "d", "e")
    with reading(tmp_path, executor) as read_ahead:
        emit(read_ahead, listed)
        executor.begin("b", "c", "d")
        executor.finish("d", result("d"))
        executor.finish("c", result("c"))
        assert [emit(read_ahead, listed), emit(read_ahead, listed)] == ["c", "d"]
        assert not [delivery for delivery in listed if delivery.reads]


def test_workers_may_do_what_they_like(tmp_path: Path) -> None:
    """Every file is emitted once, and read once: by a worker or by the run."""
    chance = random.Random(7)
    for number in range(60):

        def finish_one(executor: FakeExecutor) -> None:
            executor.finish(name := chance.choice(executor.begun), result(name))

        executor = FakeExecutor(chance.randrange(1, 7), finish_one)
        deliveries = in_bucket(*map(str, range(12)))
        listed, emitted = deliveries.copy(), []
        with reading(tmp_path / str(number), executor) as read_ahead:
            while listed:
                some = listed[: chance.randrange(1, 13)]  # the others come later
                emitted.append(emit(read_ahead, some))
                listed = [delivery for delivery in listed if delivery.name != emitted[-1]]
                for name in executor.waiting:
                    if chance.random() < 0.4:
                        executor.begin(name)
                for name in executor.begun:
                    if chance.random() < 0.3:
                        executor.finish(name, result(name))
        assert sorted(emitted, key=int) == [delivery.name for delivery in deliveries]
        by_workers = {name for name, future in executor.futures.items() if not future.cancelled()}
        assert {delivery.name for delivery in deliveries if delivery.reads} == {*emitted} - by_workers
        assert max(delivery.reads for delivery in deliveries) <= 1


def test_file_that_comes_before_those_of_workers_changes_nothing(tmp_path: Path) -> None:
    """Another export's files may be listed first; a file that was given away is not given away again."""
    executor = FakeExecutor(2)
    listed = in_bucket("a", "b", "c")
    with reading(tmp_path, executor) as read_ahead:
        emit(read_ahead, listed)
        executor.begin("b", "c")
        listed[:0] = in_bucket("x", "y", "z")
        assert [emit(read_ahead, listed) for _ in "xyz"] == ["x", "y", "z"]
        executor.finish("b", result("b"))
        assert emit(read_ahead, listed) == "b"
    assert sorted({*executor.submitted}) == sorted(executor.submitted)


@pytest.mark.parametrize(("files", "submitted"), [(2, []), (3, ["1", "2"])])
def test_automatic_workers_begin_with_three_files(tmp_path: Path, files: int, submitted: list[str]) -> None:
    """A process costs its start; from then on they read whatever there is."""
    executor = FakeExecutor(2)
    with reading(tmp_path, executor, workers=0) as read_ahead:
        read_ahead.next(in_bucket(*map(str, range(files))))
        assert executor.submitted == submitted
        read_ahead.next(in_bucket("x", "y"))
        assert executor.submitted == (submitted and [*submitted, "y"])


def test_users_of_an_ids_export_are_read_here(tmp_path: Path) -> None:
    """They stand in no file that a worker could read."""
    executor = FakeExecutor(2)
    listed = [FakeDelivery(None, [["one"]]), FakeDelivery(None, [["two"]])]
    with reading(tmp_path, executor) as read_ahead:
        for delivery in listed:
            chosen, blocks = read_ahead.next([delivery])
            assert chosen is delivery
            assert ids(blocks) == [delivery.users[0][0]]
    assert not executor.submitted


def test_huge_file_that_a_worker_leaves_is_read_here(tmp_path: Path) -> None:
    """Block by block: all its rows at once would fill the disk."""
    executor = FakeExecutor(2)
    huge = FakeDelivery(bucket_file("huge"), [["one"], ["two"]])
    with reading(tmp_path, executor) as read_ahead:
        read_ahead.next([*in_bucket("a"), huge])
        executor.begin("huge")
        executor.finish("huge", None)
        _, blocks = read_ahead.next([huge])
        assert [ids([block]) for block in blocks] == [["one"], ["two"]]


# Failures


def test_run_that_is_told_to_end_waits_no_longer(tmp_path: Path) -> None:
    clock = FakeClock()

    def stop(_: object) -> None:
        clock.told_to_end = True

    executor = FakeExecutor(2, stop)
    listed = in_bucket("a", "b")
    with reading(tmp_path, executor, clock=clock) as read_ahead:
        emit(read_ahead, listed)
        executor.begin("b")
        with pytest.raises(Interruption):
            read_ahead.next(listed)
    assert executor.is_closed


def test_worker_that_dies_of_the_signal_is_no_failure(tmp_path: Path) -> None:
    """The signal that ends the run may have met it, too."""
    clock, executor = FakeClock(), FakeExecutor(2)
    listed = in_bucket("a", "b")
    with reading(tmp_path, executor, clock=clock) as read_ahead:
        emit(read_ahead, listed)
        executor.begin("b")
        executor.finish("b", TapError("a process was killed"))
        clock.told_to_end = True
        _, blocks = read_ahead.next(listed)
        with pytest.raises(Interruption):
            ids(blocks)


def test_error_of_a_worker_is_raised_with_its_file(tmp_path: Path) -> None:
    """The other copies of its export are read anew, results of other exports stay."""
    executor = FakeExecutor(4)
    deliveries = [FakeDelivery(gzip_file(tmp_path, name, name)) for name in ("a", "b", "c", "d")]
    files = [delivery.file for delivery in deliveries if delivery.file]
    deliveries[3].file = replace(files[3], export=replace(EXPORT, export_id="other"))
    listed: list[Delivery] = [*deliveries]
    with reading(tmp_path, executor) as read_ahead:
        ids(read_ahead.next(listed)[1])
        executor.begin("b", "c", "d")
        executor.finish("b", DamagedFileError("b is damaged"))
        executor.finish("c", result("stale"))
        executor.finish("d", result("good"))
        _, blocks = read_ahead.next(listed[1:])
        with pytest.raises(DamagedFileError, match="b is damaged"):
            ids(blocks)
        assert [ids(read_ahead.next(listed[start:])[1]) for start in (1, 1)] == [["good"], ["b"]]


def test_result_of_a_damaged_copy_is_not_served(tmp_path: Path) -> None:
    """The rows are those of the copy that was fetched again."""
    executor = FakeExecutor(2)
    old, later = FakeDelivery(gzip_file(tmp_path, "a", "old")), FakeDelivery(gzip_file(tmp_path, "b", "old"))
    old.error = DamagedFileError("a is damaged")
    with reading(tmp_path, executor) as read_ahead:
        _, blocks = read_ahead.next([old, later])
        executor.begin("b")
        executor.finish("b", result("old"))
        with pytest.raises(DamagedFileError):
            ids(blocks)
        new = [FakeDelivery(gzip_file(tmp_path, name, "new")) for name in ("a", "b")]
        assert new[1].file == later.file
        assert [ids(read_ahead.next(new[start:])[1]) for start in (0, 1)] == [["new"], ["new"]]


def test_objects_in_the_bucket_tell_their_version(tmp_path: Path) -> None:
    """So what workers have read of them stays good when another one is damaged."""
    executor = FakeExecutor(2)
    damaged, good = in_bucket("a", "b")
    damaged.error = DamagedFileError("a is damaged")
    with reading(tmp_path, executor) as read_ahead:
        _, blocks = read_ahead.next([damaged, good])
        executor.begin("b")
        executor.finish("b", result("b"))
        with pytest.raises(DamagedFileError):
            ids(blocks)
        chosen, _ = read_ahead.next([damaged, good])
        assert chosen is good
    assert not good.reads


# The workers that settings ask for


def rows_of_all(folder: Path, deliveries: list[FakeDelivery], **settings: Any) -> list[str]:
    """The users of all deliveries, which are emitted in any order."""
    found: list[str] = []
    listed = deliveries.copy()
    with reading(folder, **settings) as read_ahead:
        while listed:
            delivery, blocks = read_ahead.next(listed)
            found += ids(blocks)
            listed = [other for other in listed if other is not delivery]
    return sorted(found)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_number_of_workers_gives_the_same_rows(tmp_path: Path, workers: int) -> None:
    """Of that number the run is one, and of each file there is one result."""
    users = [f"{number:03}" for number in range(300)]
    deliveries = [
        FakeDelivery(gzip_file(tmp_path, f"{start}.gz", *users[start : start + 25])) for start in range(0, 300, 25)
    ]
    assert rows_of_all(tmp_path, deliveries, workers=workers) == users


@pytest.mark.parametrize(("workers", "capacity"), [(1, 0), (2, 2), (3, 4)])
def test_capacity_is_a_file_for_each_process_and_its_next_one(tmp_path: Path, workers: int, capacity: int) -> None:
    """The run itself is one of the workers."""
    with reading(tmp_path, workers=workers) as read_ahead:
        assert read_ahead.capacity == capacity


def test_resync_starts_no_worker(tmp_path: Path) -> None:
    """Braze is slower than one process, and no scheduler is asked."""
    with reading(tmp_path, external_ids=["one"], dask_scheduler=NOBODY) as read_ahead:
        assert read_ahead.capacity == 0


def test_dry_run_leaves_the_cluster_alone(tmp_path: Path) -> None:
    """Its streams do not leave as they are, since they are limited."""
    with reading(tmp_path, plain_streams=frozenset(), dask_scheduler=NOBODY) as read_ahead:
        assert read_ahead.capacity == 0
