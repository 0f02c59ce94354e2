//! [`TokenBlocks`]: text for language models.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use fulgurite_torch::tch::Tensor;
use rand::Rng;

use super::files::read_bytes;
#[cfg(feature = "tokenizers")]
use super::files::{Content, failed, unusable};
use super::token_source::{TokenType, Tokens};
use crate::{BoxError, DataError, Dataset, ItemRng, seed};

/// The longest text that a file is tokenized of at once.
#[cfg(feature = "tokenizers")]
const TOKENIZED: u64 = 256 << 20;

/// A long sequence of tokens, cut into blocks: an item is `block_size` tokens and the tokens that follow each of them,
/// both `i64` `[block_size]`.
///
/// ```
/// use fulgurite_data::Dataset;
/// use fulgurite_data::datasets::TokenBlocks;
///
/// let text = TokenBlocks::from_bytes(b"to be or not to be", 4)?;
/// assert_eq!(text.len(), 4); // "to b", "e or", " not", " to "
/// let (train, val) = TokenBlocks::from_bytes(b"to be or not to be", 4)?.split(0.7)?;
/// let train = train.random(100); // 100 blocks an epoch, from anywhere
/// assert_eq!((train.len(), val.len()), (100, 1));
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
///
/// Tokens that do not fit into memory are mapped from a file ([`from_bin`](TokenBlocks::from_bin),
/// [`from_npy`](TokenBlocks::from_npy)): nothing is read before a block is needed, and processes share what was read.
#[derive(Debug, Clone)]
pub struct TokenBlocks {
    tokens: Tokens,
    block_size: usize,
    /// Blocks per epoch, if they are drawn at random.
    random: Option<usize>,
}

impl TokenBlocks {
    /// Blocks of `block_size` of `tokens`, one after the other without overlap; an incomplete last one is left out.
    pub fn new(tokens: impl Into<Arc<[u32]>>, block_size: usize) -> Result<TokenBlocks, DataError> {
        TokenBlocks::of(Tokens::in_memory(tokens.into()), block_size)
    }

    fn of(tokens: Tokens, block_size: usize) -> Result<TokenBlocks, DataError> {
        if block_size == 0 {
            return Err(DataError::Setting("block_size is 0; a block has at least one token".into()));
        }
        if tokens.len() <= block_size {
            return Err(DataError::Setting(format!(
                "one block of {block_size} tokens and their successors needs {} tokens, but the text has {}; use more \
                 text or a smaller block_size",
                block_size.saturating_add(1),
                tokens.len()
            )));
        }
        Ok(TokenBlocks { tokens, block_size, random: None })
    }

    /// Blocks of a file that holds nothing but tokens, such as nanoGPT's `train.bin`, which is mapped into memory.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be mapped, or is no whole number of tokens.
    pub fn from_bin(path: impl AsRef<Path>, kind: TokenType, block_size: usize) -> Result<TokenBlocks, DataError> {
        TokenBlocks::of(Tokens::of_bin(path.as_ref(), kind)?, block_size)
    }

    /// Blocks of a NumPy file (`np.save`) of integers of one dimension, which is mapped into memory.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be mapped, is damaged, or holds anything else. A negative token is an error of its block.
    pub fn from_npy(path: impl AsRef<Path>, block_size: usize) -> Result<TokenBlocks, DataError> {
        TokenBlocks::of(Tokens::of_npy(path.as_ref())?, block_size)
    }

    /// Blocks of the bytes of a text: 256 tokens, one per byte.
    pub fn from_bytes(text: &[u8], block_size: usize) -> Result<TokenBlocks, DataError> {
        TokenBlocks::new(text.iter().copied().map(u32::from).collect::<Arc<[u32]>>(), block_size)
    }

    /// [`from_bytes`](TokenBlocks::from_bytes) of a file, of any encoding; a gzip file is unpacked.
    pub fn from_file(path: impl AsRef<Path>, block_size: usize) -> Result<TokenBlocks, DataError> {
        TokenBlocks::from_bytes(&read_bytes(path.as_ref())?, block_size)
    }

