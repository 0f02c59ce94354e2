//! The subset of the protocol-buffer encoding that transaction logs need. Fields follow proto3: what is zero or empty is left out.

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `int32`, `int64`, `bool` or an enum.
pub(super) fn integer(out: &mut Vec<u8>, field: u64, value: i64) {
    if value != 0 {
        varint(out, field << 3 | VARINT);
        varint(out, value.cast_unsigned());
    }
}

/// `string`.
pub(super) fn text(out: &mut Vec<u8>, field: u64, value: &str) {
    if !value.is_empty() {
        text_in_list(out, field, value);
    }
}

/// `repeated string`, whose empty texts count too.
pub(super) fn text_in_list(out: &mut Vec<u8>, field: u64, value: &str) {
    varint(out, field << 3 | BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// A nested message, whose fields `encode` writes. It is there even if it is empty.
pub(super) fn message(out: &mut Vec<u8>, field: u64, encode: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    encode(&mut inner);
    varint(out, field << 3 | BYTES);
    varint(out, inner.len() as u64);
    out.append(&mut inner);
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    /// A number that transaction logs have, and nothing here needs.
    Fixed,
}

impl<'a> Field<'a> {
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        if let Field::Bytes(bytes) = self { bytes } else { &[] }
    }

    pub(super) fn integer(self) -> i64 {
        if let Field::Integer(value) = self { value } else { 0 }
    }
}

/// The fields of a message, in their order. It ends where the message is damaged.
pub(super) fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = take_varint(&mut message)?;
        let field = match key & 7 {
            VARINT => Field::Integer(take_varint(&mut message)?.cast_signed()),
            BYTES => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                Field::Bytes(take(&mut message, length)?)
            }
            FIXED64 => take(&mut message, 8).map(|_| Field::Fixed)?,
            FIXED32 => take(&mut message, 4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, field))
    })
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back() {
        let mut out = Vec::new();
        integer(&mut out, 1, 150);
        integer(&mut out, 2, 0);
        integer(&mut out, 3, -1);
        text(&mut out, 4, "");
        text_in_list(&mut out, 4, "");
        message(&mut out, 200, |out| text(out, 1, &"ü".repeat(100)));
        assert_eq!(out[..3], [0x08, 0x96, 0x01]);
        let read: Vec<_> = fields(&out).collect();
        assert_eq!(read[..3], [(1, Field::Integer(150)), (3, Field::Integer(-1)), (4, Field::Bytes(b""))]);
        let (200, inner) = read[3] else { panic!("{read:?}") };
        assert_eq!(
            fields(inner.bytes()).map(|(number, field)| (number, field.text())).next(),
            Some((1, "ü".repeat(100)))
        );
    }

    #[test]
    fn damage_ends_a_message() {
        for damaged in [
            &[0x80_u8; 20][..],
            &[0x0a, 5, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x0b],
            &[0x09, 1],
        ] {
            assert_eq!(fields(damaged).count(), 0, "{damaged:?}");
        }
    }
}
