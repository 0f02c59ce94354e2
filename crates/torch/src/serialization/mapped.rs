//! Files as memory: tensors whose storage is a part of a file that is mapped.

use std::ffi::{c_char, c_void};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use torch_sys::C_tensor;

use super::failures::read_failed;
use crate::error::{TorchError, check};
use crate::tch::{Device, Kind, Tensor};

unsafe extern "C" {
    fn fulgurite_bytes_of(
        memory: *mut c_void,
        size: i64,
        owner: *mut c_void,
        release: unsafe extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A file in memory, each process its own: what is changed is not written back.
pub(super) struct MappedFile(Option<Arc<MmapRaw>>);

impl MappedFile {
    pub(super) fn open(file: &File) -> Result<MappedFile, TorchError> {
        // Nothing cannot be mapped.
        if file.metadata().map_err(read_failed)?.len() == 0 {
            return Ok(MappedFile(None));
        }
        // SAFETY: changes of this mapping stay in this process. Another process that changes the file while it is mapped
        // can change what is read, as with any mapping; tensors may hold any bytes, everything else is read before this
        // returns to the caller, and parsed from copies. The documentation of `load_mmap` says so.
        let mapping = unsafe { MmapOptions::new().map_copy(file) }.map_err(read_failed)?;
        Ok(MappedFile(Some(Arc::new(mapping.into()))))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: that many bytes are mapped as long as `self` lives, and nothing writes to them while it does: tensors over
        // them are given out only after the file was read.
        self.0.as_ref().map_or(&[], |mapping| unsafe { std::slice::from_raw_parts(mapping.as_ptr(), mapping.len()) })
    }

    /// A part of the file, which it has, as a tensor of bytes that keeps the mapping. Parts do not overlap.
    pub(super) fn tensor(&self, range: Range<u64>) -> Result<Tensor, TorchError> {
        let (start, size) = (range.start as usize, (range.end - range.start) as usize);
        let Some(mapping) = self.0.as_ref().filter(|mapping| size > 0 && start + size <= mapping.len()) else {
            return Ok(Tensor::f_empty([0], (Kind::Uint8, Device::Cpu))?);
        };
        let owner = Box::into_raw(Box::new(Arc::clone(mapping)));
        let mut out = std::ptr::null_mut();
        // SAFETY: the mapping is writable and lives until `release` is given its owner, which happens once, after the last
        // tensor over it. `out` is written only when there is no error.
        let error = unsafe {
            let memory = mapping.as_mut_ptr().add(start).cast();
            fulgurite_bytes_of(memory, size as i64, owner.cast(), release, &mut out)
        };
        check(error)?;
        // SAFETY: `out` is a tensor that the bridge created with C++'s `new`, and `tch` deletes it.
        Ok(unsafe { Tensor::from_ptr(out) })
    }
}

unsafe extern "C" fn release(owner: *mut c_void) {
    // SAFETY: `owner` is what `tensor` made with `Box::into_raw`, and comes back once.
    drop(unsafe { Box::from_raw(owner.cast::<Arc<MmapRaw>>()) });
}
