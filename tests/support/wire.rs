//! A proxy that knows nothing of what passes it, with switches for what networks and hosts do to a connection.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::port::Port;

/// A TCP proxy in front of one server on 127.0.0.1. It works from its start until it is dropped.
pub struct Wire {
    port: Port,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug, Clone, Default)]
struct Switches {
    /// Connections up to this number pass nothing on any more, and stay open.
    silent_up_to: u64,
    /// Whether that holds for all, new ones included.
    all_silent: bool,
    /// After a client has sent this, nothing is answered on its connection.
    mute_after: Option<&'static [u8]>,
}

struct Shared {
    server: u16,
    switches: watch::Sender<Switches>,
    connections: AtomicU64,
    /// How many connections were muted.
    muted: watch::Sender<u64>,
}

impl Wire {
    /// Listens on a port of its own for clients of the server on this port.
    pub async fn start(server: u16) -> Wire {
        let port = Port::reserve();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await.expect("a reserved port is free");
        let (switches, muted) = (watch::Sender::default(), watch::Sender::default());
        let shared = Arc::new(Shared { server, switches, connections: AtomicU64::new(0), muted });
        let accepting = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Wire { port, shared, accepting }
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The connections of now pass nothing on any more, and nobody is told: as where a host vanished, and another one took its
    /// address. New connections work.
    pub fn silence(&self) {
        let all = self.shared.connections.load(Ordering::SeqCst);
        self.shared.switches.send_modify(|switches| switches.silent_up_to = all);
    }

    /// The same with new connections, until it is told otherwise: as where the network is cut.
    pub fn cut_off(&self, all_silent: bool) {
        self.silence();
        self.shared.switches.send_modify(|switches| switches.all_silent = all_silent);
    }

    /// Where a client sends this in one piece, it reaches the server, and no answer comes back.
    pub fn mute_after(&self, text: Option<&'static str>) {
        self.shared.switches.send_modify(|switches| switches.mute_after = text.map(str::as_bytes));
    }

    /// Waits until an answer is kept back.
    pub async fn muted(&self) {
        let mut muted = self.shared.muted.subscribe();
        let before = *muted.borrow_and_update();
        let _ = muted.wait_for(|muted| *muted > before).await; // the sender lives as long as this
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let shared = shared.clone();
        tokio::spawn(async move { connect(client, number, &shared).await });
    }
}

async fn connect(client: TcpStream, number: u64, shared: &Shared) -> io::Result<()> {
    let mut switches = shared.switches.subscribe();
    let passes = |switches: &Switches| !switches.all_silent && number > switches.silent_up_to;
    let _ = switches.wait_for(passes).await; // without its switches the proxy is going
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mute = watch::Sender::new(false);
    let (there, back) = (switches.clone(), switches);
    tokio::select! {
        done = pass(from_client, to_server, number, there, Some((&mute, shared)), &mute) => done,
        done = pass(from_server, to_client, number, back, None, &mute) => done,
    }
}

/// Passes bytes on until either side closes, or for ever nothing.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: u64,
    mut switches: watch::Receiver<Switches>,
    requests: Option<(&watch::Sender<bool>, &Shared)>,
    mute: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let passes = |switches: &Switches| !switches.all_silent && number > switches.silent_up_to;
        let _ = switches.wait_for(passes).await;
        match requests {
            Some((mute, shared)) => {
                let after = switches.borrow().mute_after;
                let sent = &bytes[..read];
                if after.is_some_and(|after| sent.windows(after.len()).any(|part| part == after)) {
                    mute.send_replace(true);
                    to.write_all(sent).await?;
                    shared.muted.send_modify(|muted| *muted += 1);
                    continue;
                }
            }
            None if *mute.borrow() => continue,
            None => {}
        }
        to.write_all(&bytes[..read]).await?;
    }
}
