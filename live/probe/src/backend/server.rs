//! Connections, and what they share.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use plimsoll_sim::model::EngineModel;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::answer::Refusal;
use super::ask::{Ask, Route};
use super::books::Books;
use super::desk::Desk;
use super::fault::{Fault, Faults};
use super::line::{Doom, Line};
use super::routes;
use super::settings::{Kind, Limits, Settings, Steps};
use super::steps::described;

/// The name of the model where none is set.
const MODEL: &str = "plimsoll";
/// How long to wait when no connection can be accepted, for lack of files for example.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of headers, and of what waits to be written to one connection.
const BUFFER_MAX: usize = 64 << 10;

/// What the connections of a backend share.
#[derive(Debug)]
pub(super) struct Shared {
    pub kind: Kind,
    pub limits: Limits,
    pub stream_interval: u32,
    pub context_max: u32,
    pub desk: Desk,
    pub books: Books,
    /// What the engine is; `None` if it tells nothing of itself.
    pub described: Option<serde_json::Value>,
    model: Option<String>,
    faults: RwLock<Faults>,
}

impl Shared {
    /// Starts the engine.
    pub fn new(engine: &EngineModel, settings: Settings) -> io::Result<Shared> {
        let Settings { model, speed, kind, faults, limits, stream_interval, steps, .. } = settings;
        Ok(Shared {
            kind,
            limits,
            stream_interval: stream_interval.max(1),
            context_max: engine.context_max,
            desk: Desk::open(engine, speed)?,
            books: Books::default(),
            described: (steps == Steps::Told).then(|| described(engine)),
            model,
            faults: RwLock::new(faults),
        })
    }

    /// The name of its model.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(MODEL)
    }

    /// Reads a request.
    pub fn ask(&self, route: Route, headers: &HeaderMap, body: &[u8]) -> Result<Ask, Refusal> {
        let ask = Ask::read((route, self.kind, self.context_max), headers, body)?;
        match (&self.model, &ask.model) {
            (Some(served), Some(asked)) if served != asked => {
                let message = format!("the model `{asked}` does not exist; there is `{served}`");
                Err(Refusal::new(StatusCode::NOT_FOUND, "model_not_found", message))
            }
            _ => Ok(ask),
        }
    }

    /// What goes wrong with the request of this number.
    pub fn strike(&self, request: u64) -> Option<Fault> {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).strike(request)
    }

    fn refuses(&self, connection: u64) -> bool {
        self.faults.read().unwrap_or_else(PoisonError::into_inner).refuses(connection)
    }

    /// From now on this goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    }
}

/// Accepts connections, as many at once as the limits say.
pub(super) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(shared.limits.connections_max));
    let mut connections = 0;
    // Nobody closes the places.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let number = connections;
        connections += 1;
        let doom = Doom::default();
        if shared.refuses(number) {
            shared.books.count_connection_refused();
            doom.seal();
            drop(Line::new(stream, doom));
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            converse(shared, stream, doom).await;
            drop(place);
        });
    }
}

/// Serves one connection until it ends.
async fn converse(shared: Arc<Shared>, stream: TcpStream, doom: Doom) {
    // Tokens are small and must not wait for each other; without it they are only slower.
    let _ = stream.set_nodelay(true);
    let line = TokioIo::new(Line::new(stream, doom.clone()));
    let limits = shared.limits;
    let service =
        service_fn(move |request| routes::answer(Arc::clone(&shared), doom.clone(), request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.read_max).max_buf_size(BUFFER_MAX);
    // A connection ends as its client or a fault wants it to: there is nobody to tell.
    let _ = http.serve_connection(line, service).await;
}