    /// Blocks of a UTF-8 text file, in the tokens of a Hugging Face `tokenizer.json`. No special tokens are added.
    ///
    /// A tokenizer takes some ten times the memory of its text, so a text of more than 256 MiB is refused; read it yourself
    /// and hand it to [`from_text_tokenized`](TokenBlocks::from_text_tokenized) if there is as much.
    #[cfg(feature = "tokenizers")]
    pub fn from_file_tokenized(
        path: impl AsRef<Path>,
        tokenizer: impl AsRef<Path>,
        block_size: usize,
    ) -> Result<TokenBlocks, DataError> {
        let path = path.as_ref();
        let text = Content::open(path)?.up_to(TOKENIZED + 1).map_err(|error| failed(path, error))?;
        if text.len() as u64 > TOKENIZED {
            return Err(unusable(
                path,
                format!(
                    "it is a text of more than {} MiB, and a tokenizer takes ten times as much memory; take a part of it, or \
                     hand the text to TokenBlocks::from_text_tokenized",
                    TOKENIZED >> 20
                ),
            ));
        }
        let text =
            String::from_utf8(text).map_err(|error| unusable(path, format!("it is not text in UTF-8: {error}")))?;
        let cannot = |error: String| unusable(path, format!("the tokenizer cannot encode it: {error}"));
        TokenBlocks::new(encoded(&text, tokenizer.as_ref(), cannot)?, block_size)
    }

    /// Blocks of a text of any length, in the tokens of a Hugging Face `tokenizer.json`. No special tokens are added.
    #[cfg(feature = "tokenizers")]
    pub fn from_text_tokenized(
        text: &str,
        tokenizer: impl AsRef<Path>,
        block_size: usize,
    ) -> Result<TokenBlocks, DataError> {
        let cannot = |error: String| DataError::Setting(format!("the tokenizer cannot encode the text: {error}"));
        TokenBlocks::new(encoded(text, tokenizer.as_ref(), cannot)?, block_size)
    }

    /// Draws `blocks_per_epoch` blocks an epoch, each from a random place, instead of going through the text in order.
    pub fn random(mut self, blocks_per_epoch: usize) -> TokenBlocks {
        self.random = Some(blocks_per_epoch);
        self
    }

    /// The first `fraction` of the text, and the rest of it.
    pub fn split(&self, fraction: f64) -> Result<(TokenBlocks, TokenBlocks), DataError> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(DataError::Setting(format!(
                "a text cannot be split at {fraction}; give a fraction between 0 and 1"
            )));
        }
        let (first, rest) = self.tokens.split_at((self.tokens.len() as f64 * fraction) as usize);
        Ok((TokenBlocks::of(first, self.block_size)?, TokenBlocks::of(rest, self.block_size)?))
    }

    /// The number of tokens.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens in a range.
    ///
    /// # Errors
    ///
    /// Fails if the range goes beyond the end, and at a token of a file that is negative.
    pub fn tokens(&self, range: Range<usize>) -> Result<Vec<i64>, BoxError> {
        if range.start > range.end || range.end > self.tokens.len() {
            return Err(format!("there are {} tokens, and {range:?} was asked for", self.tokens.len()).into());
        }
        self.tokens.get(range)
    }

    /// Tokens per block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }
}

/// The tokens of a text.
#[cfg(feature = "tokenizers")]
fn encoded(text: &str, tokenizer: &Path, cannot: impl Fn(String) -> DataError) -> Result<Arc<[u32]>, DataError> {
    let description = read_bytes(tokenizer)?;
    let tokenizer = tokenizers::Tokenizer::from_bytes(&description)
        .map_err(|error| unusable(tokenizer, format!("it is not a tokenizer.json of Hugging Face: {error}")))?;
    // Fast: without the offsets of the tokens in the text, which are not used.
    let encoding = tokenizer.encode_fast(text, false).map_err(|error| cannot(error.to_string()))?;
    Ok(encoding.get_ids().into())
}

impl Dataset for TokenBlocks {
    type Item = (Tensor, Tensor);

    fn len(&self) -> usize {
        self.random.unwrap_or((self.tokens.len() - 1) / self.block_size)
    }

    fn get(&self, index: usize, rng: &mut ItemRng) -> Result<(Tensor, Tensor), BoxError> {
        let start = match self.random {
            Some(_) => start_at_random(rng, self.tokens.len() - self.block_size),
            None => index * self.block_size,
        };
        let tokens = self.tokens.get(start..start + self.block_size + 1)?;
        let (inputs, targets) = (&tokens[..self.block_size], &tokens[1..]);
        Ok((Tensor::f_from_slice(inputs)?, Tensor::f_from_slice(targets)?))
    }
}

fn start_at_random(rng: &mut impl Rng, places: usize) -> usize {
    seed::below(rng, places as u64) as usize
}
