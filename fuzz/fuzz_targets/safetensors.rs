//! Any bytes as a safetensors file: an error, or tensors that can be written again and are the same then.

#![no_main]

use fulgurite_torch::serialization::safetensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("fulgurite-fuzz-{}.safetensors", std::process::id()));
    std::fs::write(&path, file).expect("the temporary folder can be written to");
    let mapped = safetensors::load_mmap(&path).map(drop).map_err(|error| error.to_string());
    let loaded = safetensors::load(&path);
    assert_eq!(loaded.as_ref().map(drop).map_err(ToString::to_string), mapped);
    if let Ok((tensors, metadata)) = loaded
        && safetensors::save(&path, &tensors, &metadata).is_ok()
    {
        let (again, _) = safetensors::load(&path).expect("what was written can be read");
        assert_eq!(again.len(), tensors.len());
    }
});
