//! [`WebDataset`]: samples in tar shards.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fulgurite_torch::tch::{Kind, Tensor};

use super::npy::{Element, Header};
use super::shards::{checked, shard_paths};
use super::tar_walk::{Member, Walk, read_at};
use crate::{BoxError, DataError, ItemRng, IterableDataset, RecordIter, Shard, seed};

/// Samples in tar files, as the Python package `webdataset` writes and reads them: the members of a shard whose names differ
/// after the first dot alone, and that follow each other, are one sample.
///
/// Headers are read in order, by one worker at a time; the data of a sample is read by the worker that loads it. So a
/// resumed run finds its place by headers alone. Of several processes each reads its own shards, every n-th of them; if there
/// are fewer shards than processes, those of one shard take turns at its samples.
///
/// ```no_run
/// use fulgurite_data::datasets::WebDataset;
/// use fulgurite_data::{IterableDataLoader, IterableDataset};
///
/// let samples = WebDataset::open("shards/train-{000..146}.tar")?.shuffle_shards(true);
/// let loader = IterableDataLoader::new(
///     samples.shuffle(1000).try_map(|sample, _| Ok((sample.npy("image.npy")?, sample.class("cls")?))),
/// );
/// let loader = loader.batch_size(64).num_workers(4);
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
///
/// A shard that is cut off or damaged is an error of the record, which names it. Compressed tar files are refused: nothing in
/// them can be found without unpacking all before it.
#[derive(Debug, Clone)]
pub struct WebDataset {
    shards: Arc<[PathBuf]>,
    shuffle_shards: bool,
    len: Option<usize>,
    part: Option<Shard>,
}

impl WebDataset {
    /// The shards that a pattern names: `{000..015}` stands for numbers, `{a,b}` for alternatives, and `*` in the name of a
    /// file for anything.
    ///
    /// # Errors
    ///
    /// Fails if the pattern cannot be read, names no shard, or one that is not there.
    pub fn open(pattern: &str) -> Result<WebDataset, DataError> {
        Ok(WebDataset::of(shard_paths(pattern)?))
    }

    /// Shards at given paths, in this order.
    ///
    /// # Errors
    ///
    /// Fails if there is none, or if one is not there.
    pub fn from_paths<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<WebDataset, DataError> {
        let paths = paths.into_iter().map(|path| path.as_ref().to_path_buf()).collect();
        Ok(WebDataset::of(checked(paths)?))
    }

    fn of(shards: Vec<PathBuf>) -> WebDataset {
        WebDataset { shards: shards.into(), shuffle_shards: false, len: None, part: None }
    }

    /// Reads the shards in a new random order every epoch. Default `false`. Their samples stay in order; see
    /// [`shuffle`](IterableDataset::shuffle).
    pub fn shuffle_shards(mut self, shuffle: bool) -> WebDataset {
        self.shuffle_shards = shuffle;
        self
    }

    /// Says how many samples all shards have together, for progress bars and fractions of an epoch. Default: unknown.
    pub fn with_len(mut self, samples: usize) -> WebDataset {
        self.len = Some(samples);
        self
    }

    /// The shards.
    pub fn shards(&self) -> &[PathBuf] {
        &self.shards
    }

    /// The shards of an epoch that this process reads, and which of their samples.
    fn plan(&self, rng: ItemRng) -> (Vec<PathBuf>, Turns) {
        let mut shards = self.shards.to_vec();
        if self.shuffle_shards {
            seed::shuffle(&mut shards, &mut rng.clone());
        }
        let (count, rank) = self.part.map_or((1, 0), |part| (part.num_replicas, part.rank));
        let of_shards = shards.len();
        if of_shards >= count {
            let mine = shards.into_iter().skip(rank).step_by(count).collect();
            return (mine, Turns { first: 0, every: 1 });
        }
        // Of the processes with one shard, the first takes its first sample, and so on.
        let (shard, first) = (rank % of_shards, rank / of_shards);
        let every = (count - shard).div_ceil(of_shards);
        (shards.into_iter().skip(shard).take(1).collect(), Turns { first, every })
    }
}

