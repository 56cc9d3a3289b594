#!/usr/bin/env bash
# A software bill of materials (CycloneDX) of the environment whose `python` is first in PATH, and its audit.
#
#   sbom.sh [FOLDER]          by default dist/; needs microseg[deploy]
#
# Ends with 1 where a package has a known vulnerability. Where the database of vulnerabilities cannot be asked (a
# network that only has packages), it says so and ends with 0: that nothing was found is then no finding.
set -euo pipefail

folder=${1:-dist}
mkdir -p "$folder"
cyclonedx-py environment --pyproject "$(dirname "$0")/../pyproject.toml" --output-reproducible \
    --output-format JSON --output-file "$folder/microseg.cdx.json" "$(command -v python)"
rm -f "$folder/audit.json"
pip-audit --local --skip-editable --progress-spinner off --format json --output "$folder/audit.json" >&2 || true
python - "$folder" <<'PYTHON'
import json, sys
from pathlib import Path

folder = Path(sys.argv[1])
parts = json.loads((folder / "microseg.cdx.json").read_text())["components"]
sys.stdout.write(f"{folder}/microseg.cdx.json: {len(parts)} components\n")
audit = folder / "audit.json"
found = json.loads(audit.read_text())["dependencies"] if audit.is_file() else []
asked = [part for part in found if "vulns" in part]
bad = [part for part in asked if part["vulns"]]
if not asked:
    sys.stdout.write("not audited: the database of vulnerabilities did not answer; run it where it does\n")
else:
    sys.stdout.write(f"audited: {len(asked)} packages, {len(bad)} with known vulnerabilities\n")
for part in bad:
    names = ", ".join(entry["id"] for entry in part["vulns"])
    sys.stdout.write(f"  {part['name']} {part['version']}: {names}\n")
sys.exit(1 if bad else 0)
PYTHON
