//! The smallest DNS client: one question over UDP, for waiting until a server answers and for tests that need a
//! message of their own making.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock;
use crate::namespace::Namespace;

/// Query types the lab asks (RFC 1035 section 3.2.2, RFC 3596).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qtype {
    /// An IPv4 address.
    A = 1,
    /// An IPv6 address.
    Aaaa = 28,
}

/// A query message: RD set, one question, no EDNS.
pub fn query(id: u16, name: &str, qtype: Qtype) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // Labels have at most 63 octets: a longer one makes a message that servers refuse, which is the caller's.
        message.push(label.len().min(63) as u8);
        message.extend(label.bytes().take(63));
    }
    message.extend([0, 0, qtype as u8, 0, 1]);
    message
}

/// Sends one query from `socket` and returns the response with the same id, or `None` after `limit`.
///
/// # Errors
/// The socket reports an error: ECONNREFUSED where an ICMP port unreachable came back.
pub fn ask(socket: &UdpSocket, server: SocketAddr, query: &[u8], limit: Duration) -> Result<Option<Vec<u8>>> {
    socket.connect(server).with_context(|| format!("cannot connect to {server}"))?;
    socket.set_read_timeout(Some(limit)).context("cannot set the time limit")?;
    let start = clock::now();
    socket.send(query).with_context(|| format!("cannot send to {server}"))?;
    let mut response = vec![0_u8; 4096];
    while start.elapsed() < limit {
        match socket.recv(&mut response) {
            Ok(size) if size >= 12 && response.get(..2) == query.get(..2) => {
                response.truncate(size);
                return Ok(Some(response));
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e).with_context(|| format!("no answer from {server}")),
        }
    }
    Ok(None)
}

/// Sends one query over a TCP connection of its own, from the calling thread's namespace, and returns the response
/// (RFC 7766 section 8: two octets of length before each message).
///
/// # Errors
/// The server cannot be reached or does not answer within `limit`.
pub fn ask_over_tcp(server: SocketAddr, query: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, limit)
        .with_context(|| format!("cannot connect to {server} over TCP"))?;
    stream.set_read_timeout(Some(limit)).context("cannot set the time limit")?;
    stream.write_all(&framed(query)).with_context(|| format!("cannot send to {server} over TCP"))?;
    read_framed(&mut stream).with_context(|| format!("no answer from {server} over TCP"))
}

/// A message as it stands in a TCP stream.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    // Messages here are far shorter than 64 KiB.
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

/// The next message of a TCP stream.
pub(crate) fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0_u8; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0_u8; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Waits until `server` answers `name` as seen from inside `namespace`.
///
/// # Errors
/// It does not answer within `limit`.
pub fn wait_for_server(namespace: &Namespace, server: SocketAddr, name: &str, limit: Duration) -> Result<()> {
    let answered = namespace.enter(|| {
        clock::wait_until(limit, || {
            let any = if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let Ok(socket) = UdpSocket::bind(any) else { return false };
            let message = query(0x6c61, name, Qtype::A);
            matches!(ask(&socket, server, &message, Duration::from_millis(20)), Ok(Some(_)))
        })
    })?;
    if !answered {
        bail!("{server} in {} does not answer {name} within {limit:?}", namespace.name());
    }
    Ok(())
}
