//! The header of NumPy's `.npy` files.

/// How an element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Element {
    /// The number of bytes.
    pub(crate) fn size(self) -> usize {
        match self {
            Element::Bool | Element::U8 | Element::I8 => 1,
            Element::U16 | Element::I16 | Element::F16 => 2,
            Element::U32 | Element::I32 | Element::F32 => 4,
            Element::U64 | Element::I64 | Element::F64 => 8,
        }
    }

    fn of(descr: &str) -> Option<Element> {
        Some(match descr.strip_prefix(['<', '|', '='])? {
            "b1" => Element::Bool,
            "u1" => Element::U8,
            "i1" => Element::I8,
            "u2" => Element::U16,
            "i2" => Element::I16,
            "u4" => Element::U32,
            "i4" => Element::I32,
            "u8" => Element::U64,
            "i8" => Element::I64,
            "f2" => Element::F16,
            "f4" => Element::F32,
            "f8" => Element::F64,
            _ => return None,
        })
    }
}

/// What a `.npy` file holds, in C order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    /// Where the data begins.
    pub(crate) data: usize,
}

/// What the longest header of an array of numbers needs, many times over.
const LONGEST: usize = 1 << 16;

impl Header {
    /// The bytes of a file that have the header.
    pub(crate) fn len_of(start: &[u8; 12]) -> Result<usize, String> {
        if !start.starts_with(b"\x93NUMPY") {
            return Err("it does not begin as NumPy's .npy files do".into());
        }
        let len = match start[6] {
            1 => 10 + usize::from(u16::from_le_bytes([start[8], start[9]])),
            2 | 3 => 12 + u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize,
            version => return Err(format!("it is a .npy file of version {version}; versions 1 to 3 are read")),
        };
        if len > LONGEST {
            return Err(format!("its header has {len} bytes, more than any array of numbers needs"));
        }
        Ok(len)
    }

    /// The header of a file, given at least the bytes that have it, and the length of the file.
    pub(crate) fn parse(bytes: &[u8], file: usize) -> Result<Header, String> {
        let cut_off = || "its header is cut off".to_owned();
        let data = Header::len_of(bytes.first_chunk().ok_or_else(cut_off)?)?;
        let begin = if bytes[6] == 1 { 10 } else { 12 };
        let text = str::from_utf8(bytes.get(begin..data).ok_or_else(cut_off)?);
        let text = text.map_err(|_| "its header is not text".to_owned())?;
        let value = |key: &str| {
            let (_, rest) =
                text.split_once(&format!("'{key}':")).ok_or_else(|| format!("its header has no `{key}`"))?;
            Ok::<&str, String>(rest.trim_start())
        };
        let descr = value("descr")?.split(['\'', '"']).nth(1).unwrap_or_default();
        let element = Element::of(descr).ok_or_else(|| {
            format!("its elements are `{descr}`; little-endian numbers and booleans are read, such as `<u2` or `<f4`")
        })?;
        let shape = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (shape, _) = shape.ok_or("its header has no shape")?;
        let shape = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let shape: Vec<usize> =
            shape.map(|size| size.parse().map_err(|_| "its shape is damaged".to_owned())).collect::<Result<_, _>>()?;
        if value("fortran_order")?.starts_with("True") && shape.len() > 1 {
            return Err("it is in Fortran order; save it with np.ascontiguousarray".into());
        }
        let header = Header { element, shape, data };
        match header.bytes() {
            Some(needed) if file.checked_sub(data) == Some(needed) => Ok(header),
            Some(needed) => Err(format!(
                "an array of {:?} needs {needed} bytes after the header, and there are {}; it is cut off or damaged",
                header.shape,
                file.saturating_sub(data)
            )),
            None => Err("its shape is damaged".into()),
        }
    }

    /// The number of elements.
    pub(crate) fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))
    }

    fn bytes(&self) -> Option<usize> {
        self.len()?.checked_mul(self.element.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    #[test]
    fn headers_are_those_that_numpy_writes() {
        let bytes = file("{'descr': '<u2', 'fortran_order': False, 'shape': (3,), }\n", 6);
        let header = Header::parse(&bytes, bytes.len()).unwrap();
        assert_eq!((header.element, header.shape, header.data), (Element::U16, vec![3], bytes.len() - 6));
        let bytes = file("{'descr': '|b1', 'fortran_order': False, 'shape': (2, 3), }", 6);
        assert_eq!(Header::parse(&bytes, bytes.len()).unwrap().shape, [2, 3]);
        let bytes = file("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", 8);
        assert_eq!(Header::parse(&bytes, bytes.len()).unwrap().len(), Some(1));
    }

    #[test]
    fn others_are_explained() {
        let error = |header: &str, data| {
            let bytes = file(header, data);
            Header::parse(&bytes, bytes.len()).unwrap_err()
        };
        assert_eq!(
            error("{'descr': '>u2', 'fortran_order': False, 'shape': (3,), }", 6),
            "its elements are `>u2`; little-endian numbers and booleans are read, such as `<u2` or `<f4`"
        );
        assert_eq!(
            error("{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }", 6),
            "an array of [4] needs 8 bytes after the header, and there are 6; it is cut off or damaged"
        );
        assert_eq!(
            error("{'descr': '<u2', 'fortran_order': True, 'shape': (1, 3), }", 6),
            "it is in Fortran order; save it with np.ascontiguousarray"
        );
        let huge = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({0}, {0}), }}", usize::MAX);
        assert_eq!(error(&huge, 6), "its shape is damaged");
        assert_eq!(error("{}", 0), "its header has no `descr`");
        assert_eq!(Header::parse(b"\x93NUMPY", 6).unwrap_err(), "its header is cut off");
        assert_eq!(Header::parse(&[0; 40], 40).unwrap_err(), "it does not begin as NumPy's .npy files do");
    }
}
