"""What the product depends on may be used and passed on under Apache-2.0."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

EXTRAS = ("services", "cluster", "export")
COPYLEFT = re.compile(r"(?<!l)\ba?gpl|gnu (?:affero )?general public", re.IGNORECASE)
SILENT = {
    "bioimageio-spec": "MIT",
    "huey": "MIT",
    "namex": "Apache-2.0",
}  # as their sources say; their packages do not


def licence(distribution: metadata.Distribution) -> str:
    """What a package says its licence is: the expression, else the classifiers, else the field's first line."""
    said = distribution.metadata
    names = [text for text in said.get_all("Classifier", []) if text.startswith("License")]
    field = (said.get("License") or "").strip().split("\n")[0]
    return said.get("License-Expression") or "; ".join(names) or field


def needed(
    texts: list[str], extras: frozenset[str], seen: dict[str, metadata.Distribution], asked: set
) -> None:
    """Gather what is installed of some requirements, of theirs, and so on."""
    for requirement in map(Requirement, texts):
        given = [{"extra": extra} for extra in extras | {""}]
        key = (re.sub("[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras))
        wanted = requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in given)
        if not wanted or key in asked:
            continue
        asked.add(key)
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        seen[key[0]] = distribution
        needed(distribution.requires or [], key[1], seen, asked)


@pytest.fixture(scope="module")
def product(project) -> dict[str, metadata.Distribution]:
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [text for extra in EXTRAS for text in declared["optional-dependencies"][extra]]
    seen: dict[str, metadata.Distribution] = {}
    needed(declared["dependencies"] + texts, frozenset(), seen, set())
    return seen


def test_the_product_needs_what_it_needs(product):
    assert {"ray", "mlflow", "tensorflow", "albumentations", "boto3", "psycopg", "prometheus-client"} <= set(
        product
    )
    assert len(product) > 80


def test_no_dependency_is_under_the_gpl_or_the_agpl(product):
    assert {name: licence(part) for name, part in product.items() if COPYLEFT.search(licence(part))} == {}


def test_every_dependency_says_what_its_licence_is(product):
    silent = {name for name, part in product.items() if not licence(part)}
    assert silent <= set(SILENT)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("GPL-3.0-or-later", True),
        ("AGPL-3.0", True),
        ("License :: OSI Approved :: GNU General Public License v2 (GPLv2)", True),
        ("GNU Affero General Public License v3", True),
        ("LGPL-3.0-only", False),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", False),
        ("Apache-2.0", False),
        ("MIT", False),
    ],
)
def test_what_counts_as_copyleft(text, refused):
    assert bool(COPYLEFT.search(text)) is refused


@pytest.mark.slow
def test_the_bill_of_materials_lists_what_is_installed_and_says_whether_it_was_audited(deploy, tmp_path):
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [deploy / "sbom.sh", tmp_path / "bill"],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    bill = json.loads((tmp_path / "bill" / "microseg.cdx.json").read_text())
    parts = {part["name"].lower(): part["version"] for part in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX"
    assert all(parts[name] == metadata.version(name) for name in ("ray", "mlflow", "tensorflow", "boto3"))
    said = done.stdout.splitlines()
    assert said[0].endswith(f"{len(bill['components'])} components")
    assert re.match(r"not audited: |audited: \d+ packages, \d+ with known vulnerabilities", said[1])
    assert (done.returncode == 1) == (len(said) > 2)  # each with a known vulnerability has a line
