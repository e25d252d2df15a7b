//! What the reader gives of whole, cut, damaged and mixed files.

use super::{
    MergedReader, Reader, TraceError,
    samples::{Order, gzip, zstd},
};
use crate::model::{Direction, LinkType, Timestamp, Vantages};
use proptest::prelude::*;
use std::path::PathBuf;

/// A file that is gone with the value.
struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn new(bytes: &[u8]) -> Self {
        let file = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("capture")
    }
}

/// Number, time in ns, vantage, and octets of each frame; then how it ended.
type Frames = Vec<(u64, u64, String, Vec<u8>)>;

fn read(bytes: &[u8]) -> (Frames, Result<bool, TraceError>) {
    let file = File::new(bytes);
    let vantages = Vantages::new();
    let mut frames = Vec::new();
    let mut reader = match Reader::open(&file.path(), 0) {
        Ok(reader) => reader,
        Err(error) => return (frames, Err(error)),
    };
    loop {
        match reader.next_frame(&vantages) {
            Ok(Some(frame)) => {
                assert!(frame.bytes.len() <= frame.original_len as usize);
                let vantage = vantages.lookup(frame.vantage).unwrap().to_string();
                frames.push((frame.number, frame.time.as_nanos(), vantage, frame.bytes.to_vec()));
            }
            Ok(None) => return (frames, Ok(reader.cut())),
            Err(error) => {
                assert!(reader.next_frame(&vantages).unwrap().is_none(), "an error is told once");
                return (frames, Err(error));
            }
        }
    }
}

fn row(number: u64, time: u64, vantage: &str, bytes: &[u8]) -> (u64, u64, String, Vec<u8>) {
    (number, time, vantage.into(), bytes.to_vec())
}

#[test]
fn pcap_in_either_byte_order_and_resolution() {
    for order in [Order::Big, Order::Little] {
        for (magic, nanos) in [(0xa1b2_c3d4, 7_000), (0xa1b2_3c4d, 7)] {
            let file = order.pcap(magic, 1, &[(2, 7, b"abc"), (3, 0, b"")]);
            let (frames, end) = read(&file);
            let expected = [row(1, 2_000_000_000 + nanos, "if0", b"abc"), row(2, 3_000_000_000, "if0", b"")];
            assert_eq!(frames, expected);
            assert!(!end.unwrap());
        }
    }
}

#[test]
fn link_types_of_files() {
    let links = [
        (1, LinkType::Ethernet),
        (101, LinkType::RawIp),
        (0xf000_0071, LinkType::LinuxSll),
        (276, LinkType::LinuxSll2),
        (0, LinkType::Null),
        (127, LinkType::Other(127)),
    ];
    for (linktype, expected) in links {
        let file = File::new(&Order::Little.pcap(0xa1b2_c3d4, linktype, &[(0, 0, b"x")]));
        let mut reader = Reader::open(&file.path(), 0).unwrap();
        assert_eq!(reader.next_frame(&Vantages::new()).unwrap().unwrap().link, expected);
    }
}

#[test]
fn compressed_files_read_as_plain_ones_and_end_cleanly_where_cut() {
    // Octets that do not compress, so that half a file holds frames.
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let octets: Vec<Vec<u8>> = (0..5_000).map(|_| (0..80).map(|_| noise()).collect()).collect();
    let records: Vec<_> = octets.iter().zip(0..).map(|(octets, n)| (n, 0, octets.as_slice())).collect();
    let plain = Order::Little.pcap(0xa1b2_c3d4, 1, &records);
    let (expected, _) = read(&plain);
    for packed in [gzip(&plain), zstd(&plain)] {
        let (frames, end) = read(&packed);
        assert_eq!(frames, expected);
        assert!(!end.unwrap());
        let (frames, end) = read(&packed[..packed.len() / 2]);
        assert!(end.unwrap(), "said to be cut");
        assert!(frames.len() > 1_000, "{} frames", frames.len());
        assert_eq!(frames[..], expected[..frames.len()]);
        let (frames, end) = read(&packed[..15]);
        assert!(frames.is_empty() && end.unwrap());
    }
}

fn pcapng(order: Order) -> Vec<u8> {
    let offset = order.u64(1_000);
    [
        order.section(),
        order.interface(1, &[(2, b"eth0"), (9, &[9])]),
        order.interface(101, &[(14, &offset)]),
        order.interface(1, &[(2, b"veth7"), (3, b"dnspath ingress veth ifindex=7 netns=blue"), (9, &[0x8a])]),
        order.packet(0, 5_000_000_001, b"one", &[(2, &order.u32(1))]),
        order.packet(1, 3, b"four", &[(1, b"dnspath: gso 512"), (2, &order.u32(2))]),
        order.block(0x4000_0001, b"unknown block"),
        order.packet(2, 2_048, b"", &[]),
        order.block(3, &[&order.u32(3)[..], b"xyz"].concat()),
        order.block(5, &[&[0; 12][..], &order.options(&[(5, &order.u64(4)), (7, &order.u64(1))])].concat()),
    ]
    .concat()
}

