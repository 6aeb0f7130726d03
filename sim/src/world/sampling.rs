//! Writing counters and gauges down at regular instants.

use plimsoll_base::{BackendId, ClassId, ClassSample, Fact, Observer, Span, Time};

use super::World;
use super::machine::Machine;
use crate::engine::Batch;

/// What the latest sample of the classes showed; kept for its memory.
#[derive(Default)]
pub(super) struct Sampling {
    latest: Option<Time>,
    classes: Vec<ClassSample>,
    running: Vec<u32>,
}

impl Sampling {
    pub fn new(classes: usize) -> Sampling {
        let samples = vec![ClassSample::default(); classes];
        Sampling { latest: None, classes: samples, running: vec![0; classes] }
    }
}

impl<B: Batch, O: Observer> World<B, O> {
    /// Writes down every backend's and every class's counters and gauges, once an instant.
    pub(super) fn sample(&mut self, now: Time) {
        if self.sampling.latest == Some(now) {
            return;
        }
        self.sampling.latest = Some(now);
        for slot in 0..self.backends.len() {
            let (backend, mut ear) = self.listen(slot as u32, now);
            backend.engine.settle(now, &mut ear);
            let sample = backend.engine.sample();
            let backend = BackendId::first(slot as u32);
            self.records.observer.observe(now, &Fact::BackendSampled { backend, sample });
        }
        self.gather_classes(now);
        for (index, &sample) in self.sampling.classes.iter().enumerate() {
            let class = ClassId(index as u16);
            self.records.observer.observe(now, &Fact::ClassSampled { class, sample });
        }
    }

    fn gather_classes(&mut self, now: Time) {
        let Sampling { classes, running, .. } = &mut self.sampling;
        running.fill(0);
        let engines = self.backends.iter().map(|backend| &backend.engine);
        for engine in engines.clone() {
            engine.count_running(running);
        }
        for (index, sample) in classes.iter_mut().enumerate() {
            let class = ClassId(index as u16);
            let oldest = self.allocator.oldest_arrival(class);
            let busy: u128 = engines.clone().map(|engine| engine.class_busy(class)).sum();
            *sample = ClassSample {
                queued: self.allocator.queued(class),
                engine_waiting: 0,
                running: running[index],
                oldest_wait: oldest.map_or(Span::ZERO, |at| now - at),
                busy: crate::engine::span_of(busy),
            };
        }
        for (key, class) in engines.flat_map(Machine::waiting) {
            let sample = &mut classes[class.index()];
            sample.engine_waiting += 1;
            let record = &self.records.flights[key].record;
            if record.started.is_none() {
                sample.oldest_wait = sample.oldest_wait.max(now - record.arrived);
            }
        }
    }
}
