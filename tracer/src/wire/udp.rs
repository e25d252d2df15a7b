//! UDP (RFC 768).
//!
//! Rule: the UDP length bounds the payload; in a frame of several datagrams the IP length does, and the payload
//! is cut into pieces of `segment_size`, each a datagram of its own.

/// A UDP header, and what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// What was captured.
    pub(super) payload: &'a [u8],
    /// Octets of payload on the wire.
    pub(super) wire_len: usize,
}

const HEADER_LEN: usize = 8;

/// Reads a UDP header at the start of an IP payload of `wire_len` octets; `None` where it is cut or its length
/// is impossible.
pub(super) fn parse(bytes: &[u8], wire_len: usize, segmented: bool) -> Option<Datagram<'_>> {
    let (&[s0, s1, d0, d1, l0, l1, _, _], rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let length = match usize::from(u16::from_be_bytes([l0, l1])) {
        // A jumbogram (RFC 2675), or datagrams still joined.
        0 => wire_len,
        _ if segmented => wire_len,
        length => length,
    };
    let wire_len = length.checked_sub(HEADER_LEN)?;
    Some(Datagram {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        payload: rest.get(..wire_len).unwrap_or(rest),
        wire_len,
    })
}

impl<'a> Datagram<'a> {
    /// The payload of each datagram in the frame and its octets on the wire, as far as something of it was
    /// captured; `segment_size` 0 is one datagram.
    pub(super) fn segments(self, segment_size: u16) -> impl Iterator<Item = (&'a [u8], usize)> {
        let step = if segment_size == 0 { usize::MAX } else { usize::from(segment_size) };
        let (mut rest, mut wire_left, mut first) = (self.payload, self.wire_len, true);
        std::iter::from_fn(move || {
            if !std::mem::take(&mut first) && rest.is_empty() {
                return None;
            }
            let wire_len = wire_left.min(step);
            let (segment, after) = rest.split_at(rest.len().min(step));
            rest = after;
            wire_left -= wire_len;
            Some((segment, wire_len))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(length: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, 0, 0, 53];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_udp_length_bounds_the_payload() {
        let bytes = datagram(11, &[1, 2, 3, 4]);
        let read = parse(&bytes, bytes.len(), false).unwrap();
        assert_eq!((read.source_port, read.destination_port), (0x8000, 53));
        assert_eq!((read.payload, read.wire_len), ([1, 2, 3].as_slice(), 3));
    }

    #[test]
    fn a_cut_or_impossible_header_is_none() {
        assert_eq!(parse(&datagram(7, &[]), 8, false), None);
        assert_eq!(parse(&datagram(8, &[])[..7], 8, false), None);
        assert_eq!(parse(&datagram(0, &[]), 7, false), None);
    }

    #[test]
    fn joined_datagrams_are_stepped_by_segment_size() {
        let bytes = datagram(8, &[1, 1, 1, 2, 2, 2, 3]);
        let read = parse(&bytes, 19, true).unwrap();
        let segments: Vec<_> = read.segments(3).collect();
        assert_eq!(segments, [([1, 1, 1].as_slice(), 3), (&[2, 2, 2], 3), (&[3], 3)]);
        assert_eq!(read.segments(0).collect::<Vec<_>>(), [(&bytes[8..], 11)]);
    }

    #[test]
    fn an_empty_datagram_is_one_segment() {
        let bytes = datagram(8, &[]);
        assert_eq!(parse(&bytes, 8, false).unwrap().segments(0).count(), 1);
    }
}
