//! A small transformer in this process: real compute, always there.
//!
//! Requests are batched by the simulator's own scheduler ([`Engine`] over [`Explicit`] sequences),
//! step by step: it decides what a step computes, the model computes it, and the step takes as
//! long as that took. So a simulation of this device errs by its step times alone, never by rules
//! of scheduling, and the steps that it tells are exact. One thread computes, or with the feature
//! `cuda` a GPU.

mod core;
mod gguf;
mod model;
#[cfg(any(feature = "cuda", all(test, feature = "candle")))]
mod tensors;
mod weights;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use plimsoll_base::{BackendSample, Span, Stream, StreamKey};
use plimsoll_policy::Load;
use plimsoll_sim::model::{Admission, Affine, EngineModel, StepCostSpec};

use self::model::Model;
use self::weights::Loaded;
use self::worker::{Work, Worker};
use super::{
    Answering, Ask, Clock, Description, Device, DeviceError, Heard, Limits, Priorities, Prompt,
    Step, channel,
};

pub use model::Shape;

/// Steps that are kept until they are asked for: an hour of the quickest.
const STEPS_MAX: usize = 1 << 20;

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// A core.
    #[default]
    Core,
    /// The first CUDA device, of a build with the feature `cuda`.
    Cuda,
}

/// What to compute, and the limits of the engine.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// What computes.
    pub place: Place,
    /// Of the transformer.
    pub shape: Shape,
    /// Of its random weights.
    pub seed: u64,
    /// Other weights of a Llama, a GGUF file, or a folder with `config.json` and `*.safetensors`; its
    /// shape takes the place of `shape`, and the context that it was made for bounds `context_max`.
    pub weights: Option<PathBuf>,
    /// Sequences in a batch.
    pub seats: u32,
    /// Tokens a step.
    pub step_tokens_max: u32,
    /// KV blocks of 16 tokens.
    pub kv_blocks: u32,
    /// The longest context.
    pub context_max: u32,
    /// Who enters the batch first.
    pub admission: Admission,
    /// Whether the thread that computes has a core to itself where there are two: the last of those on
    /// which the thread that opens it may run, which keeps the others for itself and what it starts.
    pub own_core: bool,
}

impl Default for EmbeddedOptions {
    /// Five layers of 320, in which a step of one core takes some milliseconds; 16,384 tokens of
    /// KV memory, about 200 MB.
    fn default() -> EmbeddedOptions {
        EmbeddedOptions {
            place: Place::Core,
            shape: Shape {
                layers: 5,
                heads: 5,
                kv_heads: 5,
                head: 64,
                hidden: 864,
                vocabulary: 512,
            },
            seed: 1,
            weights: None,
            seats: 32,
            step_tokens_max: 512,
            kv_blocks: 1_024,
            context_max: 2_048,
            admission: Admission::Priority,
            own_core: false,
        }
    }
}

impl EmbeddedOptions {
    /// The engine that schedules it; its step times are never asked for.
    fn engine(&self) -> EngineModel {
        EngineModel {
            seats: self.seats,
            step_tokens_max: self.step_tokens_max,
            kv_blocks: self.kv_blocks,
            block_tokens: 16,
            context_max: self.context_max,
            chunked_prefill: true,
            admission: self.admission,
            step_noise: None,
            step_cost: StepCostSpec::affine(Affine {
                base: 1e6,
                prefill: 1e5,
                sequence: 1e5,
                context: 100.0,
                pair: 1.0,
                ..Affine::default()
            }),
        }
    }
}

/// What the thread that computes tells.
#[derive(Debug, Default)]
struct Told {
    sample: BackendSample,
    steps: Vec<Step>,
    forgotten: usize,
}

