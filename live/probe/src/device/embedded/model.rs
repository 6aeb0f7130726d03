//! A decoder of the Llama kind: root-mean-square norms, rotary positions, multi-head attention
//! over KV memory, gated units (Touvron et al. 2023). Weights are random unless there are others:
//! what a step costs does not depend on what they say. Matrix products are `ndarray`'s.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, Slice};
use plimsoll_base::{Stream, StreamKey};

use crate::device::DeviceError;

/// The shape of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values, each for as many attention heads.
    pub kv_heads: usize,
    /// The width of a head, even. The decoder is as wide as its heads together.
    pub head: usize,
    /// The width of the gated units.
    pub hidden: usize,
    /// Tokens that there are; at least 256, so that every byte is one.
    pub vocabulary: usize,
}

impl Shape {
    pub(super) fn width(&self) -> usize {
        self.heads * self.head
    }
}

/// The base of rotary frequencies.
const ROTARY_BASE: f32 = 10_000.0;
/// Keeps norms from dividing by nothing.
const EPSILON: f32 = 1e-5;

/// Matrices are inputs by outputs; the weights of a norm are those of what follows it.
pub(super) struct Layer<M = Array2<f32>> {
    pub query: M,
    pub key: M,
    pub value: M,
    pub output: M,
    pub gate: M,
    pub up: M,
    pub down: M,
}

/// What computes the tokens of a step.
pub(super) trait Decoder: Send {
    /// The KV memory of a sequence.
    type Memory: Default + Send;

    /// That of a sequence that begins.
    fn memory(&self) -> Self::Memory;

    /// Forgets all but the first tokens.
    fn keep(memory: &mut Self::Memory, tokens: usize);

    /// Computes all chunks together, remembers their keys and values, and returns the most likely
    /// token after each.
    ///
    /// # Errors
    /// If what computes breaks off, such as for want of memory.
    fn forward(&self, chunks: &mut [Chunk<Self::Memory>]) -> Result<Vec<u32>, DeviceError>;
}

/// Tokens to compute behind those in memory.
pub(super) struct Chunk<M> {
    pub tokens: Vec<u32>,
    pub memory: M,
}

/// A decoder that a core computes.
pub(super) struct Model {
    pub(super) shape: Shape,
    pub(super) embedding: Array2<f32>,
    pub(super) layers: Vec<Layer>,
    pub(super) head: Array2<f32>,
    /// One a pair of a head's numbers.
    pub(super) frequencies: Vec<f32>,
    pub(super) epsilon: f32,
}

/// The KV memory of a sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    head: usize,
    /// Keys and values, one a layer and head of theirs: a row of `head` numbers a token.
    lanes: Vec<[Vec<f32>; 2]>,
}

impl Memory {
    fn tokens(&self) -> usize {
        self.lanes.first().map_or(0, |[keys, _]| keys.len() / self.head.max(1))
    }
}

impl Model {
    /// Of these weights, the base of its rotary frequencies, and what its norms add.
    pub fn new(
        shape: Shape,
        embedding: Array2<f32>,
        layers: Vec<Layer>,
        head: Array2<f32>,
        (base, epsilon): (f32, f32),
    ) -> Model {
        let half = shape.head / 2;
        let frequency = |at: usize| base.powf(-(at as f32) / half as f32);
        let frequencies = (0..half).map(frequency).collect();
        Model { shape, embedding, layers, head, frequencies, epsilon }
    }

    /// Draws weights, each matrix so that numbers keep their size through it.
    pub fn random(shape: Shape, seed: u64) -> Model {
        let key = StreamKey { seed, replication: 0, name: "device.weights", entity: 0 };
        let mut stream = Stream::new(key);
        let mut matrix = |inputs: usize, outputs: usize| {
            // Uniform with variance 1/inputs.
            let scale = (12.0 / inputs as f32).sqrt();
            Array2::from_shape_fn((inputs, outputs), |_| (stream.uniform() as f32 - 0.5) * scale)
        };
        let (width, hidden) = (shape.width(), shape.hidden);
        let kv_width = shape.kv_heads * shape.head;
        let embedding = matrix(shape.vocabulary, width) * (shape.vocabulary as f32).sqrt();
        let layers = (0..shape.layers).map(|_| Layer {
            query: matrix(width, width),
            key: matrix(width, kv_width),
            value: matrix(width, kv_width),
            output: matrix(width, width),
            gate: matrix(width, hidden),
            up: matrix(width, hidden),
            down: matrix(hidden, width),
        });
        let layers = layers.collect();
        let head = matrix(width, shape.vocabulary);
        Model::new(shape, embedding, layers, head, (ROTARY_BASE, EPSILON))
    }

