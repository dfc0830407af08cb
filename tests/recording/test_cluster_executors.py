"""Chains on the executors that clusters have: Dask, MPI, loky, submitit, Parsl, Ray."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_chains
import pytest
from cluster_chains import (
    create,
    held,
    hold,
    is_complete,
    killed_once,
    made,
    record_and_note,
    slowly,
)
from scripts import FreshScript, environment

import zarrtrace as zt
from zarrtrace.errors import ChainsFailedError, InvalidInputError
from zarrtrace.processes import executors, parcel

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.long
@pytest.mark.once("newest")
def test_a_dask_worker_is_killed_and_one_is_added(client: Any, tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    hold(trace).touch()
    run = threading.Thread(
        target=zt.run,
        args=(held, trace),
        kwargs={"executor": client.get_executor(), "progress": False},
    )
    run.start()
    while trace.recorded.max() < cluster_chains.HELD_AT:
        time.sleep(0.01)
    killed = int(trace.recorded.argmax())
    claim = trace._block(killed).claim
    assert claim is not None
    os.kill(claim.pid, signal.SIGKILL)
    hold(trace).unlink()
    client.cluster.scale(3)
    run.join(120)
    assert is_complete(trace)
    # Only the draws since the last checkpoint are drawn again.
    again = [count - cluster_chains.DRAWS for count in made(trace)]
    assert again.pop(killed) <= 10
    assert again == [0, 0]


@pytest.mark.long
@pytest.mark.once("newest")
def test_a_dask_worker_that_sleeps_is_taken_over(tmp_path: Path) -> None:
    import dask
    from distributed import Client, LocalCluster

    trace = create(tmp_path / "run.zarr")
    # A nanny would kill it: it is on the other side of the broken network, too.
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads=1"]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "8s"}),
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(3):
            process = stack.enter_context(
                subprocess.Popen(
                    [*worker, "--no-dashboard", cluster.scheduler_address],
                    env=here,
                    stderr=subprocess.DEVNULL,
                )
            )
            stack.callback(process.kill)
        client.wait_for_workers(3)
        client.run(cluster_chains.make_impatient)
        options = {"executor": client.get_executor(), "progress": False}
        hold(trace).touch()
        run = threading.Thread(target=zt.run, args=(held, trace), kwargs=options)
        run.start()
        while trace.recorded[1] < 15:
            time.sleep(0.01)
        claim = trace._block(1).claim
        assert claim is not None
        os.kill(claim.pid, signal.SIGSTOP)
        hold(trace).unlink()
        try:
            run.join(120)
        finally:
            os.kill(claim.pid, signal.SIGCONT)
        assert is_complete(trace)
        ended = Path(f"{trace.path}.ended")
        for _ in range(6000):
            if ended.exists():
                break
            time.sleep(0.01)
        assert "it was taken over by" in ended.read_text()
    assert is_complete(trace)
    assert [made(trace)[index] for index in (0, 2)] == [cluster_chains.DRAWS] * 2


@pytest.mark.once("newest")
def test_what_ends_early_reaches_dask_workers(client: Any, tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr", draws=2000)
    zt.run(
        slowly,
        trace,
        executor=client.get_executor(),
        until=lambda trace: bool(trace.recorded.max() > 5),
        progress=False,
    )
    # No worker continues after run() has returned.
    assert trace.status == "stopped"
    stopped = trace.recorded.tolist()
    time.sleep(0.3)
    assert trace.recorded.tolist() == stopped
    zt.run(record_and_note, trace, executor=client.get_executor, progress=False)
    assert is_complete(trace, 2000)


@pytest.mark.once("newest")
def test_a_second_cluster_is_told_who_records(client: Any, tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    with trace.writer(1), pytest.raises(ChainsFailedError, match="ChainBusyError") as caught:
        zt.run(record_and_note, trace, executor=client.get_executor(), progress=False)
    assert list(caught.value.failures) == [1]
    assert f"is being recorded by process {os.getpid()} on " in caught.value.failures[1]
    assert trace.recorded.tolist() == [cluster_chains.DRAWS, 0, cluster_chains.DRAWS]


@pytest.mark.once("oldest")
def test_loky(tmp_path: Path) -> None:
    from loky import get_reusable_executor

    trace = create(tmp_path / "run.zarr")
    with pytest.warns(RuntimeWarning, match="TerminatedWorkerError.*is started again"):
        zt.run(killed_once, trace, executor=lambda: get_reusable_executor(2), progress=False)
    assert is_complete(trace)


LOKY = """
import sys
from cluster_chains import slowly
from loky import get_reusable_executor
import zarrtrace as zt

