"""What a new run starts from: `run new --from`, with what of it is trained; values of run.toml follow from it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from peers.bases import cid_of, folder_of_cid
from peers.errors import ConfigError
from peers.hub import NAME, fetch_from_hub
from peers.progressbar import ProgressBar
from peers.published import Published, read_published
from peers.settings import with_settings
from swarm.config import TOKENIZER_FILE, RunConfig

# Peak rates that published models bear; a preset's are for noise.
_RATES = {"all": 5e-5, "lora": 3e-4}
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Start:
    """`source`: a folder, the CID of another run's base, or a hub's name of a model; `rank`: of LoRA, 0: the weights themselves; `freeze`:
    parts that stay; `base`: numbers of what stays; `blocks`: where a CID is looked for: directories of runs and peers, or of blocks, or who
    else may have it."""

    source: str
    rank: int = 0
    freeze: tuple[str, ...] = ()
    base: str = ""
    blocks: tuple[str, ...] = ()

    @cached_property
    def folder(self) -> Path:
        """Where it is; a hub's is fetched. ConfigError where it is nowhere."""
        path = Path(self.source).expanduser()
        if path.exists():
            return path
        root = cid_of(self.source)
        if root is not None:
            return folder_of_cid(self.source, root, self.blocks)
        if NAME.fullmatch(self.source):
            return fetch_from_hub(self.source)
        raise ConfigError("--from", self.source, "is no folder; give one, the CID of a base, or OWNER/MODEL of a hub")

    def tokenizer(self) -> str:
        """Where its tokenizer.json is; "": it has none."""
        path = self.folder / TOKENIZER_FILE
        return str(path) if path.is_file() else ""

    def read(self, progress: ProgressBar) -> "Beginning":
        """ConfigError where there is no model that a run can start from."""
        if self.rank and self.freeze:
            raise ConfigError(
                "--freeze", " ".join(self.freeze), "LoRA leaves the whole base as it is: leave out one of the two"
            )
        with progress.during("reading the model to start from"):
            return Beginning(self, read_published(self.folder))


@dataclass(frozen=True)
class Beginning:
    """The model in the cache, and what a run says of it."""

    start: Start
    published: Published

    @property
    def folder(self) -> Path:
        return self.published.base.folder

    def model(self) -> dict[str, Any]:
        """Values of `[task.model]`, but for the bits of a quantised base."""
        values = self.published.model()
        if self.start.base:
            values["base"] = self.start.base
        if self.start.rank:
            values["train"] = {"kind": "lora", "rank": self.start.rank, "alpha": 2.0 * self.start.rank}
        elif self.start.freeze:
            values["train"] = {"kind": "all", "freeze": list(self.start.freeze)}
        return values

    def given(
        self, values: dict[str, Any], progress: ProgressBar, preset: str, settings: tuple[str, ...]
    ) -> dict[str, Any]:
        """`values` (with the task as its data makes it) with all that follows from the start: the model, rates and parts that fit it,
        the bits of its base. Settings decide what is computed. InputError names what does not fit."""
        from swarm.errors import InputError
        from swarm.models.pretrained import bits_of, load_base
        from swarm.tasks import check_model, purpose_of

        task = {**values["task"], "model": self.model()}

        def drafted(**more: Any) -> tuple[dict[str, Any], RunConfig]:
            made = with_settings(preset, {**values, "task": task, **more}, settings)
            return made["task"]["model"], RunConfig.parse(made)

        model = with_settings(preset, {**values, "task": task}, settings)["task"]["model"]
        base, train = model.get("base"), model.get("train")
        if base in ("int8", "nf4"):
            task["model"]["base_sha256"] = _NO_HASH
            purpose = purpose_of(drafted()[1])
            with progress.during("quantising the base"):
                task["model"]["base_sha256"] = bits_of(load_base(self.folder, base, purpose))
        kind = train.get("kind", "all") if isinstance(train, dict) else "all"
        inner = {"lr": _RATES.get(kind, _RATES["all"])}
        config = drafted(inner=inner)[1]
        try:
            trained = check_model(config, self.folder)
        except InputError as error:
            raise self._named(error) from None
        parts = min(max(256, trained // 2 // 256 * 256), config.codec.part_values)
        return {**values, "task": task, "inner": inner, "codec": {"part_values": parts}}

    def _named(self, error: Exception) -> Exception:
        """What is wrong with the base is said of the folder that was given, not of its copy."""
        from swarm.errors import InputError

        if isinstance(error, InputError) and error.field == "base":
            return ConfigError("--from", self.start.source, error.remedy)
        return error


__all__ = ["Beginning", "Start"]
