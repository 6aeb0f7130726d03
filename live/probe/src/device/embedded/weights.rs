//! Weights of a Llama: a GGUF file as llama.cpp's tools leave it, or a folder as Hugging Face's do,
//! with `config.json` and `*.safetensors`.

use std::path::Path;

use ndarray::{Array2, Axis};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use super::gguf::{Entry, Gguf, of_bf16, of_f16, of_f32};
use super::model::{Layer, Model, Shape};
use crate::device::DeviceError;

/// What a decoder is, in the words of `config.json`.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: u32,
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    /// Where newer tools write `rope_theta`.
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

#[derive(Deserialize)]
struct Rope {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
}

/// The base of rotary frequencies where none is told, as Llama's first had it.
const THETA_DEFAULT: f32 = 10_000.0;
/// More than that is another architecture's, or a mistake.
const SIZE_MAX: usize = 1 << 20;

impl Config {
    /// Its shape, or why it cannot be computed.
    fn shape(&self) -> Result<Shape, String> {
        let heads = self.num_attention_heads.max(1);
        let shape = Shape {
            layers: self.num_hidden_layers,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head: self.head_dim.unwrap_or(self.hidden_size / heads),
            hidden: self.intermediate_size,
            vocabulary: self.vocab_size,
        };
        let sizes = [self.hidden_size, shape.layers, shape.heads, shape.kv_heads, shape.head]
            .into_iter()
            .chain([shape.hidden, shape.vocabulary]);
        let scaled = self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null());
        let rope = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref());
        let faults = [
            (self.model_type != "llama", "`model_type` is not \"llama\""),
            (self.attention_bias || self.mlp_bias, "its layers have biases"),
            (
                scaled || rope.is_some_and(|rope| rope != "default"),
                "its rotary positions are scaled",
            ),
            (sizes.into_iter().any(|size| size == 0 || size > SIZE_MAX), "a size is out of range"),
            (!shape.heads.is_multiple_of(shape.kv_heads.max(1)), "no whole heads share a key"),
            (!shape.head.is_multiple_of(2), "heads are of an odd width"),
            (shape.width() != self.hidden_size, "it is not as wide as its heads together"),
            (shape.vocabulary < 256, "it has fewer than 256 tokens"),
        ];
        match faults.iter().find(|(is_so, _)| *is_so) {
            Some((_, fault)) => Err(format!("{fault}, and only a plain Llama is computed")),
            None => Ok(shape),
        }
    }

    fn theta(&self) -> f32 {
        let newer = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        newer.or(self.rope_theta).unwrap_or(THETA_DEFAULT)
    }

    /// As a GGUF file tells it.
    fn of(file: &Gguf) -> Result<Config, String> {
        let text = |name: &str| match file.entry(name) {
            Some(Entry::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let model_type = text("general.architecture").unwrap_or_default();
        if model_type != "llama" {
            return Err(format!(
                "it is of the architecture `{model_type}`, and only a plain Llama is computed"
            ));
        }
        let entry = |name: &str| file.entry(&format!("llama.{name}"));
        let perhaps = |name: &str| match entry(name) {
            Some(Entry::Count(count)) => u32::try_from(*count)
                .map(Some)
                .map_err(|_| format!("`llama.{name}` is out of range")),
            Some(other) => Err(format!("`llama.{name}` is {other:?} and no count")),
            None => Ok(None),
        };
        let count =
            |name: &str| perhaps(name)?.ok_or_else(|| format!("there is no `llama.{name}`"));
        let size = |name: &str| count(name).map(|count| count as usize);
        let size_if = |name: &str| perhaps(name).map(|count| count.map(|count| count as usize));
        let float = |name: &str| match entry(name) {
            Some(Entry::Float(number)) => Some(*number),
            _ => None,
        };
        let has = |tensor: &str| file.shape(tensor).is_some();
        let scaling = text("llama.rope.scaling.type").is_some_and(|kind| kind != "none");
        let epsilon = float("attention.layer_norm_rms_epsilon");
        Ok(Config {
            model_type,
            hidden_size: size("embedding_length")?,
            intermediate_size: size("feed_forward_length")?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads: size("attention.head_count")?,
            num_key_value_heads: size_if("attention.head_count_kv")?,
            head_dim: size_if("attention.key_length")?,
            vocab_size: file
                .shape("token_embd.weight")
                .and_then(|shape| shape.first().copied())
                .unwrap_or(0),
            max_position_embeddings: count("context_length")?,
            rms_norm_eps: epsilon.ok_or("there is no epsilon of its norms")?,
            rope_theta: float("rope.freq_base"),
            rope_parameters: None,
            rope_scaling: (scaling || has("rope_freqs.weight")).then_some(Value::Bool(true)),
            tie_word_embeddings: !has("output.weight"),
            attention_bias: has("blk.0.attn_q.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
        })
    }
}

/// A model, its shape, and the longest context that it was made for.
pub(super) struct Loaded {
    pub model: Model,
    pub shape: Shape,
    pub context_max: u32,
}

/// Reads a model.
///
/// # Errors
/// [`DeviceError::Weights`] if a file cannot be read, is of another architecture, or lacks a tensor.
pub(super) fn load(path: &Path) -> Result<Loaded, DeviceError> {
    let read = if path.is_dir() { of_folder(path) } else { of_gguf(path) };
    read.map_err(|what| DeviceError::Weights { path: path.display().to_string(), what })
}

fn of_gguf(path: &Path) -> Result<Loaded, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let file = Gguf::read(bytes)?;
    let config = Config::of(&file)?;
    let shape = config.shape()?;
    loaded(&config, shape, &Tensors::Gguf(&file))
}

fn of_folder(folder: &Path) -> Result<Loaded, String> {
    let text = std::fs::read(folder.join("config.json"));
    let text = text.map_err(|error| format!("config.json: {error}"))?;
    let config: Config =
        serde_json::from_slice(&text).map_err(|error| format!("config.json: {error}"))?;
    let shape = config.shape().map_err(|error| format!("config.json: {error}"))?;
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
            files.push((name, bytes));
        }
    }
    if files.is_empty() {
        return Err("there is no file with the ending .safetensors".to_owned());
    }
    let tensors = files.iter().map(|(name, bytes)| {
        SafeTensors::deserialize(bytes).map_err(|error| format!("{name}: {error}"))
    });
    loaded(&config, shape, &Tensors::Folder(tensors.collect::<Result<_, _>>()?))
}

