"""A real Prometheus over a served model: every expression of the dashboards says something, every alert is sound."""

import http.server
import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.embedded import wait_for
from infra.keys import new_key
from infra.service import start_service, stop_service
from infra.settings import Settings
from tests.rules.house import ROOT
from tests.small_bundle import KNOWN, small_bundle

MONITOR = ROOT / "infra" / "compose"
DASHBOARDS = sorted((MONITOR / "grafana" / "dashboards").glob("*.json"))
ALERTS = [rule for group in yaml.safe_load((MONITOR / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
WINDOW = "20s"
"""In place of Grafana's $__rate_interval."""
GPU_PAGE = "\n".join(
    f'{name}{{gpu="0",UUID="GPU-0",device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="host"}} {value}'
    for name, value in {
        "DCGM_FI_DEV_GPU_UTIL": 83, "DCGM_FI_DEV_FB_USED": 41000, "DCGM_FI_DEV_FB_FREE": 40000,
        "DCGM_FI_DEV_GPU_TEMP": 61, "DCGM_FI_DEV_POWER_USAGE": 412.5, "DCGM_FI_DEV_XID_ERRORS": 0,
    }.items()
)  # fmt: skip
"""The form and the names of dcgm-exporter's page; no GPU is here to be asked."""

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus here: apt-get install prometheus"),
]


class GPUPage(http.server.BaseHTTPRequestHandler):
    """Answers as dcgm-exporter does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{GPU_PAGE}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each scrape."""


@pytest.fixture(scope="module")
def model(settings: Settings) -> httpx.Client:
    """Return a client of a served model."""
    endpoint = start_service(small_bundle(), ServeConfig(port=free_port(), threads=1, slots=2, queue=1), settings)
    headers = {"Authorization": f"Bearer {new_key(settings, 'prometheus')}"}
    return httpx.Client(base_url=endpoint.url, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def prometheus(model: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Start Prometheus on the configuration of the compose file, its targets moved to this machine."""
    folder = tmp_path_factory.mktemp("prometheus")
    gpus = http.server.ThreadingHTTPServer(("127.0.0.1", 0), GPUPage)
    threading.Thread(target=gpus.serve_forever, daemon=True).start()
    config = yaml.safe_load((MONITOR / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    moved = {"serve": model.base_url.netloc.decode(), "gpu": f"127.0.0.1:{gpus.server_port}"}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [moved[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(MONITOR / "alerts.yml", folder)
    port = free_port()
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/-/ready", process, folder / "log", 30)
        yield httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30)
    finally:
        process.terminate()
        process.wait(timeout=10)
        gpus.shutdown()


def ask(model: httpx.Client) -> None:
    """Have one answer streamed, word by word."""
    question = {"messages": [{"role": "user", "content": next(q for q in KNOWN if q.startswith("Count"))}]}
    about = {"model": "small", "max_tokens": 20, "stream": True}
    assert model.post("/v1/chat/completions", json=question | about).status_code == 200


@pytest.fixture(scope="module")
def measured(model: httpx.Client, prometheus: httpx.Client) -> httpx.Client:
    """Ask the model for a while, so that Prometheus sees its counts grow."""
    until = time.monotonic() + 8
    while time.monotonic() < until:
        ask(model)
        time.sleep(0.5)
    return prometheus


def expressions() -> list[Any]:
    panels = [panel for file in DASHBOARDS for panel in json.loads(file.read_text())["panels"]]
    return [pytest.param(t["expr"], id=f"{panel['title']}-{t['refId']}") for panel in panels for t in panel["targets"]]


def values(prometheus: httpx.Client, expression: str) -> list[float]:
    """Return what an expression comes to now."""
    answer = prometheus.get("/query", params={"query": expression.replace("$__rate_interval", WINDOW)}).json()
    assert answer["status"] == "success", answer
    return [float(series["value"][1]) for series in answer["data"]["result"]]


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_of_a_dashboard_says_something(measured: httpx.Client, expression: str) -> None:
    found = values(measured, expression)
    assert found and all(math.isfinite(value) for value in found), found


def test_the_figures_are_those_of_the_answers(measured: httpx.Client) -> None:
    (written,) = values(measured, f"sum(rate(slipway_generation_tokens_total[{WINDOW}]))")
    (median,) = values(
        measured, f"histogram_quantile(0.5, sum by (le) (rate(slipway_e2e_request_latency_seconds_bucket[{WINDOW}])))"
    )
    assert written > 1 and 0 < median < 60


def test_prometheus_evaluates_every_alert_and_none_fires_on_a_healthy_model(measured: httpx.Client) -> None:
    time.sleep(2)
    groups = measured.get("/rules").json()["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(rules) == {rule["alert"] for rule in ALERTS}
    assert {rule["health"] for rule in rules.values()} == {"ok"}, rules
    assert {rule["state"] for rule in rules.values()} == {"inactive"}, rules


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    tests = Path(__file__).with_name("alerts.test.yml")
    cases = [case for test in yaml.safe_load(tests.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in ALERTS}
    done = subprocess.run(["promtool", "test", "rules", str(tests)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_reads_only_what_is_measured(measured: httpx.Client) -> None:
    known = set(measured.get("/label/__name__/values").json()["data"])
    for rule in ALERTS:
        named = {part for part in words_of(rule["expr"]) if part.startswith(("slipway_", "DCGM_"))}
        assert named <= known, named - known


def words_of(expression: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in expression).split()


def test_a_model_that_is_gone_is_noticed(measured: httpx.Client, settings: Settings) -> None:
    stop_service(settings)
    deadline = time.monotonic() + 20
    while values(measured, 'up{job="serve"}') != [0.0]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(2)
    alerts = measured.get("/alerts").json()["data"]["alerts"]
    assert {alert["labels"]["alertname"] for alert in alerts} == {"ModelDoesNotAnswer"}
