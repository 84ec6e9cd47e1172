"""Reading what GET /metrics says, as Prometheus would."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str) -> list[Sample]:
    """Every line of it that is a number."""
    return [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def total(text: str, name: str, **labels: str) -> float | None:
    """The sum of all series of *name* that have these *labels*; None: there is none."""
    found = [
        sample.value
        for sample in samples(text)
        if sample.name == f"profile_proxy_{name}"
        and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None
