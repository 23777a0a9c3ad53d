"""How often each path of the guard crosses from one module into another, counted by running it.

A reader who follows a run changes module as often as the run does. The paths are those of `docs/calls.md`.

python -m tests.simulation.walk                          totals of all paths, by path and by module
python -m tests.simulation.walk "drift, healthy key"     the entries of one path, by caller and function
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from weakref import WeakKeyDictionary

from greenlet import getcurrent, greenlet

from chalicelib.loop.reconcile import reconcile
from tests.simulation import calls
from tests.simulation.world import World

PACKAGE = "chalicelib"
ROOTS = (reconcile.__code__,)
"""A run is counted from the call of one of these to its return."""

ASIDE = (World.call.__code__,)
"""What AWS does in the simulation, the promises' witness included, is no part of the run."""


@dataclass(frozen=True, order=True)
class Entry:
    """A call from the module `caller` of the function `function` of another module, `module`."""

    caller: str
    module: str
    function: str

    def runs_from_into(self, caller: str, module: str) -> bool:
        """Whether the call runs from one package (or module) into another."""
        return _is_in(self.caller, caller) and _is_in(self.module, module)


@dataclass
class Walk:
    """The entries of one run. `worker` is the worker of its guard."""

    worker: str
    entries: Counter[Entry] = field(default_factory=Counter)

    @property
    def by_module(self) -> Counter[str]:
        """How often each module was entered."""
        modules: Counter[str] = Counter()
        for entry, count in self.entries.items():
            modules[entry.module] += count
        return modules

    @property
    def from_loop_into_domain(self) -> int:
        """How often the loop entered the domain."""
        loop, domain = f"{PACKAGE}.loop", f"{PACKAGE}.domain"
        return sum(count for entry, count in self.entries.items() if entry.runs_from_into(loop, domain))

    def into(self, name: str) -> int:
        """How often modules of this last name were entered."""
        return sum(count for module, count in self.by_module.items() if module.rpartition(".")[2] == name)


class Counting:
    """A profile function that counts the entries of each run of the threads and greenlets that it is set for.

    An entry is a call of a Python function of `package` by code of any other module. Generated code (a dataclass's
    `__init__`) does not count, nor does an import; a lambda or a comprehension counts as its module. A generator is
    called once, whoever resumes it.
    """

    def __init__(self, package: str, roots: Collection[CodeType], aside: Collection[CodeType] = ()) -> None:
        self.package = package
        self.roots = frozenset(roots)
        self.aside = frozenset(aside)
        self.walks: list[Walk] = []
        self._runs: WeakKeyDictionary[greenlet, _Run] = WeakKeyDictionary()

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        """What `sys.setprofile` takes."""
        if event == "call":
            self._called(frame)
        elif event == "return":
            self._returned(frame)

    @contextmanager
    def on_this_thread(self) -> Iterator[None]:
        """Count in the thread that is running."""
        previous = sys.getprofile()
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(previous)

    @property
    def _run(self) -> _Run | None:
        return self._runs.get(getcurrent())

    def _called(self, frame: FrameType) -> None:
        run = self._run
        if run is None:
            if frame.f_code not in self.roots:
                return
            guard = frame.f_locals["guard"]
            run = self._runs[getcurrent()] = _Run(frame, Walk(guard.worker))
            self.walks.append(run.walk)
        if run.aside is None and (frame.f_code in self.aside or frame.f_code.co_name == "<module>"):
            run.aside = frame
        elif run.aside is None and _is_in(_module(frame), self.package) and frame.f_code.co_filename != "<string>":
            run.count(frame)

    def _returned(self, frame: FrameType) -> None:
        run = self._run
        if run is not None and frame is run.aside:
            run.aside = None
        if run is not None and frame is run.root:
            del self._runs[getcurrent()]


class _Run:
    """A run under way. `aside` is the frame below which nothing counts."""

    def __init__(self, root: FrameType, walk: Walk) -> None:
        self.root = root
        self.walk = walk
        self.aside: FrameType | None = None
        # The frames themselves, since the id of one that is gone is given to another.
        self.generators: set[FrameType] = set()

    def count(self, frame: FrameType) -> None:
        if frame.f_code.co_flags & inspect.CO_GENERATOR:
            if frame in self.generators:
                return
            self.generators.add(frame)
        assert frame.f_back is not None
        caller, module = _module(frame.f_back), _module(frame)
        if caller != module:
            self.walk.entries[Entry(caller, module, frame.f_code.co_qualname)] += 1


def _module(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def walked(make: Callable[[], calls.Path]) -> tuple[calls.Path, Walk]:
    """Take a path, and count the run that it is about."""
    counting = Counting(PACKAGE, ROOTS, ASIDE)
    with counting.on_this_thread():
        path = make()
    # Some paths put up two worlds, which give the same names; the run is in the latter.
    return path, [walk for walk in counting.walks if walk.worker == path.run.name][-1]


def table() -> str:
    """The totals of all paths."""
    taken = [walked(make) for make in calls.PATHS]
    width = max(len(path.name) for path, _ in taken)
    lines = [f"{'path':{width}}  entries  from loop into domain"]
    lines += [f"{path.name:{width}}  {walk.entries.total():7}  {walk.from_loop_into_domain:21}" for path, walk in taken]
    modules: Counter[str] = Counter()
    for _, walk in taken:
        modules += walk.by_module
    lines += ["", f"{'module':{width}}  entries  of all paths together"]
    lines += [f"{module:{width}}  {count:7}" for module, count in modules.most_common()]
    return "\n".join(lines)


def entries(name: str) -> str:
    """The entries of one path."""
    for make in calls.PATHS:
        path, walk = walked(make)
        if path.name == name:
            lines = [
                f"{count:4}  {entry.caller} -> {entry.module}: {entry.function}"
                for entry, count in sorted(walk.entries.items())
            ]
            return "\n".join([*lines, f"{walk.entries.total():4}  in all"])
    raise SystemExit(f"no path is called {name!r}; docs/calls.md lists them")


if __name__ == "__main__":
    print(entries(sys.argv[1]) if len(sys.argv) > 1 else table())
