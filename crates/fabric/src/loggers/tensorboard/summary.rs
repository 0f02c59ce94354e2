//! `Summary` messages: one or several values with tags.

use super::histogram::Histogram;
use super::proto::{bytes, double, doubles, float_in_oneof, integer, message, varint};
use crate::loggers::image::Png;

/// A tag: the prefix of the logger and a name, which are not joined in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a> {
    pub(super) prefix: &'a str,
    pub(super) name: &'a str,
    pub(super) suffix: &'a str,
}

impl Tag<'_> {
    /// Field 1 of a `Summary.Value`.
    fn encode(&self, out: &mut Vec<u8>) {
        let join = if self.prefix.is_empty() { "" } else { "-" };
        let parts = [self.prefix, join, self.name, self.suffix];
        out.push(1 << 3 | 2);
        varint(out, parts.iter().map(|part| part.len() as u64).sum());
        for part in parts {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

pub(super) fn scalar(out: &mut Vec<u8>, tag: Tag, value: f64) {
    message(out, 1, |out| {
        tag.encode(out);
        float_in_oneof(out, 2, value as f32);
    });
}

pub(super) fn image(out: &mut Vec<u8>, tag: Tag, png: &Png) {
    message(out, 1, |out| {
        tag.encode(out);
        message(out, 4, |out| {
            integer(out, 1, png.height.into());
            integer(out, 2, png.width.into());
            integer(out, 3, png.channels.into());
            bytes(out, 4, &png.encoded);
        });
    });
}

pub(super) fn histogram(out: &mut Vec<u8>, tag: Tag, histogram: &Histogram) {
    message(out, 1, |out| {
        tag.encode(out);
        message(out, 5, |out| {
            double(out, 1, histogram.min);
            double(out, 2, histogram.max);
            double(out, 3, histogram.count);
            double(out, 4, histogram.sum);
            double(out, 5, histogram.sum_of_squares);
            doubles(out, 6, &histogram.limits);
            doubles(out, 7, &histogram.counts);
        });
    });
}

/// A string tensor of one element, as the text plugin requires.
pub(super) fn text(out: &mut Vec<u8>, tag: Tag, text: &str) {
    const DT_STRING: i64 = 7;
    message(out, 1, |out| {
        tag.encode(out);
        message(out, 8, |out| {
            integer(out, 1, DT_STRING);
            message(out, 2, |shape| message(shape, 2, |dim| integer(dim, 1, 1)));
            bytes(out, 8, text.as_bytes());
        });
        plugin_data(out, b"text", |_| {});
    });
}

/// A value that consists only of metadata.
pub(super) fn metadata(out: &mut Vec<u8>, tag: &str, plugin: &[u8], content: impl FnOnce(&mut Vec<u8>)) {
    message(out, 1, |out| {
        Tag { prefix: "", name: tag, suffix: "" }.encode(out);
        plugin_data(out, plugin, content);
    });
}

fn plugin_data(out: &mut Vec<u8>, plugin: &[u8], content: impl FnOnce(&mut Vec<u8>)) {
    message(out, 9, |out| {
        message(out, 1, |out| {
            bytes(out, 1, plugin);
            let mut encoded = Vec::new();
            content(&mut encoded);
            if !encoded.is_empty() {
                bytes(out, 2, &encoded);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::{Tag, histogram, image, scalar, text};
    use crate::loggers::image::Png;
    use crate::loggers::tensorboard::histogram::Histogram;

    /// The expected bytes are those of `torch.utils.tensorboard.summary` 2.11.
    #[track_caller]
    fn assert_bytes(expected: &str, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    fn tag(name: &str) -> Tag<'_> {
        Tag { prefix: "", name, suffix: "" }
    }

    #[test]
    fn scalars() {
        let prefixed = Tag { prefix: "p", ..tag("loss") };
        assert_bytes("0a0d0a06702d6c6f7373150000003f", |out| scalar(out, prefixed, 0.5));
        assert_bytes("0a0b0a046c6f73731500000000", |out| scalar(out, tag("loss"), 0.0));
    }

    #[test]
    fn texts() {
        let expected = "0a2b0a116e6f74652f746578745f73756d6d617279420c0807120412020801420268694a080a060a0474657874";
        assert_bytes(expected, |out| text(out, Tag { suffix: "/text_summary", ..tag("note") }, "hi"));
    }

    #[test]
    fn images() {
        let png = Png { width: 1, height: 2, channels: 3, encoded: b"png".to_vec() };
        assert_bytes("0a100a0169220b0802100118032203706e67", |out| image(out, tag("i"), &png));
    }

    #[test]
    fn histograms() {
        let values = Histogram {
            min: 0.0,
            max: 2.0,
            count: 3.0,
            sum: 4.0,
            sum_of_squares: 5.0,
            limits: vec![1.0, 2.5],
            counts: vec![0.0, 3.0],
        };
        let expected = "0a4d0a01682a481100000000000000401900000000000008402100000000000010402900000000000014403210\
                        000000000000f03f00000000000004403a1000000000000000000000000000000840";
        assert_bytes(expected, |out| histogram(out, tag("h"), &values));
    }
}