if __name__ == "__main__":
    trace = zt.open(sys.argv[1], "a")
    pool = get_reusable_executor(3)
    try:
        zt.run(slowly, trace, executor=pool, until=zt.Converged(ess=2000), progress=False)
    except KeyboardInterrupt:
        print(trace.stop_request, trace.status)
    pool.shutdown()
"""


@pytest.mark.once("newest")
def test_ctrl_c_and_a_goal_end_chains_of_loky(
    tmp_path: Path, fresh_script: FreshScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    trace = create(tmp_path / "run.zarr", draws=2000)
    process = fresh_script.start(LOKY, trace.path)
    while trace.recorded.min() < 15:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate()
    assert said == "None stopped\n", errors
    # The chains that Ctrl-C ended continue until the goal holds.
    from loky import get_reusable_executor

    goal = zt.Converged(rhat=10.0, ess=5, min_draws=30)
    zt.run(slowly, trace, executor=lambda: get_reusable_executor(3), until=goal, progress=False)
    assert trace.recorded.max() < 2000
    assert is_complete(trace, int(trace.recorded.min()))


def blocks_of_the_page() -> list[str]:
    """The blocks of Python that are not run with the page on clusters."""
    page = Path(__file__).parents[2] / "docs" / "howto" / "clusters.md"
    return re.findall(r"^```py\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def block_of_the_page(word: str) -> str:
    """The first of these blocks that has a word."""
    return next(block for block in blocks_of_the_page() if word in block)


def test_each_block_of_the_page_is_run_here() -> None:
    words = re.findall(r'block_of_the_page\("(.*?)"\)', Path(__file__).read_text())
    assert {block_of_the_page(word) for word in words} == set(blocks_of_the_page())


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder where submitit starts its jobs on this machine; it takes a Slurm that it finds."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "tail").symlink_to(shutil.which("tail") or "")
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.once("oldest")
@pytest.mark.usefixtures("no_slurm")
def test_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a slow file system the result of a job that was killed might still appear.
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)
    trace = create(tmp_path / "run.zarr")
    with pytest.warns(RuntimeWarning, match="UncompletedJobError.*is started again"):
        exec(block_of_the_page("submitit"), {"zt": zt, "chain": killed_once, "trace": trace})
    assert is_complete(trace)
    assert [count - cluster_chains.DRAWS for count in made(trace)] == [0, 5, 0]


@pytest.mark.once("oldest")
@pytest.mark.usefixtures("no_slurm")
def test_a_job_of_submitit_whose_time_is_over_submits_itself_again(tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr", chains=1)
    # The last ten minutes of a job are those in which the signal says that its time is over.
    block = block_of_the_page("class Job").replace("timeout_min=60 * 24", "timeout_min=10")
    namespace: dict[str, Any] = {"zt": zt, "chain": held, "trace": trace}
    hold(trace).touch()
    exec(block, namespace)
    while not trace.recorded[0]:
        time.sleep(0.01)
    claim = trace._block(0).claim
    assert claim is not None
    os.kill(claim.pid, signal.SIGUSR2)
    hold(trace).unlink()
    (job,) = namespace["jobs"]
    job.result()
    assert "this job is timed-out" in job.stderr()
    assert "Requeued job" in job.stdout()
    # It ended with a checkpoint, so that no draw is drawn again.
    assert is_complete(trace)
    assert made(trace) == [cluster_chains.DRAWS]


@pytest.mark.once("newest")
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="only root can install MPI; CI does")
def test_a_rank_of_mpi_dies_and_the_same_command_continues(tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    script = tmp_path / "script.py"
    begin = "import zarrtrace as zt\nfrom cluster_chains import killed_once as chain\n"
    script.write_text(begin + block_of_the_page("MPI"))
    here = environment()
    here["PYTHONPATH"] += os.pathsep + str(Path(cluster_chains.__file__).parent)
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "3"]
    command = [*mpirun, sys.executable, "-m", "mpi4py.futures", str(script)]
    options: dict[str, Any] = {"env": here, "cwd": tmp_path, "capture_output": True, "text": True}
    first = subprocess.run(command, timeout=120, **options)
    assert first.returncode, first.stdout
    assert trace.recorded[1] == 25
    second = subprocess.run(command, timeout=120, **options)
    assert second.returncode == 0, second.stderr
    assert is_complete(trace)
    assert made(trace)[1] == cluster_chains.DRAWS + 5


@pytest.mark.long
@pytest.mark.once("oldest")
def test_a_worker_of_parsl_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    # Parsl looks for the programs that it starts on PATH.
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    workers = HighThroughputExecutor(
        address="127.0.0.1",
        cores_per_worker=0.1,
        max_workers_per_node=2,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
        heartbeat_period=1,  # the seconds between two looks at the workers
    )
    config = Config([workers], strategy_period=0.2, initialize_logging=False)
    trace = create(tmp_path / "run.zarr")
    namespace = {"zt": zt, "chain": killed_once, "trace": trace, "config": config}
    with pytest.warns(RuntimeWarning, match="WorkerLost.*is started again"):
        exec(block_of_the_page("Parsl"), namespace)
    assert is_complete(trace)
    assert [count - cluster_chains.DRAWS for count in made(trace)] == [0, 5, 0]


@pytest.mark.once("oldest")
def test_what_ends_early_reaches_chains_of_parsl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors.threads import ThreadPoolExecutor

    monkeypatch.chdir(tmp_path)
    trace = create(tmp_path / "run.zarr", draws=2000)
    config = Config([ThreadPoolExecutor(max_threads=3)], initialize_logging=False)
    with ParslPoolExecutor(config) as pool:
        # Unlike those of other executors, calls of Parsl cannot be cancelled.
        zt.run(slowly, trace, executor=pool, until=lambda trace: True, progress=False)
        assert trace.status == "stopped"


RAY = """
import sys
import ray
from cluster_chains import killed_once as chain
import zarrtrace as zt

