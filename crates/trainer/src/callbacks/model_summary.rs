//! [`ModelSummary`]: what the model consists of, and what the run stands on.

use fulgurite_torch::params;
use fulgurite_torch::runtime::RuntimeReport;
use fulgurite_torch::tch::{Device, nn};

use super::{Callback, Role};
use crate::error::Result;
use crate::module::ModuleView;
use crate::state::TrainerState;

/// Shapes that take more columns than this are counted instead.
const WIDEST_SHAPES: usize = 40;

/// Prints the model's parameters when fit begins, module by module, and before them what the run stands on.
///
/// ```text
/// cpu, precision 32-true, strategy single_device, 2 thread(s) on 2 processor(s)
///
///   | Name         | Shapes           | Params
/// ----------------------------------------------
/// 0 | fc1          | [128] [128, 784] | 100 K
/// 1 | fc2          | [10] [10, 128]   | 1.3 K
///   | other params | [3]              | 3
/// ----------------------------------------------
/// 101 K     Trainable params
/// 0         Non-trainable params
/// 101 K     Total params
/// 0.407     Total estimated model params size (MB)
/// ```
///
/// Modules are what the dotted names of the [`VarStore`](nn::VarStore) say, in the order they were made; those without
/// parameters are not listed, and a tensor under two names counts once. A `VarStore` does not know the types of
/// layers, so the shapes of their parameters take the place of Lightning's column `Type`.
#[derive(Debug, Clone)]
pub struct ModelSummary {
    max_depth: i64,
}

impl Default for ModelSummary {
    fn default() -> ModelSummary {
        ModelSummary::new()
    }
}

impl ModelSummary {
    /// A summary of the model's direct children.
    pub fn new() -> ModelSummary {
        ModelSummary { max_depth: 1 }
    }

    /// How deep to look into modules of modules: 1 by default, 0 for the totals alone, -1 for everything.
    pub fn max_depth(mut self, max_depth: i64) -> ModelSummary {
        self.max_depth = max_depth;
        self
    }
}

impl Callback for ModelSummary {
    fn role(&self) -> Role {
        Role::ModelSummary
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        if trainer.is_global_zero() {
            let parameters = parameters(module.vars());
            let bytes = trainer.fabric().precision().bytes_per_parameter();
            trainer.print(&format!("{}\n\n{}\n", stands_on(trainer), summary(&parameters, self.max_depth, bytes)));
        }
        Ok(())
    }
}

struct Parameter {
    name: String,
    shape: Vec<i64>,
    is_trainable: bool,
}

struct Row {
    index: String,
    name: String,
    shapes: String,
    params: String,
}

fn stands_on(trainer: &TrainerState) -> String {
    let fabric = trainer.fabric();
    let device = match fabric.device() {
        Device::Cuda(index) => format!(":{index}"),
        _ => String::new(),
    };
    let runtime = RuntimeReport::collect();
    format!(
        "{}{device}, precision {}, strategy {}, {} thread(s) on {} processor(s)",
        fabric.accelerator(),
        fabric.precision().name(),
        fabric.strategy().name(),
        runtime.num_threads,
        runtime.num_processors
    )
}

fn parameters(vars: &nn::VarStore) -> Vec<Parameter> {
    let named = params::named_parameters(vars).into_iter();
    named.map(|(name, tensor)| Parameter { name, shape: tensor.size(), is_trainable: tensor.requires_grad() }).collect()
}

fn summary(parameters: &[Parameter], max_depth: i64, bytes_per_parameter: f64) -> String {
    let total = count(parameters.iter());
    let trainable = count(parameters.iter().filter(|parameter| parameter.is_trainable));
    let mut lines = if max_depth == 0 { Vec::new() } else { table(&rows(parameters, max_depth)) };
    for (number, what) in [
        (human_readable_count(trainable), "Trainable params"),
        (human_readable_count(total - trainable), "Non-trainable params"),
        (human_readable_count(total), "Total params"),
        (megabytes(total as f64 * bytes_per_parameter), "Total estimated model params size (MB)"),
    ] {
        lines.push(format!("{number:<9} {what}"));
    }
    lines.join("\n")
}

