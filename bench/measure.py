"""Run the processes of the guard and the bare handler alternately, so that other load affects both equally."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from botocore import xform_name

from bench.account import REGIONS, SWEEP, Account
from bench.world import ROLE_ARN, TARGET, Endpoint, Scene
from chalicelib.domain.policy import load_stamped
from sandbox.functions import build_runtime_folder, has_runtime_client

HERE = Path(__file__).parent
RUNTIME = ("awslambdaric.bootstrap",) if has_runtime_client() else ()
"""Lambda's own client is loaded before a function; its modules do not count."""

FRAMEWORKS = ("chalice.app", "aws_lambda_powertools", "aws_lambda_powertools.metrics")
FUNCTION_ARN = f"arn:aws:lambda:{TARGET.region}:{TARGET.account}:function:xray-guard-on_change"


class WrongAnswer(Exception):
    """A handler did not do what its scene requires, so its figures would be meaningless."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A handler to measure. `loaded_before` are modules whose import does not count."""

    name: str
    handler: str
    root: Path
    loaded_before: tuple[str, ...] = RUNTIME


@dataclass(frozen=True, slots=True)
class Cold:
    """One cold start in seconds: CPU and wall time from the import to the response, and the imports' part of it.

    `process_cpu` counts from the start of the interpreter, including Lambda's client.
    """

    cpu: float
    wall: float
    import_cpu: float
    import_wall: float
    process_cpu: float


