"""Sweeps: many seeds and settings as members of one compiled program."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.fingerprint import fingerprint
from fdl.errors import InputError, Interrupted
from fdl.paths import user_path
from fdl.runs.fitting import AS_IT_IS, Resume
from fdl.runs.folder import RunFolder
from fdl.runs.manifest import config_hash
from fdl.signatures import check_signature
from fdl.training.compilation_cache import enable
from fdl.training.display import Display, check_display, shown
from fdl.training.driver import Driver, Hook, Trained, Watcher
from fdl.training.executables import Programs, side_by_side
from fdl.training.experiment import Experiment
from fdl.training.fields import leaves, replaced, value_at
from fdl.training.members import Member, Over, check_count, check_devices, check_hooks, check_seeds, expand
from fdl.training.recipe import Recipe, Untraceable, settled, traced_fields, weak_column
from fdl.training.rehearsal import rehearse
from fdl.training.reports import check_names
from fdl.training.rewind import Moment
from fdl.training.run import continued, interruptible, remarks, run_key, told_how_to_go_on, until
from fdl.training.sweep_result import Bucket, SweepResult


def sweep(
    build: Callable[[Any], Experiment],
    config: Any,
    over: Over | None = None,
    seeds: Sequence[int] = (0,),
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool | Resume = False,
    chunk: int | None = None,
    hooks: Sequence[Hook] = (),
    devices: Sequence[Any] | None = None,
    max_members: int | None = None,
    halving: int | None = None,
    tell: Callable[[str], None] | None = None,
    display: Display = None,
) -> SweepResult:
    """Trains a member for every setting and seed; those that share a program train side by side in it.

    A member follows the same function as `fdl.run(build, its config, seed=its seed)`: initial values, order of the
    examples and random numbers are equal to the bit; sums are taken in another order, so that losses agree to rounding.

    Args:
      build: config -> `Experiment`, pure and cheap.
      config: a frozen dataclass; members are copies of it with some fields replaced.
      over: {field: values, ...} for every combination, or a list of {field: value} for just these; None = the config.
      seeds: each setting is trained with each of them.
      folder: a new folder for config, manifest, checkpoints of each block of members, members.csv, the picture
        sweep.png (with matplotlib) and result.json, the means over members; where one fails, repro.npz and repro.py,
        which take its step again. None writes nothing.
      resume: `folder` is that of a sweep that was interrupted: goes on from its newest verified checkpoints;
        also as `fdl.Resume(...)` says.
      chunk, hooks: as for `fdl.run`; an event has `members`, and metrics [members].
      devices: members are divided over them; None = all there are.
      max_members: at most so many side by side, the others after them; None = as many as fit into memory.
      halving: 2 stops all but the better half of the members after evaluation 1, of those that are left after
        evaluations 2, 4, 8, ...; 3 all but a third after 1, 3, 9, ...: successive halving (Jamieson & Talwalkar,
        2016). Better is what `select` of the experiment says. The members of a program compete with each other.
      tell: gets a line for each program before it starts, for each field that could not be traced, and for how the
        first member of a block failed whose loss was no longer finite.
      display: as for `fdl.run`: None, True, False, or (experiment, members) -> a watcher, or a context manager of one,
        entered for every block of members. A watcher is called with (steps, {name: values [members, n]}).

    Floats are arguments of the program. Fields of another type, and floats that `build` turns into a Python number or a
    branch, make a program for each of their values.

    Raises:
      InputError: no such field, no value, an invalid seed; a swept float that the data depends on; what `fdl.run`
        refuses.
      Interrupted: a KeyboardInterrupt, as of `fdl.run`; its `result` has the members that had begun.

    >>> from dataclasses import dataclass
    >>> import fdl, optax
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     learning_rate: float = 0.1
    >>> def build(config):
    ...     data = fdl.data.Arrays(x=[[1.0], [2.0]], y=[[2.0], [4.0]])
    ...     task = fdl.supervised(fdl.nn.Linear(1, 1), fdl.losses.squared_error)
    ...     return fdl.Experiment(task, optax.sgd(config.learning_rate), data, num_steps=20)
    >>> result = sweep(build, Config(), over={"learning_rate": [0.001, 0.01, 0.1]}, seeds=[0, 1])
    >>> len(result), result.compiles, result.configs[result.best("train/loss")].learning_rate
    (6, 1, 0.1)

    Reference: what one program for many runs is worth, Lu et al., Discovered policy optimisation, 2022 (PureJaxRL).
    """
    enable()
    folder = None if folder is None else user_path(folder, "folder")
    options = {"folder": folder, "resume": resume, "chunk": chunk, "hooks": hooks, "devices": devices}
    options |= {"max_members": max_members, "halving": halving, "tell": tell, "display": display}
    with told_how_to_go_on("fdl.sweep", folder):
        return execute(build, config, over, seeds, **options)


def execute(
    build: Callable[[Any], Experiment],
    config: Any,
    over: Over | None,
    seeds: Sequence[int],
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool | Resume = False,
    devices: Sequence[Any] | None = None,
    tell: Callable[[str], None] | None = None,
    source: Callable[[], dict[str, str]] = dict,
    **options: Any,
) -> SweepResult:
    """`sweep`, without advice for Python in the message of an `Interrupted`."""
    check_signature("sweep: build", build, "(config) -> fdl.Experiment")
    if tell is not None:
        check_signature("sweep: tell", tell, "(line) -> None")
    how = AS_IT_IS if isinstance(resume, bool) else resume
    build = build if how.num_steps is None else until(build, how.num_steps)
    settings = expand(config, over)
    check_seeds(seeds)
    members = [Member(replaced(config, setting), setting, int(seed)) for setting in settings for seed in seeds]
    where = list(jax.devices()) if devices is None else check_devices(devices)
    chosen = _Options(build, where, resume, tell or (lambda line: None), remarks(tell), **options)
    if folder is None:
        if resume:
            raise InputError("sweep: resume needs the folder of the sweep")
        return _trained(members, chosen)
    told = {"seeds": [int(seed) for seed in seeds], "settings": config_hash(settings)}
    reopened: Any = {"resume": bool(resume), "longer": how.accepts("num_steps"), "source": source}
    with RunFolder(folder, config=config, seed=told, **reopened) as files:
        files.note(over=over)
        result = _trained(members, dataclasses.replace(chosen, files=files, remark=remarks(tell, files)))
        for name in ("members.csv", "sweep.png"):
            (files.path / name).unlink(missing_ok=True)  # or a link that somebody put there would be followed
        result.to_csv(files.path / "members.csv")
        if importlib.util.find_spec("matplotlib"):
            with suppress(InputError):  # nothing but NaN to show
                result.draw(files.path / "sweep.png")
        first = build(members[0].config)
        losses = [name for name in result.metrics if name.endswith("/loss") and not name.startswith("train/")]
        by = first.select or next(iter(losses), "train/loss")
        best = result.best_setting(by, first.mode if first.select else "min")
        figures = {**result.means(), **best, "members": len(result), "programs": result.compiles, **result.info}
        files.finish(figures, result.stopped)
        return result


@dataclass(frozen=True)
class _Options:
    """What the programs of a sweep have in common; see `sweep`."""

    build: Callable[[Any], Experiment]
    devices: list[Any]
    resume: bool | Resume
    say: Callable[[str], None]
    remark: Callable[[str], None]
    chunk: int | None = None
    hooks: Sequence[Hook] = ()
    max_members: int | None = None
    halving: int | None = None
    display: Display = False
    files: RunFolder | None = None

    def __post_init__(self) -> None:
        for name, least in (("chunk", 1), ("max_members", 1), ("halving", 2)):
            check_count(f"sweep: {name}", getattr(self, name), least)
        check_display(self.display)
        check_hooks(self.hooks)
        if not callable(self.build):
            raise InputError(f"sweep: build: expected a function of the config, got {self.build!r}")


def _trained(members: list[Member], options: _Options) -> SweepResult:
    """Program after program."""
    results: list[Bucket] = []
    everything = frozenset(name for member in members for name in traced_fields(member.config))
    groups = _grouped(members, everything)
    options.say(f"{len(members)} members, {len(groups)} program{'s' * (len(groups) > 1)}")
    queue = [(list(numbers), everything) for numbers in groups]
    while queue:
        numbers, floats = queue.pop(0)
        group = _Group(options, [members[i] for i in numbers], numbers, floats)
        bad = group.compile()
        split = [each for each in bad if len({value_at(members[i].config, each.field) for i in numbers}) > 1]
        if split:
            for each in split:
                options.say(f"sweep: {each}")
            floats = floats - {each.field for each in bad}
            queue = [([numbers[i] for i in part], floats) for part in _grouped(group.members, floats)] + queue
            continue
        name = f"program {len(results) + 1}"
        options.say(f"{name}: {len(numbers)} member{'s' * (len(numbers) > 1)}, {group.sharing()}")
        if options.files is not None:
            options.files.share(**{f"data of {name}": group.fingerprint()})
        try:
            results.append(group.train(name.replace(" ", "-")))
        except Interrupted as stop:
            stop.result = SweepResult.of(members, [*results, *([] if stop.result is None else [stop.result])])
            raise
    return SweepResult.of(members, results)


def _grouped(members: Sequence[Member], floats: frozenset[str]) -> list[list[int]]:
    """The numbers of the members that differ in nothing but seeds and traced floats."""
    groups: dict[str, list[int]] = {}
    for number, member in enumerate(members):
        traced = floats & {*traced_fields(member.config)}  # an Optional field may hold None
        name = repr({key: value for key, value in leaves(member.config) if key not in traced})
        groups.setdefault(name, []).append(number)
    return list(groups.values())


class _Group:
    """Members that share a program."""

    def __init__(self, options: _Options, members: list[Member], numbers: list[int], floats: frozenset[str]) -> None:
        self.options, self.members, self.numbers = options, members, numbers
        # Every value by itself: ranges are checked on numbers, not on traced values.
        experiments = [options.build(member.config) for member in members]
        for experiment in experiments:
            if not isinstance(experiment, Experiment):
                raise InputError(f"build(config) must return an fdl.Experiment, got {type(experiment).__name__}")
        self.reports = [experiment.reports for experiment in experiments]  # they may close over their config
        config = members[0].config
        traced = tuple(name for name in traced_fields(config) if name in floats)
        self.recipe = Recipe(experiments[0], options.build, config, traced)
        if options.halving is not None and self.recipe.experiment.select is None:
            raise InputError("sweep: halving needs Experiment(select=...): it says which members are better")
        measured = rehearse(self.recipe.experiment)
        for reports in self.reports:
            for metrics in measured.values():
                check_names(reports, metrics)

    def compile(self) -> list[Untraceable]:
        """Compiles for as many members side by side as allowed and possible; says which floats cannot be traced."""
        options, self.block = self.options, min(len(self.members), self.options.max_members or len(self.members))
        common: Any = {"members": True, "stops": options.halving is not None}

        def attempt(recipe: Recipe) -> Programs:
            alone = self.block <= len(options.devices)  # with a device each, nobody waits for a turn
            worthwhile = None if alone else side_by_side(recipe)
            while True:
                self._share(worthwhile)
                keys, hyper = self._block(recipe, 0)
                programs = Programs(recipe, keys, hyper, options.chunk, mesh=self.mesh, tile=self.tile, **common)
                needed = max(record.bytes_arguments + record.bytes_temporaries for record in programs.records)
                if options.max_members is not None or self.block == 1 or needed < _memory(options.devices[0]):
                    return programs
                self.block = -(-self.block // 2)

        swept = {name for member in self.members for name in member.setting}
        self.programs, bad = settled(self.recipe, attempt)
        for each in bad:
            if each.field in swept and each.data:
                raise InputError(f"sweep: the data depends on the swept field {each.field!r}: {each.where}")
        return bad

    def train(self, name: str) -> Bucket:
        """Block after block through the same executables; checkpoints are those of `name`."""
        with interruptible() as interrupted:
            done: list[Trained] = []
            for first in range(0, len(self.members), self.block):
                try:
                    done.append(self._train_block(first, name, interrupted))
                except Interrupted as stop:
                    done += [] if stop.result is None else [stop.result]
                    begun = self.numbers[: len(done) * self.block]
                    stop.result = Bucket(tuple(begun), self.block, tuple(done)) if done else None
                    raise
        return Bucket(tuple(self.numbers), self.block, tuple(done))

    def _train_block(self, first: int, name: str, interrupted: Callable[[], int]) -> Trained:
        options, files, experiment = self.options, self.options.files, self.recipe.experiment
        keys, hyper = self._block(self.programs.recipe, first)
        more: Any = {"reports": [self.reports[i] for i in self._rows(first)], "rungs": self._rungs()}
        more["remark"] = options.remark
        watchers: list[Watcher] = [] if files is None else [files.latest]
        with ExitStack() as stack:
            count = min(self.block, len(self.members) - first)
            watchers.append(stack.enter_context(shown(options.display, "sweep", experiment, count)))
            saved = None
            if files is not None:
                saved = stack.enter_context(closing(files.checkpoints(name, f"block-{first // self.block + 1}")))
            common = options.chunk, options.hooks, watchers, interrupted
            driver = Driver(self.programs, keys, hyper, *common, checkpoints=saved, **more)
            if options.resume and files is not None and saved is not None:
                continued(driver, saved, options.resume, files, options.say)
                files.go_on()
            trained = driver.drive()
        self._explain(trained.moment, first)
        return trained

    def _explain(self, moment: Moment | Exception | None, first: int) -> None:
        """Tells how the first member of a block that failed did so; the folder of the sweep gets one such step."""
        if moment is None:
            return
        from fdl.runs.repro import explain

        number = min(first + (getattr(moment, "member", None) or 0), len(self.members) - 1)
        member = self.members[number]
        name = ", ".join([*(f"{name}={value!r}" for name, value in member.setting.items()), f"seed {member.seed}"])
        folder = None if self.options.files is None else self.options.files.path
        for line in explain(moment, folder, member.config, f"the member {name}"):
            self.options.say(line)

    def fingerprint(self) -> Mapping[str, Any]:
        """Of the data that the members share."""
        experiment = self.recipe.experiment
        return fingerprint({"train": experiment.dataset, **experiment.evaluate})

    def _rungs(self) -> dict[int, tuple[int, int]]:
        """Of successive halving: step of a rung -> how many of how many members go on after it."""
        if self.options.halving is None:
            return {}
        count, experiment = len(self.members), self.recipe.experiment
        if self.block < count:
            raise InputError(
                f"sweep: halving compares {count} members, of which only {self.block} fit side by side; "
                "take fewer, or a larger max_members"
            )
        every, rungs, number, left = experiment.eval_every or experiment.total_steps(), {}, 1, count
        while left > 1 and number * every < experiment.total_steps():
            left = -(-left // self.options.halving)
            rungs[number * every] = left, count
            number *= self.options.halving
        return rungs

    def sharing(self) -> str:
        """How many train at once, and how they share the devices."""
        devices = self.mesh.size if self.mesh else 1
        over = f" on {devices} devices" if devices > 1 else ""
        turns = "" if self.tile is None else f", {self.tile} at a time{' on each' if over else ''}"
        return f"{min(self.block, len(self.members))} side by side{over}{turns}"

    def _share(self, worthwhile: int | None) -> None:
        """Divides a block of members over the devices, and on each into tiles of equal size; one needs no mesh.

        What does not divide is rounded up, and filled with copies of a member; down, where only so many are allowed.
        """
        devices, limited = self.options.devices, self.block < len(self.members)

        def share(number: int, parts: int) -> int:
            return max(1, number // parts) if limited else -(-number // parts)

        count = min(len(devices), self.block)
        each = share(self.block, count)
        tiles = -(-each // (worthwhile or each))
        tile = share(each, tiles)
        self.block = count * tiles * tile
        self.tile = tile if tiles > 1 else None
        self.mesh = jax.sharding.Mesh(np.array(devices[:count]), ("members",)) if count > 1 else None

    def _rows(self, first: int) -> list[int]:
        """The members from `first` on; the last one again where the block is not full."""
        return [min(first + i, len(self.members) - 1) for i in range(self.block)]

    def _block(self, recipe: Recipe, first: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Keys and floats of the members from `first` on."""
        rows = self._rows(first)
        hyper = {name: weak_column([value_at(self.members[i].config, name) for i in rows]) for name in recipe.traced}
        return jnp.stack([run_key(self.members[i].seed) for i in rows]), hyper


def _memory(device: Any) -> float:
    """Bytes that programs may use on a device: most of what it has."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return 0.9 * stats["bytes_limit"]
    return 0.6 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
