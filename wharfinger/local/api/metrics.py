"""What the API server tells Prometheus: counted in plain integers, made into metrics when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Metrics:
    """Counts of one server; register it in a `prometheus_client` registry to have them scraped."""

    def __init__(self, watchers: Callable[[], int], version: Callable[[], int]) -> None:
        """Tell the number of open watches from `watchers`, the newest resourceVersion from `version`."""
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.mutations = 0
        self.commits = 0
        self.commit_seconds = 0.0
        self._watchers = watchers
        self._version = version

    def answered(self, method: str, resource: str, code: int) -> None:
        """Count an answer; `resource` is empty for what is none that is served."""
        self.requests[method, resource, code] += 1

    def committed(self, mutations: int, seconds: float) -> None:
        """Count a transaction that became durable in `seconds`, of so many mutations."""
        self.mutations += mutations
        self.commits += 1
        self.commit_seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics: what a Prometheus registry calls."""
        requests = CounterMetricFamily(
            "wharf_api_requests", "Requests answered, watches when they begin.", labels=("method", "resource", "code")
        )
        for (method, resource, code), count in sorted(self.requests.items()):
            requests.add_metric((method, resource, str(code)), count)
        yield requests
        yield CounterMetricFamily("wharf_api_mutations", "Mutations that became durable.", value=self.mutations)
        yield CounterMetricFamily("wharf_api_commits", "Transactions that became durable.", value=self.commits)
        yield CounterMetricFamily("wharf_api_commit_seconds", "Seconds spent in commits.", value=self.commit_seconds)
        yield GaugeMetricFamily("wharf_api_watches", "Open watches.", value=self._watchers())
        yield GaugeMetricFamily("wharf_api_resource_version", "Newest resourceVersion.", value=self._version())
