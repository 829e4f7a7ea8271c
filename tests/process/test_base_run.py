"""Real peers train adapters beside a model that transformers wrote: it is fetched, one of them is killed, work is redone, and what
comes out opens."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from peers.directory import PeerDirectory
from peers.watching import read_events

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
ROOT = Path(__file__).parents[2]
LOCAL = ("--host", "127.0.0.1")
EPOCHS = 16  # at least
TEXT = "".join(f"def f{i}(x):\n    return x * {i} + {i * 7 % 13}\n" for i in range(4000))


class Machines:
    """One user's working directory, with caches apart where a peer is to have a machine of its own."""

    def __init__(self, cwd: Path) -> None:
        self.cwd, self.started = cwd, dict[str, subprocess.Popen[bytes]]()
        self.killed_at = 0  # the newest epoch that b knew of then

    def environment(self, cache: str) -> dict[str, str]:
        own = {
            "PYTHONPATH": str(ROOT),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **own, "XDG_CACHE_HOME": str(self.cwd / cache)}

    def sparehive(self, *arguments: str, cache: str = "cache-organiser") -> str:
        result = subprocess.run(
            [sys.executable, "-m", "peers", *arguments], cwd=self.cwd, env=self.environment(cache), capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    def start(self, name: str, *arguments: str, cache: str) -> None:
        with open(self.cwd / f"{name}.log", "ab") as log:
            self.started[name] = subprocess.Popen(
                [sys.executable, "-m", "peers", *arguments, "--dir", name, "--quiet", *LOCAL], cwd=self.cwd,
                env=self.environment(cache), stdout=log, stderr=log,
            )  # fmt: skip

    def status(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.cwd / name / "status.json").read_bytes())
        except (OSError, ValueError):
            found = {}
        return found

    def epochs_of(self, name: str) -> list[int]:
        """Certified ones to which it contributed, as it heard of them."""
        account = self.status(name).get("account")
        events = read_events(PeerDirectory(self.cwd / name))
        return [0, *(e["epoch"] for e in events if e["event"] == "Certified" and account in e["contributors"])]

    def until(self, what: str, holds: Any, seconds: float = 300.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what} took longer than {seconds:.0f} s"
            ended = {name: each.poll() for name, each in self.started.items() if each.poll()}
            assert not ended, f"{ended}: " + "".join((self.cwd / f"{n}.log").read_text()[-600:] for n in ended)
            time.sleep(0.2)

    def close(self) -> None:
        for process in self.started.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started.values():
            process.wait(40)


def write_model(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=300, max_position_embeddings=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Machines:
    """A run of LoRA on a tiny Llama; peer b was killed on its way and has gone on; all have stopped."""
    made = Machines(tmp_path_factory.mktemp("adapted"))
    (made.cwd / "text.txt").write_text(TEXT)
    write_model(made.cwd / "published")
    options = ["rounds.min_seated=2", "rounds.units_per_epoch=4", "task.data.context=32", "inner.lr=0.01"]
    settings = [x for option in options for x in ("--set", option)]
    new = ["run", "new", "run", "--preset", "demo", "--data", "text.txt", "--from", "published", "--lora", "4"]
    made.sparehive(*new, *settings)
    try:
        made.start("seed", "seed", "run", cache="cache-organiser")
        made.until("the invite", (made.cwd / "seed" / "ready.json").exists)
        invite = (made.cwd / "seed" / "invite.txt").read_text().strip()
        for name in ("a", "b"):
            made.start(name, "join", invite, cache=f"cache-{name}")
        made.until("two rounds", lambda: made.status("b").get("epoch", 0) >= 2)
        made.killed_at, pid = made.status("b")["epoch"], made.status("b")["pid"]
        os.kill(pid, signal.SIGKILL)
        made.until("b's next life", lambda: made.status("b").get("pid", pid) != pid)
        made.until(
            "rounds of both after it", lambda: all(made.epochs_of(name)[-2:][0] > made.killed_at for name in "ab")
        )
        made.until("as many rounds", lambda: made.status("a").get("epoch", 0) >= EPOCHS)
    finally:
        made.close()
    return made


def test_each_machine_has_the_base_once_and_it_is_what_was_published(swarm: Machines) -> None:
    import torch
    from safetensors.torch import load_file

    wanted = load_file(swarm.cwd / "published" / "model.safetensors")
    for name in ("organiser", "a", "b"):
        (folder,) = (path for path in (swarm.cwd / f"cache-{name}/sparehive/models").iterdir() if path.is_dir())
        found = load_file(folder / "model.safetensors")
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
        size = (folder / "model.safetensors").stat().st_size
        own = {"a": "a", "b": "b", "organiser": "seed"}[name]
        assert sum(path.stat().st_size for path in (swarm.cwd / own / "blocks").iterdir()) < 16 * size
    assert len(list(swarm.cwd.glob("cache-*/sparehive/models/*.blocks"))) == 0


def test_the_killed_peer_contributed_again_and_its_work_can_be_redone(swarm: Machines) -> None:
    for name in ("a", "b"):
        result = json.loads(swarm.sparehive("run", "replay", "--dir", name, "--json", cache=f"cache-{name}"))
        assert (
            result["passed"]
            and result["units"] >= 1
            and result["epoch"] > swarm.killed_at
            and result["distance"] <= result["tolerance"]
        )


def test_the_adapter_opens_in_peft_and_has_learnt(swarm: Machines) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    name = "a"
    result = json.loads(swarm.sparehive("export", "--dir", name, "--out", "adapter", "--json", cache=f"cache-{name}"))
    whole = json.loads(
        swarm.sparehive("export", "--dir", name, "--out", "whole", "--merge", "--json", cache=f"cache-{name}")
    )
    assert result["root"] == whole["root"] and result["loss"] < result["loss_before"]
    base = AutoModelForCausalLM.from_pretrained(swarm.cwd / "published")
    tokens = torch.tensor([list(b"def f7(x):\n    return x")])
    with torch.no_grad():
        before = base(input_ids=tokens).logits.clone()
        adapted = PeftModel.from_pretrained(base, swarm.cwd / "adapter")(input_ids=tokens).logits
        merged = AutoModelForCausalLM.from_pretrained(swarm.cwd / "whole")(input_ids=tokens).logits
    assert (adapted - merged).abs().max() < 1e-5
    assert (adapted - before).abs().max() > 1e-3, "the adapter does something"
    assert (swarm.cwd / "adapter" / "adapter_config.json").is_file()
    assert not (swarm.cwd / "adapter" / "model.safetensors").exists()
    lineage = json.loads((swarm.cwd / "whole" / "lineage.json").read_text())
    assert len(lineage["shares"]) == 2 and sum(lineage["shares"].values()) >= 4
    swarm.sparehive("run", "new", "next", "--preset", "demo", "--data", "text.txt", "--from", "whole")
    (child,) = (path for path in swarm.cwd.glob("cache-organiser/sparehive/models/*/lineage.json"))
    assert json.loads(child.read_text()) == lineage, "the next run's base has it inside"
    next_run = (swarm.cwd / "next" / "run.toml").read_text()
    assert child.parent.name in next_run and 'kind = "published"' in next_run, "the export's tokenizer goes along"
    card = (swarm.cwd / "adapter" / "README.md").read_text()
    assert result["root"][2:] in card and "| 0x" in card
