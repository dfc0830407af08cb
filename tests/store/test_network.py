"""Network file systems: recognised, and used without a mapped journal unless it is asked for."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from failing_calls import failing

import zarrtrace as zt
from zarrtrace.store import network

DEFINITION = {"chains": 1, "draws": 50, "posterior": {"x": zt.Var(shape=3, draws_per_chunk=10)}}
LINE = "{number} 1 0:{number} / {place} rw,relatime shared:1 - {kind} server:/export rw\n"


def mount(monkeypatch: pytest.MonkeyPatch, folder: Path, *mounts: tuple[Path | str, str]) -> None:
    """Let the system say that these file systems are mounted."""
    lines = [
        LINE.format(number=number, place=str(place).replace(" ", "\\040"), kind=kind)
        for number, (place, kind) in enumerate([("/", "ext4"), *mounts])
    ]
    table = folder / "mountinfo"
    table.write_text("".join(lines))
    monkeypatch.setattr(network, "_MOUNTS", table)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on a network file system, as far as the library can know."""
    folder = tmp_path / "shared"
    folder.mkdir()
    mount(monkeypatch, tmp_path, (folder, "nfs4"))
    return folder


@pytest.mark.once("oldest")
@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "fuse.sshfs"]
)
def test_the_longest_mount_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    far, near = tmp_path / "far away", tmp_path / "far away/local"
    near.mkdir(parents=True)
    (tmp_path / "link").symlink_to(far)
    mount(monkeypatch, tmp_path, (near, "xfs"), (far, kind), (f"{tmp_path}/far", "xfs"))
    assert network.network_of(far / "not/yet") == kind
    assert network.network_of(tmp_path / "link/x") == kind
    assert network.network_of(near / "run.zarr") == ""
    assert network.network_of(tmp_path) == ""
    # A mount over another one hides it.
    mount(monkeypatch, tmp_path, (far, kind), (far, "tmpfs"))
    assert network.network_of(far) == ""


@pytest.mark.once("newest")
def test_by_default_draws_wait_in_memory_and_the_words_say_so(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(shared))  # a network file system is no offer
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="nfs4.*up to 10 s.*journal='store'") as warned:
        trace = zt.create(shared / "run.zarr", **DEFINITION)
    assert f"journal='{tmp_path}'" in str(warned[0].message)
    assert warned[0].filename == __file__
    assert "(nfs4), without a journal: a killed process loses up to 10 s" in repr(trace)
    with trace.writer(0) as writer:
        for draw in range(15):
            writer.record({"x": np.full(3, draw)})
        assert trace.recorded == [10]  # what is in full chunks
        writer.checkpoint("state")
        assert trace.recorded == [15]
    assert not (shared / "run.zarr/_sampling_state/journal").exists()


@pytest.mark.once("newest")
def test_a_local_journal_loses_nothing_and_is_read_on_its_machine(
    shared: Path, tmp_path: Path
) -> None:
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal=tmp_path, flush_every=0)
    assert f"journal {tmp_path}" in repr(trace)
    writer = trace.writer(0)
    for draw in range(15):
        writer.record({"x": np.full(3, draw)})
    assert trace.recorded == [15]
    # Flushed every moment, as of the draw before: what another machine finds.
    for file in tmp_path.glob("run.zarr-*-journal/*"):
        file.rename(file.with_suffix(".away"))
    assert zt.open(shared / "run.zarr").recorded == [14]
    for file in tmp_path.glob("run.zarr-*-journal/*.away"):
        file.rename(file.with_suffix(".0"))
    writer.close()
    with pytest.raises(zt.errors.InvalidInputError, match="is on a network file system"):
        zt.create(shared / "b.zarr", **DEFINITION, journal=shared)


@pytest.mark.once("newest")
def test_a_table_that_is_repaired_has_no_mapped_journal(shared: Path) -> None:
    place = shared / "log"
    with zt.table.open(place, {"x": zt.Var()}) as rows:
        rows.append(x=1.0)
    (place / "zarr.json").write_bytes(b"damaged")
    with zt.table.open(place, mode="a") as rows:
        assert any("by the length of its columns" in line for line in rows.repair())
        rows.append(x=2.0)
        assert not (place / "_journal").exists()
        assert rows["x"].tolist() == [1.0, 2.0]