fn loaded(config: &Config, shape: Shape, tensors: &Tensors<'_>) -> Result<Loaded, String> {
    let model = model(config, shape, tensors)?;
    Ok(Loaded { model, shape, context_max: config.max_position_embeddings })
}

/// Norms are told apart from the matrices behind them, and computed as one.
fn model(config: &Config, shape: Shape, tensors: &Tensors<'_>) -> Result<Model, String> {
    let (width, hidden) = (shape.width(), shape.hidden);
    let kv_width = shape.kv_heads * shape.head;
    // The two of a pair that is turned stand side by side in the model and in GGUF.
    let paired = |matrix: Array2<f32>| match tensors {
        Tensors::Folder(_) => paired(&matrix, shape.head),
        Tensors::Gguf(_) => matrix,
    };
    let layer = |index: usize| {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let before = tensors.numbers(&name("input_layernorm"), &[width])?;
        let behind = tensors.numbers(&name("post_attention_layernorm"), &[width])?;
        let of = |part, sizes, norm| tensors.matrix(&name(part), sizes, norm);
        Ok::<_, String>(Layer {
            query: paired(of("self_attn.q_proj", [width, width], Some(&before))?),
            key: paired(of("self_attn.k_proj", [width, kv_width], Some(&before))?),
            value: of("self_attn.v_proj", [width, kv_width], Some(&before))?,
            output: of("self_attn.o_proj", [width, width], None)?,
            gate: of("mlp.gate_proj", [width, hidden], Some(&behind))?,
            up: of("mlp.up_proj", [width, hidden], Some(&behind))?,
            down: of("mlp.down_proj", [hidden, width], None)?,
        })
    };
    let layers = (0..shape.layers).map(layer).collect::<Result<Vec<_>, _>>()?;
    const EMBEDDING: &str = "model.embed_tokens.weight";
    let embedding = tensors.numbers(EMBEDDING, &[shape.vocabulary, width])?;
    let embedding = Array2::from_shape_vec((shape.vocabulary, width), embedding);
    let last = tensors.numbers("model.norm.weight", &[width])?;
    let head = if config.tie_word_embeddings { EMBEDDING } else { "lm_head.weight" };
    Ok(Model::new(
        shape,
        embedding.expect("as many numbers as its shape says"),
        layers,
        tensors.matrix(head, [width, shape.vocabulary], Some(&last))?,
        (config.theta(), config.rms_norm_eps),
    ))
}

