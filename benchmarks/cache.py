"""Measures the cache and writes its figures into docs/cache.md; `--page` writes them alone.

The histories of readers and writers (`make histories`) and `bench_cache.py` leave their JSON, every single measurement
included, in `benchmarks/results`. Between its two marks the page says nothing that is not in these files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from peers import section

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
PAGE: Final = HERE.parent / "docs" / "cache.md"
NAMES: Final = ("cache_histories", "bench_cache")
BEGIN: Final = "<!-- measured: begin -->\n"
END: Final = "<!-- measured: end -->"


def measured() -> str:
    """
    Return what the files say.
    """
    files = [(name, json.loads((RESULTS / f"{name}.json").read_text())) for name in NAMES]
    return "".join("#" + "".join(section(name, found)).lstrip() + "\n" for name, found in files)


def page(text: str) -> str:
    """
    Return the page `text` with these figures in it.
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{measured()}{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    if not parser.parse_args().page:
        for name, command in (
            ("cache_histories", ["-m", "tests.cache_histories"]),
            ("bench_cache", [HERE / "bench_cache.py"]),
        ):
            arguments = [sys.executable, *command, "--json", RESULTS / f"{name}.json"]
            subprocess.run(arguments, check=True, cwd=HERE.parent)
    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
