//! The steps of a server that tells them: those under `live/engines` do, at `/plimsoll/steps`.

use plimsoll_base::Time;
use plimsoll_sim::engine::{BatchShape, Behind};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::client::Client;
use crate::device::{Clock, DeviceError, Step};

/// How often its clock is read beside. It takes a fraction of a millisecond each time.
const CLOCK_READINGS: usize = 16;

/// The number of a step that there will never be.
const NEVER: u64 = i64::MAX as u64;

/// Where reading them stands.
pub(super) struct Steps {
    clock: Clock,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    /// The number of the next step.
    next: u64,
    /// Its clock less ours, in nanoseconds, and how far off that may be.
    offset: Option<(i128, u64)>,
    /// What the next step feels of those before.
    behind: Behind,
    /// When the last step was over.
    rests: Option<Time>,
}

/// Steps from number `first` on: start, end (ns of its clock), prompt tokens, (query, key) pairs,
/// decoding sequences, their context, and when tokens went out if not at the end.
#[derive(Deserialize)]
struct Page {
    now_ns: i128,
    first: u64,
    steps: Vec<Row>,
}

#[derive(Deserialize)]
struct Row(i128, i128, u64, u64, u64, u64, #[serde(default)] Option<i128>);

impl Steps {
    pub fn new(clock: Clock) -> Steps {
        Steps { clock, reading: Mutex::default() }
    }

    /// The steps since this was last called.
    pub async fn take(&self, client: &Client) -> Result<Vec<Step>, DeviceError> {
        let mut reading = self.reading.lock().await;
        for _ in 0..CLOCK_READINGS {
            self.page(client, (&mut reading, NEVER)).await?;
        }
        let after = reading.next;
        let page = self.page(client, (&mut reading, after)).await?;
        if page.first > reading.next && reading.next > 0 {
            let lost = page.first - reading.next;
            return Err(DeviceError::BrokeOff(format!("it has forgotten {lost} of its steps")));
        }
        reading.next = page.first + page.steps.len() as u64;
        let offset = reading.offset.map_or(0, |(offset, _)| offset);
        let time = |nanos: i128| Time::from_nanos(u64::try_from(nanos - offset).unwrap_or(0));
        let step = |Row(start, end, prefill, pairs, sequences, context, delivered)| Step {
            start: time(start),
            end: time(end),
            delivered: time(delivered.unwrap_or(end).min(end)),
            shape: BatchShape { prefill, pairs, sequences, context, ..BatchShape::default() },
        };
        let mut steps: Vec<Step> = page.steps.into_iter().map(step).collect();
        for step in &mut steps {
            let idle = reading.rests.map(|rests| step.start.saturating_since(rests));
            step.shape.idle = idle.map_or(0, |idle| idle.nanos());
            reading.rests = Some(step.end);
        }
        reading.behind =
            BatchShape::follow(reading.behind, steps.iter_mut().map(|step| &mut step.shape));
        Ok(steps)
    }

    async fn page(
        &self,
        client: &Client,
        (reading, after): (&mut Reading, u64),
    ) -> Result<Page, DeviceError> {
        let asked = self.clock.now();
        let page = client.json(&format!("/plimsoll/steps?after={after}")).await?;
        let answered = self.clock.now();
        let page: Page = page
            .and_then(|page| serde_json::from_value(page).ok())
            .ok_or_else(|| client.otherwise("/plimsoll/steps is no list of steps"))?;
        // Its clock is read between our two readings: the quicker the answer, the nearer. Of the
        // instants between the first is taken: a token is never seen before its step has ended.
        let doubt = answered.nanos() - asked.nanos();
        if reading.offset.is_none_or(|(_, known)| doubt < known) {
            reading.offset = Some((page.now_ns - i128::from(asked.nanos()), doubt));
        }
        Ok(page)
    }
}
