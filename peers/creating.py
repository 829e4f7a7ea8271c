"""`sparehive run new`: a run's directory, made whole or not at all."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from incentives.keys import create_key, key_account, load_password
from peers.beginning import Beginning, Start
from peers.choosing import DataShape, choose_task
from peers.datasets import TakenData
from peers.errors import ConfigError
from peers.making import NO_ROOT, TaskMaker
from peers.opening import check_parts, open_run
from peers.planning import Length, Plan
from peers.progressbar import ProgressBar
from peers.runs import RunDirectory
from peers.settings import with_settings
from peers.storage import Storing, listed_objects, storage_json
from swarm.config import RunConfig, dump_run

_MAKING = ".making-"  # beginning of the name of what is not made yet


def create_run(
    root: Path,
    name: str,
    data: Path | None,
    preset: str,
    unit_price: int,
    settings: Sequence[str],
    tokenizer: str = "bytes",
    progress: ProgressBar | None = None,
    length: Length | None = None,
    shape: DataShape | None = None,
    start: Start | None = None,
    dataset: TakenData | None = None,
    organiser: bytes | None = None,
    storing: Storing | None = None,
) -> dict[str, Any]:
    """Make the directory and open what is in it as a seed and a peer will; ConfigError or InputError names what is wrong, and leaves
    nothing behind. Refuses one that holds a run already. `tokenizer`: "bytes", "bpe:N" to train one of N tokens, or where a tokenizer.json
    is. `length`: when it ends, where that is not what preset and settings say. `shape`: how the data is to be taken.
    `start`: the published model that it starts from; None: noise. `dataset`: what `data` is of, where that is one by CID. `organiser`:
    account of the wallet that proposes periods, where that is not the run's own key, which then signs invites alone. `storing`: what
    it pays for storing its data and base; None: nothing."""
    progress = progress or ProgressBar(quiet=True)
    _check_place(run := RunDirectory(root))
    task = choose_task(data, tokenizer, shape or DataShape())
    begun = None if start is None else start.read(progress)
    given: dict[str, Any] = {"name": name, "unit_price_amount": str(unit_price), "initial_root": NO_ROOT}
    given |= {"task": task.draft(), **({} if storing is None else {"storage": storing.draft()})}
    if begun is not None:
        given = begun.given(given, progress, preset, tuple(settings))
    given = _ending(length, given, preset, settings)
    _check_settings(RunConfig.parse(with_settings(preset, given, settings)), begun, progress)
    given["task"] = {**task.read(progress), **({} if begun is None else {"model": given["task"]["model"]})}
    task.check(RunConfig.parse(with_settings(preset, given, settings)))
    with _made(run) as making:
        given |= _organised(run, making, organiser)
        config, num_values = _write(
            making, task, lambda more: with_settings(preset, _joined(given, more), settings), progress, begun
        )
        _write_sources(making, task, dataset)
        open_run(config, making.data, making.blocks, progress)
    return {
        "run_id": "0x" + config.run_id.hex(),
        "parameters": num_values,
        **Plan.of(config).json_value(),
        **task.facts(),
        "organiser": "0x" + (organiser or key_account(run.organiser_key) or bytes(20)).hex(),
        "storage": storage_json(config),
        "path": str(root),
    }


def _write_sources(run: RunDirectory, task: TaskMaker, dataset: TakenData | None) -> None:
    run.sources.write_text(task.checksums(), encoding="utf-8")
    if dataset is not None:
        run.dataset.write_bytes(dataset.content())


def _joined(given: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """`given` with the tables of `task` merged into those of its task."""
    tables = {name: {**given["task"].get(name, {}), **table} for name, table in task.items()}
    return {**given, "task": {**given["task"], **tables}}


def _ending(length: Length | None, given: dict[str, Any], preset: str, settings: Sequence[str]) -> dict[str, Any]:
    """`given`, and when the run ends, where that was said by its length."""
    if length is None:
        return given
    inner = given.get("inner", {})
    draft = {**given, "inner": {**inner, **length.draft()["inner"]}}
    found = length.settings(with_settings(preset, draft, settings))
    return {**given, **found, "inner": {**inner, **found.get("inner", {})}}


def _organised(run: RunDirectory, making: RunDirectory, wallet: bytes | None) -> dict[str, Any]:
    """The run's own key, made where there is none; what run.toml says of it where another wallet is the organiser."""
    run = run if run.organiser_key.parent.exists() else making
    if not run.organiser_key.exists():
        create_key(run.organiser_key, load_password(run.organiser_password, create=True))
    own = key_account(run.organiser_key)
    if wallet is None or own is None or wallet == own:
        return {}
    return {"organiser": {"wallet": wallet.hex(), "invites": own.hex()}}


def _check_settings(draft: RunConfig, begun: Beginning | None, progress: ProgressBar) -> None:
    """Wrong ones are told before the text is read."""
    with progress.during("loading the model library"):
        from swarm.tasks import check_model

        num_values = check_model(draft, None if begun is None else begun.folder)
    check_parts(draft, num_values)


