//! Measuring cells, and what is known of the steps in each.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_base::Time;
use plimsoll_sim::engine::{BatchShape, Behind};

use super::fit::of_rests;
use super::observation::{Feature, Observation, nanos};
use super::plan::{Cell, Pace, Plan, STEPS};
use super::profile::{Assumed, Busy, Overheads};
use super::statistics::{half_width, median, relative_spread};
use super::timeline::{alone, alone_times, token_times};
use super::traffic::{Room, request_cost, traffic_steps};
use super::{CalibrateError, ROUNDS_MIN, Settings, Watch};
use crate::device::{Answer, Answering, Ask, Device, DeviceError, Heard, Limits, Prompt, Step};

/// How long a lane of traffic rests behind a request, as a multiple of what that took: so that batches
/// of all sizes occur.
const RESTS: [f64; 4] = [3.0, 1.0, 0.3, 0.0];
/// Decode steps that make one observation: enough that the client's jitter at its two ends is
/// small, few enough that there are several a run.
const WINDOW: usize = 8;
/// Tokens of an answer of which only the first is looked at: one more shows that it was a first.
const SHORT: u32 = 2;
/// How often a request is sent again while its tokens cannot be told apart, the text of some being held
/// back.
const AGAIN: u32 = 3;
/// What is taken where a device does not tell and nothing was said, as vLLM has it.
const STEP_TOKENS_ASSUMED: u32 = 2_048;
const SEATS_ASSUMED: u32 = 32;
const CONTEXT_ASSUMED: u32 = 4_096;
const BLOCK_ASSUMED: u32 = 16;

/// What was measured so far.
pub(super) struct Measured<'a> {
    device: &'a dyn Device,
    settings: &'a Settings,
    told: Limits,
    pace: Pace,
    tells_steps: bool,
    /// A time a run, by cell of the plan.
    values: Vec<Vec<f64>>,
    /// As the client sees it.
    seen: Vec<Observation>,
    /// Steps as the engine tells them.
    steps: Vec<Observation>,
    /// How many steps ago the engine computed a prompt, as in a step's shape.
    behind: Behind,
    /// The most sequences that were seen to decode together.
    together: u32,
    delays: Delays,
}

/// Samples of what a request costs beside steps, in ns.
#[derive(Default)]
struct Delays {
    accepted: Vec<f64>,
    /// From sending, and which of `seen` it belongs to.
    first_byte: Vec<(usize, f64)>,
    chunk: Vec<f64>,
    told: Vec<f64>,
    /// Of prompts alone, from sending to the first token without the steps that were told.
    request: Vec<f64>,
    /// The same behind rests of so many ns, by cell of the plan.
    rested: BTreeMap<usize, Vec<(u64, f64)>>,
    /// Of requests that came while others were computed.
    busy: Option<Busy>,
}

