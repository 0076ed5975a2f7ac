"""Several workers give what one process gives, whoever of them is lost on the way."""

import importlib.util
import os
import sys

import pytest
from conftest import nmutant, options
from test_faults import same_results

from nmutant_cli.pipeline.run_folder import Journal

COUNTS = 6 * 3 + 6
"""Pieces of the tiny experiment: six sets at three step sizes, and their decisions."""


@pytest.fixture
def unmeasured(folder):
    for path in (*folder.rglob("*.csv"), folder / "report.html"):
        path.unlink()
    return folder


@pytest.fixture
def cluster():
    """Two Ray nodes of one core each on this machine."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_cluster_of_two_nodes(finished, unmeasured, cluster, monkeypatch):
    keys = []
    add = Journal.add
    monkeypatch.setattr(Journal, "add", lambda s, k, v: (keys.append(k), add(s, k, v)))
    outcome = nmutant("run", "-q", "--ray", cluster.address, *options(unmeasured))
    assert (outcome.code, outcome.stderr) == (0, "")
    assert len(keys) == COUNTS
    same_results(unmeasured, finished)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [0, 7])
def test_a_node_lost_in_the_middle(finished, unmeasured, cluster, monkeypatch, piece):
    keys = []
    add = Journal.add

    def lose(self, key, value):
        if len(keys) == piece:
            cluster.remove_node(max(cluster.worker_nodes), allow_graceful=False)
        keys.append(key)
        add(self, key, value)

    monkeypatch.setattr(Journal, "add", lose)
    outcome = nmutant("run", "-q", "--ray", cluster.address, *options(unmeasured))
    assert outcome.code == 0
    assert len(keys) == COUNTS
    same_results(unmeasured, finished)


@pytest.mark.slow
def test_two_workers_on_this_machine(finished, unmeasured):
    pytest.importorskip("ray")
    outcome = nmutant("run", "-q", "--workers", "2", *options(unmeasured))
    assert (outcome.code, outcome.stderr) == (0, "")
    same_results(unmeasured, finished)


def test_a_measured_batch_size_changes_nothing(finished, unmeasured):
    auto = "runtime.batch_size=auto"
    assert nmutant("run", "-q", *options(unmeasured, auto)).code == 0
    same_results(unmeasured, finished)


def test_one_worker_needs_no_ray(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert nmutant("report", "-q", "--workers", "1", *options(folder)).code == 0


@pytest.mark.parametrize("option", [("--workers", "2"), ("--ray", "auto")])
def test_without_ray_a_line_says_what_to_install(tmp_path, monkeypatch, option):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ray" else find(name, *a)
    )
    text = nmutant("detect", "-q", *option, *options(tmp_path / "run")).error
    assert text == "--workers and --ray: Ray is not installed: pip install ray"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_have_the_threads_that_are_set_here(monkeypatch):
    ray = pytest.importorskip("ray")
    from nmutant_cli.pipeline.ray import THREADS, OnRay

    class Asked(OnRay):
        """Starts one worker that says what its environment is."""

        def _start(self):
            worker = self._actor.remote()
            self.found = ray.get(worker.__ray_call__.remote(lambda _: dict(os.environ)))

    def found(number):
        workers = Asked(number)
        workers._connect()
        workers.close()
        return {name: workers.found[name] for name in THREADS}

    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    assert found(os.cpu_count()) == dict.fromkeys(THREADS, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert found(os.cpu_count())["OMP_NUM_THREADS"] == "7"


@pytest.mark.slow
def test_no_cluster_at_the_address(unmeasured):
    pytest.importorskip("ray")
    text = nmutant("detect", "-q", "--ray", "127.0.0.1:1", *options(unmeasured)).error
    assert text.startswith("--ray 127.0.0.1:1: no cluster answers there (")
