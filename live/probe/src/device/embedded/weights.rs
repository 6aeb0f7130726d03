//! Weights from a folder as Hugging Face's tools leave it: `config.json` and `*.safetensors` of a
//! Llama.

use std::path::Path;

use half::{bf16, f16};
use ndarray::{Array2, Axis};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use super::model::{Layer, Model, Shape};
use crate::device::DeviceError;

/// What is needed of `config.json`.
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
            Some((_, fault)) => {
                Err(format!("config.json: {fault}, and only a plain Llama is computed"))
            }
            None => Ok(shape),
        }
    }

    fn theta(&self) -> f32 {
        let newer = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        newer.or(self.rope_theta).unwrap_or(THETA_DEFAULT)
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
pub(super) fn load(folder: &Path) -> Result<Loaded, DeviceError> {
    read(folder).map_err(|what| DeviceError::Weights { path: folder.display().to_string(), what })
}

fn read(folder: &Path) -> Result<Loaded, String> {
    let text = std::fs::read(folder.join("config.json"));
    let text = text.map_err(|error| format!("config.json: {error}"))?;
    let config: Config =
        serde_json::from_slice(&text).map_err(|error| format!("config.json: {error}"))?;
    let shape = config.shape()?;
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
    let tensors = Tensors(tensors.collect::<Result<_, _>>()?);
    Ok(Loaded {
        model: model(&config, shape, &tensors)?,
        shape,
        context_max: config.max_position_embeddings,
    })
}

/// Norms are told apart from the matrices behind them, and computed as one.
fn model(config: &Config, shape: Shape, tensors: &Tensors<'_>) -> Result<Model, String> {
    let (width, hidden) = (shape.width(), shape.hidden);
    let kv_width = shape.kv_heads * shape.head;
    let layer = |index: usize| {
        let name = |part: &str| format!("model.layers.{index}.{part}.weight");
        let before = tensors.numbers(&name("input_layernorm"), &[width])?;
        let behind = tensors.numbers(&name("post_attention_layernorm"), &[width])?;
        let of = |part, sizes, norm| tensors.matrix(&name(part), sizes, norm);
        Ok::<_, String>(Layer {
            query: paired(&of("self_attn.q_proj", [width, width], Some(&before))?, shape.head),
            key: paired(&of("self_attn.k_proj", [width, kv_width], Some(&before))?, shape.head),
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

struct Tensors<'a>(Vec<SafeTensors<'a>>);

impl Tensors<'_> {
    /// A tensor's numbers, row by row.
    fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let found = self.0.iter().find_map(|file| file.tensor(name).ok());
        let found = found.ok_or_else(|| format!("there is no tensor `{name}`"))?;
        if found.shape() != shape {
            let is = found.shape();
            return Err(format!("tensor `{name}` is {is:?}, and by config.json {shape:?}"));
        }
        let two = || found.data().chunks_exact(2).map(|bytes| [bytes[0], bytes[1]]);
        match found.dtype() {
            Dtype::F32 => {
                let four = found.data().chunks_exact(4);
                Ok(four.map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect())
            }
            Dtype::F16 => Ok(two().map(|bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
            Dtype::BF16 => Ok(two().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
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

    use super::super::model::Chunk;
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

    /// A folder with numbers that a formula gives: norms waver about 1, all else about 0.
    fn written(folder: &tempfile::TempDir, config: &str, without: &str) -> PathBuf {
        let mut tensors = Vec::new();
        for (index, (name, shape, size)) in layout().into_iter().enumerate() {
            let number = |at: usize| {
                let wave = 43_758.545_3 * (12.9898 * at as f64 + 78.233 * index as f64).sin();
                let wave = 2.0 * (wave - wave.floor()) - 1.0;
                let number = if size == 0.0 { 1.0 + 0.25 * wave } else { size * wave };
                (number as f32).to_le_bytes()
            };
            let numbers: Vec<u8> = (0..shape.iter().product()).flat_map(number).collect();
            tensors.push((name, shape, numbers));
        }
        let views =
            tensors.iter().filter(|(name, ..)| name != without).map(|(name, shape, data)| {
                (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("they are as many"))
            });
        let path = folder.path().join("model.safetensors");
        safetensors::serialize_to_file(views, None, &path).expect("it is written");
        std::fs::write(folder.path().join("config.json"), config).expect("it is written");
        folder.path().to_owned()
    }

    #[test]
    fn a_llama_says_what_transformers_has_it_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let Loaded { model, shape, context_max } =
            load(&written(&folder, CONFIG, "")).expect("it is a Llama");
        assert_eq!((shape.kv_heads, shape.head, context_max), (2, 8, 128));
        let prompt: Vec<u32> = (0..12).map(|at| (at * 37 + 11) % 256).collect();
        let mut chunks = [Chunk { tokens: prompt, memory: model.memory() }];
        let mut said = Vec::new();
        for _ in 0..SAID.len() {
            said.extend(model.forward(&mut chunks));
            chunks[0].tokens = said[said.len() - 1..].to_vec();
        }
        assert_eq!(said, SAID);
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
        check(&CONFIG.replace("48", "64"), "", "is [48, 32], and by config.json [64, 32]");
        check(&CONFIG.replace("32", "40"), "", "is [32], and by config.json [40]");
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
        let error = load(folder.path()).map(|_| ()).expect_err("there are no weights");
        assert!(error.to_string().contains("no file with the ending .safetensors"), "{error}");
    }
}
