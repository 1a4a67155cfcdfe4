"""The listings of docs/distributed.md for fits on several machines, as far as they can be checked without a cluster.

They run as they stand, with stand-ins for `keras-psr` and for the commands of Slurm.
"""

import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from kubernetes_validate.utils import ValidationError, all_versions, validate

from keras_psr.cli.fit import fit, resolve

DOCUMENT = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
NODES = ["node07", "node08"]

STAND_INS = {
    "keras-psr": """
        import json, os, pathlib, sys
        record = {"cluster": json.loads(os.environ["TF_CONFIG"]), "args": sys.argv[1:]}
        index = record["cluster"]["task"]["index"]
        pathlib.Path(os.environ["RECORDS"], f"{index}.json").write_text(json.dumps(record))
    """,
    "scontrol": f"""
        import sys
        assert sys.argv[1:] == ["show", "hostnames", "node[07-08]"], sys.argv
        print(*{NODES}, sep="\\n")
    """,
    "srun": """
        import json, os, pathlib, subprocess, sys
        tasks = [subprocess.Popen(sys.argv[1:], env={**os.environ, "SLURM_PROCID": str(index)}) for index in (1, 0)]
        pathlib.Path(os.environ["RECORDS"], "srun").write_text(json.dumps(sys.argv[1:]))
        sys.exit(any([task.wait() for task in tasks]))
    """,
}
"""What stands in for each command: it writes down how it was called. Tasks of Slurm start in any order."""


def read_listing(section, language):
    pattern = rf"## {section}\n(?:(?!\n## ).)*?```{language}\n(.*?)```"
    (listing,) = re.findall(pattern, DOCUMENT, re.DOTALL)
    return listing


def read_manifests():
    """The two objects of the listing for Kubernetes."""
    service, job = yaml.safe_load_all(read_listing("Kubernetes", "yaml"))
    return service, job


def read_container():
    (container,) = read_manifests()[1]["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture
def environment(tmp_path):
    """The variables of a shell that finds the stand-ins."""
    for name in ("bin", "records"):
        (tmp_path / name).mkdir()
    for name, code in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!{sys.executable}\nif True:{code}")
        path.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "RECORDS": str(tmp_path / "records")}


@pytest.fixture(params=[False, True], ids=["new", "started"])
def shared(request, tmp_path):
    """The volume that all machines see, and whether it has a run."""
    run = tmp_path / "shared" / "runs" / "x4"
    run.mkdir(parents=True)
    if request.param:
        (run / "config.json").touch()
    return tmp_path / "shared", request.param


def read_records(environment):
    """How keras-psr was called, by the index of the worker."""
    files = sorted(Path(environment["RECORDS"]).glob("*.json"))
    records = [json.loads(path.read_text()) for path in files]
    assert [record["cluster"]["task"] for record in records] == [{"type": "worker", "index": i} for i in (0, 1)]
    assert records[0]["cluster"]["cluster"] == records[1]["cluster"]["cluster"]
    assert records[0]["args"] == records[1]["args"]
    return records


def check_command(args, *, devices, out, data, resume=False):
    """Compares what the project's own parser makes of a command: the options, and the settings of the fit."""
    name, *args = args
    assert name == "fit"
    options = fit.make_context(name, args).params
    rest = {option: options.pop(option) for option in ("out", "resume", "overwrite", "config_file")}
    config = resolve(options, None, {})
    assert rest == {"out": out, "resume": resume, "overwrite": False, "config_file": None}
    assert config.strategy == "multiworker" and config.data == (data,)
    assert [stage.config.batch_size % devices for stage in config.stages()] == [0] * len(config.stages())


def check_shell(script):
    """Fails with what shellcheck has to say. SC2016: what is in single quotes is meant for another shell."""
    command = [Path(sys.executable).with_name("shellcheck"), "--shell=bash", "--exclude=SC2016", "-"]
    result = subprocess.run(command, input=script, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_commands_for_two_machines_are_understood(environment):
    listing = read_listing("Two machines", "sh")
    check_shell(listing)
    subprocess.run(["bash", "-c", listing], env=environment, check=True)
    for record in read_records(environment):
        assert record["cluster"]["cluster"] == {"worker": ["host1:2222", "host2:2222"]}
        check_command(record["args"], devices=2, out=Path("/shared/runs/x4"), data="photos/")


def read_slurm_options(listing):
    """The options of sbatch, which reads them before the first command."""
    header, _ = listing.split("\n\n", 1)
    assert listing.count("#SBATCH") == header.count("#SBATCH")
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", header, re.MULTILINE))


def test_the_script_for_slurm_starts_a_worker_on_each_node(environment, shared):
    folder, started = shared
    listing = read_listing("Slurm", "sh").replace("/shared", str(folder))
    options = read_slurm_options(listing)
    check_shell(listing)
    variables = {**environment, "SLURM_JOB_NODELIST": "node[07-08]"}
    subprocess.run(["bash", "-c", listing], env=variables, check=True)
    shell, flag, script, *_ = json.loads(Path(environment["RECORDS"], "srun").read_text())
    assert (shell, flag) == ("bash", "-c")
    check_shell(script)
    assert "exec keras-psr" in script, "else Slurm's SIGTERM ends the shell, and with it the fit before it has saved"
    devices = int(options["nodes"]) * int(options["ntasks-per-node"]) * int(options["gpus-per-node"])
    assert int(options["nodes"]) == len(NODES) and options["ntasks-per-node"] == "1"
    for record in read_records(environment):
        assert record["cluster"]["cluster"] == {"worker": [f"{node}:2222" for node in NODES]}
        check_command(
            record["args"], devices=devices, out=folder / "runs/x4", data=str(folder / "photos"), resume=started
        )


@pytest.mark.parametrize("position", [0, -1], ids=["oldest", "newest"])
def test_the_manifests_fit_the_schemas_of_kubernetes(position):
    version = all_versions()[position]
    for manifest in read_manifests():
        validate(manifest, version, strict=True)
    misspelt = deepcopy(read_manifests()[1])
    misspelt["spec"]["template"]["spec"]["sub_domain"] = "fit"
    with pytest.raises(ValidationError, match="sub_domain"):
        validate(misspelt, version, strict=True)


def test_the_pods_find_each_other_and_the_volume():
    """What the schemas cannot say: names that must agree, for pods to have names and to find their volume."""
    service, job = read_manifests()
    name, spec, pod = job["metadata"]["name"], job["spec"], job["spec"]["template"]["spec"]
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": name}}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"]
    (volume,), (mount,) = pod["volumes"], read_container()["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/shared")


def test_each_pod_starts_a_worker(environment, shared):
    folder, started = shared
    _, job = read_manifests()
    container = read_container()
    (script,) = container["args"]
    check_shell(script)
    assert "exec keras-psr" in script, "else the pod's SIGTERM does not reach the fit"
    script = script.replace("/shared", str(folder))
    hosts = job["spec"]["completions"]
    for index in range(hosts):
        variables = {**environment, "JOB_COMPLETION_INDEX": str(index)}
        subprocess.run([*container["command"], script], env=variables, check=True)
    devices = hosts * container["resources"]["limits"]["nvidia.com/gpu"]
    workers = [
        f"{job['metadata']['name']}-{i}.{job['spec']['template']['spec']['subdomain']}:2222" for i in range(hosts)
    ]
    for record in read_records(environment):
        assert record["cluster"]["cluster"] == {"worker": workers}
        check_command(
            record["args"], devices=devices, out=folder / "runs/x4", data=str(folder / "photos"), resume=started
        )
