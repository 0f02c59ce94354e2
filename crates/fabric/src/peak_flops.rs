//! The peak performance of a device: the denominator of MFU.

use fulgurite_torch::device;
use fulgurite_torch::tch::{Device, Kind};

/// Peaks of one kind of GPU, in 10¹² operations per second; 0 if it is not supported, or if there is no figure.
struct Gpu {
    /// Words that its name contains, in lower case. A longer list of words is more specific.
    words: &'static [&'static str],
    double: f64,
    single: f64,
    tf32: f64,
    half: f64,
    bfloat16: f64,
    int8: f64,
}

const fn gpu(words: &'static [&'static str], [double, single, tf32, half, bfloat16, int8]: [f64; 6]) -> Gpu {
    Gpu { words, double, single, tf32, half, bfloat16, int8 }
}

/// The vendors' figures for one card, for dense matrices, summed in 32 bits where the card distinguishes.
const GPUS: &[Gpu] = &[
    // Blackwell
    gpu(&["b200"], [37.0, 75.0, 1100.0, 2250.0, 2250.0, 4500.0]),
    gpu(&["rtx", "5090"], [0.0, 104.8, 104.8, 209.5, 209.5, 838.0]),
    // Hopper
    gpu(&["h200"], [33.5, 66.9, 494.7, 989.4, 989.4, 1978.9]),
    gpu(&["h200", "nvl"], [30.0, 60.0, 417.5, 835.5, 835.5, 1670.5]),
    gpu(&["h100"], [33.5, 66.9, 494.7, 989.4, 989.4, 1978.9]),
    gpu(&["h100", "pcie"], [25.6, 51.2, 378.0, 756.0, 756.0, 1513.0]),
    gpu(&["h100", "nvl"], [30.0, 60.0, 417.5, 835.5, 835.5, 1670.5]),
    // Ada
    gpu(&["l4"], [0.0, 30.3, 60.0, 121.0, 121.0, 242.0]),
    gpu(&["l40"], [0.0, 90.5, 90.5, 181.0, 181.0, 362.0]),
    gpu(&["l40s"], [0.0, 91.6, 183.0, 362.0, 362.0, 733.0]),
    gpu(&["rtx", "4090"], [0.0, 82.6, 82.6, 165.2, 165.2, 660.6]),
    gpu(&["rtx", "4080"], [0.0, 48.7, 48.7, 97.5, 97.5, 389.9]),
    gpu(&["rtx", "4080", "super"], [0.0, 52.2, 52.2, 104.4, 104.4, 417.6]),
    // Ampere
    gpu(&["a100"], [9.7, 19.5, 156.0, 312.0, 312.0, 624.0]),
    gpu(&["a30"], [5.2, 10.3, 82.0, 165.0, 165.0, 330.0]),
    gpu(&["a40"], [0.0, 37.4, 74.8, 149.7, 149.7, 299.3]),
    gpu(&["a10"], [0.0, 31.2, 62.5, 125.0, 125.0, 250.0]),
    gpu(&["a10g"], [0.0, 31.2, 35.0, 70.0, 70.0, 140.0]),
    gpu(&["a6000"], [0.0, 38.7, 77.4, 154.8, 154.8, 309.7]),
    gpu(&["rtx", "3090"], [0.0, 35.6, 35.6, 71.0, 71.0, 284.0]),
    gpu(&["rtx", "3090", "ti"], [0.0, 40.0, 40.0, 80.0, 80.0, 320.0]),
    gpu(&["rtx", "3080"], [0.0, 29.8, 29.8, 59.5, 59.5, 238.0]),
    gpu(&["rtx", "3080", "ti"], [0.0, 34.1, 34.1, 68.2, 68.2, 272.8]),
    gpu(&["rtx", "3070"], [0.0, 20.3, 20.3, 40.6, 40.6, 162.6]),
    // Turing
    gpu(&["t4"], [0.0, 8.1, 0.0, 65.0, 0.0, 130.0]),
    gpu(&["quadro", "rtx", "5000"], [0.0, 11.2, 0.0, 89.2, 0.0, 178.4]),
    gpu(&["titan", "rtx"], [0.0, 16.3, 0.0, 130.5, 0.0, 261.0]),
    gpu(&["rtx", "2080"], [0.0, 10.6, 0.0, 42.4, 0.0, 169.6]),
    gpu(&["rtx", "2080", "super"], [0.0, 11.2, 0.0, 44.6, 0.0, 178.4]),
    gpu(&["rtx", "2080", "ti"], [0.0, 14.2, 0.0, 56.9, 0.0, 227.7]),
    gpu(&["rtx", "2070", "super"], [0.0, 9.1, 0.0, 36.3, 0.0, 145.0]),
    // Volta
    gpu(&["v100", "sxm2"], [7.8, 15.7, 0.0, 125.0, 0.0, 0.0]),
    gpu(&["v100", "sxm3"], [7.8, 15.7, 0.0, 125.0, 0.0, 0.0]),
    gpu(&["v100", "pcie"], [7.0, 14.0, 0.0, 112.0, 0.0, 0.0]),
    gpu(&["v100s", "pcie"], [8.2, 16.4, 0.0, 130.0, 0.0, 0.0]),
];

