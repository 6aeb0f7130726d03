//! What asks a server to stop, or to read its file again.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM.
#[cfg(unix)]
pub struct Stop([Signal; 2]);

#[cfg(unix)]
impl Stop {
    /// Heard from here on.
    pub fn listen() -> std::io::Result<Stop> {
        Ok(Stop([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }
    /// Waits for the next.
    pub async fn asked(&mut self) {
        let Stop([interrupt, terminate]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// SIGHUP.
#[cfg(unix)]
pub struct Again(Signal);

#[cfg(unix)]
impl Again {
    /// Heard from here on.
    pub fn listen() -> std::io::Result<Again> {
        Ok(Again(signal(SignalKind::hangup())?))
    }
    /// Waits for the next.
    pub async fn asked(&mut self) {
        self.0.recv().await;
    }
}

/// Ctrl-C.
#[cfg(windows)]
pub struct Stop(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Stop {
    /// Heard from here on.
    pub fn listen() -> std::io::Result<Stop> {
        Ok(Stop(tokio::signal::windows::ctrl_c()?))
    }
    /// Waits for the next.
    pub async fn asked(&mut self) {
        self.0.recv().await;
    }
}

/// Nothing: there is no such signal.
#[cfg(windows)]
pub struct Again;

#[cfg(windows)]
impl Again {
    /// Never heard.
    pub fn listen() -> std::io::Result<Again> {
        Ok(Again)
    }
    /// Waits for ever.
    pub async fn asked(&mut self) {
        std::future::pending().await
    }
}