/// Which samples of a shard are read.
#[derive(Debug, Clone, Copy)]
struct Turns {
    first: usize,
    every: usize,
}

/// Where the parts of a sample are.
#[derive(Debug)]
pub struct WebRecord {
    shard: Arc<Path>,
    key: String,
    members: Vec<(String, Member)>,
}

impl IterableDataset for WebDataset {
    type Record = WebRecord;
    type Item = WebSample;

    fn records(&self, _: u64, rng: ItemRng) -> Result<RecordIter<WebRecord>, BoxError> {
        let (shards, turns) = self.plan(rng);
        Ok(Box::new(shards.into_iter().flat_map(move |shard| {
            let samples = Samples::open(&shard);
            let (samples, failed) = match samples {
                Ok(samples) => (Some(samples), None),
                Err(error) => (None, Some(Err(error.into()))),
            };
            samples.into_iter().flatten().skip(turns.first).step_by(turns.every).chain(failed)
        })))
    }

    fn shard(&self, shard: Shard) -> Option<WebDataset> {
        match self.part {
            None => Some(WebDataset { part: Some(shard), ..self.clone() }),
            Some(_) => None,
        }
    }

    fn load(&self, record: WebRecord, _: &mut ItemRng) -> Result<WebSample, BoxError> {
        let path = &record.shard;
        let failed = |source| DataError::Io { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut parts = BTreeMap::new();
        for (extension, Member { start, len, .. }) in record.members {
            let mut bytes = vec![0; usize::try_from(len)?];
            read_at(&mut file, start, &mut bytes).map_err(failed)?;
            parts.insert(extension, bytes);
        }
        Ok(WebSample { shard: record.shard, key: record.key, parts })
    }

    fn len(&self) -> Option<usize> {
        let len = self.len?;
        Some(self.part.map_or(len, |part| part.len_of(len)))
    }

    fn name(&self) -> String {
        match &self.shards[..] {
            [only] => only.display().to_string(),
            [first, others @ ..] => format!("{} and {} other shards", first.display(), others.len()),
            [] => "no shards".to_owned(),
        }
    }
}

/// The samples of one shard.
struct Samples {
    shard: Arc<Path>,
    walk: Walk,
    /// The first member of the next sample.
    next: VecDeque<(String, String, Member)>,
    is_over: bool,
}

impl Samples {
    fn open(shard: &Path) -> Result<Samples, DataError> {
        Ok(Samples { shard: shard.into(), walk: Walk::open(shard)?, next: VecDeque::new(), is_over: false })
    }

    /// The next member that is part of a sample: its key, its extension and itself.
    fn member(&mut self) -> Result<Option<(String, String, Member)>, DataError> {
        if let Some(member) = self.next.pop_front() {
            return Ok(Some(member));
        }
        while let Some(member) = self.walk.member()? {
            if let Some((key, extension)) = key_and_extension(&member.name) {
                return Ok(Some((key, extension, member)));
            }
        }
        Ok(None)
    }

    fn sample(&mut self) -> Result<Option<WebRecord>, BoxError> {
        let Some((key, extension, member)) = self.member()? else { return Ok(None) };
        let mut members = vec![(extension, member)];
        while let Some((of, extension, member)) = self.member()? {
            if of != key {
                self.next.push_back((of, extension, member));
                break;
            }
            if members.iter().any(|(other, _)| *other == extension) {
                let shard = self.shard.display();
                return Err(format!("{shard} has two members {key}.{extension} in one sample").into());
            }
            members.push((extension, member));
        }
        Ok(Some(WebRecord { shard: self.shard.clone(), key, members }))
    }
}

impl Iterator for Samples {
    type Item = Result<WebRecord, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let sample = self.sample();
        self.is_over = !matches!(sample, Ok(Some(_)));
        sample.transpose()
    }
}

