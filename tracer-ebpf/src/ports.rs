//! The DNS ports, set by the loader.

use aya_ebpf::Global;
use dnspath_ebpf::{MAX_PORTS, Ports};

/// The DNS ports; 0 is an unused place.
#[unsafe(no_mangle)]
static PORTS: Global<[u16; MAX_PORTS]> = Global::new([0; MAX_PORTS]);

/// The ports of [`PORTS`].
pub struct DnsPorts;

impl Ports for DnsPorts {
    #[inline(always)]
    fn contains(&self, port: u16) -> bool {
        let ports = PORTS.load();
        let mut index = 0;
        while index < MAX_PORTS {
            if ports[index] == port && port != 0 {
                return true;
            }
            index += 1;
        }
        false
    }
}