/// The peak floating-point operations per second of `device` with numbers of `kind`; `None` when there is
/// no figure: for processors, GPUs that are not in the table, and kinds that they do not compute with.
///
/// The figures are the vendors', for one card and dense matrices. Lightning's table counts sparse matrices for the
/// H200, two cards for the H100 NVL, and no tensor cores for GeForce cards, so MFU is different there. For
/// [`Kind::Float`] the figure of TensorFloat-32 is used where libtorch may compute in it.
pub fn peak_flops(device: Device, kind: Kind) -> Option<f64> {
    let Device::Cuda(index) = device else { return None };
    peak_of(&device::cuda_device_name(index)?, kind, device::allows_tf32().unwrap_or(false))
}

/// The kind that matrices are multiplied in under a precision, such as `bf16-mixed`.
pub fn compute_kind(precision: &str) -> Kind {
    match precision {
        name if name.starts_with("bf16") => Kind::BFloat16,
        name if name.starts_with("16") => Kind::Half,
        name if name.starts_with("64") => Kind::Double,
        _ => Kind::Float,
    }
}

fn peak_of(name: &str, kind: Kind, tf32: bool) -> Option<f64> {
    let name = name.to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
    if words.contains(&"laptop") {
        return None;
    }
    let gpu = GPUS
        .iter()
        .filter(|gpu| gpu.words.iter().all(|word| words.contains(word)))
        .max_by_key(|gpu| gpu.words.len())?;
    let peak = match kind {
        Kind::Double => gpu.double,
        Kind::Float if tf32 && gpu.tf32 > 0.0 => gpu.tf32,
        Kind::Float => gpu.single,
        Kind::Half => gpu.half,
        Kind::BFloat16 => gpu.bfloat16,
        Kind::Int8 | Kind::Uint8 => gpu.int8,
        _ => 0.0,
    };
    (peak > 0.0).then_some(peak * 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_drivers_write_them_are_recognized() {
        let cases = [
            ("NVIDIA H100 80GB HBM3", Kind::BFloat16, 989.4),
            ("NVIDIA H100 PCIe", Kind::BFloat16, 756.0),
            ("NVIDIA H100 NVL", Kind::Half, 835.5),
            ("NVIDIA H200", Kind::BFloat16, 989.4),
            ("NVIDIA A100-SXM4-80GB", Kind::Double, 9.7),
            ("NVIDIA A10G", Kind::Half, 70.0),
            ("NVIDIA L40S", Kind::Float, 91.6),
            ("NVIDIA L4", Kind::Float, 30.3),
            ("Tesla T4", Kind::Half, 65.0),
            ("Tesla V100-SXM2-16GB", Kind::Float, 15.7),
            ("NVIDIA RTX A6000", Kind::Float, 38.7),
            ("NVIDIA GeForce RTX 3090", Kind::Half, 71.0),
            ("NVIDIA GeForce RTX 3090 Ti", Kind::Half, 80.0),
            ("NVIDIA GeForce RTX 4080 SUPER", Kind::BFloat16, 104.4),
        ];
        for (name, kind, tera) in cases {
            assert_eq!(peak_of(name, kind, false), Some(tera * 1e12), "{name} {kind:?}");
        }
        assert_eq!(peak_of("NVIDIA A100-SXM4-80GB", Kind::Float, true), Some(156e12));
        assert_eq!(peak_of("Tesla T4", Kind::Float, true), Some(8.1e12));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(peak_of("Tesla T4", Kind::BFloat16, false), None);
        assert_eq!(peak_of("NVIDIA A400", Kind::Float, false), None);
        assert_eq!(peak_of("NVIDIA GeForce RTX 4090 Laptop GPU", Kind::Float, false), None);
        assert_eq!(peak_of("AMD Instinct MI300X", Kind::Float, false), None);
        assert_eq!(peak_flops(Device::Cpu, Kind::Float), None);
        assert_eq!(
            ["bf16-mixed", "16-true", "64-true", "32-true"].map(compute_kind),
            [Kind::BFloat16, Kind::Half, Kind::Double, Kind::Float]
        );
    }
}
