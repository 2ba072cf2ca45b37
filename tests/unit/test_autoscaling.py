"""The autoscaler's policy, simulated as Kubernetes documents it: enough pods for any load, and no flapping."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from containers.serve.contract import ServeConfig
from tests.rules.house import ROOT

DOCUMENTS = list(yaml.safe_load_all((ROOT / "infra" / "kubernetes" / "serve.yaml").read_text()))
SPEC: dict[str, Any] = next(d for d in DOCUMENTS if d["kind"] == "HorizontalPodAutoscaler")["spec"]
SERVE = ServeConfig.model_validate_json(
    next(
        variable["value"]
        for variable in DOCUMENTS[0]["spec"]["template"]["spec"]["containers"][0]["env"]
        if variable["name"] == "SLIPWAY_SERVE"
    )
)
ROUND_SECONDS, TOLERANCE = 15, 0.1
"""How often Kubernetes looks, and what deviation it lets be: both its defaults."""
START_SECONDS, ANSWER_SECONDS = 30, 10
"""How long a pod takes until it answers, and one answer of it."""


@dataclass
class Cluster:
    """Pods behind one address, and their autoscaler; time goes in seconds."""

    wanted: int = 1
    ready: int = 1
    waiting: float = 0.0
    running: float = 0.0
    refused: float = 0.0
    starting: list[int] = field(default_factory=list)
    advised: deque[tuple[int, int]] = field(default_factory=deque)
    changes: list[tuple[int, int]] = field(default_factory=list)

    def second(self, now: int, arriving: float) -> None:
        """Let requests come and answers end; have the autoscaler look when it is time."""
        self.starting, grown = [t for t in self.starting if t > now], [t for t in self.starting if t <= now]
        self.ready += len(grown)
        self.running -= self.running / ANSWER_SECONDS
        self.waiting += arriving
        begun = min(self.waiting, self.ready * SERVE.slots - self.running)
        self.running, self.waiting = self.running + begun, self.waiting - begun
        over = max(0.0, self.waiting - self.ready * SERVE.queue)
        self.refused, self.waiting = self.refused + over, self.waiting - over
        if now % ROUND_SECONDS == 0:
            self.scale(now)

    def scale(self, now: int) -> None:
        """Change the number of pods as the HorizontalPodAutoscaler does."""
        window = SPEC["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        self.advised.append((now, max(self.proposed(metric) for metric in SPEC["metrics"])))
        while self.advised[0][0] < now - window:
            self.advised.popleft()
        advice = self.advised[-1][1]
        if advice < self.wanted:
            advice = min(self.wanted, max(number for _, number in self.advised))
        target = min(max(advice, SPEC["minReplicas"], self.floor(now)), SPEC["maxReplicas"], self.ceiling(now))
        if target != self.wanted:
            self.changes.append((now, target))
        if target > self.wanted:
            self.starting += [now + START_SECONDS] * (target - self.wanted)
        self.ready -= max(0, self.wanted - target)
        self.wanted = target

    def proposed(self, metric: dict[str, Any]) -> int:
        """Return how many pods one metric asks for."""
        name = metric["pods"]["metric"]["name"]
        total = {"slipway_num_requests_waiting": self.waiting, "slipway_num_requests_running": self.running}[name]
        ratio = total / self.ready / float(metric["pods"]["target"]["averageValue"])
        return self.wanted if abs(ratio - 1) <= TOLERANCE else math.ceil(round(self.ready * ratio, 6))

    def before(self, now: int, seconds: int) -> int:
        """Return how many pods were wanted so many seconds ago."""
        return next((number for when, number in reversed(self.changes) if when <= now - seconds), 1)

    def ceiling(self, now: int) -> int:
        (policy,) = SPEC["behavior"]["scaleUp"]["policies"]
        return math.ceil(self.before(now, policy["periodSeconds"]) * (1 + policy["value"] / 100))

    def floor(self, now: int) -> int:
        (policy,) = SPEC["behavior"]["scaleDown"]["policies"]
        return self.before(now, policy["periodSeconds"]) - int(policy["value"])


def simulated(*stretches: tuple[int, float]) -> Cluster:
    """Run through stretches of (seconds, requests a second)."""
    cluster, now = Cluster(), 0
    for seconds, rate in stretches:
        for _ in range(seconds):
            cluster.second(now, rate)
            now += 1
    return cluster


CAPACITY = SERVE.slots / ANSWER_SECONDS
"""Requests a second that one pod can answer."""


@pytest.mark.parametrize("pods", [2, 4, 6])
def test_a_load_gets_the_pods_that_it_needs_and_its_queue_ends(pods: int) -> None:
    cluster = simulated((60, 0.2 * CAPACITY), (900, (pods - 0.5) * CAPACITY))
    assert pods <= cluster.wanted <= math.ceil(pods * 8 / 6) + 1
    assert cluster.waiting == 0


def test_of_a_quadrupled_load_less_than_one_in_a_hundred_is_refused() -> None:
    cluster = simulated((120, 0.5 * CAPACITY), (240, 2 * CAPACITY))
    assert cluster.ready >= 3 and cluster.refused < 0.01 * 240 * 2 * CAPACITY and cluster.waiting == 0


def test_a_flood_stops_at_the_most_that_is_allowed_and_is_refused_not_queued_for_ever() -> None:
    cluster = simulated((900, 40 * CAPACITY))
    assert cluster.ready == cluster.wanted == SPEC["maxReplicas"]
    assert cluster.refused > 0 and cluster.waiting <= SPEC["maxReplicas"] * SERVE.queue


def test_pods_go_again_one_at_a_time_and_not_before_five_quiet_minutes() -> None:
    busy = simulated((600, 3.5 * CAPACITY))
    cluster = simulated((600, 3.5 * CAPACITY), (1500, 0.1 * CAPACITY))
    down = [(when, number) for when, number in cluster.changes if when >= 600]
    assert down[0][0] >= 600 + 300 and cluster.wanted == 1
    assert [number for _, number in down] == list(range(busy.wanted - 1, 0, -1))


def test_a_load_that_comes_and_goes_each_minute_does_not_make_pods_come_and_go() -> None:
    cluster = simulated(*[(60, 3 * CAPACITY), (60, 0.5 * CAPACITY)] * 15)
    late = [number for when, number in cluster.changes if when > 600]
    assert len(late) <= 2, cluster.changes
