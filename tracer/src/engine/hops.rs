//! A message's sightings: the first two lie in its own record, so that whoever has the record has them; most messages
//! have no more. Further ones hang behind.

use super::{
    intern::Endpoint,
    table::{NONE, Place, Slab},
};

/// Hops in a message's record: the pod's veth and the server's, or where else it leaves.
const OWN: usize = 2;

/// A sighting of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct HopRecord {
    /// The frame's number, its lower half: see [`whole_frame`].
    pub(super) frame: u32,
    /// Nanoseconds after the message's first sighting.
    pub(super) offset: u32,
    pub(super) flow: Way,
    pub(super) vantage: u16,
    pub(super) ttl: u8,
    /// There is a hop.
    there: bool,
}

impl HopRecord {
    pub(super) const fn new(frame: u64, offset: u32, flow: Way, vantage: u16, ttl: u8) -> Self {
        Self { frame: frame as u32, offset, flow, vantage, ttl, there: true }
    }
}

impl Default for HopRecord {
    fn default() -> Self {
        Self { frame: 0, offset: 0, flow: Way::ASKED, vantage: 0, ttl: 0, there: false }
    }
}

/// A hop's addresses: the message's own in nearly all cases, else the place of an [`OtherFlow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way(pub(super) u32);

impl Way {
    /// Between the client and the server it asked.
    pub(super) const ASKED: Self = Self(u32::MAX);
    /// Between the client and the backend.
    pub(super) const TRANSLATED: Self = Self(u32::MAX - 1);

    /// Where the addresses of a hop are that has neither pair.
    pub(super) fn other(self) -> Option<Place> {
        (self != Self::ASKED && self != Self::TRANSLATED).then_some(self.0)
    }
}

/// Addresses of a hop that are neither.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OtherFlow {
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
}

/// A hop that found no room in its message's record.
#[derive(Debug)]
pub(super) struct FurtherHop {
    hop: HopRecord,
    next: Place,
}

impl Default for FurtherHop {
    fn default() -> Self {
        Self { hop: HopRecord::default(), next: NONE }
    }
}

/// A message's hops, in the order of their coming.
#[derive(Debug)]
pub(super) struct Hops {
    own: [HopRecord; OWN],
    further: Place,
}

impl Default for Hops {
    fn default() -> Self {
        Self { own: [HopRecord::default(); OWN], further: NONE }
    }
}

impl Hops {
    pub(super) fn first(&self) -> HopRecord {
        self.own.first().copied().unwrap_or_default()
    }

    pub(super) fn last(&self, slab: &Slab<FurtherHop>) -> HopRecord {
        if self.further != NONE {
            return self.iter(slab).last().unwrap_or_default();
        }
        self.own.iter().rfind(|hop| hop.there).copied().unwrap_or_default()
    }

    pub(super) fn iter(&self, slab: &Slab<FurtherHop>) -> impl Iterator<Item = HopRecord> {
        self.own().copied().chain(self.further(slab))
    }

    /// Those in the record itself.
    pub(super) fn own(&self) -> impl Iterator<Item = &HopRecord> {
        self.own.iter().take_while(|hop| hop.there)
    }

    /// Those behind them.
    pub(super) fn further(&self, slab: &Slab<FurtherHop>) -> impl Iterator<Item = HopRecord> {
        let mut place = self.further;
        std::iter::from_fn(move || {
            let record = (place != NONE).then(|| slab.at(place))?;
            place = record.next;
            Some(record.hop)
        })
    }

    pub(super) fn push(&mut self, hop: HopRecord, slab: &mut Slab<FurtherHop>) {
        match self.own.iter_mut().find(|hop| !hop.there) {
            Some(own) => *own = hop,
            None => {
                let added = slab.insert(FurtherHop { hop, next: NONE });
                let mut last = self.further;
                while last != NONE && slab.at(last).next != NONE {
                    last = slab.at(last).next;
                }
                if last == NONE {
                    self.further = added;
                } else {
                    slab.at_mut(last).next = added;
                }
            }
        }
    }

    /// Changes the addresses of each hop.
    pub(super) fn change_ways(&mut self, slab: &mut Slab<FurtherHop>, mut change: impl FnMut(Way) -> Way) {
        for hop in self.own.iter_mut().take_while(|hop| hop.there) {
            hop.flow = change(hop.flow);
        }
        let mut place = self.further;
        while place != NONE {
            let record = slab.at_mut(place);
            record.hop.flow = change(record.hop.flow);
            place = record.next;
        }
    }

    /// Gives back what the hops hold.
    pub(super) fn free(&self, slab: &mut Slab<FurtherHop>, flows: &mut Slab<OtherFlow>) {
        for hop in self.own.iter().take_while(|hop| hop.there) {
            hop.flow.other().map(|place| flows.remove(place));
        }
        let mut place = self.further;
        while place != NONE {
            let record = slab.remove(place);
            record.hop.flow.other().map(|place| flows.remove(place));
            place = record.next;
        }
    }
}

/// The frame's number of which `half` is the lower half: the one nearest to the `newest` that was seen. Nothing that
/// is held is two thousand million frames old.
pub(super) fn whole_frame(half: u32, newest: u64) -> u64 {
    let distance = half.wrapping_sub(newest as u32).cast_signed();
    newest.wrapping_add_signed(distance.into())
}

const _: () = assert!(size_of::<HopRecord>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_come_back_in_their_order_however_many() {
        let (mut slab, mut flows) = (Slab::new(), Slab::new());
        for count in 0..9_u32 {
            let mut hops = Hops::default();
            for frame in 0..count {
                let flow = Way(flows.insert(OtherFlow::default()));
                hops.push(HopRecord::new(frame.into(), 0, flow, 0, 64), &mut slab);
            }
            let frames: Vec<u32> = hops.iter(&slab).map(|hop| hop.frame).collect();
            assert_eq!(frames, (0..count).collect::<Vec<_>>());
            assert_eq!(hops.last(&slab).frame, count.saturating_sub(1));
            hops.change_ways(&mut slab, |way| {
                way.other().map(|place| flows.remove(place));
                Way::TRANSLATED
            });
            assert!(hops.iter(&slab).all(|hop| hop.flow == Way::TRANSLATED));
            hops.free(&mut slab, &mut flows);
            assert_eq!((slab.len(), flows.len()), (0, 0));
        }
    }

    #[test]
    fn a_frames_number_is_whole_again_across_the_half() {
        for newest in [5, u64::from(u32::MAX) + 3, 7 << 32 | 9] {
            for behind in [0, 1, 4, 1 << 30] {
                let frame = newest.wrapping_sub(behind);
                assert_eq!(whole_frame(frame as u32, newest), frame);
            }
            assert_eq!(whole_frame((newest + 8) as u32, newest), newest + 8);
        }
    }
}
