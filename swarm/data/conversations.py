"""Conversations as text, by a tokenizer's template, and which of it the assistant said."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swarm.data.records import RecordLayout
from swarm.errors import InputError

# ChatML: what tokenizers that have no template of their own are given
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MAX_TEMPLATE_BYTES = 1 << 18
_PROBE = "sparehive probe"


class Template:
    """A Jinja template as tokenizers bring it, rendered in transformers' sandbox. `tokens`: texts of special tokens that it may name
    (bos_token and the like). InputError where it does not come to an end as a template, or refuses a conversation."""

    def __init__(self, text: str, tokens: Mapping[str, str] | None = None) -> None:
        self.text, self._tokens = text, {"bos_token": "", "eos_token": "", **(tokens or {})}

    def render(self, messages: Sequence[Mapping[str, Any]], is_asked: bool = False) -> str:
        """`is_asked`: with what stands before the assistant's answer."""
        from transformers.utils.chat_template_utils import render_jinja_template

        render: Any = render_jinja_template
        try:
            found, _ = render([list(messages)], chat_template=self.text, add_generation_prompt=is_asked, **self._tokens)
        except Exception as error:  # a template raises what it likes, and Jinja has errors of its own
            said = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(
                "messages", None, f"the chat template refuses them ({said}); mend the row or leave it out"
            ) from None
        return str(found[0])

    def end_of_turn(self) -> str:
        """What stands behind the assistant's words, by which a turn is known to be over; "" where that cannot be said."""
        try:
            text = self.render([{"role": "user", "content": "."}, {"role": "assistant", "content": _PROBE}])
        except InputError:
            return ""
        return text.rpartition(_PROBE)[2].strip() if _PROBE in text else ""


def check_messages(messages: object) -> list[dict[str, str]]:
    """InputError where they are no list of roles and words with something of the assistant's."""
    if not isinstance(messages, list) or not messages:
        raise InputError("messages", messages, 'must be a list of {"role", "content"}; mend the row or leave it out')
    for number, message in enumerate(messages):
        fits = isinstance(message, dict) and all(isinstance(message.get(name), str) for name in ("role", "content"))
        if not fits:
            raise InputError(
                f"messages[{number}]",
                message,
                'must have a "role" and a "content" that are words; mend the row or leave it out',
            )
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError(
            "messages", f"{len(messages)} of them", "none is the assistant's, so there is nothing to learn"
        )
    return messages


def assistant_spans(template: Template, messages: Sequence[Mapping[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The whole text, and from where to where the assistant's turns reach in it, with what ends them: found by rendering what comes
    before each turn, and each turn. InputError where a template writes earlier turns otherwise once there are later ones."""
    text = template.render(messages)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = template.render(messages[:number], is_asked=True) if number else ""
        until = template.render(messages[: number + 1])
        if not text.startswith(before) or not until.startswith(before):
            before = template.render(messages[:number]) if number else ""
        start, end = len(before), len(until)
        if not text.startswith(until):  # what the template writes behind a last turn is not there behind an earlier one
            end = next(
                (n for n in range(min(len(until), len(text))) if until[n] != text[n]), min(len(until), len(text))
            )
        if not text.startswith(before) or end <= start:
            raise InputError(
                f"messages[{number}]",
                message["content"][:40],
                "the chat template writes it otherwise in a longer conversation, so what is the assistant's cannot be told",
            )
        spans.append((start, end))
    return text, spans


def chat_record(layout: RecordLayout, tokenizer: Any, template: Template, messages: object) -> np.ndarray:
    """Structured [1], or [0] where nothing of the assistant's is within the record's tokens. Errors as above."""
    text, spans = assistant_spans(template, check_messages(messages))
    try:
        encoded = tokenizer.encode(text, add_special_tokens=False)
    except (UnicodeEncodeError, TypeError):  # what the library makes of it
        raise InputError("messages", None, "have half a character; mend the row or leave it out") from None
    record = layout.empty(1)
    size = record["tokens"].shape[1]
    tokens = encoded.ids[:size]
    learnt = [any(start <= first < end for start, end in spans) for first, _ in encoded.offsets[:size]]
    if len(tokens) < 2 or not any(learnt[1:]):
        return record[:0]
    learnt[0] = False  # nothing comes before it
    record["tokens"][0, : len(tokens)] = tokens
    record["learnt"][0, : len(learnt)] = learnt
    return record


__all__ = ["PLAIN_TEMPLATE", "Template", "assistant_spans", "chat_record", "check_messages"]
