//! The DNS ports, set by the loader.

use aya_ebpf::Global;
use dnspath_ebpf::{MAX_PORTS, Ports};

/// The DNS ports; 0 is an unused place, and behind it there are no others.
#[unsafe(no_mangle)]
static PORTS: Global<[u16; MAX_PORTS]> = Global::new([0; MAX_PORTS]);

/// The ports of [`PORTS`].
pub struct DnsPorts;

impl Ports for DnsPorts {
    #[inline(always)]
    fn contains(&self, port: u16) -> bool {
        let mut index = 0;
        while index < MAX_PORTS {
            // SAFETY: it lies within the array, which the loader wrote before the program was there. Port by port, because the
            // verifier knows each: what is behind the last one is no code at all for it.
            let watched = unsafe { (&raw const PORTS).cast::<u16>().add(index).read_volatile() };
            if watched == 0 {
                return false;
            }
            if watched == port {
                return true;
            }
            index += 1;
        }
        false
    }
}
