//! Writes the entries of a checkpoint, while their checksums are computed on another thread.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;

use super::archive_writer::ArchiveWriter;
use super::pickler::Pickled;
use super::zip_layout::ALIGNMENT;
use crate::tch::Tensor;

/// Bytes from which on a second thread pays off.
const WORTH_A_THREAD: u64 = 8 << 20;

/// Bytes of all tensors, which are nearly all of a large file.
pub(super) fn size_of_storages(pickled: &Pickled) -> u64 {
    pickled.storages.iter().map(|storage| bytes(storage).len() as u64).sum()
}

pub(super) fn write_archive(out: impl Write, pickled: &Pickled) -> io::Result<()> {
    let storages: Vec<&[u8]> = pickled.storages.iter().map(bytes).collect();
    let mut archive = ArchiveWriter::new(out, "archive");
    archive.entry("data.pkl", &pickled.bytes)?;
    archive.entry(".format_version", b"1")?;
    archive.entry(".storage_alignment", ALIGNMENT.to_string().as_bytes())?;
    archive.entry("byteorder", b"little")?;
    let contents = write_storages(&mut archive, &storages)?;
    archive.entry("version", b"3\n")?;
    // PyTorch writes two hashes of 20 digits: of the names and of the contents.
    let fingerprint = contents ^ u64::from(crc32fast::hash(&pickled.bytes));
    archive.entry(".data/serialization_id", format!("{:020}{fingerprint:020}", storages.len()).as_bytes())?;
    archive.manifest()?;
    archive.finish()?.flush()
}

/// Writes the storages as they come off the thread that sums them up; a number that depends on all their sums.
fn write_storages(archive: &mut ArchiveWriter<impl Write>, storages: &[&[u8]]) -> io::Result<u64> {
    thread::scope(|scope| {
        let (sender, sums) = mpsc::channel();
        let sum_up = move || {
            // A receiver that is gone has failed to write.
            storages.iter().try_for_each(|storage| sender.send(crc32fast::hash(storage)))
        };
        if storages.iter().map(|storage| storage.len() as u64).sum::<u64>() >= WORTH_A_THREAD {
            // Without a thread the sender is gone, and sums are computed here.
            let _ = thread::Builder::new().name("checkpoint-sums".into()).spawn_scoped(scope, sum_up);
        } else {
            drop(sum_up);
        }
        let mut contents = 0u64;
        for (key, storage) in storages.iter().enumerate() {
            let sum = sums.recv().unwrap_or_else(|_| crc32fast::hash(storage));
            archive.summed_entry(&format!("data/{key}"), storage, sum)?;
            contents = contents.rotate_left(7) ^ u64::from(sum);
        }
        Ok(contents)
    })
}

/// The memory of a contiguous tensor on the CPU.
pub(super) fn bytes(tensor: &Tensor) -> &[u8] {
    let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if length == 0 {
        return &[];
    }
    // SAFETY: the tensor is contiguous and on the CPU, so that many bytes begin at its data, and they
    // live as long as the tensor that is borrowed.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }
}
