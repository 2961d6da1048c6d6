//! Ports that stay ours while their server is down.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::names::random;

/// Below the range from which the system takes the ports of outgoing connections (32768 and up). A client that retries
/// a server which is down would sometimes get the server's own port there, be connected to itself, and keep the server
/// out.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port of 127.0.0.1 that is free, and that no other caller gets before this is dropped.
pub(crate) struct Port {
    number: u16,
    /// An abstract socket named after the port: only one process can have it, and it goes when that process dies.
    _reserved: UnixListener,
}

impl Port {
    pub(crate) fn reserve() -> Port {
        (0..1_000).find_map(|_| Port::try_reserve(random_number())).expect("one of a thousand random ports is free")
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Port> {
        let name = SocketAddr::from_abstract_name(format!("es-tests-port-{number}")).expect("a short name");
        let reserved = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
        Some(Port { number, _reserved: reserved })
    }
}

/// A TCP port of 127.0.0.1 on which nothing listens, and that nobody else is given while this process lives.
///
/// It stays free for a server that a test starts, stops and starts again.
pub fn free_port() -> u16 {
    let port = Port::reserve();
    let number = port.number();
    // Kept until the process ends: nobody says when the caller's server is done with it.
    std::mem::forget(port);
    number
}

fn random_number() -> u16 {
    let offset = random() % RANGE.len() as u64;
    RANGE.start + offset as u16
}
