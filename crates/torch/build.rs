//! Compiles every `csrc/*.cpp` against the libtorch that `torch-sys` found; `csrc/nccl.cpp` with the feature `cuda` only.
//!
//! All are one translation unit: libtorch's headers take longer to compile than what is in the files, and so are compiled once.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    if env::var_os("CARGO_FEATURE_DOC_ONLY").is_some() {
        return Ok(());
    }

    let lib = env::var("DEP_TCH_LIBTORCH_LIB").map_err(|_| "torch-sys did not say where libtorch is")?;
    let root = match env::var("LIBTORCH_INCLUDE") {
        Ok(root) => PathBuf::from(root),
        Err(_) => Path::new(&lib).parent().ok_or("libtorch's lib folder lies in no folder")?.to_owned(),
    };
    let include = root.join("include");
    let cxx11_abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());

    let files = fs::read_dir("csrc")?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    let mut sources: Vec<_> = files.into_iter().filter_map(|name| name.into_string().ok()).collect();
    sources.retain(|name| name.ends_with(".cpp"));
    sources.sort();

    let mut build = cc::Build::new();
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        build.define("FULGURITE_CUDA", None).define("USE_C10D_NCCL", None).includes(cuda_headers(&root)?);
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    } else {
        sources.retain(|name| name != "nccl.cpp");
    }
    let includes: String = sources.iter().map(|name| format!("#include \"{name}\"\n")).collect();
    let unit = Path::new(&env::var("OUT_DIR")?).join("bridge.cpp");
    fs::write(&unit, includes)?;
    build
        .cpp(true)
        .std("c++17")
        .warnings(false)
        // As libtorch itself was compiled: its headers lay out some classes differently in a debug build.
        .define("NDEBUG", None)
        .define("_GLIBCXX_USE_CXX11_ABI", cxx11_abi.as_str())
        // libtorch contains Gloo; its headers of c10d declare Gloo's process group only when this is said.
        .define("USE_C10D_GLOO", None)
        // The files themselves, and `gloo/`: the declarations of Gloo that libtorch does not bring.
        .include("csrc")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file(&unit)
        .try_compile("fulgurite_bridge")?;
    Ok(())
}

/// The folders with the headers of CUDA and NCCL: those of `CUDA_HOME`, and of the Python packages beside libtorch's.
fn cuda_headers(libtorch: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let mut folders: Vec<PathBuf> =
        env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("include")).into_iter().collect();
    let packages = libtorch.parent().map(|site| site.join("nvidia"));
    if let Some(Ok(packages)) = packages.map(fs::read_dir) {
        for package in packages {
            folders.push(package?.path().join("include"));
        }
    }
    folders.push("/usr/include".into());
    for (header, package) in [
        ("cuda_runtime_api.h", "nvidia-cuda-runtime"),
        ("crt/host_defines.h", "nvidia-cuda-crt"),
        ("nv/target", "nvidia-cuda-cccl"),
        ("nccl.h", "nvidia-nccl-cu13"),
    ] {
        if !folders.iter().any(|folder| folder.join(header).is_file()) {
            return Err(format!(
                "the feature `cuda` needs {header}, which is not in {folders:?}; install the Python package {package} \
                 beside libtorch's, or let CUDA_HOME say where CUDA and NCCL are"
            )
            .into());
        }
    }
    // The compiler looks there anyway, and later than in its own folders.
    folders.pop();
    folders.insert(0, "csrc/cuda".into());
    Ok(folders)
}
