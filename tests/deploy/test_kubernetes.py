"""k8s/: what the API server and KubeRay would refuse, and that it is the topology of compose.yaml."""

import copy
import re

import pytest
import yaml

WORKLOADS = {"StatefulSet", "Deployment", "Job", "CronJob", "RayCluster", "RayJob"}
# What KubeRay takes, from the reference of its custom resources (docs.ray.io, KubeRay CRD API reference, v1.6):
# no package carries the definitions themselves.
CLUSTER = {
    "rayVersion": str,
    "authOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
    "suspend": bool,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headServiceAnnotations": dict,
    "gcsFaultToleranceOptions": dict,
    "managedBy": str,
}
HEAD = {
    "rayStartParams": dict,
    "template": dict,
    "serviceType": str,
    "headService": dict,
    "enableIngress": bool,
}
WORKERS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "numOfHosts": int,
    "idleTimeoutSeconds": int,
    "suspend": bool,
    "rayStartParams": dict,
    "template": dict,
    "scaleStrategy": dict,
}
JOB = {
    "entrypoint": str,
    "clusterSelector": dict,
    "submissionMode": str,
    "submitterPodTemplate": dict,
    "submitterConfig": dict,
    "rayClusterSpec": dict,
    "runtimeEnvYAML": str,
    "metadata": dict,
    "jobId": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "entrypointNumCpus": (int, float),
    "entrypointNumGpus": (int, float),
    "entrypointResources": str,
    "suspend": bool,
}
MODES = {"K8sJobMode", "HTTPMode", "InteractiveMode"}


def templates(entry: dict) -> list[dict]:
    """The templates of the pods that an object makes."""
    spec = entry.get("spec", {})
    match entry["kind"]:
        case "CronJob":
            return [spec["jobTemplate"]["spec"]["template"]]
        case "RayJob":
            return [spec["submitterPodTemplate"]]
        case "RayCluster":
            return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
        case "StatefulSet" | "Deployment" | "Job":
            return [spec["template"]]
    return []


def pods(objects: list[dict]) -> list[tuple[str, dict, dict]]:
    """Name of the object, labels and pod of every template."""
    return [
        (entry["metadata"]["name"], template["metadata"]["labels"], template["spec"])
        for entry in objects
        for template in templates(entry)
    ]


def containers(pod: dict) -> list[dict]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def refused(fields: dict, given: dict) -> list[str]:
    """Names that KubeRay does not know, or with a value of another type."""
    return [
        name for name, value in given.items() if name not in fields or not isinstance(value, fields[name])
    ]


def test_it_runs_the_services_of_compose(written, compose):
    kubernetes = {name: pod for name, _, pod in pods(written)}
    assert set(kubernetes) - {"search-cells", "predict-cells", "microseg"} == set(compose["services"]) - {
        "bucket",  # a container that MLflow's pod runs first
        "ray-head",
        "ray-worker",
        "ray-worker-gpu",  # the overlay gpu
        "job",  # RayJobs: search and predict
        "prometheus",  # the cluster's own
    }
    ours = {
        container["name"]: container["image"] for _, _, pod in pods(written) for container in containers(pod)
    }
    theirs = {name: service["image"] for name, service in compose["services"].items()}
    assert {name: image for name, image in ours.items() if name in theirs} == {
        name: theirs[name] for name in set(ours) & set(theirs)
    }
    assert {"bucket", "ray-head", "ray-worker", "mlflow", "postgres", "s3", "front"} <= set(ours)


def test_servers_are_started_as_compose_starts_them(written, compose):
    """But for what depends on the machine: where files are, and which addresses are told how."""
    started = {
        container["name"]: container.get("command", [])
        for _, _, pod in pods(written)
        for container in containers(pod)
    }
    for name in ("mlflow", "s3", "front", "accounts"):
        words = [word.replace("$(BUCKET)", "microseg") for word in started[name]]
        assert words == compose["services"][name]["command"], name
    by_name = {entry["metadata"]["name"]: entry for entry in written if entry["kind"] == "ConfigMap"}
    told = by_name["settings"]["data"] | by_name["study"]["data"]
    said = compose["services"]["job"]["environment"]
    assert {name: said[name] for name in told if name in said} == {
        name: value for name, value in told.items() if name in said
    }
    assert {"MICROSEG_STORE", "MICROSEG_OPTUNA_URL", "MLFLOW_TRACKING_URI"} <= set(told) & set(said)


