//! Once its tables have grown to what the traffic needs, the engine allocates nothing.

use allocation_counter::measure;
use dnspath_bench::{
    engine::{Pass, Player},
    traffic::{Message, Traffic},
};

/// Messages that are counted on, two frames each.
const COUNTED: usize = 40_000;
/// Messages of the same load before these: the last tables grow once more.
const SETTLING: usize = 40_000;

#[test]
fn no_allocation_for_a_message_in_steady_state() {
    let steady = Traffic { lookups_per_second: 150.0, ..Traffic::default() };
    // Twice the load beforehand, and longer than any question waits: what is counted on never needs more room.
    let before = Traffic { lookups_per_second: 300.0, ..steady.clone() };
    let mut player = Player::new(&steady);
    let mut now = 0;
    for message in before.messages().take_while(|message| message.time < 40_000_000_000) {
        now = message.time;
        player.play(&message, Pass::Engine);
    }
    let messages: Vec<Message> = steady
        .messages()
        .take(SETTLING + COUNTED)
        .map(|message| Message { time: now + message.time, ..message })
        .collect();
    let (settling, messages) = messages.split_at(SETTLING);
    settling.iter().for_each(|message| player.play(message, Pass::Engine));
    let decoded = measure(|| messages.iter().for_each(|message| player.play(message, Pass::Decode)));
    assert_eq!(decoded.count_total, 0, "allocations by the decoder for {COUNTED} messages");
    let joined = measure(|| messages.iter().for_each(|message| player.play(message, Pass::Engine)));
    println!("{} allocations, {} octets, for {COUNTED} messages", joined.count_total, joined.bytes_total);
    assert_eq!(joined.count_total, 0, "allocations by the engine for {COUNTED} messages");
}
