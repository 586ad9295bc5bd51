"""`kd.scale.from_environment`: Slurm's and Kubernetes' variables become `TF_CONFIG`."""

import json
import os
import pathlib
import re

import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras

PAGE = pathlib.Path(__file__).parents[2] / "docs/guides/many-workers.md"
VARIABLES = ("TF_CONFIG", "SLURM", "JOB_COMPLETION_INDEX", "KERAS_KD_")
SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "node[9-10],gpu[07,09]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1(x3)",
    "SLURM_JOB_ID": "1230042",
    "SLURMD_NODENAME": "node10",
    "SLURM_RESTART_COUNT": "1",
}
POD = {
    "JOB_COMPLETION_INDEX": "2",
    "HOSTNAME": "distill-2",
    "KERAS_KD_WORKERS": "3",
    "KERAS_KD_SERVICE": "distill-workers",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets variables; those of no job but this one are left."""
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TF_CONFIG", "")  # so that what is set is removed at the end
    monkeypatch.delenv("TF_CONFIG")

    def set_variables(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


def addresses():
    return json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]


def test_slurm(environment):
    environment(SLURM)
    worker = kd.scale.from_environment()
    assert (worker.index, worker.count, worker.attempt, worker.is_chief) == (2, 5, 1, False)
    hosts = ["node9:20042", "node9:20043", "node10:20042", "gpu07:20042", "gpu09:20042"]
    assert addresses() == hosts
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)
    assert resolver.cluster_spec().as_dict() == {"worker": hosts}
    assert kd.scale.from_environment() == kd.scale.Worker(2, 5)  # TF_CONFIG is there now


def test_slurm_as_tensorflow_reads_it(environment):
    """On names of equal length, in order, which TensorFlow's own resolver reads correctly."""
    nodes = {"SLURM_STEP_NODELIST": "a[001-003],b[7,9]", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1(x2)"}
    environment({**nodes, "SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "8"})
    theirs = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=2, gpus_per_task=1, port_base=5000, auto_set_gpu=False
    )
    worker = kd.scale.from_environment(port=5000)
    assert addresses() == theirs.cluster_spec().as_dict()["worker"]
    assert (worker.index, worker.count) == (4, 8)


def test_kubernetes(environment):
    environment(POD)
    worker = kd.scale.from_environment()
    assert (worker.index, worker.count, worker.attempt) == (2, 3, 0)
    assert addresses() == [f"distill-{k}.distill-workers:2222" for k in range(3)]
    assert json.loads(os.environ["TF_CONFIG"])["task"] == {"type": "worker", "index": 2}


def test_job_set(environment):
    """Its pods have the set's, the job's and the replica's names."""
    environment({**POD, "HOSTNAME": "set-workers-0-2", "KERAS_KD_SCALE_ATTEMPT": "4"})
    assert kd.scale.from_environment(port=99).attempt == 4
    assert addresses()[1] == "set-workers-0-1.distill-workers:99"


def test_given_config_stays(environment):
    config = json.dumps(
        {
            "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
            "task": {"type": "worker", "index": 1},
        }
    )
    environment({"TF_CONFIG": config, **SLURM})
    assert kd.scale.from_environment() == kd.scale.Worker(2, 3)
    assert os.environ["TF_CONFIG"] == config


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "neither TF_CONFIG, nor SLURM_PROCID, nor JOB_COMPLETION_INDEX"),
        ({"TF_CONFIG": "{}"}, "has not the form"),
        ({"TF_CONFIG": '{"cluster": {"ps": []}, "task": {"type": "ps", "index": 0}}'}, "in step"),
        ({"SLURM_PROCID": "0"}, "SLURM_STEP_NODELIST.*srun"),
        ({**SLURM, "SLURM_PROCID": "x"}, "SLURM_PROCID: expected a number. Received: 'x'"),
        ({**SLURM, "SLURM_PROCID": "7"}, "number 7, from 0 on, of a job with 5 workers"),
        ({**SLURM, "SLURM_STEP_NODELIST": "node[9-"}, "Not a node list of Slurm.*node.9-"),
        ({**SLURM, "SLURM_STEP_NODELIST": "node[a-b]"}, "Not a node list of Slurm"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2x3"}, "Not numbers of Slurm's processes"),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1"}, "Slurm names 4 nodes.*srun"),
        ({**SLURM, "SLURMD_NODENAME": "node9"}, "--distribution=block"),
        ({**POD, "KERAS_KD_SERVICE": ""}, "not .'KERAS_KD_SERVICE'.*headless"),
        ({**POD, "HOSTNAME": "distill-xyz"}, "ends in '-2'"),
    ],
)
def test_what_does_not_fit_is_refused(variables, message, environment):
    environment(variables)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        kd.scale.from_environment()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_manifest_holds_what_is_read(environment):
    """The Indexed Job of the page: its variables are those of pod 1 of 4."""
    yaml = extras.require("yaml")
    service, job = yaml.safe_load_all(blocks("yaml")[0])
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert service["spec"]["publishNotReadyAddresses"]  # workers look for each other as they start
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert pod["subdomain"] == service["metadata"]["name"]
    labels = spec["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (container,) = pod["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    assert given["KERAS_KD_WORKERS"] == str(spec["completions"])
    assert given["KERAS_KD_SERVICE"] == service["metadata"]["name"]
    name = job["metadata"]["name"]
    environment({**given, "JOB_COMPLETION_INDEX": "1", "HOSTNAME": f"{name}-1"})
    worker = kd.scale.from_environment()
    assert (worker.index, worker.count) == (1, spec["completions"])
    ports = {port["containerPort"] for port in container["ports"]}
    assert {int(each.rpartition(":")[2]) for each in addresses()} == ports


def test_slurm_script_deals_processes_as_they_are_read():
    (script,) = [block for block in blocks("bash") if "#SBATCH" in block]
    assert "#SBATCH --requeue" in script
    assert "srun --distribution=block" in script
    assert re.search(r"--kill-on-bad-exit", script)