impl<'a> Measured<'a> {
    /// Nothing yet.
    pub fn new(device: &'a dyn Device, settings: &'a Settings) -> Measured<'a> {
        let told = or(settings.known, device.description().limits);
        let pace = Pace {
            step: Duration::ZERO,
            token: Duration::ZERO,
            seats: told.seats.unwrap_or(SEATS_ASSUMED),
            context_max: told.context_max.unwrap_or(CONTEXT_ASSUMED),
            kv_tokens: told.kv_tokens,
            step_tokens_max: told.step_tokens_max.unwrap_or(STEP_TOKENS_ASSUMED),
        };
        Measured {
            device,
            settings,
            told,
            pace,
            tells_steps: false,
            values: Vec::new(),
            seen: Vec::new(),
            steps: Vec::new(),
            behind: Behind::default(),
            together: 1,
            delays: Delays::default(),
        }
    }

    /// Runs a few requests that do not count, and learns how fast the device is.
    pub fn warm_up(&mut self) -> Result<(), CalibrateError> {
        self.device.take_steps()?;
        let context = self.pace.context_max;
        let long = 256.min(context / 2);
        let mut times = Vec::new();
        for prompt in [16, long, 16, long, 16, long] {
            let answer = self.ask(prompt, 12).wait()?;
            let first = answer.first_token().unwrap_or(answer.ended);
            times.push((nanos(answer.sent, first), nanos(first, answer.ended) / 11.0));
        }
        // The first of each warms caches.
        let [short, long_time] = [2, 3].map(|at: usize| times[at].0.min(times[at + 2].0));
        let token = (long_time - short).max(0.0) / f64::from(long - 16);
        self.pace.token = Duration::from_nanos(token as u64);
        self.pace.step = Duration::from_nanos(times[4].1.min(times[2].1) as u64);
        self.tells_steps = self.device.take_steps()?.is_some_and(|steps| !steps.is_empty());
        Ok(())
    }

    /// What to measure.
    pub fn plan(&mut self) -> Result<Plan, CalibrateError> {
        let rounds = u32::try_from(ROUNDS_MIN).unwrap_or(u32::MAX);
        let plan = Plan::new(&self.pace, self.settings.rounds(), rounds);
        if plan.cells.is_empty() {
            let what = "every cell of the plan would take too long on this device";
            return Err(CalibrateError::TooLittle(what.into()));
        }
        self.values = vec![Vec::new(); plan.cells.len()];
        Ok(plan)
    }

    /// Measures a cell once.
    pub fn run(&mut self, index: usize, cell: &Cell) -> Result<(), CalibrateError> {
        let windows = self.values_of(index, cell)?;
        if !windows.is_empty() {
            self.values[index].push(median(&windows));
        }
        Ok(())
    }

    /// Measures the reference: one sequence that decodes. Returns the times of a step, without the
    /// first, which its prompt makes longer.
    pub fn reference(&mut self) -> Result<Vec<f64>, CalibrateError> {
        let ask = || Ok(alone_times(&self.ask(16, STEPS + 4 + WINDOW as u32).wait()?));
        let tokens = again(ask, Option::is_some)?;
        self.behind = Behind::default();
        self.device.take_steps()?;
        let Some(tokens) = tokens else { return Ok(Vec::new()) };
        let windows = tokens.windows(WINDOW + 1).step_by(WINDOW).skip(1);
        Ok(windows.map(|times| nanos(times[0], times[WINDOW]) / WINDOW as f64).collect())
    }

    /// The half-width of a cell's interval, as a part of its median.
    pub fn half_width(&self, index: usize) -> f64 {
        match self.values[index].is_empty() {
            // It cannot be seen on this device: no use in trying again.
            true => 0.0,
            false => half_width(&self.values[index]),
        }
    }

    /// The median over cells of how much their times spread, as a part of their medians; `None` if
    /// none was measured often enough to know.
    pub fn spread(&self) -> Option<f64> {
        let often = self.values.iter().filter(|values| values.len() >= ROUNDS_MIN);
        let spreads: Vec<f64> = often.map(|values| relative_spread(values)).collect();
        (!spreads.is_empty()).then(|| median(&spreads))
    }

    /// A cell's times, in ns.
    pub fn values(&self, index: usize) -> &[f64] {
        &self.values[index]
    }

    /// What to fit to: the engine's own steps where it tells them.
    pub fn observations(&self) -> &[Observation] {
        if self.tells_steps { &self.steps } else { &self.seen }
    }

    /// Whether times are those of steps that the engine told.
    pub fn tells_steps(&self) -> bool {
        self.tells_steps
    }

    fn values_of(&mut self, index: usize, cell: &Cell) -> Result<Vec<f64>, CalibrateError> {
        self.device.take_steps()?;
        let (values, answers) = match *cell {
            Cell::Prefill { prompt } => self.prefill(index, prompt)?,
            Cell::Rested { prompt, rest } => self.rested(index, prompt, rest)?,
            Cell::Decode { sequences, prompt } => self.decode(index, sequences, prompt)?,
            Cell::Mixed { sequences, prompt } => self.mixed(index, sequences, prompt)?,
        };
        self.behind = match *cell {
            Cell::Prefill { prompt } | Cell::Rested { prompt, .. } => self.behind_short(prompt),
            Cell::Decode { .. } | Cell::Mixed { .. } => Behind::default(),
        };
        let steps = self.device.take_steps()?.unwrap_or_default();
        self.steps.extend(steps.iter().filter_map(|step| Observation::of_step(index, step)));
        self.note_delivery(&steps, &answers);
        match (cell, &answers[..]) {
            (Cell::Prefill { .. }, [answer]) => {
                self.delays.request.extend(around_steps(&steps, answer));
            }
            (Cell::Rested { .. }, [before, answer]) => {
                let rest = answer.sent.saturating_since(before.ended).nanos();
                if let Some(nanos) = around_steps(&steps, answer) {
                    self.delays.rested.entry(index).or_default().push((rest, nanos));
                }
            }
            (_, _) => {}
        }
        Ok(values)
    }

    /// How long after the end of a step its tokens were there.
    fn note_delivery(&mut self, steps: &[Step], answers: &[Answer]) {
        let out: Vec<Time> = steps.iter().map(|step| step.delivered).collect();
        for token in answers.iter().filter_map(Answer::tokens).flatten() {
            let step = out.partition_point(|out| *out <= token);
            if step > 0 {
                self.delays.told.push(nanos(out[step - 1], token));
            }
        }
    }

    /// Runs traffic for so long. Its steps are cells behind those of the plan, steps of about the
    /// same size one.
    pub fn traffic(&mut self, time: Duration, watch: &dyn Watch) -> Result<(), CalibrateError> {
        let Pace { context_max, kv_tokens, step_tokens_max, .. } = self.pace;
        let seats = self.seats();
        let seed = self.settings.seed;
        let lanes = seats;
        let room =
            Room { seats, lanes, context_max, kv_tokens, step_tokens_max, rests: RESTS, seed };
        let (steps, answers) = traffic_steps(self.device, room, time, watch)?;
        let told = if self.tells_steps { &steps[..] } else { &[] };
        self.delays.busy = request_cost((&answers, told), (step_tokens_max, seats));
        let plan = self.values.len();
        let all = steps.iter().filter_map(|step| Observation::of_traffic(plan, step));
        match self.tells_steps {
            true => {
                self.steps.extend(all);
                self.note_delivery(&steps, &answers);
            }
            false => {
                self.seen.extend(all);
                let alone = alone(&answers, step_tokens_max);
                self.seen.extend(alone.iter().filter_map(|step| {
                    let mut one = Observation::of_traffic(plan, step)?;
                    one.sums[Feature::Requests as usize] = 1.0;
                    Some(one)
                }));
            }
        }
        Ok(())
    }

    fn prefill(&mut self, index: usize, prompt: u32) -> Result<Seen, CalibrateError> {
        let mut asked = 0;
        let ask = || {
            asked += 1;
            self.ask(prompt, SHORT).wait()
        };
        let answer = again(ask, |answer| answer.tokens().is_some())?;
        if asked > 1 {
            self.behind = self.behind_short(prompt);
        }
        let Some(value) = self.alone(index, &answer, 0) else { return Ok(Seen::default()) };
        self.delays.accepted.push(nanos(answer.sent, answer.accepted));
        let seen = self.seen.len() - 1;
        self.delays.first_byte.push((seen, nanos(answer.sent, answer.first_byte)));
        Ok((vec![value], vec![answer]))
    }

    /// What is felt of a prompt behind its short answer.
    fn behind_short(&self, prompt: u32) -> Behind {
        prompt_step(prompt.into(), self.pace.step_tokens_max).leaves(SHORT.into())
    }

    /// A prompt behind a rest, which begins where a short request ends.
    fn rested(
        &mut self,
        index: usize,
        prompt: u32,
        rest: Duration,
    ) -> Result<Seen, CalibrateError> {
        let ask = || {
            let before = self.ask(16, SHORT).wait()?;
            std::thread::sleep(rest);
            Ok((before, self.ask(prompt, SHORT).wait()?))
        };
        let (before, answer) = again(ask, |(_, answer)| answer.tokens().is_some())?;
        self.behind = self.behind_short(16);
        let idle = answer.sent.saturating_since(before.ended).nanos();
        let Some(value) = self.alone(index, &answer, idle) else { return Ok(Seen::default()) };
        Ok((vec![value], vec![before, answer]))
    }

    /// A request that was alone, behind a rest of so many ns: how long its first token took.
    fn alone(&mut self, index: usize, answer: &Answer, idle: u64) -> Option<f64> {
        let mut one = Observation::of(index);
        let budget = u64::from(self.pace.step_tokens_max);
        let first = BatchShape { behind: self.behind, idle, ..BatchShape::default() };
        one.add_prompt(u64::from(answer.usage.prompt_tokens), budget, first);
        one.sums[Feature::Requests as usize] = 1.0;
        one.nanos = nanos(answer.sent, answer.first_token()?);
        self.seen.push(one);
        Some(one.nanos)
    }

    fn decode(
        &mut self,
        index: usize,
        sequences: u32,
        prompt: u32,
    ) -> Result<Seen, CalibrateError> {
        let output = self.pace.output(sequences, prompt);
        let answering: Vec<_> = (0..sequences).map(|_| self.ask(prompt, output)).collect();
        let answers: Vec<Answer> =
            answering.into_iter().map(Answering::wait).collect::<Result<_, _>>()?;
        let Some(lanes) = Lanes::of(&answers, self.pace.step_tokens_max) else {
            return Ok((Vec::new(), answers));
        };
        let mut values = Vec::new();
        for from in (0..lanes.steps.saturating_sub(WINDOW - 1)).step_by(WINDOW) {
            let mut one = Observation::of(index);
            for step in from..from + WINDOW {
                one.add(lanes.shape(step));
            }
            one.nanos = nanos(lanes.reference[from], lanes.reference[from + WINDOW]);
            // Tokens of one piece have one time.
            if one.nanos <= 0.0 {
                continue;
            }
            values.push(one.nanos / WINDOW as f64);
            self.seen.push(one);
        }
        if !values.is_empty() {
            self.together = self.together.max(sequences);
            self.delays.chunk.extend(lanes.spread());
        }
        Ok((values, answers))
    }

    fn mixed(&mut self, index: usize, sequences: u32, prompt: u32) -> Result<Seen, CalibrateError> {
        let ask = |this: &Self| this.ask(16, 2 * STEPS + sequences);
        let mut answering: Vec<_> = (0..sequences).map(|_| ask(self)).collect();
        let mut heard = Vec::new();
        for one in &mut answering {
            heard.push(until_token(one)?);
        }
        // A few steps more, so that all decode.
        std::thread::sleep(self.pace.step * 3);
        let arriving = self.ask(prompt, 2).wait()?;
        let mut answers = Vec::new();
        for (one, before) in answering.into_iter().zip(heard) {
            answers.push(rest(one, before)?);
        }
        let seen = self.beside(index, &answers, &arriving);
        answers.push(arriving);
        Ok((seen.into_iter().collect(), answers))
    }

    /// The steps in which a prompt was computed beside others, and how much longer they took.
    fn beside(&mut self, index: usize, answers: &[Answer], arriving: &Answer) -> Option<f64> {
        let lanes = Lanes::of(answers, self.pace.step_tokens_max)?;
        let first = *arriving.tokens()?.first()?;
        let reference = &lanes.reference;
        let gap = lanes.gap();
        // The boundary before it was sent, and the one at which its first token came: tokens of
        // one step reach the client one after the other.
        let from = reference.partition_point(|at| *at <= arriving.sent).checked_sub(1)?;
        let to = reference.partition_point(|at| nanos(*at, first) > gap / 2.0);
        if to > lanes.steps || to <= from {
            return None;
        }
        let prompt = u64::from(arriving.usage.prompt_tokens);
        let sequences = answers.len() as u64;
        let steps = (to - from) as u64;
        let budget = match self.told.step_tokens_max {
            Some(budget) => u64::from(budget).saturating_sub(sequences).max(1),
            // The step that ran when it was sent computed nothing of it.
            None => prompt.div_ceil((steps - 1).max(1)),
        };
        let chunks = prompt.div_ceil(budget);
        let plain = steps.checked_sub(chunks)?;
        let mut one = Observation::of(index);
        for step in 0..plain {
            one.add(lanes.shape(from + step as usize));
        }
        one.add_prompt(prompt, budget, lanes.shape(from + plain as usize));
        one.nanos = nanos(reference[from], reference[to]);
        if one.nanos <= 0.0 {
            return None;
        }
        self.seen.push(one);
        Some((one.nanos - plain as f64 * gap).max(1.0))
    }

    fn ask(&self, prompt: u32, output: u32) -> Answering {
        let prompt = Prompt::Random { tokens: prompt };
        self.device.submit(&Ask { prompt, output_tokens: output, priority: 0 })
    }

    /// KV memory in tokens: as told, or from the part of it that a known number of tokens uses.
    pub fn kv_tokens(&mut self, plan: &Plan) -> Result<Option<u64>, CalibrateError> {
        if self.told.kv_tokens.is_some() || self.device.load()?.is_none() {
            return Ok(self.told.kv_tokens);
        }
        let size = |cell: &Cell| match *cell {
            Cell::Decode { sequences, prompt } => sequences * prompt,
            Cell::Prefill { .. } | Cell::Rested { .. } | Cell::Mixed { .. } => 0,
        };
        let largest = plan.cells.iter().copied().max_by_key(size);
        let Some(Cell::Decode { sequences, prompt }) = largest else { return Ok(None) };
        let output = self.pace.output(sequences, prompt) + STEPS;
        let mut answering: Vec<_> = (0..sequences).map(|_| self.ask(prompt, output)).collect();
        let mut heard = Vec::new();
        for one in &mut answering {
            heard.push(until_token(one)?);
        }
        let at = self.device.clock().now();
        let load = self.device.load()?;
        let mut held = 0;
        for (one, before) in answering.into_iter().zip(heard) {
            let answer = rest(one, before)?;
            let delivered = answer.chunks.iter().filter(|chunk| chunk.at <= at).count() as u64;
            let block = u64::from(self.told.block_tokens.unwrap_or(BLOCK_ASSUMED));
            held += (u64::from(answer.usage.prompt_tokens) + delivered).next_multiple_of(block);
        }
        self.device.take_steps()?;
        let used = load.map_or(0.0, |load| f64::from(load.kv_used_ppm) / 1e6);
        Ok((used > 0.005).then(|| (held as f64 / used) as u64))
    }

    /// How many are computed at a time: as told, or the most that were seen to be.
    fn seats(&self) -> u32 {
        self.told.seats.unwrap_or(self.together)
    }

    /// The limits of the engine, and which of them nobody told.
    pub fn assumed(&self, kv_tokens: Option<u64>) -> Assumed {
        let mut notes = Vec::new();
        let mut assume = |name: &str, is_told: bool, how: &str| {
            if !is_told {
                notes.push(format!("{name}: {how}"));
            }
        };
        let Limits { seats, step_tokens_max, block_tokens, context_max, priorities, .. } =
            self.told;
        assume("seats", seats.is_some(), "the most that were seen to decode together");
        assume("step_tokens_max", step_tokens_max.is_some(), "not told, vLLM's default");
        assume("block_tokens", block_tokens.is_some(), "not told, vLLM's default");
        let measured = kv_tokens.is_some() && self.told.kv_tokens.is_none();
        assume("kv_tokens", !measured, "from the part of it that known requests used");
        assume("kv_tokens", kv_tokens.is_some(), "not told, as much as all seats can use");
        assume("context_max", context_max.is_some(), "not told");
        let seats = self.seats();
        let context = context_max.unwrap_or(CONTEXT_ASSUMED);
        let kv_tokens = kv_tokens.unwrap_or(u64::from(seats) * u64::from(context));
        let block = block_tokens.filter(|block| block.is_power_of_two() && *block <= 256);
        Assumed {
            limits: Limits {
                seats: Some(seats),
                step_tokens_max: Some(step_tokens_max.unwrap_or(STEP_TOKENS_ASSUMED).max(seats)),
                kv_tokens: Some(kv_tokens),
                block_tokens: Some(block.unwrap_or(BLOCK_ASSUMED)),
                context_max: Some(u32::try_from(kv_tokens).unwrap_or(u32::MAX).min(context)),
                priorities,
            },
            notes,
        }
    }

    /// How much more a request costs beside its steps behind rests, where steps are told.
    fn after_idle(&self) -> Option<[f64; 2]> {
        let request = median(&self.delays.request);
        let cell = |times: &Vec<(u64, f64)>| {
            let (rests, took): (Vec<f64>, Vec<f64>) =
                times.iter().map(|(rest, nanos)| (*rest as f64, *nanos)).unzip();
            (median(&rests) as u64, (median(&took) - request).max(0.0))
        };
        let cells: Vec<(u64, f64)> = self.delays.rested.values().map(cell).collect();
        (!cells.is_empty()).then(|| of_rests(&cells))
    }

    /// What a request costs beside steps, where steps cost what `predict` says.
    pub fn overheads(&self, predict: impl Fn(&Observation) -> f64) -> Overheads {
        let alone = |one: &&Observation| one.sums[Feature::Requests as usize] > 0.0;
        let request: Vec<f64> = match self.delays.request.is_empty() {
            true => self.seen.iter().filter(alone).map(|one| one.nanos - predict(one)).collect(),
            false => self.delays.request.clone(),
        };
        let first_byte = self.delays.first_byte.iter();
        let first_byte: Vec<f64> =
            first_byte.map(|(index, nanos)| nanos - predict(&self.seen[*index])).collect();
        Overheads {
            request: median(&request).max(0.0),
            after_idle: self.after_idle(),
            busy: self.delays.busy,
            accepted: median(&self.delays.accepted),
            first_byte: median(&first_byte).max(0.0),
            chunk: median(&self.delays.chunk),
            delivery: (!self.delays.told.is_empty()).then(|| median(&self.delays.told)),
        }
    }
}

