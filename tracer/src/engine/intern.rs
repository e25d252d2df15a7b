//! Names and addresses as small numbers, so that records stay small and comparing costs nothing.
//!
//! Names are counted: the last holder gives the place back. IPv4 addresses are held in the [`Endpoint`] itself;
//! IPv6 ones in a table that is swept when it has doubled.

use foldhash::fast::FixedState;
use hashbrown::{HashTable, hash_table::Entry};
use std::{
    hash::BuildHasher,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
};

/// A name's number: size class in the upper 4 bits, place in that class below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NameId(u32);

const CLASS_SHIFT: u32 = 28;
const CLASS_STEP: usize = 16;
/// Length octet and three octets left free, then the count of holders.
const HEADER: usize = 8;

/// Names in wire form, each held once, counted.
#[derive(Debug)]
pub(super) struct Names {
    hasher: FixedState,
    index: HashTable<NameId>,
    classes: [Class; 16],
}

/// Names whose wire form needs the same number of 16-octet units.
#[derive(Debug, Default)]
struct Class {
    bytes: Vec<u8>,
    free: Vec<u32>,
}

impl Names {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { hasher, index: HashTable::new(), classes: Default::default() }
    }

    /// The number of `wire`, with one more holder.
    pub(super) fn hold(&mut self, wire: &[u8]) -> NameId {
        let hash = self.hasher.hash_one(wire);
        let classes = &mut self.classes;
        let hasher = &self.hasher;
        let entry = self.index.entry(
            hash,
            |&id| bytes_of(classes, id) == wire,
            |&id| hasher.hash_one(bytes_of(classes, id)),
        );
        match entry {
            Entry::Occupied(known) => {
                let id = *known.get();
                change_holders(&mut self.classes, id, 1);
                id
            }
            Entry::Vacant(vacant) => {
                let id = store(&mut self.classes, wire);
                vacant.insert(id);
                id
            }
        }
    }

    /// One more holder of a name that is held.
    pub(super) fn hold_again(&mut self, id: NameId) -> NameId {
        change_holders(&mut self.classes, id, 1);
        id
    }

    /// One holder less; the last one frees the place.
    pub(super) fn release(&mut self, id: NameId) {
        if change_holders(&mut self.classes, id, -1) > 0 {
            return;
        }
        let hash = self.hasher.hash_one(bytes_of(&self.classes, id));
        if let Ok(entry) = self.index.find_entry(hash, |&other| other == id) {
            entry.remove();
            if let Some(class) = self.classes.get_mut(id.class()) {
                class.free.push(id.place());
            }
        }
    }

    /// The wire form; the root for a number that is not held.
    pub(super) fn wire(&self, id: NameId) -> &[u8] {
        match bytes_of(&self.classes, id) {
            [] => &[0],
            wire => wire,
        }
    }

    /// How many names are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn memory(&self) -> usize {
        let classes: usize = self.classes.iter().map(|c| c.bytes.capacity() + c.free.capacity() * 4).sum();
        classes + self.index.capacity() * 6
    }
}

impl NameId {
    const fn class(self) -> usize {
        (self.0 >> CLASS_SHIFT) as usize
    }
    const fn place(self) -> u32 {
        self.0 & ((1 << CLASS_SHIFT) - 1)
    }
    const fn stride(self) -> usize {
        HEADER + (self.class() + 1) * CLASS_STEP
    }
    const fn offset(self) -> usize {
        self.place() as usize * self.stride()
    }
}

fn bytes_of(classes: &[Class; 16], id: NameId) -> &[u8] {
    let record = classes.get(id.class()).and_then(|c| c.bytes.get(id.offset()..id.offset() + id.stride()));
    match record {
        Some([len, _, _, _, _, _, _, _, bytes @ ..]) => bytes.get(..usize::from(*len)).unwrap_or_default(),
        _ => &[],
    }
}

