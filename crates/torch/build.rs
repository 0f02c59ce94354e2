//! Compiles every `csrc/*.cpp` against the libtorch that `torch-sys` found.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");

    let lib = env::var("DEP_TCH_LIBTORCH_LIB").map_err(|_| "torch-sys did not say where libtorch is")?;
    let root = match env::var("LIBTORCH_INCLUDE") {
        Ok(root) => PathBuf::from(root),
        Err(_) => Path::new(&lib).parent().ok_or("libtorch's lib folder lies in no folder")?.to_owned(),
    };
    let include = root.join("include");
    let cxx11_abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());

    let files = fs::read_dir("csrc")?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut sources: Vec<_> = files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "cpp")).collect();
    sources.sort();

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        // As libtorch itself was compiled: its headers lay out some classes differently in a debug build.
        .define("NDEBUG", None)
        .define("_GLIBCXX_USE_CXX11_ABI", cxx11_abi.as_str())
        // libtorch contains Gloo; its headers of c10d declare Gloo's process group only when this is said.
        .define("USE_C10D_GLOO", None)
        // For `gloo/`, the declarations of Gloo that libtorch does not bring.
        .include("csrc")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(&sources)
        .try_compile("fulgurite_bridge")?;
    Ok(())
}
