"""Which parameters of a model are hidden matrices: what its embeddings and its output have is none, tied or not."""

import pytest

from swarm.config import UntrainedModel
from swarm.models import FlatModel, build_model, for_tokens

SHAPES = {
    "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2},
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
}


@pytest.mark.parametrize(
    ("family", "is_tied", "matrices"),
    [
        ("gpt2", True, ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
        ("llama", False, ["down_proj", "gate_proj", "up_proj", "k_proj", "o_proj", "q_proj", "v_proj"]),
    ],
)
def test_embeddings_and_output_are_none(family: str, is_tied: bool, matrices: list[str]) -> None:
    config = UntrainedModel(kind="untrained", family=family, fields={**SHAPES[family], "tie_word_embeddings": is_tied})
    model = FlatModel(build_model(config, for_tokens(16)))
    found = {}
    starts = {view.data_ptr(): name for name, view in model.layout.views(model.flat).items()}
    for matrix in model.matrices:
        view = model.flat[matrix.where].view(matrix.rows, matrix.columns)
        found[starts[view.data_ptr()]] = view.shape
    assert sorted(found) == [
        name for name in model.layout.names if any(each in name and "weight" in name for each in matrices)
    ]
    assert len(found) == len(matrices)
    for name, shape in found.items():
        assert model.layout.views(model.flat)[name].shape == shape
