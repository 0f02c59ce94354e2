//! Where the tokens of a text are: in memory, or in a file that is mapped.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fulgurite_torch::MappedBytes;

use super::files::unusable;
use super::npy::{Element, Header};
use crate::{BoxError, DataError};

/// How a token is stored in a file of nothing but tokens, such as nanoGPT's `train.bin`; little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenType {
    /// Two bytes (`np.uint16`), for vocabularies of up to 65 536 tokens, such as GPT-2's.
    U16,
    /// Four bytes (`np.uint32`).
    U32,
}

/// A range of tokens. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    source: Source,
    range: Range<usize>,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<[u32]>),
    File(Arc<TokenFile>),
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    bytes: MappedBytes,
    /// Where the tokens begin.
    begin: usize,
    element: Element,
}

impl Tokens {
    pub(super) fn in_memory(tokens: Arc<[u32]>) -> Tokens {
        Tokens { range: 0..tokens.len(), source: Source::Memory(tokens) }
    }

    /// The tokens of a file that holds nothing else.
    pub(super) fn of_bin(path: &Path, kind: TokenType) -> Result<Tokens, DataError> {
        let element = match kind {
            TokenType::U16 => Element::U16,
            TokenType::U32 => Element::U32,
        };
        let bytes = map(path)?;
        let (len, size) = (bytes.len(), element.size());
        if !len.is_multiple_of(size) {
            return Err(unusable(
                path,
                format!(
                    "it has {len} bytes, and tokens of {kind:?} have {size} each; it is cut off, or of another type"
                ),
            ));
        }
        Ok(Tokens::of_file(TokenFile { path: path.to_owned(), bytes, begin: 0, element }, len / size))
    }

    /// The integers of a `.npy` file.
    pub(super) fn of_npy(path: &Path) -> Result<Tokens, DataError> {
        let bytes = map(path)?;
        let damaged = |message| unusable(path, message);
        let start = bytes.read(0, &mut [0; 12]).copied().ok_or_else(|| damaged("its header is cut off".into()))?;
        let mut header = vec![0; Header::len_of(&start).map_err(damaged)?];
        bytes.read_slice(0, &mut header).ok_or_else(|| damaged("its header is cut off".into()))?;
        let Header { element, shape, data } = Header::parse(&header, bytes.len()).map_err(damaged)?;
        if matches!(element, Element::Bool | Element::F16 | Element::F32 | Element::F64) {
            return Err(unusable(path, format!("its elements are {element:?}; tokens are integers")));
        }
        let &[len] = shape.as_slice() else {
            return Err(unusable(path, format!("it is an array of {shape:?}; tokens have one dimension")));
        };
        Ok(Tokens::of_file(TokenFile { path: path.to_owned(), bytes, begin: data, element }, len))
    }

    fn of_file(file: TokenFile, len: usize) -> Tokens {
        Tokens { source: Source::File(Arc::new(file)), range: 0..len }
    }

    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// The tokens before and from `at` on.
    pub(super) fn split_at(&self, at: usize) -> (Tokens, Tokens) {
        let middle = self.range.start + at.min(self.len());
        let part = |range| Tokens { source: self.source.clone(), range };
        (part(self.range.start..middle), part(middle..self.range.end))
    }

    /// The tokens in a range, which they have.
    pub(super) fn get(&self, range: Range<usize>) -> Result<Vec<i64>, BoxError> {
        let range = self.range.start + range.start..self.range.start + range.end;
        match &self.source {
            Source::Memory(tokens) => {
                let tokens = tokens.get(range).ok_or("there are not as many tokens")?;
                Ok(tokens.iter().copied().map(i64::from).collect())
            }
            Source::File(file) => file.get(range),
        }
    }
}

impl TokenFile {
    fn get(&self, range: Range<usize>) -> Result<Vec<i64>, BoxError> {
        let size = self.element.size();
        let mut bytes = vec![0; range.len() * size];
        self.bytes.read_slice(self.begin + range.start * size, &mut bytes).ok_or("there are not as many tokens")?;
        let tokens = match self.element {
            Element::U8 | Element::Bool => bytes.into_iter().map(i64::from).collect(),
            Element::I8 => bytes.into_iter().map(|byte| i64::from(byte as i8)).collect(),
            Element::U16 => numbers(&bytes, u16::from_le_bytes),
            Element::I16 => numbers(&bytes, i16::from_le_bytes),
            Element::U32 => numbers(&bytes, u32::from_le_bytes),
            Element::I32 => numbers(&bytes, i32::from_le_bytes),
            // Those that need the last bit of an unsigned one are negative, and refused below.
            _ => numbers(&bytes, i64::from_le_bytes),
        };
        match tokens.iter().position(|&token| token < 0) {
            Some(at) => Err(format!(
                "token {} of {} is {}; tokens are not negative",
                range.start + at,
                self.path.display(),
                tokens[at]
            )
            .into()),
            None => Ok(tokens),
        }
    }
}

fn numbers<const N: usize, T: Into<i64>>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes).into()).collect()
}

fn map(path: &Path) -> Result<MappedBytes, DataError> {
    MappedBytes::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })
}
