"""What `import magnus` costs beside `import asyncpg`: fresh interpreters, interleaved, medians and worst."""

import statistics
import subprocess
import sys
import time

ROUNDS = 15
CASES = {
    "nothing": "pass",
    "import asyncpg": "import asyncpg",
    "import magnus": "import magnus",
    "import sqlalchemy.ext.asyncio": "import sqlalchemy.ext.asyncio",
}


def seconds(code: str) -> float | None:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    return time.perf_counter() - started if done.returncode == 0 else None


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, code in CASES.items():
            value = seconds(code)
            if value is not None:
                taken[name].append(value * 1000)
    print(f"{ROUNDS} rounds, interleaved, whole process, ms")
    print(f"{'':32}{'median':>8}{'worst':>8}{'over asyncpg':>14}")
    base = statistics.median(taken["import asyncpg"])
    for name, values in taken.items():
        if not values:
            print(f"{name:32}{'not installed':>16}")
            continue
        median = statistics.median(values)
        print(f"{name:32}{median:8.0f}{max(values):8.0f}{median - base:+14.0f}")


if __name__ == "__main__":
    main()
