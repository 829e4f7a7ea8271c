"""A published model by its name on a hub of Hugging Face's kind: HF_ENDPOINT, HF_TOKEN and HF_HOME are those of `huggingface_hub`."""

import re
from pathlib import Path

from peers.errors import ConfigError
from swarm.errors import printable

NAME = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?(@[A-Za-z0-9][A-Za-z0-9._/-]{0,95})?"
)
_WANTED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "chat_template.jinja",
    "lineage.json",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


def fetch_from_hub(name: str) -> Path:
    """The folder of `owner/model` or `owner/model@revision` in huggingface_hub's own cache: config, weights as safetensors, tokenizer; no
    code and no pickle is fetched. ConfigError in one line: nobody answers, it is gated or missing, it has no safetensors."""
    from huggingface_hub import HfApi, errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    model, _, revision = name.partition("@")
    try:
        found = HfApi().model_info(model, revision=revision or None)
        files = [each.rfilename for each in found.siblings or ()]
        _check_files(name, files)
        return Path(snapshot_download(model, revision=found.sha, allow_patterns=list(_WANTED)))
    except ConfigError:
        raise
    except errors.GatedRepoError:
        why = "is gated: accept its terms on its page, and log in (hf auth login), or give its folder"
    except errors.RevisionNotFoundError:
        why = "the hub has no such revision of it"
    except errors.RepositoryNotFoundError:
        why = "is no folder here, and the hub has no such model, or not for everybody (hf auth login)"
    except errors.EntryNotFoundError:
        why = "one of its files is missing on the hub: give another revision as NAME@REVISION"
    except Exception as error:  # the library raises what its own libraries raise, too
        said = " ".join(str(error).split()) or type(error).__name__
        why = f"is no folder here, and the hub does not give it ({printable(said, 160)}); give a folder"
    raise ConfigError("--from", name, why)


def _check_files(name: str, files: list[str]) -> None:
    """Before anything large is fetched."""
    top = [file for file in files if "/" not in file]
    if any(file.endswith(".safetensors") for file in top):
        return
    pickles = [file for file in top if file.endswith(_PICKLES)]
    if pickles:
        why = f"has its weights as {pickles[0]} alone, which can run code when it is opened: give a model that has them as safetensors"
    else:
        why = "has no weights as safetensors: give another model"
    raise ConfigError("--from", name, why)


__all__ = ["NAME", "fetch_from_hub"]
