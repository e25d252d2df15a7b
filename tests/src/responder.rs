//! The smallest DNS server: one address for every A and AAAA query, over UDP and TCP, in threads of this process. For
//! places where a real server is too large.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::namespace::{Namespace, enter};
use crate::query::{framed, read_framed};

/// How long a thread waits for something to do before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(20);

/// A server at port 53 of all addresses of a namespace; dropping it ends it.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Responder {
    /// Starts it; it answers from the return on.
    ///
    /// # Errors
    /// The namespace cannot be entered or its port 53 is taken.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_in(&namespace.file())
    }

    /// Starts it in the network namespace of this file.
    ///
    /// # Errors
    /// As [`Responder::start`].
    pub fn start_in(namespace: &Path) -> Result<Self> {
        // Takes IPv4 as well (net.ipv6.bindv6only=0).
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 53));
        let listen =
            || Ok::<_, std::io::Error>((UdpSocket::bind(everywhere)?, TcpListener::bind(everywhere)?));
        let (udp, tcp) = enter(namespace, listen)?
            .with_context(|| format!("cannot listen at port 53 in {}", namespace.display()))?;
        udp.set_read_timeout(Some(NAP)).context("cannot set the time limit")?;
        tcp.set_nonblocking(true).context("cannot set the listener to non-blocking")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (for_udp, for_tcp) = (Arc::clone(&stop), Arc::clone(&stop));
        let threads = vec![
            spawn(move || answer_datagrams(&udp, &for_udp)),
            spawn(move || answer_streams(&tcp, &for_tcp)),
        ];
        Ok(Self { stop, threads })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn answer_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    let mut query = [0_u8; 4096];
    while !stop.load(Ordering::Relaxed) {
        // Nothing came, or an ICMP error of an earlier answer did.
        let Ok((size, client)) = socket.recv_from(&mut query) else { continue };
        if let Some(answer) = answer(&query[..size]) {
            // A client that is gone needs none.
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn answer_streams(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A client that breaks off is its own affair.
            Ok((stream, _)) => drop(answer_stream(stream)),
            Err(_) => sleep(NAP),
        }
    }
}

fn answer_stream(mut stream: TcpStream) -> std::io::Result<()> {
    use std::io::Write;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    while let Ok(query) = read_framed(&mut stream) {
        let Some(answer) = answer(&query) else { break };
        stream.write_all(&framed(&answer))?;
    }
    Ok(())
}

/// The response to a query with one question and nothing behind it: its question, and one address where it asks for
/// one. `None` for anything else.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    if query.get(2)? & 0x80 != 0 || query.get(4..12)? != [0, 1, 0, 0, 0, 0, 0, 0] {
        return None;
    }
    let address: &[u8] = match query.get(query.len() - 4..)? {
        [0, 1, 0, 1] => &[192, 0, 2, 1],
        [0, 28, 0, 1] => &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        _ => &[],
    };
    let mut response = query.to_vec();
    // QR, RD as asked, RA (RFC 1035 section 4.1.1).
    response[2] |= 0x80;
    response[3] = 0x80;
    if !address.is_empty() {
        response[7] = 1;
        // The question's name, its type and class, a TTL of 30 s.
        response.extend([0xc0, 12]);
        response.extend(&query[query.len() - 4..]);
        response.extend([0, 0, 0, 30, 0, address.len() as u8]);
        response.extend(address);
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{Qtype, query};

    #[test]
    fn a_query_gets_its_address_and_nothing_else_an_answer() {
        let asked = query(7, "a.test", Qtype::A);
        let response = answer(&asked).unwrap();
        assert_eq!(response[..2], [0, 7]);
        assert_eq!((response[2], response[3], response[7]), (0x81, 0x80, 1));
        assert!(response.ends_with(&[0, 30, 0, 4, 192, 0, 2, 1]));
        assert!(answer(&query(7, "a.test", Qtype::Aaaa)).unwrap().ends_with(&[0, 0, 0, 1]));
        assert_eq!(answer(&response), None);
        assert_eq!(answer(&asked[..11]), None);
        assert_eq!(answer(b""), None);
    }
}