/// What is before and after the first dot of the file's name; `None` for files without one, and for those of the dataset.
fn key_and_extension(name: &str) -> Option<(String, String)> {
    let begin = name.rfind('/').map_or(0, |slash| slash + 1);
    let (base, extension) = name[begin..].split_once('.')?;
    let is_of_dataset = base.starts_with("__") && base.ends_with("__");
    let key = format!("{}{base}", &name[..begin]);
    (!base.is_empty() && !is_of_dataset).then(|| (key, extension.to_lowercase()))
}

/// A sample of a [`WebDataset`]: some files with a common key.
///
/// A part is named by what follows the first dot of its file, in lower case: `jpg` of `0001.jpg`, `seg.png` of
/// `0001.seg.png`. Where a method takes one, `jpg;png;jpeg` means the first of these that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSample {
    shard: Arc<Path>,
    key: String,
    parts: BTreeMap<String, Vec<u8>>,
}

impl WebSample {
    /// What its files have in common: their path without extensions.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The shard that it comes from.
    pub fn shard(&self) -> &Path {
        &self.shard
    }

    /// All parts, by extension.
    pub fn parts(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.parts
    }

    /// The bytes of a part, such as an encoded image.
    ///
    /// # Errors
    ///
    /// Fails if there is no such part.
    pub fn bytes(&self, part: &str) -> Result<&[u8], BoxError> {
        part.split(';').find_map(|part| self.parts.get(part)).map(Vec::as_slice).ok_or_else(|| {
            let parts: Vec<&str> = self.parts.keys().map(String::as_str).collect();
            self.error(part, &format!("it is not there; there are: {}", parts.join(", ")))
        })
    }

    /// A part that is text, such as `txt`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such part, or if it is not text in UTF-8.
    pub fn text(&self, part: &str) -> Result<&str, BoxError> {
        str::from_utf8(self.bytes(part)?).map_err(|_| self.error(part, "it is not text in UTF-8"))
    }

    /// A part that is a whole number in text, such as `cls`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such part, or if it is anything else.
    pub fn class(&self, part: &str) -> Result<i64, BoxError> {
        let text = self.text(part)?.trim();
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            self.error(part, &format!("`{shown}` is no whole number"))
        })
    }

    /// A part that is JSON, such as `json`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such part, or if it is anything else.
    pub fn json(&self, part: &str) -> Result<serde_json::Value, BoxError> {
        serde_json::from_slice(self.bytes(part)?).map_err(|error| self.error(part, &error.to_string()))
    }

    /// A part that is an array of NumPy (`np.save`), such as `npy`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such part, if it is damaged, or if its elements are of a type that tensors do not have.
    pub fn npy(&self, part: &str) -> Result<Tensor, BoxError> {
        let bytes = self.bytes(part)?;
        let header = Header::parse(bytes, bytes.len()).map_err(|message| self.error(part, &message))?;
        let kind = match header.element {
            Element::Bool => Kind::Bool,
            Element::U8 => Kind::Uint8,
            Element::I8 => Kind::Int8,
            Element::I16 => Kind::Int16,
            Element::I32 => Kind::Int,
            Element::I64 => Kind::Int64,
            Element::F16 => Kind::Half,
            Element::F32 => Kind::Float,
            Element::F64 => Kind::Double,
            unsigned @ (Element::U16 | Element::U32 | Element::U64) => {
                let message = format!("its elements are {unsigned:?}, which tensors do not have; save it as np.int64");
                return Err(self.error(part, &message));
            }
        };
        let shape: Vec<i64> = header.shape.iter().map(|&size| size as i64).collect();
        Ok(Tensor::f_from_data_size(&bytes[header.data..], &shape, kind)?)
    }

    fn error(&self, part: &str, message: &str) -> BoxError {
        format!("{part} of {} in {}: {message}", self.key, self.shard.display()).into()
    }
}
