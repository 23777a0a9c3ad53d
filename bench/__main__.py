"""`python -m bench`: what the shipped package costs, as ratios to a bare boto3 handler that makes the same AWS calls.

Of a sweep over many Regions it measures how close its time comes to what the round trips alone take.

A ratio is that of the medians of alternating measurements in one run; its quartiles are printed next to it. CPU time is
what matters: on a busy machine, and on a function with a third of a processor, wall time follows it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.account import CALL_SECONDS, LEAST_SECONDS, REGIONS, SWEEP
from bench.imports import shares
from bench.measure import Bench, Cold, Subject, WrongAnswer
from bench.sandboxed import seconds_in_sandbox
from bench.starts import RECORDS, measure_starts
from bench.world import Scene, scenes

PROJECT = Path(__file__).parent.parent
COLD_AIM, COLD_ALONE_AIM, WARM_AIM, SWEEP_AIM = 1.5, 1.25, 1.3, 0.95


def main(arguments: list[str] | None = None) -> int:
    """Measure and report. Return 0 for any figures, 1 if a handler did not do its work, 2 without a package."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--package", type=Path, default=PROJECT / "build" / "dev" / "package")
    parser.add_argument("--cold-starts", type=int, default=21, help="per handler, scene and kind")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of warm invocations, alternating the handlers")
    parser.add_argument("--invocations", type=int, default=15, help="warm invocations per handler and round")
    parser.add_argument("--no-sandbox", action="store_true", help="skip the runs against the whole sandbox")
    parser.add_argument("--starts", type=int, default=11, help="starts of each command and reads of each page")
    parser.add_argument("--output", type=Path, default=PROJECT / "build" / "bench.json")
    parser.add_argument("--sweeps", type=int, default=40, help="warm sweeps")
    options = parser.parse_args(arguments)
    if not (options.package / "deployment.zip").is_file():
        print(f"There is no package in {options.package}; run `make package STAGE=dev`.", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="xray-guard-bench-") as folder:
        try:
            with Bench(options.package, scenes(PROJECT / "tests" / "events"), Path(folder)) as bench:
                figures["calls"] = bench.calls
                figures["warm"] = measure_warm(bench, options.rounds, options.invocations)
                figures["sweep"] = measure_sweep(bench, options.sweeps)
                figures["cold"] = measure_cold(bench, options.cold_starts)
                figures["imports"] = measure_imports(bench, max(3, options.cold_starts // 3))
        except WrongAnswer as error:
            print(f"Nothing was measured: {error}", file=sys.stderr)
            return 1
    if not options.no_sandbox:
        say("against the whole sandbox, once")
        figures["sandbox_seconds"] = seconds_in_sandbox(options.package)
        say(f"starts of the command line, and the console's pages: {options.starts} of each")
        figures["starts"] = measure_starts(options.package, options.starts)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    print(report(figures))
    return 0


def say(text: str) -> None:
    """Report progress on stderr."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """Return a description of this machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.lower().startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {model}, {system}"


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ()


def measure_cold(bench: Bench, times: int) -> list[dict[str, Any]]:
    """Measure cold starts, alternating: with the frameworks' imports, and with the frameworks loaded before."""
    rows = []
    for scene in bench.scenes:
        say(f"cold, {scene.name}: {times} starts of each")
        taken: dict[str, list[Cold]] = defaultdict(list)
        subjects = (bench.guard, bench.bare, bench.guard_alone, bench.bare_alone)
        for _ in range(times):
            for subject in subjects:
                taken[subject.name].append(bench.cold(subject, scene))
        rows.append(_cold_row(scene, "as shipped", taken, bench.guard, bench.bare, COLD_AIM))
        rows.append(
            _cold_row(scene, "frameworks loaded before", taken, bench.guard_alone, bench.bare_alone, COLD_ALONE_AIM)
        )
    return rows


def _cold_row(
    scene: Scene, kind: str, taken: dict[str, list[Cold]], guard: Subject, bare: Subject, aim: float
) -> dict[str, Any]:
    def median(subject: Subject, of: Callable[[Cold], float]) -> float:
        return statistics.median(map(of, taken[subject.name])) * 1000

    return {
        "scene": scene.name,
        "kind": kind,
        "guard_ms": median(guard, lambda cold: cold.cpu),
        "bare_ms": median(bare, lambda cold: cold.cpu),
        **ratio([cold.cpu for cold in taken[guard.name]], [cold.cpu for cold in taken[bare.name]], 1),
        "wall_ratio": median(guard, lambda cold: cold.wall) / median(bare, lambda cold: cold.wall),
        "process_ratio": median(guard, lambda cold: cold.process_cpu) / median(bare, lambda cold: cold.process_cpu),
        "guard_import_ms": median(guard, lambda cold: cold.import_cpu),
        "bare_import_ms": median(bare, lambda cold: cold.import_cpu),
        "aim": aim,
    }


def measure_warm(bench: Bench, rounds: int, invocations: int) -> list[dict[str, Any]]:
    """Measure warm invocations, in alternating rounds of the two handlers."""
    rows = []
    for scene in bench.scenes:
        say(f"warm, {scene.name}: {rounds} rounds of {invocations} invocations of each")
        guard_taken: list[float] = []
        bare_taken: list[float] = []
        with ExitStack() as stack:
            guard = stack.enter_context(bench.warm(bench.guard, scene))
            bare = stack.enter_context(bench.warm(bench.bare, scene))
            guard.invoke(invocations)
            bare.invoke(invocations)
            for _ in range(rounds):
                guard_taken += guard.invoke(invocations)
                bare_taken += bare.invoke(invocations)
        rows.append(
            {
                "scene": scene.name,
                "guard_ms": statistics.median(guard_taken) * 1000,
                "bare_ms": statistics.median(bare_taken) * 1000,
                **ratio(guard_taken, bare_taken, invocations),
                "aim": WARM_AIM,
            }
        )
    return rows


def measure_sweep(bench: Bench, times: int) -> dict[str, float]:
    """Measure sweeps of an account whose every response takes its time, one cold and the others warm."""
    say(f"{SWEEP.name}: {times} times")
    cold = bench.cold(bench.sweep, SWEEP)
    with bench.warm(bench.sweep, SWEEP) as warm:
        warm.timed(2)
        taken = warm.timed(times)
    ratios = [LEAST_SECONDS / wall for _, wall in taken]
    low, middle, high = statistics.quantiles(ratios, n=4) if times > 1 else ratios * 3
    return {
        "seconds": statistics.median(wall for _, wall in taken),
        "least_seconds": LEAST_SECONDS,
        "ratio": middle,
        "low": low,
        "high": high,
        "cpu_ms_per_target": statistics.median(cpu for cpu, _ in taken) * 1000 / len(REGIONS),
        "cold_seconds": cold.wall,
        "cold_cpu_seconds": cold.cpu,
        "aim": SWEEP_AIM,
    }


def ratio(guard: Sequence[float], bare: Sequence[float], round_length: int) -> dict[str, float]:
    """Return the ratio of the medians, and the quartiles of the rounds' ratios."""

    def rounds(taken: Sequence[float]) -> list[float]:
        starts = range(0, len(taken), round_length)
        return [statistics.median(taken[start : start + round_length]) for start in starts]

    each = [one / other for one, other in zip(rounds(guard), rounds(bare), strict=True)]
    low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else (each[0],) * 3
    return {"ratio": statistics.median(guard) / statistics.median(bare), "low": low, "high": high}


def measure_imports(bench: Bench, times: int) -> dict[str, dict[str, float]]:
    """Return each owner's share of a cold start, by handler: median milliseconds from `-X importtime`."""
    say(f"imports: {times} starts of each")
    scene = bench.scenes[1]
    shown = {}
    for subject in (bench.guard, bench.bare):
        runs, walls = [], []
        for _ in range(times):
            output, cold = bench.import_times(subject, scene)
            runs.append(shares(output, subject.handler.partition(".")[0]))
            walls.append(cold.wall * 1000)
        owners = sorted({owner for run in runs for owner in run})
        medians = {owner: statistics.median(run.get(owner, 0.0) for run in runs) for owner in owners}
        shown[subject.name] = {"cold start": statistics.median(walls), **medians}
    return shown


def report(figures: dict[str, Any]) -> str:
    """Return the tables as text."""
    lines = [figures["machine"], "", "Cold start to decision, CPU time from the handler's import to its response"]
    lines += table(
        ("scene", "frameworks", "guard ms", "bare ms", "ratio", "quartiles", "aim", "wall ratio", "whole process"),
        [
            (
                row["scene"],
                "counted" if row["kind"] == "as shipped" else "loaded before",
                f"{row['guard_ms']:.0f}",
                f"{row['bare_ms']:.0f}",
                *_ratio_cells(row),
                f"{row['wall_ratio']:.2f}",
                f"{row['process_ratio']:.2f}",
            )
            for row in figures["cold"]
        ],
    )
    lines += ["", "Warm, CPU time per invocation"]
    lines += table(
        ("scene", "AWS calls", "guard ms", "bare ms", "ratio", "quartiles", "aim"),
        [
            (
                row["scene"],
                str(len(figures["calls"][row["scene"]])),
                f"{row['guard_ms']:.2f}",
                f"{row['bare_ms']:.2f}",
                *_ratio_cells(row),
            )
            for row in figures["warm"]
        ],
    )
    swept = figures["sweep"]
    lines += [
        "",
        f"Warm {SWEEP.name}, {CALL_SECONDS * 1000:.0f} ms a call; the ratio is the least seconds to those taken",
    ]
    lines += table(
        ("", "seconds", "least", "ratio", "quartiles", "aim", "CPU ms a target", "cold seconds", "cold CPU"),
        [
            (
                "sweep",
                f"{swept['seconds']:.3f}",
                f"{swept['least_seconds']:.3f}",
                *_ratio_cells(swept),
                f"{swept['cpu_ms_per_target']:.2f}",
                f"{swept['cold_seconds']:.2f}",
                f"{swept['cold_cpu_seconds']:.2f}",
            )
        ],
    )
    for name, owners in figures["imports"].items():
        whole = owners["cold start"]
        imported = sum(owners.values()) - whole
        lines += ["", f"Imports of {name}: {imported:.0f} of {whole:.0f} ms of a cold start (wall), by owner"]
        ordered = sorted(((ms, owner) for owner, ms in owners.items() if owner != "cold start"), reverse=True)
        rows = [(owner, f"{ms:.1f}", f"{ms / whole:.1%}") for ms, owner in ordered if ms >= 0.05]
        lines += table(("owner", "ms", "share"), rows)
    if "sandbox_seconds" in figures:
        in_sandbox = figures["sandbox_seconds"]
        lines += [
            "",
            "Against the whole sandbox, from the user's PutEncryptionConfig to KMS and ACTIVE (wall, X-Ray settling in "
            f"0.2 s): {in_sandbox['cold']:.2f} s with a cold function, {in_sandbox['warm']:.2f} s with a warm one",
        ]
    if "starts" in figures:
        lines += ["", f"What people wait for, on the sandbox with {RECORDS:,} records (wall)"]
        lines += table(
            ("", "seconds", "best", "aim"),
            [(row["name"], *(f"{row[key]:.3f}" for key in ("seconds", "best", "aim"))) for row in figures["starts"]],
        )
    return "\n".join(lines)


def _ratio_cells(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['ratio']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}", f"{row['aim']:.2f}"


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table: minimal widths, the first column left-aligned and the others right-aligned."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]

    def line(row: tuple[str, ...]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  " + "  ".join(cells).rstrip()

    return [line(heads), *map(line, rows)]


if __name__ == "__main__":
    sys.exit(main())
