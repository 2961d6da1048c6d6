//! A proxy between Kafka's clients and a broker, with switches for what networks do.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::port::Port;

/// The api key of a produce request.
const PRODUCE: i16 = 0;
/// Frames of one connection that wait here; more than any test holds back.
const WAITING_MAX: usize = 10_000;
/// How long a connection to the broker outlives that of the client.
const AFTER_THE_CLIENT: Duration = Duration::from_secs(5);

/// What the proxy does with what passes it.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    /// Keeps back the produce requests that name this topic, and what follows them on their connection.
    pub hold_produce: Option<String>,
    /// Loses the answers to produce requests that name this topic.
    pub drop_produce_answers: Option<String>,
    /// Forwards no request. With the other, the proxy is a black hole: it takes connections, and nothing comes back.
    pub hold_requests: bool,
    /// Forwards no answer.
    pub hold_answers: bool,
    /// How long each frame is under way, in each direction.
    pub delay: Duration,
}

/// A TCP proxy in front of one broker that tells Kafka's requests apart. It works from its start until it is dropped,
/// and forwards what it is not told to hold.
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    broker: u16,
    switches: watch::Sender<Switches>,
    /// Grows when all connections are cut.
    cuts: watch::Sender<u64>,
    held: AtomicU64,
    dropped: AtomicU64,
}

impl Proxy {
    /// Listens on `port` for clients of the broker on port `broker`.
    pub(crate) async fn start(port: Port, broker: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await.expect("a reserved port is free");
        let shared = Arc::new(Shared {
            broker,
            switches: watch::Sender::default(),
            cuts: watch::Sender::default(),
            held: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Proxy { port, shared, accepting }
    }

    /// The address for clients' `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Changes what happens from now on; what was held goes on its way when nothing holds it any more, also after its
    /// sender is gone.
    pub fn set(&self, switches: Switches) {
        self.shared.switches.send_replace(switches);
    }

    /// Cuts all connections. New ones are taken.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The number of produce requests that were held so far.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// The number of answers that were lost so far.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            tokio::select! {
                _ = cuts.changed() => {}
                _ = connect(client, &shared) => {}
            }
        });
    }
}

/// What of a request its answer is known by: its correlation id tells whether its answer may be lost.
type Asked = Mutex<HashMap<i32, Option<Vec<u8>>>>;

async fn connect(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let switches = shared.switches.subscribe();
    // A broker that is down must look so to the client: connections that come while it is are closed.
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.broker)).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let asked = Asked::default();
    // A client that goes away ends neither what is held of its requests nor this connection to the broker; a broker that
    // goes away ends both.
    tokio::select! {
        done = requests(from_client, to_broker, &asked, switches.clone(), shared) => done,
        done = answers(from_broker, to_client, &asked, switches, shared) => done,
    }
}

/// Frames with the time at which they came, read while those before them wait.
fn read_ahead(mut from: OwnedReadHalf) -> (mpsc::Receiver<(Instant, Vec<u8>)>, AbortOnDrop) {
    let (sender, frames) = mpsc::channel(WAITING_MAX);
    let reading = tokio::spawn(async move {
        while let Ok(frame) = read_frame(&mut from).await {
            if sender.send((Instant::now(), frame)).await.is_err() {
                break;
            }
        }
    });
    (frames, AbortOnDrop(reading.abort_handle()))
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn requests(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Asked,
    mut switches: watch::Receiver<Switches>,
    shared: &Shared,
) -> io::Result<()> {
    let (mut frames, _reading) = read_ahead(from);
    while let Some((came, frame)) = frames.recv().await {
        let request = Request::of(&frame);
        let holds = |switches: &Switches| {
            switches.hold_requests
                || switches.hold_produce.as_ref().is_some_and(|topic| request.produces(topic, &frame))
        };
        if holds(&switches.borrow()) && request.api_key == PRODUCE {
            shared.held.fetch_add(1, Ordering::SeqCst);
        }
        let _ = switches.wait_for(|switches| !holds(switches)).await; // without its switches the proxy is going
        let delay = switches.borrow().delay;
        tokio::time::sleep_until(came + delay).await;
        if request.api_key == PRODUCE {
            lock(asked).insert(request.correlation_id, Some(frame.clone()));
        }
        write_frame(&mut to, &frame).await?;
    }
    // The client is gone; a connection that ends with answers in it takes with it what the broker has not read yet.
    tokio::time::sleep(AFTER_THE_CLIENT).await;
    Ok(())
}

async fn answers(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Asked,
    mut switches: watch::Receiver<Switches>,
    shared: &Shared,
) -> io::Result<()> {
    let (mut frames, _reading) = read_ahead(from);
    while let Some((came, frame)) = frames.recv().await {
        let _ = switches.wait_for(|switches| !switches.hold_answers).await;
        let delay = switches.borrow().delay;
        tokio::time::sleep_until(came + delay).await;
        let correlation_id = int(&frame, 0);
        let request = lock(asked).remove(&correlation_id).flatten();
        let lost = switches.borrow().drop_produce_answers.clone();
        if let (Some(request), Some(topic)) = (request, lost)
            && contains(&request, topic.as_bytes())
        {
            shared.dropped.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let _ = write_frame(&mut to, &frame).await; // a client that is gone may have requests under way
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// The begin of a request's header, the same in all versions.
struct Request {
    api_key: i16,
    correlation_id: i32,
}

impl Request {
    fn of(frame: &[u8]) -> Request {
        let api_key = frame.get(..2).map_or(-1, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
        Request { api_key, correlation_id: int(frame, 4) }
    }

    /// Names stand in a request as they are, in every version that the clients here speak.
    fn produces(&self, topic: &str, frame: &[u8]) -> bool {
        self.api_key == PRODUCE && contains(frame, topic.as_bytes())
    }
}

fn int(frame: &[u8], at: usize) -> i32 {
    frame.get(at..at + 4).map_or(-1, |bytes| i32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A frame without its length.
async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::try_from(from.read_i32().await?).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = i32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes()[..], frame].concat()).await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