/// Times of a cell, and the answers they were read from.
type Seen = (Vec<f64>, Vec<Answer>);

/// What a request that was alone cost beside its steps until its first token, in ns, where steps are
/// told: what a step-time model leaves over is its error as well.
fn around_steps(steps: &[Step], answer: &Answer) -> Option<f64> {
    let first = answer.first_token()?;
    let before = steps.iter().filter(|step| answer.sent <= step.start && step.delivered <= first);
    let spans: Vec<f64> = before.map(|step| nanos(step.start, step.end)).collect();
    (!spans.is_empty()).then(|| nanos(answer.sent, first) - spans.iter().sum::<f64>())
}

/// What is `first`, and else what is `second`.
fn or(first: Limits, second: Limits) -> Limits {
    Limits {
        seats: first.seats.or(second.seats),
        step_tokens_max: first.step_tokens_max.or(second.step_tokens_max),
        kv_tokens: first.kv_tokens.or(second.kv_tokens),
        block_tokens: first.block_tokens.or(second.block_tokens),
        context_max: first.context_max.or(second.context_max),
        priorities: first.priorities.or(second.priorities),
    }
}

/// Asks, and up to [`AGAIN`] times again while what comes does not tell enough.
fn again<T>(
    mut ask: impl FnMut() -> Result<T, DeviceError>,
    tells: impl Fn(&T) -> bool,
) -> Result<T, DeviceError> {
    let mut found = ask()?;
    for _ in 0..AGAIN {
        if tells(&found) {
            break;
        }
        found = ask()?;
    }
    Ok(found)
}