/// One row per module down to `max_depth`, each before what it consists of, and one for parameters of no module.
fn rows(parameters: &[Parameter], max_depth: i64) -> Vec<Row> {
    let max_depth = usize::try_from(max_depth).unwrap_or(usize::MAX);
    let mut modules = Vec::new();
    collect_modules("", 1, max_depth, parameters, &mut modules);
    let mut rows: Vec<Row> = modules
        .into_iter()
        .enumerate()
        .map(|(index, module)| {
            let prefix = format!("{module}.");
            let own = parameters.iter().filter(|parameter| parameter.name.starts_with(&prefix));
            row(index.to_string(), module, own)
        })
        .collect();
    if parameters.iter().any(|parameter| !parameter.name.contains('.')) {
        let others = parameters.iter().filter(|parameter| !parameter.name.contains('.'));
        rows.push(row(String::new(), "other params".to_owned(), others));
    }
    rows
}

fn collect_modules(parent: &str, depth: usize, max_depth: usize, parameters: &[Parameter], modules: &mut Vec<String>) {
    let begun = modules.len();
    for parameter in parameters {
        let Some(rest) = parameter.name.strip_prefix(parent) else { continue };
        let Some((child, _)) = rest.split_once('.') else { continue };
        let module = format!("{parent}{child}");
        if modules[begun..].contains(&module) {
            continue;
        }
        modules.push(module.clone());
        if depth < max_depth {
            collect_modules(&format!("{module}."), depth + 1, max_depth, parameters, modules);
        }
    }
}

fn row<'a>(index: String, name: String, parameters: impl Iterator<Item = &'a Parameter> + Clone) -> Row {
    let shapes: Vec<_> = parameters.clone().map(|parameter| format!("{:?}", parameter.shape)).collect();
    let joined = shapes.join(" ");
    let shapes = if joined.len() <= WIDEST_SHAPES { joined } else { format!("{} tensors", shapes.len()) };
    Row { index, name, shapes, params: human_readable_count(count(parameters)) }
}

fn table(rows: &[Row]) -> Vec<String> {
    let header = Row { index: String::new(), name: "Name".into(), shapes: "Shapes".into(), params: "Params".into() };
    let width = |cell: fn(&Row) -> &str| {
        rows.iter().chain([&header]).map(|row| ::console::measure_text_width(cell(row))).max().unwrap_or(0)
    };
    let widths = [width(|row| &row.index), width(|row| &row.name), width(|row| &row.shapes), width(|row| &row.params)];
    let write = |row: &Row| {
        let cells = [&row.index, &row.name, &row.shapes, &row.params];
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| ::console::pad_str(cell, width, ::console::Alignment::Left, None));
        padded.collect::<Vec<_>>().join(" | ").trim_end().to_owned()
    };
    let rule = "-".repeat(widths.iter().sum::<usize>() + 3 * (widths.len() - 1));
    let mut lines = vec![write(&header), rule.clone()];
    lines.extend(rows.iter().map(write));
    lines.push(rule);
    lines
}

fn count<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> u64 {
    parameters.map(|parameter| parameter.shape.iter().product::<i64>().unsigned_abs()).sum()
}

/// Thousands as `K`, and so on to `T`: one decimal below a hundred of them, none above.
fn human_readable_count(number: u64) -> String {
    const UNITS: [&str; 5] = ["", " K", " M", " B", " T"];
    let digits = number.checked_ilog10().unwrap_or(0) as usize;
    let group = (digits / 3).min(UNITS.len() - 1);
    let scaled = number as f64 / 1000f64.powi(group as i32);
    if group == 0 {
        number.to_string()
    } else if scaled >= 100.0 {
        format!("{}{}", with_separators(scaled as u64), UNITS[group])
    } else {
        format!("{scaled:.1}{}", UNITS[group])
    }
}

fn megabytes(bytes: f64) -> String {
    let text = format!("{:.3}", bytes * 1e-6);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    format!("{}.{fraction}", with_separators(whole.parse().unwrap_or(0)))
}

