//! The subset of the protocol-buffer encoding that event files need.
//!
//! Fields follow proto3: a number that is zero is omitted, except in a `oneof`, which has presence.

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

fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

/// `int32`, `int64`, `bool` or an enum.
pub(super) fn integer(out: &mut Vec<u8>, field: u64, value: i64) {
    if value != 0 {
        key(out, field, VARINT);
        varint(out, value.cast_unsigned());
    }
}

/// `double`.
pub(super) fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    if value.to_bits() != 0 {
        double_in_oneof(out, field, value);
    }
}

/// `double` in a `oneof`.
pub(super) fn double_in_oneof(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// `bool` in a `oneof`.
pub(super) fn bool_in_oneof(out: &mut Vec<u8>, field: u64, value: bool) {
    key(out, field, VARINT);
    out.push(value.into());
}

/// `float` in a `oneof`.
pub(super) fn float_in_oneof(out: &mut Vec<u8>, field: u64, value: f32) {
    key(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// `string` or `bytes`.
pub(super) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// `repeated double`, packed.
pub(super) fn doubles(out: &mut Vec<u8>, field: u64, values: &[f64]) {
    key(out, field, BYTES);
    varint(out, 8 * values.len() as u64);
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// A nested message, whose fields `encode` writes.
pub(super) fn message(out: &mut Vec<u8>, field: u64, encode: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, BYTES);
    // Most messages are short, and their length is one byte.
    let at = out.len();
    out.push(0);
    encode(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let end = out.len();
    varint(out, length as u64);
    let extra = out.len() - end;
    out[at..].rotate_right(extra);
    // The placeholder now follows the length.
    out.remove(at + extra);
}

#[cfg(test)]
mod tests {
    use super::{bytes, integer, message};

    #[test]
    fn integers_are_varints() {
        let mut out = Vec::new();
        integer(&mut out, 1, 150);
        integer(&mut out, 2, 0);
        integer(&mut out, 3, -1);
        assert_eq!(out, [0x08, 0x96, 0x01, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn messages_of_every_length_nest() {
        for length in [0, 1, 125, 126, 127, 128, 200, 20_000] {
            let text = vec![7; length];
            let mut inner = Vec::new();
            bytes(&mut inner, 1, &text);
            let mut expected = Vec::new();
            bytes(&mut expected, 2, &inner);
            let mut out = Vec::new();
            message(&mut out, 2, |out| bytes(out, 1, &text));
            assert_eq!(out, expected);
        }
    }
}