#[test]
fn pcapng_with_names_clocks_directions_and_simple_packets() {
    for order in [Order::Big, Order::Little] {
        let (frames, end) = read(&pcapng(order));
        assert_eq!(
            frames,
            [
                row(1, 5_000_000_001, "eth0 ingress", b"one"),
                row(2, 1_000_000_003_000, "if1 egress", b"four"),
                row(3, 2_000_000_000, "blue/veth7 ingress", b""),
                row(4, 2_000_000_000, "eth0", b"xyz"),
            ]
        );
        assert!(!end.unwrap());
    }
}

#[test]
fn losses_are_the_last_statistics_of_each_interface_in_each_section() {
    for order in [Order::Big, Order::Little] {
        let statistics =
            |n: u64| order.block(5, &[&[0; 12][..], &order.options(&[(5, &order.u64(n))])].concat());
        let once = [pcapng(order), statistics(7), statistics(6)].concat();
        let file = File::new(&[once.clone(), once].concat());
        let vantages = Vantages::new();
        let mut reader = Reader::open(&file.path(), 0).unwrap();
        while reader.next_frame(&vantages).unwrap().is_some() {}
        assert_eq!(reader.lost(), 14);
    }
}

#[test]
fn drop_counts_of_packets_are_losses_too() {
    let order = Order::Big;
    let file = File::new(
        &[
            order.section(),
            order.interface(1, &[]),
            order.packet(0, 1, b"a", &[(4, &order.u64(3))]),
            order.packet(0, 2, b"b", &[(4, &order.u64(2))]),
        ]
        .concat(),
    );
    let vantages = Vantages::new();
    let mut reader = Reader::open(&file.path(), 0).unwrap();
    while reader.next_frame(&vantages).unwrap().is_some() {}
    assert_eq!(reader.lost(), 5);
}

#[test]
fn sections_of_different_byte_order_follow_each_other() {
    let (frames, end) = read(&[pcapng(Order::Big), pcapng(Order::Little)].concat());
    assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!(frames[0].3, frames[4].3);
    assert!(!end.unwrap());
}

#[test]
fn comments_and_notes_come_with_their_frame() {
    let file = File::new(&pcapng(Order::Little));
    let vantages = Vantages::new();
    let mut reader = Reader::open(&file.path(), 0).unwrap();
    assert_eq!(reader.next_record(&vantages).unwrap().unwrap().comment, None);
    let record = reader.next_record(&vantages).unwrap().unwrap();
    assert_eq!(record.comment, Some(b"dnspath: gso 512".as_slice()));
    assert_eq!(record.frame.segment_size, 512);
    assert_eq!(vantages.lookup(record.frame.vantage).unwrap().direction, Direction::Egress);
}

#[test]
fn a_file_cut_anywhere_gives_what_is_before_the_cut() {
    let pcap = Order::Little.pcap(0xa1b2_c3d4, 1, &[(2, 7, b"abc"), (3, 0, b"defgh")]);
    for whole in [pcap, pcapng(Order::Little)] {
        let (expected, _) = read(&whole);
        let mut given = 0;
        for length in 4..whole.len() {
            let (frames, end) = read(&whole[..length]);
            let cut = end.unwrap();
            assert_eq!(frames[..], expected[..frames.len()], "cut at {length}");
            assert!(frames.len() >= given, "cut at {length}");
            assert!(cut || frames.len() <= expected.len());
            given = frames.len();
        }
        let (_, end) = read(&whole[..whole.len() - 1]);
        assert!(end.unwrap());
    }
}

#[test]
fn files_that_are_no_capture_say_so() {
    let message = |bytes: &[u8]| read(bytes).1.unwrap_err().to_string();
    assert!(message(b"").contains("is empty"));
    assert!(message(b"GET / HTTP/1.1").contains("neither pcap nor pcapng (it starts with [47, 45, 54, 20])"));
    assert!(message(&[0xd4, 0xc3]).contains("neither"));
    let missing = Reader::open(&PathBuf::from("no/such/file"), 0).unwrap_err().to_string();
    assert!(missing.starts_with("cannot open no/such/file: "), "{missing}");
}