def test_pods_are_those_of_the_restricted_standard(written):
    for name, _, pod in pods(written):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] >= 999, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert re.search(r":v?\d+\.\d+", container["image"]), name
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"]), name


def test_servers_are_asked_whether_they_live(written):
    for entry in written:
        if entry["kind"] in {"StatefulSet", "Deployment", "RayCluster"}:
            for template in templates(entry):
                for container in template["spec"]["containers"]:
                    assert {"readinessProbe", "livenessProbe"} <= set(container), container["name"]


def test_secrets_are_references_and_hold_what_the_example_names(written, variables):
    secrets = {name for name, value in variables.items() if not value}
    assert not [entry for entry in written if entry["kind"] == "Secret"]
    asked = set()
    for _, _, pod in pods(written):
        for container in containers(pod):
            for entry in container.get("env", []):
                source = entry.get("valueFrom", {}).get("secretKeyRef")
                asked |= {source["key"]} if source else set()
                assert source is None or source["name"] == "microseg"
                assert source or not re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", entry["name"])
    assert asked == secrets - {"RAY_AUTH_TOKEN"}  # KubeRay makes its own


def test_by_default_nobody_talks_to_anybody(written):
    policies = {e["metadata"]["name"]: e["spec"] for e in written if e["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for rule in (*policy.get("ingress", []), *policy.get("egress", [])):
            assert rule.get("from") or rule.get("to"), f"{name} lets everybody in or out"


def test_every_client_may_reach_its_server_and_nobody_else(written):
    """Both ends: a label `microseg/uses-X` and the policies `X` and `uses-X`, at the port that X listens to."""
    policies = {e["metadata"]["name"]: e["spec"] for e in written if e["kind"] == "NetworkPolicy"}
    ports = {e["metadata"]["name"]: e["spec"]["ports"][0]["port"] for e in written if e["kind"] == "Service"}
    labels = {name: set(tags) for name, tags, _ in pods(written)}
    for server in ("postgres", "s3", "mlflow"):
        listens, asks = policies[server], policies[f"uses-{server}"]
        assert listens["ingress"][0]["ports"] == [{"protocol": "TCP", "port": ports[server]}]
        assert asks["egress"][0]["ports"] == listens["ingress"][0]["ports"]
        assert asks["podSelector"]["matchLabels"] == {f"microseg/uses-{server}": "true"}
        assert {"podSelector": asks["podSelector"]} in listens["ingress"][0]["from"]
    clients = {
        name: {tag[14:] for tag in tags if tag.startswith("microseg/uses-")} for name, tags in labels.items()
    }
    assert clients == {
        "postgres": set(),
        "s3": set(),
        "mlflow": {"postgres", "s3"},
        "accounts": {"mlflow"},
        "front": {"mlflow"},
        "backup": {"postgres", "s3"},
        "purge": {"mlflow", "postgres"},
        "microseg": {"postgres", "s3", "mlflow"},
        "search-cells": set(),
        "predict-cells": set(),
    }


def test_volumes_and_settings_that_are_asked_for_are_there(written):
    claims = {entry["metadata"]["name"] for entry in written if entry["kind"] == "PersistentVolumeClaim"}
    maps = {e["metadata"]["name"] for e in written if e["kind"] == "ConfigMap"} | {"services"}  # generated
    for name, _, pod in pods(written):
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for volume in pod.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims, name
        templates_of = [e for e in written if e["metadata"]["name"] == name and e["kind"] == "StatefulSet"]
        for entry in templates_of:
            volumes |= {claim["metadata"]["name"] for claim in entry["spec"]["volumeClaimTemplates"]}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
            assert {source["configMapRef"]["name"] for source in container.get("envFrom", [])} <= maps, name


def test_kuberay_knows_every_field(written):
    (cluster,) = (entry["spec"] for entry in written if entry["kind"] == "RayCluster")
    assert refused(CLUSTER, cluster) == []
    assert refused(HEAD, cluster["headGroupSpec"]) == []
    for group in cluster["workerGroupSpecs"]:
        assert refused(WORKERS, group) == []
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert cluster["authOptions"] == {"mode": "token"}
    parameters = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(isinstance(v, str) for group in parameters for v in group["rayStartParams"].values())
    jobs = [entry["spec"] for entry in written if entry["kind"] == "RayJob"]
    assert len(jobs) == 2
    for job in jobs:
        assert refused(JOB, job) == [] and job["submissionMode"] in MODES
        assert job["clusterSelector"] == {"ray.io/cluster": "microseg"}
        assert "backoffLimit" not in job  # KubeRay refuses it beside clusterSelector


def test_the_cluster_is_of_the_ray_that_is_tested(written, project):
    (cluster,) = (entry["spec"] for entry in written if entry["kind"] == "RayCluster")
    pins = (project / "constraints.txt").read_text(encoding="utf-8").split()
    assert f"ray=={cluster['rayVersion']}" in pins


def test_submitted_commands_are_real(written, project):
    from typer.main import get_command

    from microseg import cli

    known = get_command(cli.app).commands
    for job in (entry["spec"] for entry in written if entry["kind"] == "RayJob"):
        program, name, *words = job["entrypoint"].split()
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert program == "microseg"
        assert {word for word in words if word.startswith("--")} <= options
        for place in (word for word in words if word.startswith("/search_spaces/")):
            assert (project / place[1:]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["overlays/cpu", "overlays/gpu", "search", "predict"])
def test_the_api_server_of_kubernetes_would_take_what_kustomize_builds(built, folder):
    """By the schemas of Kubernetes 1.37, strictly; pods of KubeRay's objects as templates of pods."""
    import kubernetes_validate

    objects = built(folder)
    assert all(
        entry["metadata"].get("namespace") == "microseg" for entry in objects if entry["kind"] != "Namespace"
    )
    kinds = set()
    for entry in objects:
        kinds.add(entry["kind"])
        if entry["apiVersion"] != "ray.io/v1":
            kubernetes_validate.validate(entry, "1.37", strict=True)
        for template in templates(entry):
            whole = {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": "x"},
                "template": template,
            }
            kubernetes_validate.validate(whole, "1.37", strict=True)
    assert kinds >= ({"RayCluster", "StatefulSet"} if folder.startswith("overlays") else {"RayJob"})
    broken = copy.deepcopy(objects[-1])
    broken["metadata"]["labells"] = {}
    if broken["apiVersion"] != "ray.io/v1":
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, "1.37", strict=True)


@pytest.mark.slow
def test_the_overlay_for_gpus_changes_the_workers_alone(built):
    cpu, gpu = (
        {(entry["kind"], entry["metadata"]["name"]): entry for entry in built(f"overlays/{name}")}
        for name in ("cpu", "gpu")
    )
    assert [key for key in cpu if cpu[key] != gpu[key]] == [
        ("RayCluster", "microseg")
    ] and cpu.keys() == gpu.keys()
    (group,) = gpu["RayCluster", "microseg"]["spec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["image"] == "microseg:0.1.0-gpu"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert (
        gpu["RayCluster", "microseg"]["spec"]["headGroupSpec"]
        == cpu["RayCluster", "microseg"]["spec"]["headGroupSpec"]
    )


@pytest.mark.slow
def test_the_images_of_the_overlay_reach_rays_pods_too(tmp_path, deploy):
    """kustomize knows where Kubernetes' own kinds have their images; KubeRay's it has to find."""
    import shutil
    import subprocess
    import sys
    from pathlib import Path

    shutil.copytree(deploy, tmp_path / "deploy")
    file = tmp_path / "deploy/k8s/overlays/cpu/kustomization.yaml"
    file.write_text(file.read_text().replace("newTag: 0.1.0", "newName: images.example/x, newTag: 0.1.0"))
    kubectl = Path(sys.executable).with_name("kubectl")
    text = subprocess.run(
        [kubectl, "kustomize", file.parent], capture_output=True, text=True, check=True
    ).stdout
    images = [c["image"] for _, _, pod in pods(list(yaml.safe_load_all(text))) for c in containers(pod)]
    assert {image for image in images if "example" not in image} == {"postgres:15.14-bookworm"}
