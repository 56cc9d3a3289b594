"""The audit of a study's data: what of it is said at the start, and what its run in MLflow keeps."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow import MlflowClient
from rich.console import Console

from microseg.data.audit import Finding, page
from microseg.storage import cache
from microseg.study.request import Prepared
from microseg.tracking.artifacts import log_table

TABLE, PAGE = "audit.json", "audit.html"


def tell(findings: Sequence[Finding], console: Console) -> None:
    """Print each warning in a line; the notes are in the run's artifacts."""
    for finding in findings:
        if finding.level == "warn":
            console.print(f"audit: {finding.line}", soft_wrap=True, highlight=False, markup=False)


def record(client: MlflowClient, run_id: str, prepared: Prepared) -> None:
    """Keep the findings with the study's run: a table for MLflow, and a page with the images."""
    rows = [
        (finding.level, finding.check, finding.text, finding.advice, ", ".join(finding.items))
        for finding in prepared.findings
    ]
    log_table(client, run_id, TABLE, ("level", "check", "text", "advice", "items"), rows)
    client.log_text(run_id, page(prepared.manifest, cache(), prepared.findings), PAGE)
