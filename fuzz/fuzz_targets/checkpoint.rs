//! Any bytes as a checkpoint file: an error or a value, and never anything else. What verification finds sound loads; what
//! loads can be written again and loads then too.

#![no_main]

use std::io::Cursor;

use fulgurite_torch::serialization;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let verified = serialization::verify_from(Cursor::new(file));
    match serialization::load_from(Cursor::new(file)) {
        Ok(value) => {
            let mut again = Vec::new();
            serialization::write_to(&mut again, &value).expect("what was read can be written");
            serialization::verify_from(Cursor::new(&again)).expect("what was written is sound");
            serialization::load_from(Cursor::new(&again)).expect("what was written can be read");
        }
        Err(error) => assert!(verified.is_err(), "sound, and yet: {error}"),
    }
});
