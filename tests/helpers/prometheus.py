"""Read the text of GET /metrics, as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str) -> list[Sample]:
    """Return all samples in *text*."""
    return [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def total(text: str, name: str, **labels: str) -> float | None:
    """Return the sum of all series of *name* with these *labels*; None without one."""
    found = [
        sample.value
        for sample in samples(text)
        if sample.name == f"profile_proxy_{name}"
        and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None