class Bench:
    """The shipped package, unzipped next to what Lambda's image has, and one endpoint per scene and for the sweep.

    Use it as a context manager; entering it raises WrongAnswer if a handler does not do what its scene requires.
    """

    def __init__(self, package: Path, scenes: tuple[Scene, ...], folder: Path) -> None:
        self.scenes = scenes
        self._folder = folder
        guard_root, bare_root = folder / "guard", folder / "bare"
        with zipfile.ZipFile(package / "deployment.zip") as archive:
            archive.extractall(guard_root)
        bare_root.mkdir()
        shutil.copy(HERE / "bare.py", bare_root)
        compileall.compile_dir(bare_root, quiet=1)
        build_runtime_folder(folder / "runtime")
        self.guard = Subject("guard", "app.on_change", guard_root)
        self.bare = Subject("bare", "bare.handler", bare_root)
        self.sweep = Subject("sweep", "app.sweep", guard_root)
        # Here both start with Chalice and Powertools loaded, so what these share with boto3 does not count either.
        self.guard_alone = replace(self.guard, name="guard alone", loaded_before=(*RUNTIME, *FRAMEWORKS))
        self.bare_alone = replace(self.bare, name="bare alone", loaded_before=(*RUNTIME, *FRAMEWORKS))
        self._endpoints: dict[str, Endpoint | Account] = {}
        self.account: Account
        self.calls: dict[str, list[str]] = {}

    def __enter__(self) -> Bench:
        policy = load_stamped(self.guard.root / "policies")
        try:
            self.account = self._endpoints[SWEEP.name] = Account(policy)
            self._file(SWEEP, "event").write_text("{}", "utf-8")
            for scene in self.scenes:
                self._endpoints[scene.name] = Endpoint(scene, policy)
                self._file(scene, "event").write_text(json.dumps(scene.event), "utf-8")
                self._file(scene, "calls").write_text("[]", "utf-8")
                self._learn_calls(scene)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for endpoint in self._endpoints.values():
            endpoint.stop()

    def cold(self, subject: Subject, scene: Scene) -> Cold:
        """Measure one cold start in its own process. Raises WrongAnswer."""
        with self._process(subject, scene) as process:
            return self._read_cold(process, subject, scene)

    @contextmanager
    def warm(self, subject: Subject, scene: Scene) -> Iterator[Warm]:
        """Yield a process that has completed its cold start."""
        with self._process(subject, scene) as process:
            self._read_cold(process, subject, scene)
            yield Warm(process)

    def import_times(self, subject: Subject, scene: Scene) -> tuple[str, Cold]:
        """Return the output of `python -X importtime` for one cold start up to the response, and its figures."""
        with (self._folder / "importtime").open("w+", encoding="utf-8") as output:
            with self._process(subject, scene, ["-X", "importtime"], output) as process:
                cold = self._read_cold(process, subject, scene)
            output.seek(0)
            return output.read(), cold

    def _learn_calls(self, scene: Scene) -> None:
        """Record the guard's calls, so that the bare handler makes the same ones."""
        endpoint = self._endpoints[scene.name]
        self.cold(self.guard, scene)
        received = list(endpoint.received)
        self.calls[scene.name] = [f"{each.service}:{each.operation}" for each in received]
        listed = [(each.service, xform_name(each.operation), each.parameters) for each in received]
        self._file(scene, "calls").write_text(json.dumps(listed), "utf-8")
        endpoint.received.clear()
        self.cold(self.bare, scene)
        if sorted(map(repr, endpoint.received)) != sorted(map(repr, received)):
            raise WrongAnswer(f"{scene.name}: the bare handler's calls differ from the guard's")

    def _read_cold(self, process: subprocess.Popen[str], subject: Subject, scene: Scene) -> Cold:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise WrongAnswer(f"{subject.name}, {scene.name}: exited with status {process.wait()} without a response")
        output = json.loads(line)
        answer = output.pop("answer")
        if "outcome" in answer and (answer["outcome"], answer["reason"]) != (scene.outcome, scene.reason):
            raise WrongAnswer(f"{subject.name}, {scene.name}: {answer}")
        if subject is self.sweep and answer != {"targets": len(REGIONS), "outcomes": {scene.outcome: len(REGIONS)}}:
            raise WrongAnswer(f"{subject.name}, {scene.name}: {answer}")
        return Cold(**output)

    @contextmanager
    def _process(
        self, subject: Subject, scene: Scene, options: list[str] | None = None, errors: IO[str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        self._endpoints[scene.name].received.clear()
        script, event = str(HERE / "runner.py"), str(self._file(scene, "event"))
        command = [sys.executable, "-S", *(options or []), script, subject.handler, event, FUNCTION_ARN]
        process = subprocess.Popen(
            [*command, *subject.loaded_before],
            cwd=subject.root,
            env=self._environment(subject, scene),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def _environment(self, subject: Subject, scene: Scene) -> dict[str, str]:
        # The frameworks come from the package, also for the bare handler if they are loaded before it.
        roots = [subject.root, self._folder / "runtime", self.guard.root]
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TZ": ":UTC",
            "LANG": "en_US.UTF-8",
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BENCH_CALLS": str(self._file(scene, "calls")),
            "AWS_LAMBDA_FUNCTION_NAME": FUNCTION_ARN.rpartition(":")[2],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
            "LAMBDA_TASK_ROOT": str(subject.root),
            "AWS_REGION": TARGET.region,
            "AWS_DEFAULT_REGION": TARGET.region,
            "AWS_ENDPOINT_URL": self._endpoints[scene.name].url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": "ASIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AWS_SESSION_TOKEN": "example",
            "POWERTOOLS_SERVICE_NAME": "xray-guard",
            "POWERTOOLS_METRICS_NAMESPACE": "XRayEncryptionGuard",
            "POWERTOOLS_LOG_LEVEL": "INFO",
            "XRAY_GUARD_ROLE_ARN": ROLE_ARN,
        }

    def _file(self, scene: Scene, kind: str) -> Path:
        return self._folder / f"{scene.name.replace(' ', '-').replace(',', '')}.{kind}.json"


class Warm:
    """A warm process that runs its scene as often as requested."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def invoke(self, times: int) -> list[float]:
        """Return the CPU seconds of each invocation."""
        return [cpu for cpu, _ in self.timed(times)]

    def timed(self, times: int) -> list[tuple[float, float]]:
        """Return the seconds of CPU and wall time of each invocation."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return [(cpu, wall) for cpu, wall in json.loads(self._process.stdout.readline())]
