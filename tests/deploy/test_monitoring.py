"""Prometheus' files: every metric is one that the model server has."""

import re

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

FUNCTIONS = {"increase", "rate", "sum", "time", "histogram_quantile", "by", "le", "or"}


@pytest.fixture(scope="module")
def rules(deploy) -> list[dict]:
    groups = yaml.safe_load((deploy / "monitoring/alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_ask_for_metrics_and_statuses_that_are_there(rules):
    from microseg.serving.front.metrics import Metrics

    metrics = Metrics()
    metrics.requests.labels("200").inc()
    families = text_string_to_metric_families(metrics.text().decode())
    names = {sample.name for family in families for sample in family.samples} | {"up"}
    for rule in rules:
        words = set(re.findall(r"[a-z_]{2,}(?=[\s({\[)]|$)", re.sub(r'"[^"]*"', "", rule["expr"])))
        asked = words - FUNCTIONS - {"status", "job"}
        assert asked and asked <= names, rule["alert"]


def test_alerts_say_what_to_do(rules):
    assert len({rule["alert"] for rule in rules}) == len(rules) == 7
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "what_to_do"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_it_scrapes_the_model_server_and_reads_the_rules(deploy, compose):
    settings = yaml.safe_load((deploy / "monitoring/prometheus.yml").read_text(encoding="utf-8"))
    assert [(deploy / "monitoring" / name).is_file() for name in settings["rule_files"]] == [True]
    (job,) = settings["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert f"--port={port}" in compose["services"][name]["command"]
    assert "./monitoring:/etc/prometheus:ro" in compose["services"]["prometheus"]["volumes"]