trace = zt.open("run.zarr", "a")
ray.init(
    num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, _temp_dir=sys.argv[1]
)
"""


@pytest.mark.long
@pytest.mark.once("oldest")
def test_a_worker_of_ray_is_killed(tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    script = tmp_path / "script.py"
    script.write_text(RAY + block_of_the_page("ray.remote") + "ray.shutdown()\n")
    here = environment()
    here["PYTHONPATH"] += os.pathsep + str(Path(cluster_chains.__file__).parent)
    # Ray would write a token into the home directory, report its use on the internet, and kill
    # workers where the memory is nearly full.
    here |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    here["RAY_memory_monitor_refresh_ms"] = "0"
    # Not in pytest's folder, whose name is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, script, folder],
            env=here,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert is_complete(trace)
    assert [count - cluster_chains.DRAWS for count in made(trace)] == [0, 5, 0]


@pytest.mark.once("oldest")
def test_a_worker_with_another_version_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = create(tmp_path / "run.zarr")
    sent = pickle.dumps(parcel.Parcel(record_and_note, trace, terminates=False))
    monkeypatch.setattr(parcel.zarr, "__version__", "3.99.0")
    with pytest.raises(InvalidInputError, match=r"this worker has zarr 3\.99\.0, and run\(\)"):
        parcel.run_chain(0, pickle.loads(sent))


@pytest.mark.once("newest")
def test_a_worker_that_cannot_import_the_chain_says_so(client: Any, tmp_path: Path) -> None:
    trace = create(tmp_path / "run.zarr")
    module = tmp_path / "only_here.py"
    module.write_text("def chain(index, trace): pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    with pytest.raises(ChainsFailedError, match="No module named 'only_here'") as caught:
        zt.run(only_here.chain, trace, executor=client.get_executor(), progress=False)
    assert "install what it needs on the workers" in caught.value.failures[0]


@pytest.mark.once("newest")
def test_an_executor_without_workers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client, LocalCluster

    monkeypatch.setattr(executors, "_NO_WORKER_AFTER", 0.5)
    trace = create(tmp_path / "run.zarr")
    said = []
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", processes=False) as cluster,
        Client(cluster) as client,
    ):

        def add_a_worker(message: Warning | str, *where: Any) -> None:
            if "no worker has begun a chain" in str(message):
                said.append(message)
                cluster.scale(1)

        monkeypatch.setattr(warnings, "showwarning", add_a_worker)
        # Without the warning the test ends, too.
        later = threading.Timer(60, cluster.scale, (1,))
        later.start()
        zt.run(record_and_note, trace, executor=client.get_executor(), progress=False)
        later.cancel()
    assert len(said) == 1
    assert is_complete(trace)
