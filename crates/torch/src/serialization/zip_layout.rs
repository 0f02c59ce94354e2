//! The bytes of a zip container that are not data: [`super::archive_writer`] writes them, and the reader compares them
//! in a file that has a [`super::manifest`].

/// Where the data of an entry begins, so that a file can be mapped into memory and used in place.
pub(super) const ALIGNMENT: u64 = 64;

pub(super) const LOCAL_HEADER: u32 = 0x0403_4b50;
pub(super) const CENTRAL_HEADER: u32 = 0x0201_4b50;
pub(super) const END: u32 = 0x0605_4b50;
pub(super) const END_ZIP64: u32 = 0x0606_4b50;
pub(super) const END_ZIP64_LOCATOR: u32 = 0x0706_4b50;
/// The field that has what does not fit into 32 bits.
pub(super) const EXTRA_ZIP64: u16 = 1;
/// Version 4.5 of the format has 64-bit sizes.
const VERSION_ZIP64: u16 = 45;
const VERSION: u16 = 20;
const FLAG_UTF8: u16 = 1 << 11;
/// PyTorch's own mark for padding.
const EXTRA_PADDING: [u8; 2] = *b"FB";

/// One entry, stored as it is.
#[derive(Debug)]
pub(super) struct Entry {
    /// With the folder.
    pub(super) name: String,
    pub(super) header_at: u64,
    pub(super) size: u64,
    pub(super) crc: u32,
}

impl Entry {
    /// What comes before the data, up to the boundary where the data begins.
    pub(super) fn local_header(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.is_large() {
            extra.extend(EXTRA_ZIP64.to_le_bytes());
            extra.extend(16u16.to_le_bytes());
            extra.extend(self.size.to_le_bytes());
            extra.extend(self.size.to_le_bytes());
        }
        let fixed = self.header_at + 30 + self.name.len() as u64 + extra.len() as u64 + 4;
        let padding = fixed.next_multiple_of(ALIGNMENT) - fixed;
        extra.extend(EXTRA_PADDING);
        extra.extend((padding as u16).to_le_bytes());
        extra.resize(extra.len() + padding as usize, b'Z');

        let mut header = Vec::with_capacity(30 + self.name.len() + extra.len());
        header.extend(LOCAL_HEADER.to_le_bytes());
        self.describe(&mut header, &extra);
        header.extend(self.name.as_bytes());
        header.extend(&extra);
        header
    }

    fn is_large(&self) -> bool {
        self.size >= u64::from(u32::MAX)
    }

    /// The fields that both headers of an entry share.
    fn describe(&self, header: &mut Vec<u8>, extra: &[u8]) {
        header.extend((if self.is_large() { VERSION_ZIP64 } else { VERSION }).to_le_bytes());
        header.extend(FLAG_UTF8.to_le_bytes());
        // Stored; no time and no date, so that the same state gives the same file.
        header.extend([0; 6]);
        header.extend(self.crc.to_le_bytes());
        header.extend(saturated_u32(self.size).to_le_bytes());
        header.extend(saturated_u32(self.size).to_le_bytes());
        header.extend((self.name.len() as u16).to_le_bytes());
        header.extend((extra.len() as u16).to_le_bytes());
    }

    /// The entry's line of the central directory.
    fn list(&self, directory: &mut Vec<u8>) {
        let mut large = Vec::new();
        if self.is_large() {
            large.extend(self.size.to_le_bytes());
            large.extend(self.size.to_le_bytes());
        }
        if self.header_at >= u64::from(u32::MAX) {
            large.extend(self.header_at.to_le_bytes());
        }
        let mut extra = Vec::new();
        if !large.is_empty() {
            extra.extend(EXTRA_ZIP64.to_le_bytes());
            extra.extend((large.len() as u16).to_le_bytes());
            extra.extend(large);
        }
        directory.extend(CENTRAL_HEADER.to_le_bytes());
        directory.extend(VERSION_ZIP64.to_le_bytes());
        self.describe(directory, &extra);
        // No comment, first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(saturated_u32(self.header_at).to_le_bytes());
        directory.extend(self.name.as_bytes());
        directory.extend(extra);
    }
}

/// Everything after the data of the last entry, which ends at `at`.
pub(super) fn directory(entries: &[Entry], at: u64) -> Vec<u8> {
    let mut directory = Vec::new();
    for entry in entries {
        entry.list(&mut directory);
    }
    let (count, size) = (entries.len() as u64, directory.len() as u64);
    if at >= u64::from(u32::MAX) || count >= u64::from(u16::MAX) {
        directory.extend(END_ZIP64.to_le_bytes());
        directory.extend(44u64.to_le_bytes());
        directory.extend(VERSION_ZIP64.to_le_bytes());
        directory.extend(VERSION_ZIP64.to_le_bytes());
        directory.extend([0; 8]);
        for number in [count, count, size, at] {
            directory.extend(number.to_le_bytes());
        }
        directory.extend(END_ZIP64_LOCATOR.to_le_bytes());
        directory.extend(0u32.to_le_bytes());
        directory.extend((at + size).to_le_bytes());
        directory.extend(1u32.to_le_bytes());
    }
    directory.extend(END.to_le_bytes());
    directory.extend([0; 4]);
    directory.extend(saturated_u16(count).to_le_bytes());
    directory.extend(saturated_u16(count).to_le_bytes());
    directory.extend(saturated_u32(size).to_le_bytes());
    directory.extend(saturated_u32(at).to_le_bytes());
    directory.extend([0; 2]);
    directory
}

fn saturated_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn saturated_u16(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
