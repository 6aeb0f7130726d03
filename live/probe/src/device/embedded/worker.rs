//! The thread that computes.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::sync::{Arc, Mutex};

use plimsoll_base::{ClassId, Time};
use plimsoll_sim::engine::{Engine, Explicit, Job, Note, Part};
use plimsoll_sim::model::EngineModel;

use super::model::{Chunk as Piece, Decoder};
use super::{STEPS_MAX, Told};
use crate::device::{Carries, Chunk, Clock, DeviceError, Heard, Step, Teller, Usage};

/// A request for the thread.
#[derive(Debug)]
pub(super) struct Work {
    pub prompt: Vec<u32>,
    pub output: u32,
    pub priority: i32,
    pub teller: Teller,
}

struct Flight<M> {
    /// Prompt and what has been delivered.
    tokens: Vec<u32>,
    prompt: u32,
    teller: Teller,
    memory: M,
    heard_first: bool,
    left: bool,
}

/// The engine, the model, and whose tokens they compute.
pub(super) struct Worker<D: Decoder> {
    engine: Engine<Explicit>,
    model: D,
    clock: Clock,
    told: Arc<Mutex<Told>>,
    flights: BTreeMap<u32, Flight<D::Memory>>,
    keys: u32,
    notes: Vec<Note>,
}

impl<D: Decoder> Worker<D> {
    pub fn new(
        engine: &EngineModel,
        model: D,
        (clock, told): (Clock, Arc<Mutex<Told>>),
    ) -> Worker<D> {
        Worker {
            engine: Engine::new(engine, 1),
            model,
            clock,
            told,
            flights: BTreeMap::new(),
            keys: 0,
            notes: Vec::new(),
        }
    }

    /// Computes until nobody can ask for anything any more, or what computes breaks off.
    pub fn work(mut self, inbox: &Receiver<Work>) {
        if let Err(error) = self.serve(inbox) {
            let now = self.clock.now();
            for flight in self.flights.values() {
                // Nobody may listen any more.
                let _ = flight.teller.try_send(Heard::Failed(now, error.clone()));
            }
        }
    }

    fn serve(&mut self, inbox: &Receiver<Work>) -> Result<(), DeviceError> {
        while self.take_in(inbox) {
            let now = self.clock.now();
            self.cancel_left(now);
            if self.engine.begin(now, &mut self.notes).is_some() {
                self.publish(None);
                self.follow_notes();
                self.step(now)?;
            } else {
                self.follow_notes();
                self.publish(None);
            }
        }
        Ok(())
    }

    /// Takes in what has come; waits for it where there is nothing else to do. `false`: nobody
    /// can ask any more.
    fn take_in(&mut self, inbox: &Receiver<Work>) -> bool {
        if self.flights.is_empty() {
            match inbox.recv() {
                Ok(work) => self.submit(work),
                Err(RecvError) => return false,
            }
        }
        loop {
            match inbox.try_recv() {
                Ok(work) => self.submit(work),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn submit(&mut self, work: Work) {
        let Work { prompt, output, priority, teller } = work;
        self.keys = self.keys.wrapping_add(1);
        let prompt_tokens = prompt.len() as u32;
        self.engine.submit(Job {
            key: self.keys,
            class: ClassId(0),
            priority,
            prompt_tokens,
            output_tokens: output,
        });
        // There is room: nothing but this and its sending was told.
        let _ = teller.try_send(Heard::Accepted(self.clock.now()));
        let flight = Flight {
            memory: self.model.memory(),
            tokens: prompt,
            prompt: prompt_tokens,
            teller,
            heard_first: false,
            left: false,
        };
        self.flights.insert(self.keys, flight);
    }

    fn cancel_left(&mut self, now: Time) {
        for (&key, flight) in &mut self.flights {
            if !flight.left && flight.teller.is_closed() {
                flight.left = true;
                self.engine.cancel(key, now);
            }
        }
    }

    /// Computes the step that was begun at `start`, and tells its tokens.
    fn step(&mut self, start: Time) -> Result<(), DeviceError> {
        let parts = self.engine.computing();
        let (shape, next) = (self.engine.shape(), self.compute(&parts)?);
        let end = self.clock.now().max(start.saturating_add(plimsoll_base::Span::from_nanos(1)));
        let due = self.engine.took(end - start).expect("a step runs");
        self.engine.complete(due, &mut self.notes);
        // Whoever hears of a token finds its step told, and the device as it is after it.
        self.publish(Some(Step { start, end, delivered: end, shape }));
        for (part, token) in parts.iter().zip(next) {
            let reached = part.sequence.context + part.tokens;
            if part.decodes || reached == part.sequence.prefill_target() {
                self.deliver(part.sequence.key, token, end);
            }
        }
        self.follow_notes();
        Ok(())
    }

    /// The token after each part.
    fn compute(&mut self, parts: &[Part]) -> Result<Vec<u32>, DeviceError> {
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            let from = part.sequence.context as usize;
            let flight = self.flights.get_mut(&part.sequence.key).expect("who runs is in flight");
            // What a preemption threw away is computed again.
            D::keep(&mut flight.memory, from);
            let tokens = flight.tokens[from..from + part.tokens as usize].to_vec();
            pieces.push(Piece { tokens, memory: std::mem::take(&mut flight.memory) });
        }
        let next = self.model.forward(&mut pieces)?;
        for (part, piece) in parts.iter().zip(pieces) {
            let flight = self.flights.get_mut(&part.sequence.key).expect("who runs is in flight");
            flight.memory = piece.memory;
        }
        Ok(next)
    }

    fn deliver(&mut self, key: u32, token: u32, at: Time) {
        let flight = self.flights.get_mut(&key).expect("who runs is in flight");
        flight.tokens.push(token);
        // The channel holds all that can be told of a request; nobody may listen any more.
        if !std::mem::replace(&mut flight.heard_first, true) {
            let _ = flight.teller.try_send(Heard::FirstByte(at));
        }
        let chunk = Chunk { at, carries: Carries::Text, counted: None };
        let _ = flight.teller.try_send(Heard::Chunk(chunk));
    }

    fn follow_notes(&mut self) {
        for note in self.notes.drain(..) {
            match note {
                Note::Finished { key, .. } => {
                    let Some(flight) = self.flights.remove(&key) else { continue };
                    let usage = Usage {
                        prompt_tokens: flight.prompt,
                        cached_tokens: 0,
                        output_tokens: flight.tokens.len() as u32 - flight.prompt,
                    };
                    let _ = flight.teller.try_send(Heard::Ended(self.clock.now(), usage));
                }
                Note::Cancelled { key, .. } => {
                    self.flights.remove(&key);
                }
                Note::Preempted { key, .. } => {
                    if let Some(flight) = self.flights.get_mut(&key) {
                        D::keep(&mut flight.memory, 0);
                    }
                }
                Note::Started { .. }
                | Note::Token { .. }
                | Note::Handed { .. }
                | Note::Gaps { .. } => {}
            }
        }
    }

    fn publish(&self, step: Option<Step>) {
        let Ok(mut told) = self.told.lock() else { return };
        told.sample = self.engine.sample();
        match step {
            Some(_) if told.steps.len() >= STEPS_MAX => told.forgotten += 1,
            step => told.steps.extend(step),
        }
    }
}
