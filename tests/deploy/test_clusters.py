"""ray-cluster.yaml for `ray up` and the batch script of SLURM."""

import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def cluster(deploy) -> dict:
    return yaml.safe_load((deploy / "ray-cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def batch(deploy) -> str:
    return (deploy / "slurm/search.sbatch").read_text(encoding="utf-8")


@pytest.mark.slow
def test_ray_up_takes_the_file(cluster):
    """By the schema and the checks of Ray itself, after its defaults are filled in."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepare_config(cluster | {"max_workerss": 1}))


@pytest.mark.slow
def test_ray_would_open_ssh_to_everybody_so_the_group_is_made_beforehand(cluster):
    """Ray 2.60 adds this rule to every group that it makes, whatever ``provider.security_group`` says."""
    from ray.autoscaler._private.aws.config import _create_default_inbound_rules

    rules = _create_default_inbound_rules(["sg-1"], [])
    assert any(rule.get("IpRanges") == [{"CidrIp": "0.0.0.0/0"}] for rule in rules)
    assert "security_group" not in cluster["provider"]
    assert all(entry["node_config"]["SecurityGroupIds"] for entry in cluster["available_node_types"].values())


def test_machines_of_the_cloud_ask_for_the_token_and_keep_the_dashboard_to_themselves(cluster):
    head = cluster["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head and "--num-cpus=0" in head
    assert any("RAY_AUTH_MODE=token" in line for line in cluster["setup_commands"])
    assert any(target.endswith("/.ray/auth_token") for target in cluster["file_mounts"])
    assert any(line.startswith("chmod 600") and "auth_token" in line for line in cluster["setup_commands"])
    for entry in cluster["available_node_types"].values():
        assert entry["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        assert all(disk["Ebs"]["Encrypted"] for disk in entry["node_config"]["BlockDeviceMappings"])


def test_commands_on_the_clouds_machines_are_shell(cluster):
    names = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for line in (line for name in names for line in cluster[name]):
        assert subprocess.run(["bash", "-n", "-c", line], capture_output=True, check=False).stderr == b""


class Slurm:
    """The programs of SLURM that the script calls, on one machine: `srun` runs its words, `scontrol` notes them."""

    def __init__(self, folder: Path, search: str, ray: str = "") -> None:
        self.folder = folder
        self.home = folder / "home"
        bin_ = folder / "venv" / "bin"
        bin_.mkdir(parents=True)
        self.home.mkdir()
        note = f'echo "$(basename "$0") $*" >>{folder}/calls; '
        self._write(bin_ / "srun", note + 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"')
        self._write(bin_ / "scontrol", note + '[ "$1" = show ] && printf "node1\\nnode2\\n" || true')
        self._write(
            bin_ / "ray",
            note
            + (
                ray
                or f'[ "$1" = start ] && {{ cat "$RAY_AUTH_TOKEN_PATH" >>{folder}/tokens; exec sleep 60; }} || true'
            ),
        )
        self._write(
            bin_ / "microseg",
            note + f'echo "$RAY_ADDRESS $RAY_AUTH_MODE $MICROSEG_HOME" >{folder}/told; {search}',
        )
        (bin_ / "python").symlink_to(sys.executable)
        environment = self.home / "microseg.env"
        environment.write_text("MICROSEG_STORE=s3://lab/studies\n")
        self.env = {
            "PATH": f"{bin_}:/usr/bin:/bin",
            "HOME": str(self.home),
            "VENV": str(folder / "venv"),
            "ENVIRONMENT": str(environment),
            "TMPDIR": str(folder),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "8",
            "STUDY": "cells",
            "DATA": "s3://lab/cells",
        }

    @staticmethod
    def _write(file: Path, text: str) -> None:
        file.write_text(f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def run(self, script: Path, when: Path | None = None) -> tuple[int, str]:
        """Run it to its end, with SIGUSR1 once a file is there, as ``--signal=B:USR1@300`` sends it."""
        log = self.folder / "log"
        with log.open("wb") as out:
            job = subprocess.Popen(
                ["bash", script], env=self.env, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while when and not when.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if when:
            job.send_signal(signal.SIGUSR1)
        return job.wait(30), log.read_text()

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


def test_a_job_of_slurm_searches_on_all_its_nodes_and_cleans_up(tmp_path, deploy):
    both = f"while [ $(grep -c '^ray start' {tmp_path}/calls) -lt 2 ]; do sleep 0.05; done"
    slurm = Slurm(tmp_path, both)
    code, said = slurm.run(deploy / "slurm/search.sbatch")
    assert code == 0, said
    search = [line for line in slurm.calls if line.startswith("microseg")]
    assert search == ["microseg search --study cells --data s3://lab/cells"]
    starts = [line for line in slurm.calls if line.startswith("ray start")]
    assert sum("--head" in line for line in starts) == 1 and len(starts) == 2
    assert all("--num-cpus=8" in line for line in starts)
    (word,) = set(re.findall(r"[0-9a-f]{64}", (tmp_path / "tokens").read_text()))
    assert not [line for line in slurm.calls if word in line]  # in no command line
    assert not list((slurm.home / "microseg-studies/tokens").iterdir())
    assert f"srun --ntasks=2 --overlap rm -rf {tmp_path}/microseg-4711 /tmp/ray-4711" in slurm.calls
    told = (tmp_path / "told").read_text().split()
    assert told == ["node1:24711", "token", str(slurm.home / "microseg-studies")]


def test_before_its_time_is_over_the_job_is_queued_again_and_goes_on(tmp_path, deploy):
    script, up = deploy / "slurm/search.sbatch", tmp_path / "up"
    # Short sleeps: bash hears a signal that comes just before a long `wait` only when that is over.
    search = f"""trap 'echo interrupted >>{tmp_path}/calls; exit 130' INT
        mkdir -p $MICROSEG_HOME/studies/cells; touch {up}; for _ in {{1..600}}; do sleep 0.1; done"""
    slurm = Slurm(tmp_path, search)
    _, said = slurm.run(script, when=up)
    assert "interrupted" in slurm.calls, said
    assert slurm.calls[-1] == "scontrol requeue 4711", said
    again = Slurm(tmp_path / "again", "true")
    (again.home / "microseg-studies/studies/cells").mkdir(parents=True)
    assert again.run(script)[0] == 0
    assert "microseg search --study cells --resume" in again.calls


def test_a_head_that_does_not_start_ends_the_job_in_a_line(tmp_path, deploy):
    slurm = Slurm(tmp_path, "true", ray="exit 1")
    code, said = slurm.run(deploy / "slurm/search.sbatch")
    assert code == 1 and "Ray's head on node1 has ended, see above; nothing was searched" in said
    assert not [line for line in slurm.calls if line.startswith("microseg")]
    assert not list((slurm.home / "microseg-studies/tokens").iterdir())


def test_a_job_whose_time_is_over_before_ray_is_there_is_queued_again(tmp_path, deploy):
    up = tmp_path / "up"
    slurm = Slurm(tmp_path, "true", ray=f'[ "$1" = start ] && {{ touch {up}; exec sleep 60; }}; exit 1')
    _, said = slurm.run(deploy / "slurm/search.sbatch", when=up)
    assert slurm.calls[-1] == "scontrol requeue 4711", said
    assert "unbound" not in said


def test_the_batch_script_keeps_states_apart_from_scratch(batch):
    assert "#SBATCH --requeue" in batch and "#SBATCH --signal=B:USR1@300" in batch
    assert "umask 077" in batch
    assert re.search(r"^##SBATCH --gres=gpu", batch, re.MULTILINE)  # to be switched on
