//! The decoder over candle's tensors, which also a CUDA device computes. It takes its weights from
//! [`Model`], and is held against the tokens of that.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope_i;
use ndarray::Array2;

use super::model::{Chunk, Decoder, Layer, Model, Shape};
use crate::device::DeviceError;

/// A decoder whose weights and KV memory are a device's.
pub(super) struct Tensors {
    shape: Shape,
    device: Device,
    embedding: Tensor,
    layers: Vec<Layer<Tensor>>,
    head: Tensor,
    /// The weights of norms, which those behind them contain.
    ones: Tensor,
    /// Cosines and sines of each position, one a pair of a head's numbers.
    turns: [Tensor; 2],
    epsilon: f32,
}

/// Tokens that a memory has room for at least, and by which it grows at least.
const ROOMS: usize = 64;

/// The KV memory of a sequence.
#[derive(Default)]
pub(super) struct Lanes {
    /// Keys and values of each layer: heads of theirs by rooms by numbers.
    layers: Vec<[Tensor; 2]>,
    tokens: usize,
}

impl Lanes {
    /// Room for so many tokens behind those that it holds.
    fn reserve(&mut self, (shape, device): (Shape, &Device), count: usize) -> Result<()> {
        let Shape { layers, kv_heads, head, .. } = shape;
        let rooms = self.layers.first().map_or(Ok(0), |[keys, _]| keys.dim(1))?;
        let needed = self.tokens + count;
        if needed <= rooms {
            return Ok(());
        }
        let rooms = needed.next_multiple_of(ROOMS).max(rooms + rooms / 2);
        let grown = |old: Option<&Tensor>| {
            let grown = Tensor::zeros((kv_heads, rooms, head), DType::F32, device)?;
            if let Some(old) = old.filter(|_| self.tokens > 0) {
                grown.slice_set(&old.narrow(1, 0, self.tokens)?.contiguous()?, 1, 0)?;
            }
            Ok::<Tensor, candle_core::Error>(grown)
        };
        let layer = |index: usize| {
            let old = self.layers.get(index);
            Ok([grown(old.map(|[keys, _]| keys))?, grown(old.map(|[_, values]| values))?])
        };
        self.layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(())
    }
}

impl Tensors {
    /// The same model on a device, for contexts of so many tokens.
    pub fn new(model: &Model, context_max: u32, device: Device) -> Result<Tensors> {
        let moved = |matrix: &Array2<f32>| {
            let numbers: Vec<f32> = matrix.iter().copied().collect();
            Tensor::from_vec(numbers, matrix.dim(), &device)
        };
        let layers = model.layers.iter().map(|layer| {
            let Layer { query, key, value, output, gate, up, down } = layer;
            Ok(Layer {
                query: moved(query)?,
                key: moved(key)?,
                value: moved(value)?,
                output: moved(output)?,
                gate: moved(gate)?,
                up: moved(up)?,
                down: moved(down)?,
            })
        });
        let angles: Vec<f32> = (0..context_max)
            .flat_map(|position| model.frequencies.iter().map(move |each| each * position as f32))
            .collect();
        let angles = |turn: fn(f32) -> f32| {
            let numbers = angles.iter().copied().map(turn).collect();
            Tensor::from_vec(numbers, (context_max as usize, model.frequencies.len()), &device)
        };
        Ok(Tensors {
            shape: model.shape,
            embedding: moved(&model.embedding)?,
            layers: layers.collect::<Result<_>>()?,
            head: moved(&model.head)?,
            ones: Tensor::ones(model.shape.width(), DType::F32, &device)?,
            turns: [angles(f32::cos)?, angles(f32::sin)?],
            epsilon: model.epsilon,
            device,
        })
    }

