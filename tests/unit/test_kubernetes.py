"""The Kubernetes manifests are what Kubernetes takes, and confine what they run; none was applied to a cluster here."""

import json
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml

from tests.rules.house import ROOT

FOLDER = ROOT / "infra" / "kubernetes"


def documents() -> list[Any]:
    found = [d for file in sorted(FOLDER.glob("*.yaml")) for d in yaml.safe_load_all(file.read_text())]
    return [pytest.param(d, id=f"{d['kind']}-{d['metadata'].get('name', 'stage')}") for d in found]


def job_of_the_pool() -> dict[str, Any]:
    """Return the job that Prefect's own worker makes of the pool's template for a flow run."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads((FOLDER / "work-pool.json").read_text())
    known = template["variables"]["properties"].items()
    chosen = {name: about["default"] for name, about in known if "default" in about}
    filled: Any = apply_values(template["job_configuration"], chosen)
    made = KubernetesWorkerJobConfiguration(**filled)
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="tiny"))
    manifest: dict[str, Any] = made.job_manifest
    return manifest


@pytest.mark.parametrize("document", documents())
def test_a_manifest_is_valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_wrong_manifest_would_be_found() -> None:
    document = next(p.values[0] for p in documents() if p.values[0]["kind"] == "Deployment")
    wrong = {**document, "spec": {**document["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_job_that_prefect_makes_of_the_pool_is_valid() -> None:
    job = job_of_the_pool()
    pod = job["spec"]["template"]["spec"]
    for misplaced in ("completions", "parallelism"):  # Prefect insists on them there, Kubernetes drops them.
        del pod[misplaced]
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    (container,) = pod["containers"]
    assert "prefect" in " ".join(container["args"])


@pytest.mark.parametrize("document", [p for p in documents() if "template" in p.values[0].get("spec", {})])
def test_what_runs_is_confined(document: dict[str, Any]) -> None:
    confined(document["spec"]["template"]["spec"])


def test_what_prefect_runs_is_confined() -> None:
    confined(job_of_the_pool()["spec"]["template"]["spec"])


def confined(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] != 0
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
