//! An inference server without a GPU: the engine model on the wall clock, behind HTTP.
//!
//! A request takes as long as the engine model says, a step at a time, in a batch with whoever
//! else is there; each token goes out when the step that computes it is over. What it says is
//! always ` tok`. How many tokens that is, and what goes wrong on the way, is up to the request:
//!
//! | header, or a word `NAME:VALUE` of the prompt | means |
//! |---|---|
//! | `x-prompt-tokens: N` | the prompt counts as N tokens; else a word is a token |
//! | `x-output-tokens: N` | the answer has N tokens, or what `max_tokens` allows if that is less |
//! | `x-fault: NAME` | a [`Fault`] |
//!
//! The words of the prompt are for what comes through a gateway that passes on no strange header.
//!
//! The engine is owned by one thread ([`desk`]); everything else asks it. Everything has a limit:
//! connections, bodies, how long it takes to read a request; and a stream holds a counter, not
//! tokens, however slowly it is read.

mod answer;
mod ask;
mod books;
mod desk;
mod fault;
mod infer;
mod line;
mod machine;
mod metrics;
mod routes;
mod script;
mod server;
mod settings;
mod steps;
mod wall;
mod wishes;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::{io, thread};

use plimsoll_base::BackendSample;
use plimsoll_sim::model::EngineModel;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use books::Counts;
pub use fault::{BadFault, Fault, FaultShare, Faults};
pub use settings::{Kind, Limits, Settings, Steps};

use server::Shared;

/// Starts backends.
#[derive(Debug)]
pub struct Backend;

impl Backend {
    /// Starts one on a thread of its own, with a runtime of its own; it listens when this returns.
    ///
    /// # Errors
    /// If the speed is not a positive number, or the address is not to be had.
    pub fn start(model: EngineModel, settings: Settings) -> io::Result<Running> {
        settings.check()?;
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let body = move || match open(model, settings) {
            Ok((runtime, listener, shared, addr)) => {
                // Whoever started us waits for this.
                let _ = tell.send(Ok((addr, Arc::clone(&shared))));
                runtime.block_on(async {
                    tokio::select! {
                        () = server::listen(listener, shared) => {}
                        _ = stopped => {}
                    }
                });
                // Connections end here, wherever they are.
                runtime.shutdown_background();
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        let thread = thread::Builder::new().name("backend".into()).spawn(body)?;
        let gone = || io::Error::other("the backend's thread ended before it listened");
        let (addr, shared) = told.recv().map_err(|_| gone())??;
        Ok(Running { addr, shared, stop: Some(stop), thread: Some(thread) })
    }
}

type Opened = (tokio::runtime::Runtime, TcpListener, Arc<Shared>, SocketAddr);

/// Everything that a backend needs before it serves.
fn open(model: EngineModel, settings: Settings) -> io::Result<Opened> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (listener, shared) = runtime.block_on(async {
        let listener = TcpListener::bind(settings.listen).await?;
        Ok::<_, io::Error>((listener, Arc::new(Shared::new(&model, settings)?)))
    })?;
    let addr = listener.local_addr()?;
    Ok((runtime, listener, shared, addr))
}

/// A backend that runs. It stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Its books so far.
    pub fn counts(&self) -> Counts {
        self.shared.books.counts()
    }

    /// How full its engine is.
    pub fn sample(&self) -> BackendSample {
        self.shared.desk.sample()
    }

    /// From now on it goes wrong like this.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.set_faults(faults);
    }

    /// Stops at once: whoever is connected is cut off. Returns the last books.
    pub fn shutdown(mut self) -> Counts {
        self.stop_now();
        self.counts()
    }

    fn stop_now(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It has stopped by itself if nobody listens.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_now();
    }
}