#[test]
fn damage_is_told_after_what_is_before_it() {
    let order = Order::Little;
    let pcap = order.pcap(0xa1b2_c3d4, 1, &[(2, 7, b"abc")]);
    let huge =
        [pcap.clone(), order.u32(1).to_vec(), vec![0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]].concat();
    let mut lengths_differ = pcapng(order);
    let last = lengths_differ.len() - 4;
    lengths_differ[last] ^= 4;
    let no_interface = [order.section(), order.packet(0, 1, b"a", &[])].concat();
    let too_long = {
        let mut file = [order.section(), order.interface(1, &[]), order.packet(0, 1, b"abcd", &[])].concat();
        let captured = file.len() - 4 - 4 - 4 - 8;
        file[captured..captured + 4].copy_from_slice(&order.u32(400));
        file
    };
    for (bytes, frames_before, what) in [
        ([pcap.clone(), pcap].concat(), 1, "a second file's header"),
        (huge, 1, "a frame of more than 16 MiB"),
        (lengths_differ, 4, "a block whose two lengths differ"),
        (no_interface, 0, "a packet of an interface not described"),
        (too_long, 0, "a packet longer than its block"),
        ([order.section(), order.block(6, &[0; 4])].concat(), 0, "a block shorter than its fields"),
        (
            [order.section(), vec![1, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0]].concat(),
            0,
            "a block of impossible length",
        ),
    ] {
        let (frames, end) = read(&bytes);
        assert_eq!(frames.len(), frames_before, "{what}");
        let error = end.unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("is damaged at octet"), "{error}");
    }
}

#[test]
fn merged_files_come_by_time_and_ties_by_file() {
    let order = Order::Little;
    let first = File::new(&order.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"a1"), (3, 0, b"a3"), (5, 0, b"a5")]));
    let second = File::new(&order.pcap(0xa1b2_c3d4, 1, &[(2, 0, b"b2"), (3, 0, b"b3")]));
    let vantages = Vantages::new();
    let mut merged = MergedReader::open(&[first.path(), second.path()]).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = merged.next_frame(&vantages).unwrap() {
        let source = vantages.lookup(frame.vantage).unwrap().source;
        frames.push((source, frame.number, String::from_utf8(frame.bytes.to_vec()).unwrap()));
    }
    let expected = [(0, 1, "a1"), (1, 1, "b2"), (0, 2, "a3"), (1, 2, "b3"), (0, 3, "a5")];
    assert_eq!(frames, expected.map(|(source, number, text)| (source, number, text.to_owned())));
    assert!(!merged.cut() && merged.lost() == 0);
}

#[test]
fn a_file_of_another_clock_is_merged_by_the_first_ones() {
    let order = Order::Little;
    let first = File::new(&order.pcap(0xa1b2_c3d4, 1, &[(100, 0, b"a1"), (102, 0, b"a2")]));
    let second = File::new(&order.pcap(0xa1b2_c3d4, 1, &[(3_101, 0, b"b1"), (3_103, 0, b"b2")]));
    let vantages = Vantages::new();
    let mut merged = MergedReader::open(&[first.path(), second.path()]).unwrap();
    merged.shift(1, -3_000_000_000_000);
    let mut frames = Vec::new();
    while let Some(frame) = merged.next_frame(&vantages).unwrap() {
        let text = String::from_utf8(frame.bytes.to_vec()).unwrap();
        frames.push((frame.time.as_nanos() / 1_000_000_000, text));
    }
    assert_eq!(
        frames,
        [(100, "a1"), (101, "b1"), (102, "a2"), (103, "b2")].map(|(at, it)| (at, it.to_owned()))
    );
    let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
    let windows: Vec<_> = merged.files().map(|(_, window)| window).collect();
    assert_eq!(windows, [Some((at(100), at(102))), Some((at(101), at(103)))]);
}

#[test]
fn a_damaged_file_does_not_keep_the_others_from_ending() {
    let order = Order::Little;
    let pcap = order.pcap(0xa1b2_c3d4, 1, &[(1, 0, b"a")]);
    let (bad, good) = (File::new(&[pcap.clone(), pcap.clone()].concat()), File::new(&pcap));
    let vantages = Vantages::new();
    let mut merged = MergedReader::open(&[bad.path(), good.path()]).unwrap();
    let (mut frames, mut errors) = (0, 0);
    loop {
        match merged.next_frame(&vantages) {
            Ok(Some(_)) => frames += 1,
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert_eq!((frames, errors), (2, 1));
}

proptest! {
    #[test]
    fn any_bytes_behind_a_magic_end_without_panic(
        big in any::<bool>(), ng in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let start = if ng { order.section() } else { order.pcap(0xa1b2_c3d4, 1, &[]) };
        let (frames, _) = read(&[start, bytes].concat());
        prop_assert!(frames.len() < 40);
    }

    #[test]
    fn a_flipped_octet_never_panics(position in 0_usize..600, value in any::<u8>(), big in any::<bool>()) {
        let mut bytes = pcapng(if big { Order::Big } else { Order::Little });
        let position = position % bytes.len();
        bytes[position] = value;
        let (frames, _) = read(&bytes);
        prop_assert!(frames.len() <= 5);
    }
}
