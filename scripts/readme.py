"""Draws what the README shows, from scripts/results/results.json: its table, and the charts beside it.

Usage: readme.py; scripts/bench runs it, so that a new results.json cannot stand beside an old table.
"""

from pathlib import Path

from hftpipe.bench.charts import save
from hftpipe.bench.report import filled, load

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "scripts" / "results"
README = ROOT / "README.md"


def main() -> None:
    """Changes the README and the charts, where they differ."""
    results = load((RESULTS / "results.json").read_bytes())
    README.write_text(filled(README.read_text(encoding="utf-8"), results), encoding="utf-8")
    save(results.figures, RESULTS)


if __name__ == "__main__":
    main()
