//! TCP headers (RFC 9293 section 3.1).

/// One TCP segment with its header off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// Sequence number of the header; a SYN takes one octet of its own before the payload.
    pub(super) sequence: u32,
    /// Acknowledgement number; 0 without ACK.
    pub(super) acknowledged: u32,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    /// What was captured of the payload.
    pub(super) payload: &'a [u8],
    /// Octets of payload on the wire.
    pub(super) wire_len: usize,
}

const HEADER_LEN: usize = 20;

/// Reads a TCP header at the start of an IP payload of `wire_len` octets; `None` where it is cut or its length
/// is impossible.
pub(super) fn parse(bytes: &[u8], wire_len: usize) -> Option<Segment<'_>> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = *header;
    let header_len = usize::from(offset >> 4) * 4;
    if header_len < HEADER_LEN {
        return None;
    }
    Some(Segment {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        sequence: u32::from_be_bytes([q0, q1, q2, q3]),
        acknowledged: if flags & 0x10 == 0 { 0 } else { u32::from_be_bytes([a0, a1, a2, a3]) },
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        // Options that the capture cut do not hide how long the payload was.
        payload: bytes.get(header_len..).unwrap_or_default(),
        wire_len: wire_len.checked_sub(header_len)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(offset: u8, flags: u8) -> Vec<u8> {
        let mut bytes = vec![0x80, 1, 0, 53, 0, 0, 1, 0, 0, 0, 0, 0, offset << 4, flags];
        bytes.extend([0; 6]);
        bytes
    }

    #[test]
    fn reads_ports_sequence_flags_and_payload_behind_options() {
        let mut bytes = header(6, 0x02);
        bytes.extend([1, 1, 1, 1, 7, 8]);
        let segment = parse(&bytes, 30).unwrap();
        assert_eq!((segment.source_port, segment.destination_port, segment.sequence), (0x8001, 53, 256));
        assert!(segment.syn && !segment.fin && !segment.rst);
        assert_eq!((segment.payload, segment.wire_len), ([7, 8].as_slice(), 6));
    }

    #[test]
    fn cut_options_leave_the_length() {
        let segment = parse(&header(10, 0x10), 45).map(|s| (s.payload.len(), s.wire_len));
        assert_eq!(segment, Some((0, 5)));
    }

    #[test]
    fn impossible_lengths_are_none() {
        assert_eq!(parse(&header(4, 0), 20), None);
        assert_eq!(parse(&header(15, 0), 20), None);
        assert_eq!(parse(&header(5, 0)[..19], 20), None);
    }
}