    /// Each row by its root mean square.
    fn normed(&self, rows: &Array2<f32>) -> Array2<f32> {
        let mut normed = rows.clone();
        for mut row in normed.axis_iter_mut(Axis(0)) {
            let squares: f32 = row.iter().map(|x| x * x).sum();
            let scale = 1.0 / (squares / row.len() as f32 + self.epsilon).sqrt();
            row.mapv_inplace(|x| x * scale);
        }
        normed
    }

    /// Turns each pair of a head's numbers by its token's position.
    fn rotate(&self, rows: &mut Array2<f32>, (chunks, starts): (&[Chunk<Memory>], &[usize])) {
        let positions =
            chunks.iter().zip(starts).flat_map(|(chunk, start)| *start..start + chunk.tokens.len());
        for (mut row, position) in rows.axis_iter_mut(Axis(0)).zip(positions) {
            let row = row.as_slice_mut().expect("a product's rows are contiguous");
            let angles = self.frequencies.iter().map(|each| (each * position as f32).sin_cos());
            let angles: Vec<(f32, f32)> = angles.collect();
            for head in row.chunks_exact_mut(self.shape.head) {
                for (pair, (sin, cos)) in head.chunks_exact_mut(2).zip(&angles) {
                    let [a, b] = [pair[0], pair[1]];
                    pair[0] = a * cos - b * sin;
                    pair[1] = a * sin + b * cos;
                }
            }
        }
    }

    /// Causal attention of every chunk over its own memory, head by head.
    fn attend(
        &self,
        layer: usize,
        [query, key, value]: [&Array2<f32>; 3],
        chunks: &mut [Chunk<Memory>],
    ) -> Array2<f32> {
        let Shape { heads, kv_heads, head, .. } = self.shape;
        let group = heads / kv_heads;
        let scale = 1.0 / (head as f32).sqrt();
        let mut mixed = Array2::zeros(query.raw_dim());
        let mut row = 0;
        for chunk in chunks {
            let count = chunk.tokens.len();
            for at in 0..heads {
                let rows = row..row + count;
                let columns = |at: usize| at * head..(at + 1) * head;
                let part = |matrix, at| part(matrix, rows.clone(), columns(at));
                let of = at / group;
                let [keys, values] = &mut chunk.memory.lanes[layer * kv_heads + of];
                // The first of those that share it remembers.
                if at % group == 0 {
                    keys.extend(part(key, of).iter());
                    values.extend(part(value, of).iter());
                }
                let computed = keys.len() / head - count;
                let view = |numbers| {
                    ArrayView2::from_shape((computed + count, head), numbers)
                        .expect("a row is as wide as a head")
                };
                let mut scores = part(query, at).dot(&view(&keys[..]).t());
                for (at, mut scores) in scores.axis_iter_mut(Axis(0)).enumerate() {
                    let scores = scores.as_slice_mut().expect("a product's rows are contiguous");
                    soften(scores, computed + at + 1, scale);
                }
                let mut slot = mixed.slice_axis_mut(Axis(0), Slice::from(rows));
                slot.slice_axis_inplace(Axis(1), Slice::from(columns(at)));
                slot.assign(&scores.dot(&view(&values[..])));
            }
            row += count;
        }
        mixed
    }
}

impl Decoder for Model {
    type Memory = Memory;

    fn memory(&self) -> Memory {
        let lanes = self.shape.layers * self.shape.kv_heads;
        Memory { head: self.shape.head, lanes: vec![[Vec::new(), Vec::new()]; lanes] }
    }

    fn keep(memory: &mut Memory, tokens: usize) {
        for numbers in memory.lanes.iter_mut().flatten() {
            numbers.truncate(tokens * memory.head);
        }
    }

