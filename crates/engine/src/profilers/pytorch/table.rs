//! Key averages as PyTorch prints them.

use std::fmt::Write;

use fulgurite_torch::profiler::KeyAverage;

use super::options::{PyTorchProfilerOptions, SortKey};

impl SortKey {
    fn of(self, row: &KeyAverage) -> i64 {
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let calls = row.calls.max(1);
        match self {
            SortKey::CpuTime => signed(row.cpu_time_total / calls),
            SortKey::CudaTime => signed(row.device_time_total / calls),
            SortKey::CpuTimeTotal => signed(row.cpu_time_total),
            SortKey::CudaTimeTotal => signed(row.device_time_total),
            SortKey::SelfCpuTimeTotal => signed(row.self_cpu_time_total),
            SortKey::SelfCudaTimeTotal => signed(row.self_device_time_total),
            SortKey::CpuMemoryUsage => row.cpu_memory_usage,
            SortKey::CudaMemoryUsage => row.device_memory_usage,
            SortKey::SelfCpuMemoryUsage => row.self_cpu_memory_usage,
            SortKey::SelfCudaMemoryUsage => row.self_device_memory_usage,
            SortKey::Count => signed(row.calls),
        }
    }
}

/// A column: its header, and its cells.
type Column<'a> = (String, Box<dyn Fn(&KeyAverage) -> String + 'a>);

/// Above PyTorch's 55, which would cut the names of most actions.
const MAX_NAME: usize = 80;
const MAX_SHAPES: usize = 80;

/// The table of `rows`.
pub(super) fn key_averages_table(
    mut rows: Vec<KeyAverage>,
    options: &PyTorchProfilerOptions,
    sort_by: SortKey,
) -> String {
    rows.sort_by_key(|row| std::cmp::Reverse(sort_by.of(row)));
    let self_cpu: u64 = rows.iter().map(|row| row.self_cpu_time_total).sum();
    // What started a kernel and the kernel both have its time.
    let on_device = rows.iter().filter(|row| !row.on_cpu && !row.is_range);
    let self_device: u64 = on_device.map(|row| row.self_device_time_total).sum();
    let has_device_time = rows.iter().any(|row| row.self_device_time_total > 0);
    let columns = columns(&rows, options, self_cpu, has_device_time.then_some(self_device));

    let limit = options.row_limit.finite().and_then(|rows| usize::try_from(rows).ok());
    let shown = limit.unwrap_or(usize::MAX);
    let cells: Vec<Vec<String>> =
        rows.iter().take(shown).map(|row| columns.iter().map(|(_, cell)| cell(row)).collect()).collect();
    let width = |column: usize| {
        let longest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        longest.max(columns[column].0.chars().count()).max(12)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("  ");
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        padded.collect::<Vec<_>>().join("  ")
    };
    let _ = writeln!(out, "{rule}\n{}\n{rule}", line(columns.iter().map(|(header, _)| header.as_str()).collect()));
    for row in &cells {
        let _ = writeln!(out, "{}", line(row.iter().map(String::as_str).collect()));
    }
    let _ = writeln!(out, "{rule}");
    if shown < rows.len() {
        let _ = writeln!(
            out,
            "{} of {} rows; row_limit=-1 (in Rust `Maximum::Unlimited`) shows all",
            cells.len(),
            rows.len()
        );
    }
    let _ = writeln!(out, "Self CPU time total: {}", time(self_cpu));
    if has_device_time {
        let _ = writeln!(out, "Self CUDA time total: {}", time(self_device));
    }
    out
}

fn columns<'a>(
    rows: &[KeyAverage],
    options: &PyTorchProfilerOptions,
    self_cpu: u64,
    self_device: Option<u64>,
) -> Vec<Column<'a>> {
    let mut columns: Vec<Column<'a>> = Vec::new();
    let mut add = |header: &str, cell: Box<dyn Fn(&KeyAverage) -> String + 'a>| columns.push((header.to_owned(), cell));
    add("Name", Box::new(|row| cut(&row.name, MAX_NAME)));
    add("Self CPU %", Box::new(move |row| share(row.self_cpu_time_total, self_cpu)));
    add("Self CPU", Box::new(|row| time(row.self_cpu_time_total)));
    add("CPU total %", Box::new(move |row| share(row.cpu_time_total, self_cpu)));
    add("CPU total", Box::new(|row| time(row.cpu_time_total)));
    add("CPU time avg", Box::new(|row| time(row.cpu_time_total / row.calls.max(1))));
    if let Some(self_device) = self_device {
        add("Self CUDA", Box::new(|row| time(row.self_device_time_total)));
        add("Self CUDA %", Box::new(move |row| share(row.self_device_time_total, self_device)));
        add("CUDA total", Box::new(|row| time(row.device_time_total)));
        add("CUDA time avg", Box::new(|row| time(row.device_time_total / row.calls.max(1))));
    }
    if options.profile_memory {
        add("CPU Mem", Box::new(|row| memory(row.cpu_memory_usage)));
        add("Self CPU Mem", Box::new(|row| memory(row.self_cpu_memory_usage)));
        if rows.iter().any(|row| row.self_device_memory_usage > 0) {
            add("CUDA Mem", Box::new(|row| memory(row.device_memory_usage)));
            add("Self CUDA Mem", Box::new(|row| memory(row.self_device_memory_usage)));
        }
    }
    add("# of Calls", Box::new(|row| row.calls.to_string()));
    if options.group_by_input_shapes {
        add("Input Shapes", Box::new(|row| cut(&row.shapes, MAX_SHAPES)));
    }
    if let Some(least) = rows.iter().map(|row| row.flops).filter(|flops| *flops > 0).min() {
        let (unit, scale) = flops_unit(least);
        let cell = move |row: &KeyAverage| match row.flops {
            0 => "--".to_owned(),
            flops => format!("{:.3}", flops as f64 / scale),
        };
        add(&format!("Total {unit}"), Box::new(cell));
    }
    columns
}