@pytest.mark.once("newest")
def test_a_chunk_that_arrives_after_the_count_is_waited_for(shared: Path) -> None:
    variables = {"x": zt.Var(draws_per_chunk=5)}
    trace = zt.create(shared / "run.zarr", chains=1, draws=20, posterior=variables, journal=False)
    with trace.writer(0) as writer:
        for draw in range(12):
            writer.record({"x": draw})
    chunk = shared / "run.zarr/posterior/x/c.0.1"
    elsewhere = chunk.rename(shared / "on its way")
    threading.Timer(0.5, elsewhere.rename, [chunk]).start()
    assert trace.get("x").tolist() == [list(range(12))]


@pytest.mark.once("newest")
def test_a_local_journal_is_void_once_another_machine_has_continued(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal that stayed behind has draws that were drawn again elsewhere."""
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal=tmp_path)

    def record(values: range, start: int) -> None:
        with trace.writer(0) as writer:
            assert writer.resume()[0] == start
            for value in values:
                writer.record({"x": np.full(3, value)})
            writer.checkpoint(None)

    record(range(5), 0)
    # The other machine has another boot id, and a disk of its own.
    [folder] = tmp_path.glob("run.zarr-*-journal")
    folder.rename(tmp_path / "disk of the first machine")
    folder.mkdir()
    here = (zt.sampling_state.journal_header.boot_id(), bytes(range(16)))
    with monkeypatch.context() as other:
        other.setattr(zt.sampling_state.journal_header, "boot_id", lambda: here[1])
        record(range(105, 108), 5)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    (tmp_path / "disk of the first machine").rename(folder)
    assert trace.recorded == [8]
    assert trace.get("x")[0, :, 0].tolist() == [0, 1, 2, 3, 4, 105, 106, 107]
    record(range(8, 10), 8)
    assert trace.get("x")[0, :, 0].tolist() == [0, 1, 2, 3, 4, 105, 106, 107, 8, 9]
    trace.finish()
    assert trace.recorded == [10]
    assert not any(folder.iterdir())


def killed_elsewhere(trace: zt.Trace, scratch: Path) -> Path:
    """Leave a chain as a kill on another machine does; returns where its journal is now."""
    writer = trace.writer(0)
    for draw in range(15):
        writer.record({"x": np.full(3, draw)})
        if draw == 11:
            writer.flush()
    claim = replace(writer._claim, host="node3", boot="1" * 36, beat=0.0)
    writer._release()
    writer._block.write_claim(claim)
    file = writer._block.location.path / writer._block.key("writer")
    os.utime(file, (0, 0))  # so old that nobody has to watch it
    [folder] = scratch.glob("run.zarr-*-journal")
    return folder.rename(scratch / "disk of node3")


@pytest.mark.once("oldest")
def test_no_chain_is_closed_below_the_journal_of_a_writer_killed_elsewhere(
    shared: Path, tmp_path: Path
) -> None:
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal=tmp_path, flush_every=7)
    folder = killed_elsewhere(trace, tmp_path)
    home = folder.with_name(Path(trace._layout.journal).name)
    words = rf"recorded on node3 and not closed there.* 7 s of them.* {home}/c.0.0 on node3"
    for end in (trace.finish, lambda: trace.split_warmup(3)):
        with pytest.raises(zt.errors.IncompleteTraceError, match=f"{words}.*do this on node3"):
            end()
    for look in (trace.check, trace.repair, lambda: trace.drop_before(1)):
        with pytest.warns(RuntimeWarning, match=words):
            assert not look()
    assert trace.recorded == [12]
    # Where the journal is, nothing is lost.
    folder.rename(home)
    trace.finish()
    assert trace.recorded == [15]


@pytest.mark.once("oldest")
def test_the_draws_of_a_journal_elsewhere_can_be_given_up(shared: Path, tmp_path: Path) -> None:
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal=tmp_path)
    folder = killed_elsewhere(trace, tmp_path)
    with pytest.raises(zt.errors.IncompleteTraceError) as refused:
        trace.finish()
    assert "trace.writer(0, patience=90).close()" in refused.value.remedy
    with pytest.warns(RuntimeWarning, match="not closed there.* continues from the last flush"):
        trace.writer(0, patience=90).close()
    trace.finish()
    assert trace.recorded == [12]
    # On node3, after an extension: the journal there does not fit the arrays.
    trace.extend(draws=40)
    shutil.copytree(folder, Path(trace._layout.journal), dirs_exist_ok=True)
    assert trace.recorded == [12]
    with trace.writer(0) as writer:
        assert writer.recorded == 12
    trace.finish()
    assert trace.get("x")[0, :, 0].tolist() == [*range(12)]


@pytest.mark.once("newest")
@pytest.mark.parametrize("place", ["local", "shared"])
def test_a_scratch_that_vanished_costs_what_was_not_flushed(
    shared: Path, tmp_path: Path, place: str
) -> None:
    """A job that starts again has another scratch directory, or is on another machine."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = {"local": tmp_path, "shared": shared}[place] / "run.zarr"
    trace = zt.create(path, **DEFINITION, journal=scratch)
    with trace.writer(0) as writer:
        for draw in range(15):
            writer.record({"x": np.full(3, draw)})
        writer.checkpoint("state")
    shutil.rmtree(scratch)
    with pytest.warns(RuntimeWarning, match="scratch.* is not on this machine"):
        writer = trace.writer(0)
    with writer:
        assert writer.resume() == (15, "state")
        writer.record({"x": np.full(3, 15)})
        assert f"without the journal {trace._layout.journal}, which is not on this" in repr(trace)
        assert "a process killed here loses up to 10 s" in repr(trace)
        scratch.mkdir()  # too late for this writer
        assert "a process killed here loses up to 10 s" in repr(trace)
        scratch.rmdir()
    assert trace.get("x")[0, :, 0].tolist() == [*range(16)]
    assert not scratch.exists()
    trace.finish()
    assert trace.recorded == [16]


@pytest.mark.once("newest")
def test_a_journal_in_the_store_is_synced_at_every_flush(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal="store", flush_every=1e9)
    assert "journal in the store" in repr(trace)
    synced = []
    real = zt.sampling_state.journal.Journal.make_durable
    monkeypatch.setattr(
        zt.sampling_state.journal.Journal,
        "make_durable",
        lambda journal: (synced.append(journal.count), real(journal)),
    )
    with trace.writer(0) as writer:
        for draw in range(15):
            writer.record({"x": np.full(3, draw)})
        assert synced == [10]  # rows are used again only when the count is on the server
        writer.checkpoint(None)
        assert synced == [10, 15]


@pytest.mark.once("oldest")
def test_no_lock_is_trusted_there(shared: Path) -> None:
    """A lock may be one of a single machine: a writer that lost its claim writes no chunk."""
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal="store")
    writer = trace.writer(0)
    for draw in range(9):
        writer.record({"x": np.full(3, draw)})
    writer._block.write_claim(zt.sampling_state.claim.Claim.new())
    with pytest.raises(zt.errors.ChainBusyError, match="taken over by"):
        writer.record({"x": np.zeros(3)})
    assert not (shared / "run.zarr/posterior/x/c.0.0.0").exists()
    with pytest.raises(zt.errors.ChainBusyError, match="taken over by"):
        writer.close()


