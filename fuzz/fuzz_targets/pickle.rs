//! Any bytes as the pickle of a checkpoint, with whatever storages it asks for.

#![no_main]

use fulgurite_torch::serialization::run_pickle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pickle: &[u8]| {
    let _ = run_pickle(pickle);
});