fn change_holders(classes: &mut [Class; 16], id: NameId, by: i32) -> u32 {
    let header = id.offset() + 4..id.offset() + HEADER;
    let Some(field) = classes.get_mut(id.class()).and_then(|c| c.bytes.get_mut(header)) else { return 0 };
    let mut holders = [0; 4];
    holders.copy_from_slice(field);
    let holders = u32::from_le_bytes(holders).saturating_add_signed(by);
    field.copy_from_slice(&holders.to_le_bytes());
    holders
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a name has at most 255 octets, a class fewer than 2^28 names"
)]
fn store(classes: &mut [Class; 16], wire: &[u8]) -> NameId {
    let wire = wire.get(..wire.len().min(255)).unwrap_or_default();
    let class_index = wire.len().saturating_sub(1) / CLASS_STEP;
    let stride = HEADER + (class_index + 1) * CLASS_STEP;
    let Some(class) = classes.get_mut(class_index) else { return NameId::default() };
    let place = class.free.pop().unwrap_or_else(|| {
        let place = class.bytes.len() / stride;
        if class.bytes.capacity() - class.bytes.len() < stride {
            class.bytes.reserve_exact((class.bytes.len() / 8).max(64 * stride));
        }
        class.bytes.resize(class.bytes.len() + stride, 0);
        place as u32
    });
    let offset = place as usize * stride;
    if let Some(record) = class.bytes.get_mut(offset..offset + stride) {
        record[0] = wire.len() as u8;
        record[4..HEADER].copy_from_slice(&1_u32.to_le_bytes());
        record[HEADER..HEADER + wire.len()].copy_from_slice(wire);
    }
    NameId((class_index as u32) << CLASS_SHIFT | place)
}

/// An IP address and port in eight octets: port in the lowest 16 bits, above it the IPv4 address or the number
/// of an IPv6 one, bit 63 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint(u64);

/// An IP address alone: an [`Endpoint`] with port 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Address(u64);

const V6: u64 = 1 << 63;

impl Address {
    /// One of 64 bits, which differs for most addresses.
    pub(super) const fn filter_bit(self) -> u64 {
        1 << ((self.0 >> 16).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::NONE
    }
}

impl Endpoint {
    /// No endpoint.
    pub(super) const NONE: Self = Self(u64::MAX);

    pub(super) const fn is_none(self) -> bool {
        self.0 == u64::MAX
    }
    pub(super) const fn is_some(self) -> bool {
        !self.is_none()
    }
    pub(super) const fn port(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
    pub(super) const fn address(self) -> Address {
        Address(self.0 & !0xffff)
    }
}

/// IPv6 addresses by number.
#[derive(Debug)]
pub(super) struct Addresses {
    hasher: FixedState,
    index: HashTable<u32>,
    all: Vec<[u8; 16]>,
    free: Vec<u32>,
    sweep_at: usize,
}

const SWEEP_AT_LEAST: usize = 16_384;

impl Addresses {
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { hasher, index: HashTable::new(), all: Vec::new(), free: Vec::new(), sweep_at: SWEEP_AT_LEAST }
    }

    #[inline]
    pub(super) fn endpoint(&mut self, socket: SocketAddr) -> Endpoint {
        match socket {
            SocketAddr::V4(v4) => Endpoint(u64::from(v4.ip().to_bits()) << 16 | u64::from(v4.port())),
            SocketAddr::V6(v6) => Endpoint(self.address((*v6.ip()).into()).0 | u64::from(v6.port())),
        }
    }

    pub(super) fn address(&mut self, ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(v4) => Address(u64::from(u32::from(v4)) << 16),
            IpAddr::V6(v6) => Address(V6 | u64::from(self.number(v6.octets())) << 16),
        }
    }