fn with_separators(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn counts_are_written_as_lightning_writes_them() {
        let counts = [
            0,
            1,
            123,
            999,
            1000,
            1234,
            99_949,
            99_951,
            101_770,
            999_999,
            2_000_000,
            3_000_000_000,
            400_000_000_000_000,
            5_000_000_000_000_000,
        ];
        let written: Vec<_> = counts.into_iter().map(human_readable_count).collect();
        expect!["0, 1, 123, 999, 1.0 K, 1.2 K, 99.9 K, 100.0 K, 101 K, 999 K, 2.0 M, 3.0 B, 400 T, 5,000 T"]
            .assert_eq(&written.join(", "));
    }

    #[test]
    fn sizes_have_separators_and_three_decimals() {
        expect!["0.000 0.407 1,234.568 12,345,678.000"]
            .assert_eq(&[0.0, 407_080.0, 1_234_567_890.0, 12_345_678e6].map(megabytes).join(" "));
    }

    fn net() -> nn::VarStore {
        let vars = nn::VarStore::new(Device::Cpu);
        let root = vars.root();
        nn::linear(&root / "embed", 784, 128, Default::default());
        for block in 0..2 {
            let block = &root / "blocks" / block;
            nn::batch_norm1d(&block / "norm", 128, Default::default());
            nn::linear(&block / "head", 128, 128, Default::default());
        }
        let _scale = root.var("scale", &[3], nn::Init::Const(1.0));
        vars
    }

    #[test]
    fn the_direct_children_are_listed_in_the_order_they_were_made() {
        expect![[r#"
              | Name         | Shapes           | Params
            --------------------------------------------
            0 | embed        | [128, 784] [128] | 100 K
            1 | blocks       | 8 tensors        | 33.5 K
              | other params | [3]              | 3
            --------------------------------------------
            134 K     Trainable params
            0         Non-trainable params
            134 K     Total params
            0.536     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&parameters(&net()), 1, 4.0));
    }

    #[test]
    fn deeper_modules_follow_their_parents() {
        expect![[r#"
              | Name         | Shapes                       | Params
            --------------------------------------------------------
            0 | embed        | [128, 784] [128]             | 100 K
            1 | blocks       | 8 tensors                    | 33.5 K
            2 | blocks.0     | [128] [128] [128, 128] [128] | 16.8 K
            3 | blocks.1     | [128] [128] [128, 128] [128] | 16.8 K
              | other params | [3]                          | 3
            --------------------------------------------------------
            134 K     Trainable params
            0         Non-trainable params
            134 K     Total params
            0.536     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&parameters(&net()), 2, 4.0));
        assert_eq!(summary(&parameters(&net()), 3, 4.0), summary(&parameters(&net()), -1, 4.0));
        expect![[r#"
              | Name          | Shapes                       | Params
            ---------------------------------------------------------
            0 | embed         | [128, 784] [128]             | 100 K
            1 | blocks        | 8 tensors                    | 33.5 K
            2 | blocks.0      | [128] [128] [128, 128] [128] | 16.8 K
            3 | blocks.0.norm | [128] [128]                  | 256
            4 | blocks.0.head | [128, 128] [128]             | 16.5 K
            5 | blocks.1      | [128] [128] [128, 128] [128] | 16.8 K
            6 | blocks.1.norm | [128] [128]                  | 256
            7 | blocks.1.head | [128, 128] [128]             | 16.5 K
              | other params  | [3]                          | 3
            ---------------------------------------------------------
            134 K     Trainable params
            0         Non-trainable params
            134 K     Total params
            0.536     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&parameters(&net()), -1, 4.0));
    }

    #[test]
    fn depth_zero_leaves_the_totals() {
        expect![[r#"
            134 K     Trainable params
            0         Non-trainable params
            134 K     Total params
            1.072     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&parameters(&net()), 0, 8.0));
    }

    #[test]
    fn frozen_parameters_are_not_trainable() {
        let mut vars = net();
        vars.freeze();
        expect![[r#"
            0         Trainable params
            134 K     Non-trainable params
            134 K     Total params
            0.536     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&parameters(&vars), 0, 4.0));
    }

    #[test]
    fn a_tensor_under_two_names_counts_once() {
        let vars = nn::VarStore::new(Device::Cpu);
        let tied = (vars.root() / "embed").var("weight", &[10, 4], nn::Init::Const(0.0));
        vars.variables_.lock().unwrap().named_variables.insert("head.weight".into(), tied);
        expect![[r#"
              | Name  | Shapes  | Params
            ----------------------------
            0 | embed | [10, 4] | 40
            ----------------------------
            40        Trainable params
            0         Non-trainable params
            40        Total params
            0.000     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&parameters(&vars), 1, 4.0));
    }

    #[test]
    fn a_model_without_parameters_has_an_empty_table() {
        expect![[r#"
             | Name | Shapes | Params
            -------------------------
            -------------------------
            0         Trainable params
            0         Non-trainable params
            0         Total params
            0.000     Total estimated model params size (MB)"#]]
        .assert_eq(&summary(&[], 1, 4.0));
    }
}