fn cut(text: &str, max: usize) -> String {
    if text.chars().count() < max - 3 {
        return text.to_owned();
    }
    text.chars().take(max - 3).chain("...".chars()).collect()
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "0.00%".to_owned() } else { format!("{:.2}%", 100.0 * part as f64 / whole as f64) }
}

/// Nanoseconds in the unit that suits them.
fn time(nanoseconds: u64) -> String {
    let microseconds = nanoseconds as f64 / 1e3;
    match nanoseconds {
        1_000_000_000.. => format!("{:.3}s", microseconds / 1e6),
        1_000_000.. => format!("{:.3}ms", microseconds / 1e3),
        _ => format!("{microseconds:.3}us"),
    }
}

fn memory(bytes: i64) -> String {
    let size = bytes as f64;
    match bytes.unsigned_abs() {
        0x4000_0000.. => format!("{:.2} GB", size / 1_073_741_824.0),
        0x10_0000.. => format!("{:.2} MB", size / 1_048_576.0),
        0x400.. => format!("{:.2} KB", size / 1024.0),
        _ => format!("{bytes} B"),
    }
}

/// The unit in which the least number of operations is still above one.
fn flops_unit(least: u64) -> (&'static str, f64) {
    let units = ["FLOPs", "KFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs"];
    let place = (least.ilog10() / 3).min(5);
    (units[place as usize], 1000f64.powi(place as i32))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::config::Maximum;

    fn rows() -> Vec<KeyAverage> {
        let row = |name: &str, calls, total, own| KeyAverage {
            name: name.into(),
            on_cpu: true,
            calls,
            cpu_time_total: total,
            self_cpu_time_total: own,
            ..KeyAverage::default()
        };
        let linear = KeyAverage {
            cpu_memory_usage: 4096,
            shapes: "[[4, 2], [2]]".into(),
            ..row("aten::linear", 3, 900_000, 40_000)
        };
        let addmm = KeyAverage {
            flops: 1_234_000,
            self_cpu_memory_usage: -2_000_000,
            ..row("aten::addmm", 3, 860_000, 860_000)
        };
        vec![row("aten::add", 20, 12_345, 12_345), linear, addmm]
    }

    #[test]
    fn the_plain_table() {
        let options = PyTorchProfilerOptions { row_limit: Maximum::Of(2), ..Default::default() };
        expect![[r#"
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------
                    Name    Self CPU %      Self CPU   CPU total %     CPU total  CPU time avg    # of Calls  Total MFLOPs
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------
            aten::linear         4.38%      40.000us        98.65%     900.000us     300.000us             3            --
             aten::addmm        94.26%     860.000us        94.26%     860.000us     286.666us             3         1.234
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------
            2 of 3 rows; row_limit=-1 (in Rust `Maximum::Unlimited`) shows all
            Self CPU time total: 912.345us
        "#]].assert_eq(&key_averages_table(rows(), &options, SortKey::CpuTimeTotal));
    }

    #[test]
    fn the_table_with_memory_shapes_and_calls_first() {
        let options = PyTorchProfilerOptions {
            row_limit: Maximum::Unlimited,
            profile_memory: true,
            record_shapes: true,
            group_by_input_shapes: true,
            ..Default::default()
        };
        expect![[r#"
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  -------------  ------------
                    Name    Self CPU %      Self CPU   CPU total %     CPU total  CPU time avg       CPU Mem  Self CPU Mem    # of Calls   Input Shapes  Total MFLOPs
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  -------------  ------------
               aten::add         1.35%      12.345us         1.35%      12.345us       0.617us           0 B           0 B            20                           --
            aten::linear         4.38%      40.000us        98.65%     900.000us     300.000us       4.00 KB           0 B             3  [[4, 2], [2]]            --
             aten::addmm        94.26%     860.000us        94.26%     860.000us     286.666us           0 B      -1.91 MB             3                        1.234
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  -------------  ------------
            Self CPU time total: 912.345us
        "#]].assert_eq(&key_averages_table(rows(), &options, SortKey::Count));
    }

    #[test]
    fn the_table_of_a_cuda_run() {
        let kernel = KeyAverage {
            name: "gemm".into(),
            calls: 3,
            device_time_total: 2_500_000_000,
            self_device_time_total: 2_500_000_000,
            ..KeyAverage::default()
        };
        let starter = KeyAverage { device_time_total: 2_500_000_000, ..rows().remove(2) };
        let options = PyTorchProfilerOptions::default();
        expect![[r#"
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  -------------  ------------  ------------
                    Name    Self CPU %      Self CPU   CPU total %     CPU total  CPU time avg     Self CUDA   Self CUDA %    CUDA total  CUDA time avg    # of Calls  Total MFLOPs
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  -------------  ------------  ------------
             aten::addmm       100.00%     860.000us       100.00%     860.000us     286.666us       0.000us         0.00%        2.500s      833.333ms             3         1.234
                    gemm         0.00%       0.000us         0.00%       0.000us       0.000us        2.500s       100.00%        2.500s      833.333ms             3            --
            ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  ------------  -------------  ------------  ------------
            Self CPU time total: 860.000us
            Self CUDA time total: 2.500s
        "#]].assert_eq(&key_averages_table(vec![starter, kernel], &options, SortKey::CudaTimeTotal));
    }
}