/// A small transformer in this process.
#[derive(Debug)]
pub struct Embedded {
    description: Description,
    clock: Clock,
    vocabulary: u32,
    /// Prompts that were drawn.
    asked: AtomicU64,
    inbox: Option<mpsc::Sender<Work>>,
    told: Arc<Mutex<Told>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Embedded {
    /// Draws or reads its weights and starts the thread that computes.
    ///
    /// # Errors
    /// If the engine's limits contradict each other, weights cannot be read, or there is no thread
    /// or GPU to be had.
    pub fn open(options: &EmbeddedOptions) -> Result<Embedded, DeviceError> {
        let Loaded { model, shape, context_max } = match &options.weights {
            Some(path) => weights::load(path)?,
            None => Loaded {
                model: Model::random(options.shape, options.seed),
                shape: options.shape,
                context_max: options.context_max,
            },
        };
        let context_max = context_max.min(options.context_max);
        let options = &EmbeddedOptions { shape, context_max, ..options.clone() };
        let engine = options.engine();
        let is_sound = engine.seats > 0
            && engine.seats <= engine.step_tokens_max
            && u64::from(engine.context_max) <= engine.kv_tokens();
        if !is_sound {
            let what = "a step holds a token of every seat, and the KV memory the longest context";
            return Err(DeviceError::Compute(what.into()));
        }
        let (clock, told) = (Clock::start(), Arc::default());
        let telling = (clock, Arc::clone(&told));
        let (inbox, works) = mpsc::channel();
        let work: Box<dyn FnOnce() + Send> = match options.place {
            Place::Core => {
                let worker = Worker::new(&engine, model, telling);
                Box::new(move || worker.work(&works))
            }
            Place::Cuda => {
                let worker = Worker::new(&engine, on_cuda(&model, context_max)?, telling);
                Box::new(move || worker.work(&works))
            }
        };
        let core = if options.own_core { core::reserve() } else { None };
        let thread = thread::Builder::new().name("embedded".into());
        let thread = thread.spawn(move || {
            if let Some(core) = core {
                core::keep(core);
            }
            work();
        });
        let thread = thread.map_err(|error| DeviceError::Compute(error.to_string()))?;
        Ok(Embedded {
            description: describe(options, &engine, core),
            clock,
            vocabulary: options.shape.vocabulary as u32,
            asked: AtomicU64::new(0),
            inbox: Some(inbox),
            told,
            thread: Some(thread),
        })
    }

    fn tokens(&self, prompt: &Prompt) -> Vec<u32> {
        match prompt {
            Prompt::Tokens(tokens) => tokens.iter().map(|token| token % self.vocabulary).collect(),
            Prompt::Text(text) => text.bytes().map(u32::from).collect(),
            Prompt::Random { tokens } => {
                let entity = self.asked.fetch_add(1, Ordering::Relaxed);
                let key = StreamKey { seed: 0, replication: 0, name: "device.prompt", entity };
                let mut stream = Stream::new(key);
                (0..*tokens).map(|_| stream.below(u64::from(self.vocabulary)) as u32).collect()
            }
        }
    }
}

#[cfg(feature = "cuda")]
fn on_cuda(model: &Model, context_max: u32) -> Result<tensors::Tensors, DeviceError> {
    let none = |error: candle_core::Error| DeviceError::NoCuda(error.to_string());
    let device = candle_core::Device::new_cuda(0).map_err(none)?;
    tensors::Tensors::new(model, context_max, device).map_err(tensors::failed)
}

#[cfg(not(feature = "cuda"))]
fn on_cuda(_: &Model, _: u32) -> Result<Model, DeviceError> {
    let what = "this build knows of none; build with `--features cuda`, where CUDA's `nvcc` is";
    Err(DeviceError::NoCuda(what.into()))
}

fn describe(options: &EmbeddedOptions, engine: &EngineModel, core: Option<usize>) -> Description {
    let Shape { layers, heads, head, hidden, vocabulary, .. } = options.shape;
    let weights = options.weights.as_ref().and_then(|path| path.file_name());
    let weights = match weights {
        Some(name) => format!("weights={}", name.to_string_lossy()),
        None => format!("seed={}", options.seed),
    };
    let arch = std::env::consts::ARCH;
    let place = match (options.place, core) {
        (Place::Cuda, _) => "this process, the first CUDA device".to_owned(),
        (Place::Core, Some(core)) => format!("this process, one {arch} thread on core {core}"),
        (Place::Core, None) => format!("this process, one {arch} thread"),
    };
    Description {
        engine: "plimsoll-embedded".into(),
        version: Some(env!("CARGO_PKG_VERSION").into()),
        flags: vec![weights],
        model: format!("llama-{layers}x{}-h{hidden}-v{vocabulary}", heads * head),
        place,
        limits: Limits {
            seats: Some(engine.seats),
            step_tokens_max: Some(engine.step_tokens_max),
            kv_tokens: Some(engine.kv_tokens()),
            block_tokens: Some(engine.block_tokens),
            context_max: Some(engine.context_max),
            priorities: Some(match engine.admission {
                Admission::Fcfs => Priorities::Ignored,
                Admission::Priority => Priorities::Obeyed,
            }),
        },
    }
}

impl Device for Embedded {
    fn description(&self) -> &Description {
        &self.description
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn submit(&self, ask: &Ask) -> Answering {
        let (teller, answering) = channel(ask.output_tokens);
        let prompt = self.tokens(&ask.prompt);
        let needed = prompt.len() as u64 + u64::from(ask.output_tokens);
        let context_max = self.description.limits.context_max.unwrap_or(u32::MAX);
        let now = self.clock.now();
        // There is room for both: the channel is new.
        let _ = teller.try_send(Heard::Sent(now));
        if needed > u64::from(context_max) || prompt.is_empty() || ask.output_tokens == 0 {
            let error = match needed > u64::from(context_max) {
                true => DeviceError::TooLong { needed, context_max },
                false => DeviceError::Compute("a request has a prompt and an answer".into()),
            };
            let _ = teller.try_send(Heard::Failed(now, error));
            return answering;
        }
        let work = Work { prompt, output: ask.output_tokens, priority: ask.priority, teller };
        if let Some(inbox) = &self.inbox {
            // A thread that has ended drops what tells, and that is heard as a failure.
            let _ = inbox.send(work);
        }
        answering
    }

    fn load(&self) -> Result<Option<Load>, DeviceError> {
        let sample = self.told.lock().map_err(|_| gone())?.sample;
        let used = u64::from(sample.kv_blocks_used) * 1_000_000;
        Ok(Some(Load {
            running: sample.running,
            waiting: sample.waiting,
            kv_used_ppm: (used / u64::from(sample.kv_blocks.max(1))) as u32,
            queue_wait: Span::ZERO,
        }))
    }

    fn take_steps(&self) -> Result<Option<Vec<Step>>, DeviceError> {
        let mut told = self.told.lock().map_err(|_| gone())?;
        if std::mem::take(&mut told.forgotten) > 0 {
            let what = format!("it keeps {STEPS_MAX} steps, and more were not asked for in time");
            return Err(DeviceError::BrokeOff(what));
        }
        Ok(Some(std::mem::take(&mut told.steps)))
    }
}

fn gone() -> DeviceError {
    DeviceError::BrokeOff("the thread that computes has panicked".into())
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Without an inbox the thread ends after the step that runs.
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