def _check_place(run: RunDirectory) -> None:
    """That nobody makes a run there, and nobody has."""
    if run.root.is_dir():
        with _alone(run):
            _check_free(run)
    _check_free(run)


def _check_free(run: RunDirectory) -> None:
    if run.toml.exists():
        raise ConfigError("RUN_DIRECTORY", str(run.root), "holds a run already; choose another directory")
    if run.root.exists() and not run.root.is_dir():
        raise ConfigError("RUN_DIRECTORY", str(run.root), "is no directory; choose another name")
    for path in (run.data, run.blocks, run.sources, run.dataset):
        if path.exists():
            raise ConfigError(
                "RUN_DIRECTORY", str(run.root), f"holds {path.name} already, which a run has too; choose another"
            )


def _write(
    run: RunDirectory,
    task: TaskMaker,
    values_with: Callable[[dict[str, Any]], dict[str, Any]],
    progress: ProgressBar,
    begun: Beginning | None,
) -> tuple[RunConfig, int]:
    """Data, initial model and run.toml; the config and the number of parameters. `values_with`: of the run, with more of its `[task]`."""
    import torch

    from swarm.checkpoint.anchor import Anchor, anchor_blocks, anchor_root
    from swarm.checkpoint.bases import put_base
    from swarm.checkpoint.runblocks import put_data
    from swarm.checkpoint.store import BlockStore
    from swarm.device import copy_to_host
    from swarm.tasks import new_model

    store = BlockStore(run.blocks, 1 << 62)
    run.data.mkdir()
    written = task.write(store, run.root, RunConfig.parse(values_with({})), progress)
    with progress.during("writing the data"):
        root = put_data(store, list(written.content.items()), written.entries)
        for file_name, content in written.content.items():
            (run.data / file_name).write_bytes(content)
    values = values_with(written.task)
    values["task"]["data"]["root"] = root.hex()
    draft = RunConfig.parse(values)
    with progress.during("building the model"):
        model = new_model(draft, int.from_bytes(root[:4], "big"), base=None if begun is None else begun.folder)
    if begun is not None:
        with progress.during("writing the model that it starts from"):
            put_base(begun.published.base, store)
    parameters = copy_to_host(model.flat)
    if begun is not None and not bool(torch.isfinite(parameters).all()):
        raise ConfigError("--from", begun.start.source, "some of its weights are no finite numbers: give another model")
    anchor = Anchor(parameters, torch.zeros_like(parameters), model.layout, 0, 0)
    with progress.during("writing the initial model"):
        for block in anchor_blocks(anchor):
            store.put(block.data)
    values["initial_root"] = anchor_root(anchor).hex()
    if draft.storage is not None:
        with progress.during("hashing what is paid to be stored"):
            values["storage"]["objects"] = listed_objects(draft, store.get)
    config = RunConfig.parse(values)
    dump_run(config, run.toml)
    return config, model.layout.num_values()


@contextlib.contextmanager
def _made(run: RunDirectory) -> Iterator[RunDirectory]:
    """A directory inside the run's that becomes its content, run.toml last; nothing of it is left after an error, and after a SIGKILL
    nothing that the next `run new` there does not remove."""
    new = [path for path in (run.root, *run.root.parents) if not path.exists()]
    making = run.root / f"{_MAKING}{secrets.token_hex(4)}"
    run.root.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(run):
            _check_free(run)  # somebody else may have made one meanwhile
            making.mkdir()
            yield RunDirectory(making)
            for path in _in_order(run, making.iterdir()):
                os.rename(path, run.root / path.name)
            making.rmdir()
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()  # only where it is empty
        raise


@contextlib.contextmanager
def _alone(run: RunDirectory) -> Iterator[None]:
    """Holds the directory against another `run new` (ConfigError), and removes what killed ones left there. Where directories cannot
    be locked nobody is held off, and nothing is removed: what is there may be in the making."""
    handle = os.open(run.root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "RUN_DIRECTORY",
                str(run.root),
                "another `run new` is at work in it: wait for it, or choose another directory",
            ) from None
        except OSError:
            pass
        else:
            for left in run.root.glob(f"{_MAKING}*"):
                _remove(run, left)
        yield
    finally:
        os.close(handle)


def _remove(run: RunDirectory, left: Path) -> None:
    """What a killed `run new` had made, and what of it had its place already: without run.toml, which comes last, it is no run.
    The organiser's key stays, and the next one takes it."""
    order = _in_order(run, (left / path.name for path in (run.blocks, run.data, run.dataset, run.sources)))
    has_begun = (left / run.toml.name).is_file() and not os.path.lexists(order[0]) and not os.path.lexists(run.toml)
    for path in order if has_begun else ():
        placed = run.root / path.name
        if not os.path.lexists(path) and os.path.lexists(placed):
            shutil.rmtree(placed) if placed.is_dir() else placed.unlink()
    shutil.rmtree(left, ignore_errors=True)


def _in_order(run: RunDirectory, paths: Iterable[Path]) -> list[Path]:
    """As they take their places: by name, run.toml last."""
    return sorted(paths, key=lambda path: (path.name == run.toml.name, path.name))


__all__ = ["create_run"]
