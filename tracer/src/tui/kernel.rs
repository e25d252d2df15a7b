//! What the kernel dropped, and clashes: lines of the kernel view, in bounded memory.

use super::text;
use crate::model::{Fate, NatTuple, PacketDrop, Timestamp, Vantages};
use std::{collections::VecDeque, net::SocketAddr, sync::Arc};

/// Lines that are kept.
const MOST: usize = 1_000;

/// One drop or clash.
#[derive(Debug)]
pub(super) struct DropRow {
    pub(super) serial: u64,
    pub(super) time: Timestamp,
    pub(super) fate: Fate,
    pub(super) cpu: u32,
    /// The kernel's reason; empty where it gave none.
    pub(super) reason: Arc<str>,
    pub(super) place: Arc<str>,
    /// Type, id, name; what the packet was where they could not be read.
    pub(super) message: Box<str>,
    /// As the client sent it: client, then server.
    pub(super) asked: [SocketAddr; 2],
    /// The original tuple, and the reply tuple where there is a connection.
    pub(super) original: Box<str>,
    pub(super) reply: Box<str>,
    /// The device.
    pub(super) at: Box<str>,
}

impl DropRow {
    fn new(serial: u64, drop: &PacketDrop, vantages: &Vantages) -> Self {
        let asked = drop.asked();
        let answer = if drop.is_response() { "answer " } else { "" };
        let message = match &drop.dns {
            Some(dns) if dns.has_question => format!("{answer}{} {:04x} {}", dns.qtype, dns.id, dns.name),
            Some(dns) => format!("{answer}{:04x}", dns.id),
            None => format!("{answer}{}, not readable", drop.transport),
        };
        let reply =
            drop.connection.map(|NatTuple { reply, .. }| format!("{} > {}", reply.source, reply.destination));
        Self {
            serial,
            time: drop.time,
            fate: drop.fate,
            cpu: drop.cpu,
            reason: Arc::clone(&drop.reason),
            place: Arc::clone(&drop.place),
            message: text::escape(&message).into(),
            asked: [asked.source, asked.destination],
            original: format!("{} > {}", asked.source, asked.destination).into(),
            reply: reply.unwrap_or_default().into(),
            at: crate::output::ladder::place(vantages, drop.vantage).into(),
        }
    }
}

/// The newest drops and clashes.
#[derive(Debug, Default)]
pub(super) struct Drops {
    rows: VecDeque<Arc<DropRow>>,
    told: u64,
}

impl Drops {
    pub(super) fn add(&mut self, drop: &PacketDrop, vantages: &Vantages) {
        if self.rows.len() >= MOST {
            self.rows.pop_front();
        }
        self.told += 1;
        self.rows.push_back(Arc::new(DropRow::new(self.told, drop, vantages)));
    }

    /// Makes `copy` equal to what is kept, where something is new.
    pub(super) fn copy_to(&self, copy: &mut VecDeque<Arc<DropRow>>) {
        let newest = |rows: &VecDeque<Arc<DropRow>>| rows.back().map_or(0, |row| row.serial);
        if newest(&self.rows) != newest(copy) {
            copy.clone_from(&self.rows);
        }
    }

    /// How many were told, those that are gone included.
    pub(super) const fn told(&self) -> u64 {
        self.told
    }
}
