//! The way to the allocator for everyone else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_base::{Refusal, RequestId};
use plimsoll_policy::{BackendInfo, Load, RequestInfo};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::driver::{Message, Policy};
use crate::inside::Inside;
use crate::ticket::{Pending, Refused, Ticket};

/// The task that owned the allocator has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the allocator has stopped")]
pub struct Gone;

/// A way to the allocator. Cheap to clone; the task stops once the last one is dropped, or when it
/// is [told to](Gate::stop).
#[derive(Clone, Debug)]
pub struct Gate {
    to: mpsc::Sender<Message>,
    next: Arc<AtomicU64>,
}

impl Gate {
    pub(crate) fn new(to: mpsc::Sender<Message>) -> Gate {
        Gate { to, next: Arc::default() }
    }

    /// Offers a request.
    ///
    /// # Errors
    /// If so many requests are held that there is no room for one more, which is far beyond what
    /// the policy holds (`requests_max`), or the task has stopped.
    pub fn submit(&self, info: RequestInfo) -> Result<Pending, Refused> {
        fn full<T>(error: mpsc::error::TrySendError<T>) -> Refused {
            Refused::at_the_door(match error {
                mpsc::error::TrySendError::Full(_) => Refusal::QueueFull,
                mpsc::error::TrySendError::Closed(_) => Refusal::Draining,
            })
        }
        let room = self.to.clone().try_reserve_owned().map_err(full)?;
        let id = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (answer, told) = oneshot::channel();
        let arrival = Message::Arrived(id, Box::new((info, answer)));
        self.to.try_send(arrival).map_err(full)?;
        Ok(Pending::new(id, room, told))
    }

    /// The first token of a request was delivered.
    pub async fn first_token(&self, ticket: &Ticket) {
        // A task that has stopped needs to know nothing any more.
        let _ = self.to.send(Message::FirstToken(ticket.id())).await;
    }

    /// The backend of a slot is there. Returns nothing: from now on requests may go to it.
    pub async fn join(&self, slot: u32, info: BackendInfo) {
        let _ = self.to.send(Message::Joined(slot, Box::new(info))).await;
    }

    /// The backend of a slot is gone. What runs there is ended by whoever carries it.
    pub async fn leave(&self, slot: u32) {
        let _ = self.to.send(Message::Left(slot)).await;
    }

    /// What a backend said of itself, and when that was true.
    pub async fn report(&self, slot: u32, load: Load, as_of: Instant) {
        let _ = self.to.send(Message::Reported(slot, load, as_of)).await;
    }

    /// From now on everything new is refused.
    pub async fn drain(&self) {
        let _ = self.to.send(Message::Drain).await;
    }

    /// Another policy takes over what this one holds: at once, or not at all. The ids of classes,
    /// models and so on must mean what they meant. `offers` says which backends offer something
    /// else from then on; what they hold they keep.
    ///
    /// # Errors
    /// If the policy contradicts itself or has fewer classes: then nothing has changed.
    pub async fn reload(&self, policy: Policy, offers: Offers) -> Result<(), ReloadError> {
        let (answer, told) = oneshot::channel();
        let message = Message::Reload(Box::new((policy, offers)), answer);
        self.to.send(message).await.map_err(|_| ReloadError::Gone(Gone))?;
        told.await.map_err(|_| ReloadError::Gone(Gone))?
    }

    /// Looks at what is inside, between two inputs.
    ///
    /// # Errors
    /// If the task has stopped.
    pub async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Inside<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, told) = oneshot::channel();
        let look: Look = Box::new(move |inside| {
            // Whoever asked may not be waiting any more.
            let _ = answer.send(look(inside));
        });
        self.to.send(Message::Ask(look)).await.map_err(|_| Gone)?;
        told.await.map_err(|_| Gone)
    }

    /// Ends the decision log and the task.
    pub async fn stop(&self) {
        let _ = self.to.send(Message::Stop).await;
        self.to.closed().await;
    }
}

/// What the backends of some slots offer.
pub type Offers = Vec<(u32, BackendInfo)>;

/// Something that looks inside.
pub(crate) type Look = Box<dyn FnOnce(&Inside<'_>) + Send>;

/// Why a policy did not take over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It contradicts itself.
    #[error("the policy contradicts itself: {0}")]
    Config(#[from] plimsoll_policy::ConfigError),
    /// Requests are held of a class that it does not have.
    #[error("the policy has {after} classes, {before} are in use")]
    Classes {
        /// In use.
        before: usize,
        /// Of the policy.
        after: usize,
    },
    /// The task has stopped.
    #[error(transparent)]
    Gone(#[from] Gone),
}
