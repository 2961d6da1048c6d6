//! Connections: a bounded number of them, each with a deadline for whatever it waits for.
//!
//! A client that sends half a request and then nothing, keeps a connection without using it, or takes nothing of its
//! answer is cut off. One connection too many is answered, and closed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bounds of what clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once. Each is a file that is open, and systems give a process some thousand.
    pub(super) connections: usize,
    /// Connections above that which are being told so; any more are closed without a word.
    pub(super) refusals: usize,
    /// From the end of a request, or the begin of the connection, to the end of the next one's headers.
    pub(super) headers_within: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub(super) write_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            refusals: 64,
            headers_within: Duration::from_secs(20),
            write_within: Duration::from_secs(30),
        }
    }
}

/// Whose connection a request came on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves connections until `stop`, then finishes the requests that are under way.
pub(super) async fn serve(mut listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let (connections, refusals) = (permits(limits.connections), permits(limits.refusals));
    let tasks = TaskTracker::new();
    loop {
        // Tries again after an error, with a pause where there are too many open files.
        let (stream, address) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        // An answer is written at once and should leave at once.
        let _ = stream.set_nodelay(true);
        if let Ok(permit) = connections.clone().try_acquire_owned() {
            let served = one(stream, Peer(address), router.clone(), limits, stop.clone());
            tasks.spawn(async move {
                served.await;
                drop(permit);
            });
        } else if let Ok(permit) = refusals.clone().try_acquire_owned() {
            tasks.spawn(async move {
                let _ = timeout(limits.write_within.min(REFUSE_WITHIN), refuse(stream)).await;
                drop(permit);
            });
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

fn permits(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

async fn one(stream: TcpStream, peer: Peer, router: Router, limits: Limits, stop: CancellationToken) {
    let stream = Connection { stream, write_within: limits.write_within, deadline: None };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request.map(Body::new))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.headers_within);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection failed");
    }
}

/// How long a client may take to read that there is no room.
const REFUSE_WITHIN: Duration = Duration::from_secs(2);

/// Says that there are too many connections. What the client sends meanwhile is read, up to a bound: a connection that is closed
/// with something unread takes its answer with it.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    const UNREAD_MAX: u64 = 64 << 10;
    let body = r#"{"type":"urn:bank:problem:too-many-connections","title":"Too many connections","status":503,"detail":"there are as many connections as this bank takes: nothing was done, try again","code":"too-many-connections"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(UNREAD_MAX), &mut tokio::io::sink()).await.map(drop)
}

/// A connection whose writes have a deadline.
struct Connection {
    stream: TcpStream,
    write_within: Duration,
    /// Set while a write waits for the client.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// What a write came to, or an error when it has waited too long.
    fn within<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let until = Instant::now() + self.write_within;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(until)));
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing more");
        deadline.as_mut().poll(cx).map(|()| Err(late()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.within(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.within(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use futures::future::join_all;

    use super::*;

    /// Above any time that a test takes, and below any that a hung one would.
    const LONG: Duration = Duration::from_secs(600);

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start(limits: Limits) -> Server {
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/", post(async |body: Body| super::super::body::read(body).await.map(|_| "read")));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(serve(listener, router, limits, stop.clone()));
        Server { address, stop, task }
    }

    impl Server {
        async fn send(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            stream
        }

        async fn ask(&self) -> String {
            all_of(self.send("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await).await
        }
    }

    /// What comes until the other side closes the connection.
    async fn all_of(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
        drop(read); // an abrupt end is an end
        String::from_utf8(answer).unwrap()
    }

    /// Shows: requests that are never finished, wherever they stop, hold no connection, and others are served meanwhile.
    #[tokio::test]
    async fn half_sent_requests_are_cut_off() {
        // Real time, since these are real connections: the bound is short, and nothing is said of how long it took.
        let limits = Limits { headers_within: Duration::from_millis(300), ..Limits::default() };
        let server = start(limits).await;
        let parts = ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: x\r\nx-a: "];
        let mut half = Vec::new();
        for place in 0..320 {
            half.push(server.send(parts[place % parts.len()]).await);
        }
        assert!(server.ask().await.ends_with("here"), "others are served");
        let kept = server.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await; // answered, and then not used any more
        let ends = join_all(half.into_iter().map(all_of)).await;
        assert_eq!(ends.len(), 320);
        assert!(all_of(kept).await.contains("here"));
        assert!(server.ask().await.ends_with("here"));
        server.stop.cancel();
        timeout(LONG, server.task).await.expect("nothing holds it").unwrap();
    }

    /// Shows: a body that does not come is answered, and ends the connection.
    #[tokio::test]
    async fn a_half_sent_body_is_cut_off() {
        let server = start(Limits::default()).await;
        let answer = all_of(server.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{").await).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }

    /// Shows: one connection too many is told so and closed, and there is room again when another one goes.
    #[tokio::test]
    async fn a_connection_too_many_is_answered() {
        let server = start(Limits { connections: 3, ..Limits::default() }).await;
        let request = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n";
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut stream = server.send(request).await;
            let mut more = [0; 12];
            stream.read_exact(&mut more).await.unwrap(); // it is being served
            assert_eq!(&more, b"HTTP/1.1 100");
            held.push(stream);
        }
        let refused = server.ask().await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        for part in ["retry-after: 1", "connection: close", "\"code\":\"too-many-connections\""] {
            assert!(refused.contains(part), "{refused}");
        }
        drop(held.pop());
        let again = timeout(LONG, async {
            while !server.ask().await.ends_with("here") {
                tokio::task::yield_now().await;
            }
        });
        again.await.expect("there is room again");
    }
}
