//! Decoder and engine in a row: the part of the way that live capture and files share.

use crate::{
    engine::{Config, Connects, Engine, Macs, SearchList},
    model::{BlindSpot, Coverage, Frame, News, Observer, Timestamp, Vantages},
    wire::Decoder,
};

/// Frames in, what they mean out.
pub struct Session {
    decoder: Decoder,
    engine: Engine,
    macs: Macs,
    /// `None` where connections are not followed.
    connects: Option<Connects>,
    vantages: Vantages,
    /// That there is DNS which cannot be read.
    encrypted_told: bool,
}

impl Session {
    /// A session that has seen nothing; `vantages` names the places that frames come from.
    #[must_use]
    pub fn new(ports: &[u16], config: Config, vantages: Vantages) -> Self {
        let macs = Macs::new(vantages.clone());
        let connects = config.connects.then(|| Connects::new(config.seed));
        let decoder = Decoder::new(ports);
        let decoder = if config.connects { decoder.following_connects() } else { decoder };
        Self { decoder, engine: Engine::new(config), macs, connects, vantages, encrypted_told: false }
    }

    /// Takes one frame, or what a probe told of a packet.
    pub fn frame(&mut self, frame: &Frame<'_>, out: &mut impl Observer) {
        let Self { decoder, engine, macs, connects, vantages, .. } = self;
        if frame.drop.is_some() {
            if let Some(drop) = decoder.packet_drop(frame) {
                engine.observe_drop(&drop, out);
            }
            return;
        }
        decoder.decode(frame, vantages, &mut |sighting| {
            if let Some(misdirected) = macs.see(sighting) {
                out.misdirected(&misdirected);
            }
            if let Some(connects) = connects {
                connects.see(sighting);
            }
            engine.observe(sighting, out);
        });
        if !self.encrypted_told && decoder.has_encrypted() {
            self.encrypted_told = true;
            out.blind_spot(&BlindSpot::encrypted_dns(), frame.time);
        }
        if let (Some(packet), Some(connects)) = (decoder.take_connect(), connects) {
            connects.packet(&packet, out);
        }
    }

    /// Takes what was learnt of the node: clients whose resolv.conf was read are understood by it.
    pub fn heed(&mut self, news: &News, out: &mut impl Observer) {
        match news {
            News::Resolver(resolver, time) => {
                if resolver.agrees {
                    let list = SearchList::from_resolv_conf(&resolver.text());
                    for &address in &resolver.addresses {
                        // One that is no pod's own may be called otherwise than whoever it runs in.
                        if !resolver.pod.namespace.is_empty() {
                            self.engine.set_owner(address, &resolver.pod);
                        }
                        self.engine.set_search_list(address, list.clone());
                    }
                }
                out.resolver(resolver, *time);
            }
            News::Blind(spot, time) => out.blind_spot(spot, *time),
            News::Rules(count, time) => out.rules(count, *time),
            News::Named(address, pod, _) => self.engine.set_owner(*address, pod),
            // What is open there is still of who is gone.
            News::Container(..) | News::Gone(..) | News::Service(..) => {}
        }
    }

    /// Says that every frame before `now` was given.
    pub fn advance(&mut self, now: Timestamp, out: &mut impl Observer) {
        let Self { decoder, engine, connects, .. } = self;
        decoder.advance(now, &mut |sighting| engine.observe(sighting, out));
        engine.advance(now, out);
        if let Some(connects) = connects {
            connects.advance(now, out);
        }
    }

    /// Ends the session: what is still open is told.
    pub fn finish(&mut self, out: &mut impl Observer) {
        let Self { decoder, engine, connects, .. } = self;
        decoder.finish(&mut |sighting| engine.observe(sighting, out));
        engine.finish(out);
        if let Some(connects) = connects {
            connects.finish(out);
        }
    }

