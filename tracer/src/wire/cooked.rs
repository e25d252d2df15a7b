//! Vantages out of cooked link headers: one capture on `any` is many interfaces.

use super::link::Cooked;
use crate::model::{Direction, Vantage, VantageId, Vantages};
use hashbrown::HashMap;

/// Vantages that cooked headers may name; behind that a frame stays at the vantage of its file, since interface
/// indexes come from the file and can be anything.
const MAX_VANTAGES: usize = 1_024;

/// The vantages met so far, so that no packet needs the session's table.
#[derive(Debug, Default)]
pub(super) struct CookedVantages {
    known: HashMap<(VantageId, Cooked), VantageId, foldhash::fast::RandomState>,
}

impl CookedVantages {
    /// The vantage of a frame whose file or hook says `base` and whose header says `cooked`.
    pub(super) fn vantage(&mut self, base: VantageId, cooked: Cooked, vantages: &Vantages) -> VantageId {
        if let Some(&known) = self.known.get(&(base, cooked)) {
            return known;
        }
        if self.known.len() >= MAX_VANTAGES {
            return base;
        }
        let id = vantages
            .lookup(base)
            .map_or(base, |vantage| vantages.intern(refined(Vantage::clone(&vantage), cooked)));
        self.known.insert((base, cooked), id);
        id
    }
}

fn refined(mut vantage: Vantage, cooked: Cooked) -> Vantage {
    if let Some(ifindex) = cooked.ifindex {
        vantage.interface = format!("if{ifindex}");
        vantage.ifindex = ifindex;
    }
    if cooked.direction != Direction::Unknown {
        vantage.direction = cooked.direction;
    }
    vantage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_direction_make_one_vantage_each() {
        let vantages = Vantages::new();
        let base = vantages.intern(Vantage { interface: "any".into(), source: 3, ..Vantage::default() });
        let mut cooked = CookedVantages::default();
        let mut at = |ifindex, direction| cooked.vantage(base, Cooked { ifindex, direction }, &vantages);
        let in5 = at(Some(5), Direction::Ingress);
        assert_eq!(at(Some(5), Direction::Ingress), in5);
        let out5 = at(Some(5), Direction::Egress);
        let v1 = at(None, Direction::Egress);
        assert_eq!(at(None, Direction::Unknown), base);
        let shown = |id| vantages.lookup(id).unwrap().to_string();
        assert_eq!(
            (shown(in5), shown(out5), shown(v1)),
            ("if5 ingress".into(), "if5 egress".into(), "any egress".into())
        );
        assert_eq!(vantages.lookup(in5).unwrap().source, 3);
    }

    #[test]
    fn invented_indexes_stay_at_the_file_s_vantage() {
        let vantages = Vantages::new();
        let base = vantages.intern(Vantage::default());
        let mut cooked = CookedVantages::default();
        for index in 0..5_000 {
            cooked.vantage(base, Cooked { ifindex: Some(index), direction: Direction::Ingress }, &vantages);
        }
        assert_eq!(vantages.len(), MAX_VANTAGES + 1);
    }
}