/// Where tensors are found, by the names of Hugging Face's files.
enum Tensors<'a> {
    Folder(Vec<SafeTensors<'a>>),
    Gguf(&'a Gguf),
}

/// What GGUF calls the parts of a decoder, behind what Hugging Face's files call them; those of a
/// layer without its number.
const PARTS: [[&str; 2]; 12] = [
    ["model.embed_tokens", "token_embd"],
    ["input_layernorm", "attn_norm"],
    ["self_attn.q_proj", "attn_q"],
    ["self_attn.k_proj", "attn_k"],
    ["self_attn.v_proj", "attn_v"],
    ["self_attn.o_proj", "attn_output"],
    ["post_attention_layernorm", "ffn_norm"],
    ["mlp.gate_proj", "ffn_gate"],
    ["mlp.up_proj", "ffn_up"],
    ["mlp.down_proj", "ffn_down"],
    ["model.norm", "output_norm"],
    ["lm_head", "output"],
];

/// What GGUF calls a tensor.
fn in_gguf(name: &str) -> String {
    let named = |part: &str| {
        let found = PARTS.iter().find(|[theirs, _]| *theirs == part);
        found.map_or_else(|| part.to_owned(), |[_, ours]| (*ours).to_owned())
    };
    let part = name.trim_end_matches(".weight");
    match part.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => format!("blk.{layer}.{}.weight", named(part)),
        None => format!("{}.weight", named(part)),
    }
}

impl Tensors<'_> {
    /// A tensor's numbers, row by row.
    fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let other = |name: &str, is: &[usize]| {
            Err(format!("tensor `{name}` is {is:?}, and by the model's shape {shape:?}"))
        };
        let files = match self {
            Tensors::Folder(files) => files,
            Tensors::Gguf(file) => {
                let name = in_gguf(name);
                return match file.shape(&name) {
                    Some(is) if is != shape => other(&name, is),
                    _ => file.numbers(&name),
                };
            }
        };
        let found = files.iter().find_map(|file| file.tensor(name).ok());
        let found = found.ok_or_else(|| format!("there is no tensor `{name}`"))?;
        if found.shape() != shape {
            return other(name, found.shape());
        }
        match found.dtype() {
            Dtype::F32 => Ok(of_f32(found.data())),
            Dtype::F16 => Ok(of_f16(found.data())),
            Dtype::BF16 => Ok(of_bf16(found.data())),
            other => Err(format!("tensor `{name}` is of {other:?}: F32, F16 and BF16 are read")),
        }
    }

    /// A matrix of inputs by outputs, which are kept the other way round, behind a norm.
    fn matrix(
        &self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        norm: Option<&[f32]>,
    ) -> Result<Array2<f32>, String> {
        let numbers = self.numbers(name, &[outputs, inputs])?;
        let stored = Array2::from_shape_vec((outputs, inputs), numbers);
        let stored = stored.expect("as many numbers as its shape says");
        let mut matrix = stored.t().as_standard_layout().into_owned();
        for (mut row, weight) in matrix.axis_iter_mut(Axis(0)).zip(norm.into_iter().flatten()) {
            row *= *weight;
        }
        Ok(matrix)
    }
}