    fn computed(&self, chunks: &mut [Chunk<Lanes>]) -> Result<Vec<u32>> {
        let (mut tokens, mut positions, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
        let mut masks = Vec::with_capacity(chunks.len());
        for chunk in &mut *chunks {
            let (start, count) = (chunk.memory.tokens, chunk.tokens.len());
            chunk.memory.reserve((self.shape, &self.device), count)?;
            tokens.extend(&chunk.tokens);
            positions.extend(start as u32..(start + count) as u32);
            lasts.push(tokens.len() as u32 - 1);
            masks.push((count > 1).then(|| self.later(start, count)).transpose()?);
        }
        let list = |numbers: Vec<u32>| Tensor::new(numbers, &self.device);
        let positions = list(positions)?;
        let [cos, sin] = &self.turns;
        let (cos, sin) = (cos.index_select(&positions, 0)?, sin.index_select(&positions, 0)?);
        let turned = |rows: Tensor| rope_i(&rows.unsqueeze(0)?, &cos, &sin)?.squeeze(0);
        let mut stream = self.embedding.index_select(&list(tokens)?, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let input = self.normed(&stream)?;
            let query = turned(self.heads(&input.matmul(&layer.query)?)?)?;
            let key = turned(self.heads(&input.matmul(&layer.key)?)?)?;
            let value = self.heads(&input.matmul(&layer.value)?)?;
            let mixed = self.attend(index, [&query, &key, &value], (chunks, &masks))?;
            stream = (stream + mixed.matmul(&layer.output)?)?;
            let input = self.normed(&stream)?;
            let gated = (silu(&input.matmul(&layer.gate)?)? * input.matmul(&layer.up)?)?;
            stream = (stream + gated.matmul(&layer.down)?)?;
        }
        for chunk in chunks {
            chunk.memory.tokens += chunk.tokens.len();
        }
        let lasts = self.normed(&stream.index_select(&list(lasts)?, 0)?)?;
        // Waits for the device.
        lasts.matmul(&self.head)?.argmax(D::Minus1)?.to_vec1()
    }

    fn normed(&self, rows: &Tensor) -> Result<Tensor> {
        rms_norm(rows, &self.ones, self.epsilon)
    }

    /// Rows as heads by tokens by numbers.
    fn heads(&self, rows: &Tensor) -> Result<Tensor> {
        rows.reshape((rows.dim(0)?, (), self.shape.head))?.transpose(0, 1)?.contiguous()
    }

    /// What hides later tokens from each of so many behind those before.
    fn later(&self, start: usize, count: usize) -> Result<Tensor> {
        let all = start + count;
        let hidden = |at: usize| match at % all > start + at / all {
            true => f32::NEG_INFINITY,
            false => 0.0,
        };
        let numbers: Vec<f32> = (0..count * all).map(hidden).collect();
        Tensor::from_vec(numbers, (count, all), &self.device)
    }

    /// Causal attention of every chunk over its own memory, which it adds to.
    fn attend(
        &self,
        layer: usize,
        [query, key, value]: [&Tensor; 3],
        (chunks, masks): (&[Chunk<Lanes>], &[Option<Tensor>]),
    ) -> Result<Tensor> {
        let Shape { heads, kv_heads, head, .. } = self.shape;
        let group = heads / kv_heads;
        let scale = 1.0 / (head as f64).sqrt();
        let mut row = 0;
        let mut mixed = Vec::with_capacity(chunks.len());
        for (Chunk { tokens, memory }, mask) in chunks.iter().zip(masks) {
            let (count, all) = (tokens.len(), memory.tokens + tokens.len());
            let part = |rows: &Tensor| rows.narrow(1, row, count)?.contiguous();
            let [keys, values] = &memory.layers[layer];
            keys.slice_set(&part(key)?, 1, memory.tokens)?;
            values.slice_set(&part(value)?, 1, memory.tokens)?;
            let (keys, values) = (keys.narrow(1, 0, all)?, values.narrow(1, 0, all)?);
            // Those that share keys stand below each other.
            let query = part(query)?.reshape((kv_heads, group * count, head))?;
            let mut scores = (query.matmul(&keys.transpose(1, 2)?)? * scale)?;
            if let Some(mask) = mask {
                let four = scores.reshape((kv_heads, group, count, all))?;
                scores = four.broadcast_add(mask)?.reshape((kv_heads, group * count, all))?;
            }
            let one = softmax_last_dim(&scores)?.matmul(&values)?;
            let one = one.reshape((heads, count, head))?.transpose(0, 1)?;
            mixed.push(one.reshape((count, heads * head))?);
            row += count;
        }
        Tensor::cat(&mixed, 0)
    }
}

impl Decoder for Tensors {
    type Memory = Lanes;

    fn memory(&self) -> Lanes {
        Lanes::default()
    }

    fn keep(memory: &mut Lanes, tokens: usize) {
        memory.tokens = memory.tokens.min(tokens);
    }

    fn forward(&self, chunks: &mut [Chunk<Lanes>]) -> std::result::Result<Vec<u32>, DeviceError> {
        self.computed(chunks).map_err(failed)
    }
}

/// What the library that computes said.
pub(super) fn failed(error: candle_core::Error) -> DeviceError {
    DeviceError::Compute(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::{SHAPE, again, continued};
    use super::*;

    fn agrees(device: &Device) {
        let model = Model::random(SHAPE, 3);
        let tensors = Tensors::new(&model, 100, device.clone()).expect("there is memory");
        for (pieces, beside) in [(&[24][..], 0), (&[10, 14], 0), (&[1, 3, 20], 2), (&[8; 3], 1)] {
            let [ours, theirs] =
                [continued(&model, pieces, beside), continued(&tensors, pieces, beside)];
            assert_eq!(theirs, ours, "{pieces:?} beside {beside}");
        }
        // Longer than its first room, and what is forgotten is computed again the same.
        assert_eq!(continued(&tensors, &[24; 2], 0), continued(&model, &[24; 2], 0));
        let [first, second] = again(&tensors);
        assert_eq!(first, second);
    }

    #[test]
    fn tensors_say_the_same_tokens() {
        agrees(&Device::Cpu);
    }

    #[cfg(feature = "cuda")]
    #[test]
    #[ignore = "needs a CUDA device"]
    fn a_cuda_device_says_the_same_tokens() {
        agrees(&Device::new_cuda(0).expect("there is a CUDA device"));
    }
}
