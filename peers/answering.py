"""A model in use behind `sparehive model serve`: a wish in, a text out. The only part of that which needs torch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peers.errors import ConfigError
from peers.market.serving import Answer, Wish
from peers.using import open_directory
from swarm.tasks import Manner

if TYPE_CHECKING:
    from peers.market.serving import Message


def answering(directory: Path, threads: int) -> Answer:
    """ConfigError where there is no model in `directory`, or it writes no text."""
    torch.set_num_threads(threads)
    found = open_directory(directory)
    kind = found.config.task.kind
    if kind not in ("causal_lm", "chat"):
        raise ConfigError(
            "DIR", str(directory), f"holds a model of the kind {kind}, which writes no text: choose another"
        )
    model = found.newest()
    model.module.eval()

    def answer(wish: Wish, told: Callable[[str], None]) -> str:
        given = _given(wish, kind)
        prompt = str(given.get("text", "")) if kind == "causal_lm" else ""  # which a model of texts says again

        def follows(text: str) -> str:
            return text.removeprefix(prompt)

        manner = Manner(wish.max_tokens, wish.temperature, wish.seed, lambda text: told(follows(text)))
        return follows(str(found.use.respond(model, given, manner, lambda share: None)["text"]))

    return answer


def _given(wish: Wish, kind: str) -> dict[str, object]:
    """As the task takes it: conversations are told to a model of texts as one."""
    if kind == "chat":
        said = [{"role": each.role, "content": each.content} for each in wish.messages]
        return {"messages": said or [{"role": "user", "content": wish.prompt}]}
    return {"text": _as_text(wish.messages) if wish.messages else wish.prompt}


def _as_text(messages: "tuple[Message, ...]") -> str:
    return "".join(f"{each.role}: {each.content}\n" for each in messages) + "assistant:"


__all__ = ["answering"]
