"""Where the charts and their parts lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
OPERATOR = CHARTS / "leanmodel"
DEFINITIONS = CHARTS / "leanmodel-crds"
VALUES = OPERATOR / "values.yaml"
SCHEMA = OPERATOR / "values.schema.json"
RBAC = OPERATOR / "files" / "rbac.yaml"
RULES = OPERATOR / "rules" / "leanmodel.yaml"
DASHBOARD = OPERATOR / "dashboards" / "leanmodel.json"
CRD = DEFINITIONS / "files" / "leanmodel.yaml"
READMES = (OPERATOR / "README.md", DEFINITIONS / "README.md")