    fn forward(&self, chunks: &mut [Chunk<Memory>]) -> Result<Vec<u32>, DeviceError> {
        let rows = chunks.iter().flat_map(|chunk| &chunk.tokens).map(|token| *token as usize);
        let rows: Vec<usize> = rows.collect();
        let mut stream = self.embedding.select(Axis(0), &rows);
        let starts: Vec<usize> = chunks.iter().map(|chunk| chunk.memory.tokens()).collect();
        for (index, layer) in self.layers.iter().enumerate() {
            let input = self.normed(&stream);
            let mut query = input.dot(&layer.query);
            let mut key = input.dot(&layer.key);
            let value = input.dot(&layer.value);
            self.rotate(&mut query, (chunks, &starts));
            self.rotate(&mut key, (chunks, &starts));
            let mixed = self.attend(index, [&query, &key, &value], chunks);
            stream += &mixed.dot(&layer.output);
            let input = self.normed(&stream);
            let mut gate = input.dot(&layer.gate);
            gate.mapv_inplace(|x| x / (1.0 + (-x).exp()));
            gate *= &input.dot(&layer.up);
            stream += &gate.dot(&layer.down);
        }
        let mut end = 0;
        let lasts = chunks.iter().map(|chunk| {
            end += chunk.tokens.len();
            end - 1
        });
        let lasts: Vec<usize> = lasts.collect();
        let logits = self.normed(&stream.select(Axis(0), &lasts)).dot(&self.head);
        Ok(logits.axis_iter(Axis(0)).map(|row| largest(row.iter().copied())).collect())
    }
}

/// Some rows and columns of a matrix.
fn part(matrix: &Array2<f32>, rows: Range<usize>, columns: Range<usize>) -> ArrayView2<'_, f32> {
    let rows = matrix.view().slice_axis_move(Axis(0), Slice::from(rows));
    rows.slice_axis_move(Axis(1), Slice::from(columns))
}

/// The softmax of the first `seen` scores; nothing for the rest, which are later tokens.
fn soften(scores: &mut [f32], seen: usize, scale: f32) {
    let (seen, later) = scores.split_at_mut(seen);
    let most = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in &mut *seen {
        *score = ((*score - most) * scale).exp();
        sum += *score;
    }
    for score in seen {
        *score /= sum;
    }
    later.fill(0.0);
}

fn largest(numbers: impl Iterator<Item = f32>) -> u32 {
    let indexed = (0..).zip(numbers);
    indexed.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(at, _)| at)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const SHAPE: Shape =
        Shape { layers: 2, heads: 2, kv_heads: 1, head: 8, hidden: 24, vocabulary: 256 };

    /// What follows a prompt that is computed in pieces of these sizes, beside another sequence or
    /// alone.
    pub fn continued<D: Decoder>(decoder: &D, pieces: &[usize], beside: usize) -> Vec<u32> {
        let prompt: Vec<u32> =
            (0..pieces.iter().sum()).map(|at: usize| at as u32 * 7 % 256).collect();
        let (mut memory, mut other) = (decoder.memory(), decoder.memory());
        let mut next = Vec::new();
        let mut from = 0;
        for piece in pieces.iter().copied().chain([1; 26]) {
            let tokens: Vec<u32> =
                prompt.iter().chain(&next).skip(from).take(piece).copied().collect();
            from += piece;
            let mut chunks = vec![Chunk { tokens, memory }];
            if beside > 0 {
                let tokens = vec![9; beside];
                chunks.push(Chunk { tokens, memory: std::mem::take(&mut other) });
            }
            let token = decoder.forward(&mut chunks).expect("it computes")[0];
            if from >= prompt.len() {
                next.push(token);
            }
            if beside > 0 {
                other = chunks.pop().expect("there are two").memory;
            }
            memory = chunks.pop().expect("there is one").memory;
        }
        next
    }

    /// The token behind a prompt, and that behind the same one of which a part is computed again.
    pub fn again<D: Decoder>(decoder: &D) -> [Vec<u32>; 2] {
        let tokens: Vec<u32> = (0..12).collect();
        let mut chunks = [Chunk { tokens: tokens.clone(), memory: decoder.memory() }];
        let first = decoder.forward(&mut chunks).expect("it computes");
        D::keep(&mut chunks[0].memory, 5);
        chunks[0].tokens = tokens[5..].to_vec();
        [first, decoder.forward(&mut chunks).expect("it computes")]
    }

    #[test]
    fn chunks_and_neighbours_change_no_token() {
        let model = Model::random(SHAPE, 3);
        let whole = continued(&model, &[24], 0);
        assert_eq!(whole.len(), 27);
        assert!(whole.windows(2).any(|two| two[0] != two[1]), "it says something: {whole:?}");
        for (pieces, beside) in [(&[10, 14][..], 0), (&[1, 3, 20], 0), (&[24], 5), (&[8; 3], 1)] {
            assert_eq!(continued(&model, pieces, beside), whole, "{pieces:?} beside {beside}");
        }
    }

    #[test]
    fn what_is_forgotten_is_computed_again_the_same() {
        let [first, second] = again(&Model::random(SHAPE, 4));
        assert_eq!(first, second);
    }
}
