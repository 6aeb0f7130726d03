"""Makes a Llama with random weights and a byte-level tokenizer, as one GGUF file.

Nothing is downloaded: what a device costs does not depend on what its weights say.
"""

import sys

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, HEADS_KV, HIDDEN, CONTEXT = 6, 384, 6, 3, 1024, 8192


def bytes_to_unicode():
    """GPT-2's visible stand-ins for bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {byte: chr(byte) for byte in shown}
    table.update({byte: chr(256 + at) for at, byte in enumerate(hidden)})
    return [table[byte] for byte in range(256)]


def vocabulary():
    """Bytes, then pairs of letters: enough that a prompt of ids 10 to 250 is well within it."""
    tokens = bytes_to_unicode()
    letters = "etaoinsrhldcumfpgwyb"
    merges = [f"{first} {second}" for first in letters for second in letters]
    tokens += [merge.replace(" ", "") for merge in merges]
    specials = ["<|begin|>", "<|end|>"]
    return tokens + specials, merges


def main(path):
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("plimsoll-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS_KV)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token.startswith("<|") else normal for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_pad_token_id(len(tokens) - 1)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    draw = np.random.default_rng(1)

    def matrix(name, rows, columns):
        weights = draw.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))

    def norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd", len(tokens), WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        norm(f"{block}.attn_norm")
        matrix(f"{block}.attn_q", WIDTH, WIDTH)
        matrix(f"{block}.attn_k", WIDTH * HEADS_KV // HEADS, WIDTH)
        matrix(f"{block}.attn_v", WIDTH * HEADS_KV // HEADS, WIDTH)
        matrix(f"{block}.attn_output", WIDTH, WIDTH)
        norm(f"{block}.ffn_norm")
        matrix(f"{block}.ffn_gate", HIDDEN, WIDTH)
        matrix(f"{block}.ffn_up", HIDDEN, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, HIDDEN)
    norm("output_norm")
    matrix("output", len(tokens), WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1])
