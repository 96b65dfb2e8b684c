"""Where the figures of a benchmark go; what they mean is the benchmark's matter."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roleplay.disk import write_text


def write(report: Mapping[str, Any], path: str) -> None:
    """Write `report` as one JSON object, its folder made where it is missing."""
    write_text(Path(path), json.dumps(report, ensure_ascii=False, indent=1) + "\n")