/// A head's outputs in the order of [`Model`]: the two of a pair that is turned stand side by side,
/// where the files have them half a head apart.
fn paired(matrix: &Array2<f32>, head: usize) -> Array2<f32> {
    let place = |column: usize| {
        let (start, at) = (column / head * head, column % head);
        start + at % 2 * (head / 2) + at / 2
    };
    let order: Vec<usize> = (0..matrix.ncols()).map(place).collect();
    matrix.select(Axis(1), &order)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::tensor::TensorView;

    use super::super::gguf::tests::Writer;
    use super::super::model::{Chunk, Decoder};
    use super::*;

    /// `live/probe/tests/llama.py` makes the same model, and has transformers say these.
    const CONFIG: &str = r#"{
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
    }"#;
    const SAID: [u32; 8] = [180, 185, 157, 204, 123, 37, 72, 203];

    /// Names, shapes and sizes of numbers of all tensors, in order.
    fn layout() -> Vec<(String, Vec<usize>, f64)> {
        let (width, kv, hidden, vocabulary) = (32, 16, 48, 256);
        let mut all = vec![("model.embed_tokens".to_owned(), vec![vocabulary, width], 1.0)];
        for layer in 0..2 {
            for (part, shape, size) in [
                ("input_layernorm", vec![width], 0.0),
                ("self_attn.q_proj", vec![width, width], 0.5),
                ("self_attn.k_proj", vec![kv, width], 0.5),
                ("self_attn.v_proj", vec![kv, width], 0.3),
                ("self_attn.o_proj", vec![width, width], 0.3),
                ("post_attention_layernorm", vec![width], 0.0),
                ("mlp.gate_proj", vec![hidden, width], 0.3),
                ("mlp.up_proj", vec![hidden, width], 0.3),
                ("mlp.down_proj", vec![width, hidden], 0.3),
            ] {
                all.push((format!("model.layers.{layer}.{part}"), shape, size));
            }
        }
        all.push(("model.norm".to_owned(), vec![width], 0.0));
        all.push(("lm_head".to_owned(), vec![vocabulary, width], 0.5));
        all.into_iter().map(|(name, shape, size)| (name + ".weight", shape, size)).collect()
    }

    /// Numbers that a formula gives: norms waver about 1, all else about 0.
    fn numbers(index: usize, (shape, size): (&[usize], f64)) -> Vec<f32> {
        let number = |at: usize| {
            let wave = 43_758.545_3 * (12.9898 * at as f64 + 78.233 * index as f64).sin();
            let wave = 2.0 * (wave - wave.floor()) - 1.0;
            (if size == 0.0 { 1.0 + 0.25 * wave } else { size * wave }) as f32
        };
        (0..shape.iter().product()).map(number).collect()
    }

    /// A folder with all tensors but one.
    fn written(folder: &tempfile::TempDir, config: &str, without: &str) -> PathBuf {
        let all = layout().into_iter().enumerate().map(|(index, (name, shape, size))| {
            let numbers = numbers(index, (&shape, size));
            let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
            (name, shape, bytes)
        });
        let tensors: Vec<_> = all.filter(|(name, ..)| name != without).collect();
        let views = tensors.iter().map(|(name, shape, data)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("they are as many"))
        });
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(views, None, &path).expect("it is written");
        std::fs::write(folder.path().join("config.json"), config).expect("it is written");
        folder.path().to_owned()
    }

    /// The same as a GGUF file of numbers of a kind, with one entry of its description changed.
    fn written_as_gguf(folder: &tempfile::TempDir, kind: u32, change: (&str, Entry)) -> PathBuf {
        let mut file = Writer::default();
        let counts = [
            ("llama.embedding_length", 32),
            ("llama.feed_forward_length", 48),
            ("llama.block_count", 2),
            ("llama.attention.head_count", 4),
            ("llama.attention.head_count_kv", 2),
            ("llama.context_length", 128),
        ];
        let counts = counts.map(|(name, count)| (name, Entry::Count(count)));
        let others = [
            ("general.architecture", Entry::Text("llama".to_owned())),
            ("llama.attention.layer_norm_rms_epsilon", Entry::Float(1e-5)),
        ];
        let all = counts.into_iter().chain(others);
        for (name, entry) in all.filter(|(name, _)| *name != change.0) {
            file.entry(name, &entry);
        }
        file.entry(change.0, &change.1);
        file.list("tokenizer.ggml.tokens", &["a", "b"]);
        for (index, (name, shape, size)) in layout().into_iter().enumerate() {
            let name = in_gguf(&name);
            let mut numbers = numbers(index, (&shape, size));
            // A head's outputs with the two of a pair side by side.
            if name.contains("attn_q") || name.contains("attn_k") {
                let rows: Vec<&[f32]> = numbers.chunks(32).collect();
                let place = |row: usize| row / 8 * 8 + row % 2 * 4 + row % 8 / 2;
                numbers = (0..rows.len()).flat_map(|row| rows[place(row)]).copied().collect();
            }
            let kind = if shape.len() == 1 { 0 } else { kind };
            file.tensor(&name, (&shape, kind), &numbers);
        }
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, file.bytes()).expect("it is written");
        path
    }

    fn says(path: &Path) -> Vec<u32> {
        let Loaded { model, shape, context_max } = load(path).expect("it is a Llama");
        assert_eq!((shape.kv_heads, shape.head, context_max), (2, 8, 128));
        let prompt: Vec<u32> = (0..12).map(|at| (at * 37 + 11) % 256).collect();
        let mut chunks = [Chunk { tokens: prompt, memory: model.memory() }];
        let mut said = Vec::new();
        for _ in 0..SAID.len() {
            said.extend(model.forward(&mut chunks).expect("it computes"));
            chunks[0].tokens = said[said.len() - 1..].to_vec();
        }
        said
    }

    #[test]
    fn a_llama_says_what_transformers_has_it_say() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(says(&written(&folder, CONFIG, "")), SAID);
        let named = || ("general.name", Entry::Text("waves".to_owned()));
        // All kinds but that of four bits keep enough of the numbers to say the same.
        for (kind, name) in [(0, "F32"), (1, "F16"), (30, "BF16"), (8, "Q8_0")] {
            assert_eq!(says(&written_as_gguf(&folder, kind, named())), SAID, "{name}");
        }
    }

    #[test]
    fn what_is_no_llama_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |config: &str, without: &str, expected: &str| {
            let error = load(&written(&folder, config, without)).map(|_| ()).expect_err(expected);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        };
        check("{", "", "config.json: EOF");
        check(&CONFIG.replace("llama", "gpt2"), "", "`model_type` is not \"llama\"");
        check(&CONFIG.replace("48", "64"), "", "is [48, 32], and by the model's shape [64, 32]");
        check(&CONFIG.replace("32", "40"), "", "is [32], and by the model's shape [40]");
        check(
            &CONFIG.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 0"),
            "",
            "no whole heads share a key",
        );
        check(CONFIG, "lm_head.weight", "there is no tensor `lm_head.weight`");
        let scaled = CONFIG.replace("10000.0", "10000.0, \"rope_scaling\": {\"factor\": 8}");
        check(&scaled, "", "its rotary positions are scaled");
        written(&folder, CONFIG, "");
        std::fs::remove_file(folder.path().join("model.safetensors")).expect("it was there");
        let told = |path: &Path, expected: &str| {
            let error = load(path).map(|_| ()).expect_err(expected);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        };
        told(folder.path(), "no file with the ending .safetensors");
        told(&folder.path().join("config.json"), "it is no GGUF file");
        told(&folder.path().join("gone.gguf"), "No such file");
        let text = |text: &str| Entry::Text(text.to_owned());
        for (name, entry, expected) in [
            ("general.architecture", text("qwen2"), "it is of the architecture `qwen2`"),
            ("llama.rope.scaling.type", text("yarn"), "its rotary positions are scaled"),
            ("llama.block_count", Entry::Count(3), "there is no tensor `blk.2.attn_norm.weight`"),
            ("llama.block_count", Entry::Float(2.0), "`llama.block_count` is Float(2.0)"),
            ("llama.feed_forward_length", Entry::Count(64), "by the model's shape [64, 32]"),
        ] {
            told(&written_as_gguf(&folder, 0, (name, entry)), expected);
        }
    }
}