/// Listens until a token is there; returns what was heard.
fn until_token(answering: &mut Answering) -> Result<Vec<Heard>, DeviceError> {
    let mut all = Vec::new();
    while let Some(heard) = answering.wait_next() {
        if let Heard::Failed(_, error) = heard {
            return Err(error);
        }
        let is_token = matches!(heard, Heard::Chunk(_) | Heard::Ended(..));
        all.push(heard);
        if is_token {
            break;
        }
    }
    Ok(all)
}

/// The whole answer of which some was heard.
fn rest(mut answering: Answering, mut all: Vec<Heard>) -> Result<Answer, DeviceError> {
    while let Some(heard) = answering.wait_next() {
        all.push(heard);
    }
    Answer::of(all)
}

/// Sequences that decode in step with each other, from when the last has begun until the first
/// ends.
struct Lanes {
    /// When each token of the last to begin was there; the first begins the first step.
    reference: Vec<Time>,
    /// Whole steps that all were in.
    steps: usize,
    /// Their context in the first step.
    context: u64,
    /// Each one's tokens, from the first on that came with the reference's first.
    tokens: Vec<Vec<Time>>,
    /// The step before the first, in which the last of them began.
    began: BatchShape,
}

/// A step that computes so many prompt tokens, as far as there is room for them.
fn prompt_step(prompt: u64, step_tokens_max: u32) -> BatchShape {
    BatchShape { prefill: prompt.min(step_tokens_max.into()), ..BatchShape::default() }
}

