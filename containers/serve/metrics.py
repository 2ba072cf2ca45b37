"""Prometheus metrics of the service, in the units and words that dashboards for model servers use (vLLM's).

Nothing here runs once per token: the time between tokens is each answer's mean.
"""

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1)

UNKNOWN_COST = (499, 504)
"""Ends in the middle: what was written is not known, so all that was reserved counts."""

REQUESTS = Counter("slipway_requests", "Requests by endpoint and HTTP status.", ["endpoint", "status"])
PROMPT_TOKENS = Counter("slipway_prompt_tokens", "Tokens read.")
GENERATION_TOKENS = Counter("slipway_generation_tokens", "Tokens written.")
FIRST_TOKEN = Histogram("slipway_time_to_first_token_seconds", "Request to first text.", buckets=SECONDS)
INTER_TOKEN = Histogram(
    "slipway_inter_token_latency_seconds", "Mean time between two tokens of an answer.", buckets=TOKEN_SECONDS
)
END_TO_END = Histogram("slipway_e2e_request_latency_seconds", "Request to last text.", buckets=SECONDS)
QUEUE_TIME = Histogram("slipway_request_queue_time_seconds", "Wait of an answer for a slot.", buckets=SECONDS)
RUNNING = Gauge("slipway_num_requests_running", "Answers being generated.", multiprocess_mode="livesum")
WAITING = Gauge("slipway_num_requests_waiting", "Answers that wait for a slot.", multiprocess_mode="livesum")
CACHE = Gauge(
    "slipway_kv_cache_usage_perc",
    "Share of the attention cache (1 is all of it) that answers under way may fill: their prompts and longest answers.",
    multiprocess_mode="livesum",
)
MODEL = Gauge("slipway_model_info", "The model that is served.", ["model", "version", "format"])
FEEDBACK = Counter("slipway_feedback", "Rows that people left.", ["kind"])


class Stopwatch:
    """The times and tokens of one request."""

    def __init__(self, endpoint: str, settle: Callable[[int], None]) -> None:
        """Start now; `settle` is told in the end how many tokens it was."""
        self._endpoint, self._settle = endpoint, settle
        self._began = time.perf_counter()
        self._spoke = 0.0

    def text(self) -> None:
        """Note that text has come; the first time counts."""
        if not self._spoke:
            self._spoke = time.perf_counter()
            FIRST_TOKEN.observe(self._spoke - self._began)

    def done(self, status: int, usage: dict[str, int], answers: int = 1) -> None:
        """Count the request and its tokens; 499 is a client that went away."""
        REQUESTS.labels(self._endpoint, status).inc()
        written = usage.get("completion_tokens", 0)
        PROMPT_TOKENS.inc(usage.get("prompt_tokens", 0))
        GENERATION_TOKENS.inc(written)
        if status not in UNKNOWN_COST:
            self._settle(usage.get("total_tokens", 0))
        if status == 200:
            now = time.perf_counter()
            END_TO_END.observe(now - self._began)
            if written > answers:
                INTER_TOKEN.observe((now - self._spoke) * answers / (written - answers))
