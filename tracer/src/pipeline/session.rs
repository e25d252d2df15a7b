//! Decoder and engine in a row: the part of the way that live capture and files share.

use crate::{
    engine::{Config, Engine},
    model::{Coverage, Frame, Observer, Timestamp, Vantages},
    wire::Decoder,
};

/// Frames in, what they mean out.
pub struct Session {
    decoder: Decoder,
    engine: Engine,
    vantages: Vantages,
}

impl Session {
    /// A session that has seen nothing; `vantages` names the places that frames come from.
    #[must_use]
    pub fn new(ports: &[u16], config: Config, vantages: Vantages) -> Self {
        Self { decoder: Decoder::new(ports), engine: Engine::new(config), vantages }
    }

    /// Takes one frame, or what a probe told of a packet.
    pub fn frame(&mut self, frame: &Frame<'_>, out: &mut impl Observer) {
        let Self { decoder, engine, vantages } = self;
        if frame.drop.is_some() {
            if let Some(drop) = decoder.packet_drop(frame) {
                engine.observe_drop(&drop, out);
            }
            return;
        }
        decoder.decode(frame, vantages, &mut |sighting| engine.observe(sighting, out));
    }

    /// Says that every frame before `now` was given.
    pub fn advance(&mut self, now: Timestamp, out: &mut impl Observer) {
        let Self { decoder, engine, .. } = self;
        decoder.advance(now, &mut |sighting| engine.observe(sighting, out));
        engine.advance(now, out);
    }

    /// Ends the session: what is still open is told.
    pub fn finish(&mut self, out: &mut impl Observer) {
        let Self { decoder, engine, .. } = self;
        decoder.finish(&mut |sighting| engine.observe(sighting, out));
        engine.finish(out);
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
