"""Makes a folder that describes a small Llama and its tokenizer; weights are left to
`--load-format dummy`. Nothing is downloaded."""

import json
import pathlib
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 640,
    "intermediate_size": 1792,
    "num_hidden_layers": 12,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "vocab_size": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1022,
    "eos_token_id": 1023,
}


def main(folder):
    folder = pathlib.Path(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate(letters)}
    for at in range(len(letters), CONFIG["vocab_size"]):
        vocabulary[f"<|{at}|>"] = at
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|1022|>",
        "eos_token": "<|1023|>",
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    # Last: its presence says that the folder is whole.
    (folder / "config.json").write_text(json.dumps(CONFIG))


if __name__ == "__main__":
    main(sys.argv[1])