    /// What was seen, with `lost` frames that the source lost.
    #[must_use]
    pub fn coverage(&self, lost: u64) -> Coverage {
        let wire = self.decoder.counters();
        Coverage {
            frames: wire.frames,
            dns_messages: wire.dns_messages,
            lost,
            truncated: wire.truncated,
            malformed: wire.malformed,
            evicted: self.engine.counters().evicted + wire.given_up,
            conntrack: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        DropMark, Fate, Flow, LinkType, NatTuple, PacketDrop, PodName, Resolver, VantageId, Wanted,
    };
    use std::sync::Arc;

    #[derive(Default)]
    struct Told(Vec<PacketDrop>, u64);

    impl Observer for Told {
        fn packet_drop(&mut self, drop: &PacketDrop) {
            self.0.push(drop.clone());
        }
        fn message(&mut self, _: &crate::model::Message) {
            self.1 += 1;
        }
    }

    /// Wants lookups alone.
    #[derive(Default)]
    struct Lookups(u64);

    impl Observer for Lookups {
        fn wants_messages(&self) -> Wanted {
            Wanted::Nothing
        }
        fn message(&mut self, message: &crate::model::Message) {
            panic!("{message:?}");
        }
        fn lookup(&mut self, _: &crate::model::Lookup) {
            self.0 += 1;
        }
    }

    #[test]
    fn who_wants_no_messages_is_told_none_and_all_else() {
        let mut session = Session::new(&[], Config::default(), Vantages::new());
        let mut told = Lookups::default();
        session.frame(&query(1), &mut Some(&mut told));
        session.finish(&mut Some(&mut told));
        assert_eq!((told.0, session.engine.counters().queries), (1, 1));
    }

    /// The frame of [`QUERY`].
    fn query(number: u64) -> Frame<'static> {
        Frame {
            number,
            time: Timestamp::from_nanos(1_700_000_000_000_000_000 + number * 10_000),
            vantage: VantageId(0),
            link: LinkType::RawIp,
            original_len: 47,
            bytes: &QUERY,
            segment_size: 0,
            nat: None,
            drop: None,
        }
    }

    /// `10.0.0.5:4000 > 10.96.0.10:53`, a query for A of `a`, from the IP header on.
    const QUERY: [u8; 47] = [
        0x45, 0, 0, 47, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 5, 10, 96, 0, 10, 0x0f, 0xa0, 0, 53, 0, 27, 0, 0,
        0x4f, 0x1a, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1,
    ];

    #[test]
    fn the_next_owner_of_an_address_is_not_understood_by_the_resolv_conf_of_the_one_before() {
        #[derive(Default)]
        struct Names(Vec<String>);
        impl Observer for Names {
            fn lookup(&mut self, lookup: &crate::model::Lookup) {
                self.0.push(lookup.name.to_string());
            }
        }
        // `a.x`: two octets more than `a`.
        let mut searched = QUERY.to_vec();
        searched.splice(42..42, [1, b'x']);
        searched[3] += 2;
        searched[25] += 2;
        let pod = |name: &str| Arc::new(PodName { namespace: "shop".into(), name: name.to_owned() });
        let named = |name: &str| News::Named("10.0.0.5".parse().unwrap(), pod(name), Timestamp::EPOCH);
        let read = |name: &str| {
            let resolver = Resolver {
                pod: PodName::clone(&pod(name)),
                addresses: vec!["10.0.0.5".parse().unwrap()],
                resolv_conf: "search x\noptions ndots:5\n".into(),
                agrees: true,
                ..Resolver::default()
            };
            News::Resolver(Arc::new(resolver), Timestamp::EPOCH)
        };
        let name_after = |news: &[News]| {
            let mut session = Session::new(&[], Config::default(), Vantages::new());
            let mut told = Names::default();
            news.iter().for_each(|news| session.heed(news, &mut told));
            session.frame(&Frame { bytes: &searched, original_len: 49, ..query(1) }, &mut told);
            session.finish(&mut told);
            told.0.join(" ")
        };
        assert_eq!(name_after(&[]), "a.x");
        assert_eq!(name_after(&[named("one"), read("one")]), "a");
        assert_eq!(name_after(&[named("one"), read("one"), named("one")]), "a");
        assert_eq!(name_after(&[named("one"), read("one"), named("other")]), "a.x");
        assert_eq!(name_after(&[named("one"), read("other"), named("other")]), "a");
    }

    #[test]
    fn a_mark_becomes_a_drop_with_the_question_of_the_frame_before() {
        let mut session = Session::new(&[], Config::default(), Vantages::new());
        let mut told = Told::default();
        let original =
            Flow { source: "10.0.0.5:4000".parse().unwrap(), destination: "10.96.0.10:53".parse().unwrap() };
        let reply = Flow { source: "10.244.0.3:53".parse().unwrap(), destination: original.source };
        let mark =
            DropMark { fate: Fate::InsertFailed, cpu: 1, reason: "NETFILTER_DROP", place: "nf_hook_slow" };
        session.frame(&query(1), &mut told);
        let nat = Some(NatTuple { original, reply });
        session.frame(&Frame { bytes: &[], nat, drop: Some(mark), ..query(2) }, &mut told);
        session.finish(&mut told);
        let [drop] = &told.0[..] else { panic!("{:?}", told.0) };
        assert_eq!((drop.frame, drop.fate, drop.flow), (2, Fate::InsertFailed, original));
        assert!(drop.question.is_some());
        assert_eq!(told.1, 1, "a drop is no message");
        assert_eq!((session.coverage(0).frames, session.coverage(0).dns_messages), (2, 1));
    }
}