@pytest.mark.once("oldest")
def test_a_journal_in_a_store_without_files_is_refused() -> None:
    with pytest.raises(zt.errors.InvalidInputError, match="no files that can be mapped"):
        zt.create(**DEFINITION, journal="store")


@pytest.mark.once("newest")
def test_a_full_quota_costs_no_draw_of_a_local_journal(shared: Path, tmp_path: Path) -> None:
    """The scratch is full when the writer opens, and the store at each full chunk."""
    trace = zt.create(shared / "run.zarr", **DEFINITION, journal=tmp_path)
    with (
        pytest.raises(zt.errors.NotWritableError, match="no space for a journal"),
        failing(0, "full"),
    ):
        trace.writer(0)
    writer, refused, kept = trace.writer(0), [], []
    for draw in range(35):
        try:
            with failing(0, "full"):
                writer.record({"x": np.full(3, draw)})
        except zt.errors.NotWritableError as error:
            refused.append((draw, "the disk is full" in error.why))
            kept.append(trace.recorded[0])
            writer.record({"x": np.full(3, draw)})
    assert refused == [(9, True), (19, True), (29, True)]
    assert kept == [9, 19, 29]
    with pytest.raises(zt.errors.NotWritableError, match="full"), failing(0, "full"):
        writer.close()
    trace.writer(0).close()
    trace.finish()
    assert trace.get("x")[0, :, 0].tolist() == [*range(35)]