    fn number(&mut self, octets: [u8; 16]) -> u32 {
        let Self { hasher, index, all, free, .. } = self;
        let of = |number: u32| all.get(number as usize).copied().unwrap_or_default();
        let hash = hasher.hash_one(octets);
        match index.entry(hash, |&n| of(n) == octets, |&n| hasher.hash_one(of(n))) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let number = match free.pop() {
                    Some(number) => {
                        if let Some(place) = all.get_mut(number as usize) {
                            *place = octets;
                        }
                        number
                    }
                    None => {
                        all.push(octets);
                        u32::try_from(all.len() - 1).unwrap_or(u32::MAX)
                    }
                };
                vacant.insert(number);
                number
            }
        }
    }

    pub(super) fn ip(&self, address: Address) -> IpAddr {
        let value = (address.0 >> 16) as u32;
        if address.0 & V6 == 0 {
            return Ipv4Addr::from(value).into();
        }
        Ipv6Addr::from(self.all.get(value as usize).copied().unwrap_or_default()).into()
    }

    #[inline]
    pub(super) fn socket(&self, endpoint: Endpoint) -> SocketAddr {
        if endpoint.0 & V6 == 0 {
            return SocketAddrV4::new(Ipv4Addr::from_bits((endpoint.0 >> 16) as u32), endpoint.port()).into();
        }
        SocketAddr::new(self.ip(endpoint.address()), endpoint.port())
    }

    /// Whether it is time to [`Self::sweep`].
    pub(super) fn wants_sweep(&self) -> bool {
        self.index.len() >= self.sweep_at
    }

    /// Forgets every IPv6 address that `held` does not name.
    pub(super) fn sweep(&mut self, held: impl Iterator<Item = Address>) {
        let mut keep = vec![false; self.all.len()];
        for address in held.filter(|a| a.0 & V6 != 0) {
            if let Some(mark) = keep.get_mut((address.0 >> 16) as u32 as usize) {
                *mark = true;
            }
        }
        let free = &mut self.free;
        self.index.retain(|&mut number| {
            let kept = keep.get(number as usize).copied().unwrap_or(false);
            if !kept {
                free.push(number);
            }
            kept
        });
        self.sweep_at = SWEEP_AT_LEAST.max(self.index.len() * 2);
    }

    pub(super) fn memory(&self) -> usize {
        self.all.capacity() * 16 + self.index.capacity() * 6 + self.free.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_holder_of_a_name_frees_its_place() {
        let mut names = Names::new(FixedState::with_seed(1));
        let first = names.hold(b"\x03api\0");
        assert_eq!(names.hold(b"\x03api\0"), first);
        names.release(first);
        assert_eq!(names.wire(first), b"\x03api\0");
        names.release(first);
        assert_eq!(names.len(), 0);
        assert_eq!(names.hold(b"\x03web\0"), first, "the place is used again");
    }

    #[test]
    fn a_sweep_keeps_what_is_held() {
        let mut addresses = Addresses::new(FixedState::with_seed(1));
        let held = addresses.address("2001:db8::1".parse().unwrap());
        let lost = addresses.address("2001:db8::2".parse().unwrap());
        addresses.sweep([held].into_iter());
        assert_eq!(addresses.ip(held), "2001:db8::1".parse::<IpAddr>().unwrap());
        assert_eq!(addresses.address("2001:db8::3".parse().unwrap()), lost, "the number is used again");
    }

    proptest! {
        #[test]
        fn names_and_sockets_come_back_as_they_went(
            wires in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..255), 1..40),
            socket in any::<SocketAddr>(),
        ) {
            let mut names = Names::new(FixedState::with_seed(7));
            let ids: Vec<_> = wires.iter().map(|w| names.hold(w)).collect();
            for (id, wire) in ids.iter().zip(&wires) {
                prop_assert_eq!(names.wire(*id), wire.as_slice());
            }
            let mut addresses = Addresses::new(FixedState::with_seed(7));
            let endpoint = addresses.endpoint(socket);
            prop_assert_eq!(addresses.socket(endpoint).ip(), socket.ip());
            prop_assert_eq!(addresses.socket(endpoint).port(), socket.port());
        }
    }
}
