"""The audit of a study's data: what of it is said at the start, and what its run in MLflow keeps."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from mlflow import MlflowClient
from rich.console import Console

from microseg.data.audit import Finding, page
from microseg.storage import cache
from microseg.study.request import Prepared

TABLE, PAGE = "audit.json", "audit.html"


def tell(findings: Sequence[Finding], console: Console) -> None:
    """Print each warning in a line; the notes are in the run's artifacts."""
    for finding in findings:
        if finding.level == "warn":
            console.print(f"audit: {finding.line}", soft_wrap=True, highlight=False, markup=False)


def record(client: MlflowClient, run_id: str, prepared: Prepared) -> None:
    """Keep the findings with the study's run: a table for MLflow, and a page with the images.

    A resumed study replaces its table: ``log_table`` would append to it.
    """
    rows = [
        (finding.level, finding.check, finding.text, finding.advice, ", ".join(finding.items))
        for finding in prepared.findings
    ]
    # Of pandas 3's own strings MLflow 3.17 draws a deprecation warning.
    table = pd.DataFrame(rows, columns=["level", "check", "text", "advice", "items"], dtype=object)
    if TABLE in {file.path for file in client.list_artifacts(run_id)}:
        client.log_dict(run_id, table.to_dict(orient="split", index=False), TABLE)
    else:
        client.log_table(run_id, table, TABLE)
    client.log_text(run_id, page(prepared.manifest, cache(), prepared.findings), PAGE)
