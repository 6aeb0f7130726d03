"""Has transformers say what the model of `weights.rs`'s test says. Needs torch and transformers.

    python3 live/probe/tests/llama.py      # prints the tokens that the test expects
"""

import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=256,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
)
model = LlamaForCausalLM(config).eval()
PARTS = [
    ("input_layernorm", 0.0),
    ("self_attn.q_proj", 0.5),
    ("self_attn.k_proj", 0.5),
    ("self_attn.v_proj", 0.3),
    ("self_attn.o_proj", 0.3),
    ("post_attention_layernorm", 0.0),
    ("mlp.gate_proj", 0.3),
    ("mlp.up_proj", 0.3),
    ("mlp.down_proj", 0.3),
]
layout = [("model.embed_tokens", 1.0)]
layout += [(f"model.layers.{layer}.{part}", size) for layer in range(2) for part, size in PARTS]
layout += [("model.norm", 0.0), ("lm_head", 0.5)]
weights = dict(model.named_parameters())
for index, (name, size) in enumerate(layout):
    weight = weights[name + ".weight"]
    waves = [43758.5453 * math.sin(12.9898 * at + 78.233 * index) for at in range(weight.numel())]
    waves = [2 * (wave - math.floor(wave)) - 1 for wave in waves]
    numbers = [1.0 + 0.25 * wave if size == 0.0 else size * wave for wave in waves]
    weight.data = torch.tensor(numbers, dtype=torch.float32).reshape(weight.shape)
tokens = [(at * 37 + 11) % 256 for at in range(12)]
with torch.no_grad():
    for _ in range(8):
        logits = model(torch.tensor([tokens])).logits[0, -1]
        best = logits.topk(2).values
        tokens.append(int(logits.argmax()))
        print(tokens[-1], "ahead by", round(float(best[0] - best[1]), 3))
print(tokens[12:])
