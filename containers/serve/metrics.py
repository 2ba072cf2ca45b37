"""Prometheus metrics of the service, in the units and words that dashboards for model servers use."""

import time

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

REQUESTS = Counter("slipway_requests", "Requests by endpoint and HTTP status.", ["endpoint", "status"])
PROMPT_TOKENS = Counter("slipway_prompt_tokens", "Tokens read.")
GENERATION_TOKENS = Counter("slipway_generation_tokens", "Tokens written.")
FIRST_TOKEN = Histogram("slipway_time_to_first_token_seconds", "Request to first text.", buckets=SECONDS)
END_TO_END = Histogram("slipway_e2e_request_latency_seconds", "Request to last text.", buckets=SECONDS)
RUNNING = Gauge("slipway_requests_running", "Answers being generated.", multiprocess_mode="livesum")
WAITING = Gauge("slipway_requests_waiting", "Answers that wait for a slot.", multiprocess_mode="livesum")


class Stopwatch:
    """The times and tokens of one request."""

    def __init__(self, endpoint: str) -> None:
        """Start now."""
        self._endpoint = endpoint
        self._began = time.perf_counter()
        self._spoke = False

    def text(self) -> None:
        """Note that text has come; the first time counts."""
        if not self._spoke:
            self._spoke = True
            FIRST_TOKEN.observe(time.perf_counter() - self._began)

    def done(self, status: int, usage: dict[str, int]) -> None:
        """Count the request and its tokens; 499 is a client that went away."""
        REQUESTS.labels(self._endpoint, status).inc()
        PROMPT_TOKENS.inc(usage.get("prompt_tokens", 0))
        GENERATION_TOKENS.inc(usage.get("completion_tokens", 0))
        if status == 200:
            END_TO_END.observe(time.perf_counter() - self._began)