impl Lanes {
    /// `None` where tokens cannot be told apart or never all decoded together.
    fn of(answers: &[Answer], step_tokens_max: u32) -> Option<Lanes> {
        let tokens: Vec<Vec<Time>> = match answers {
            [answer] => vec![alone_times(answer)?],
            _ => token_times(answers, &[]).into_iter().collect::<Option<_>>()?,
        };
        if tokens.iter().any(|tokens| tokens.len() < 2) {
            return None;
        }
        let (reference, last) = tokens.iter().zip(answers).max_by_key(|(tokens, _)| tokens[0])?;
        let reference = reference.clone();
        let began = prompt_step(last.usage.prompt_tokens.into(), step_tokens_max);
        let end = tokens.iter().filter_map(|tokens| tokens.last()).min()?;
        let gaps: Vec<f64> = reference.windows(2).map(|two| nanos(two[0], two[1])).collect();
        let slack = plimsoll_base::Span::from_nanos((median(&gaps) / 2.0) as u64);
        let start = reference[0].saturating_add(slack);
        let last = end.saturating_add(slack);
        let steps = reference.partition_point(|at| *at <= last).checked_sub(1)?;
        let mut context = 0;
        let mut lanes = Vec::new();
        for (answer, tokens) in answers.iter().zip(&tokens) {
            let delivered = tokens.partition_point(|at| *at <= start);
            context += u64::from(answer.usage.prompt_tokens) + (delivered as u64).checked_sub(1)?;
            lanes.push(tokens[delivered - 1..].to_vec());
        }
        Some(Lanes { reference, steps, context, tokens: lanes, began })
    }

    /// What a step computes, the first being 0.
    fn shape(&self, step: usize) -> BatchShape {
        let sequences = self.tokens.len() as u64;
        let context = self.context + sequences * step as u64;
        // The last of them to begin did so in the step before the first.
        let behind = self.began.leaves(step as u64 + 1);
        BatchShape { sequences, context, behind, ..BatchShape::default() }
    }

    /// The median time of a step, in ns.
    fn gap(&self) -> f64 {
        let gaps = self.reference.windows(2).map(|two| nanos(two[0], two[1]));
        median(&gaps.collect::<Vec<_>>())
    }

    /// How much later each further token of the same step is there, step by step, in ns.
    fn spread(&self) -> Vec<f64> {
        if self.tokens.len() < 4 {
            return Vec::new();
        }
        let spread = |step: usize| {
            let times = self.tokens.iter().map(|tokens| tokens.get(step).copied());
            let times: Vec<Time> = times.collect::<Option<_>>()?;
            let (first, last) = (times.iter().min()?, times.iter().max()?);
            Some(nanos(*first, *last) / (self.tokens.len() - 1) as f64)
        };
        (0..self.steps).filter_map(spread).collect()
    }
}
