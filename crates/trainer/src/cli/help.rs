//! Help and completion, from the schema, by clap.

use clap::builder::{PossibleValue, PossibleValuesParser, Str};
use clap::{Arg, ArgAction, Command};

use super::check::{nearest, plain_names, wrong};
use super::kind::Kind;
use super::layout::{Layout, Subcommand};
use super::registry::Class;
use super::schema::{Schema, short};
use fulgurite_engine::Error;

/// The program name in help texts.
pub(super) struct Program<'a> {
    pub name: &'a str,
    pub about: &'a str,
}

impl Program<'_> {
    fn command(&self, layout: &Layout) -> Command {
        let subcommands = Subcommand::ALL.into_iter().map(|subcommand| subcommand_help(layout, subcommand));
        let shells = PossibleValuesParser::new(SHELLS);
        let completions = Command::new("completions")
            .about("Print the script that completes arguments in a shell")
            .arg(Arg::new("shell").required(true).value_parser(shells));
        Command::new(self.name.to_owned())
            .about(self.about.to_owned())
            .subcommands(subcommands)
            .subcommand(completions)
            .disable_help_subcommand(true)
            .arg(config_arg("Read sections `fit`, `validate`, `test` and `predict` of a YAML file"))
            .after_help("`fit --help` lists what can be configured.")
            .subcommand_required(true)
    }

    pub(super) fn help(&self, layout: &Layout, subcommand: Option<Subcommand>) -> String {
        let mut command = self.command(layout);
        command.build();
        let command = match subcommand {
            None => Some(&mut command),
            Some(subcommand) => command.find_subcommand_mut(subcommand.name()),
        };
        command.map(|command| command.render_help().to_string()).unwrap_or_default()
    }

    pub(super) fn completions(&self, layout: &Layout, shell: &str) -> Result<String, Error> {
        let shell = match shell {
            "bash" => clap_complete::Shell::Bash,
            "zsh" => clap_complete::Shell::Zsh,
            "fish" => clap_complete::Shell::Fish,
            "elvish" => clap_complete::Shell::Elvish,
            "powershell" => clap_complete::Shell::PowerShell,
            other => return wrong(format!("completions are available for {}, not for `{other}`", SHELLS.join(", "))),
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut self.command(layout), self.name, &mut script);
        Ok(String::from_utf8_lossy(&script).into_owned())
    }
}

const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

fn subcommand_help(layout: &Layout, subcommand: Subcommand) -> Command {
    let mut command = Command::new(subcommand.name()).about(subcommand.about()).disable_version_flag(true);
    command = command.arg(config_arg("Read a YAML file; later ones win")).arg(
        Arg::new("print_config")
            .long("print_config")
            .value_name("comments,skip_default,skip_null")
            .num_args(0..=1)
            .require_equals(true)
            .help("Print the configuration as YAML, and exit"),
    );
    if subcommand == Subcommand::Fit {
        let help = "Resume from the furthest intact checkpoint of this run folder, or of the last run: an alias of --ckpt_path";
        command = command.arg(option("resume").value_name("auto|path").num_args(0..=1).help(help));
    }
    for (name, schema) in layout.groups() {
        if !subcommand.takes(name) {
            continue;
        }
        match schema.is_struct() {
            true => {
                let file = format!("A YAML file with options of `{name}`");
                command = command.next_help_heading(heading(name)).arg(option(name).value_name("file").help(file));
                command = command.args(arguments(layout, name, schema));
            }
            false => command = command.next_help_heading(heading(name)).args(argument(layout, name, schema)),
        }
    }
    command
}

fn config_arg(help: &str) -> Arg {
    let help = help.to_owned();
    Arg::new("config").long("config").short('c').value_name("file").action(ArgAction::Append).help(help)
}

fn heading(group: &str) -> Str {
    match group {
        "trainer" => "Trainer".into(),
        "model" => "Model".into(),
        "data" => "Data".into(),
        "tune" => "Tuning".into(),
        "sweep" => "Search".into(),
        "optimizer" | "lr_scheduler" => "Optimization".into(),
        _ => "Run".into(),
    }
}

fn option(name: &str) -> Arg {
    Arg::new(name.to_owned()).long(name.to_owned())
}

fn arguments(layout: &Layout, prefix: &str, schema: Schema<'_>) -> Vec<Arg> {
    schema.fields().flat_map(|(name, field)| argument(layout, &format!("{prefix}.{name}"), field)).collect()
}

fn argument(layout: &Layout, name: &str, schema: Schema<'_>) -> Vec<Arg> {
    if schema.is_struct() {
        return arguments(layout, name, schema);
    }
    let Some(kind) = schema.classes() else {
        let arg = option(name).hide_possible_values(true).value_name(schema.type_text()).help(described(schema));
        let choices = schema.choices();
        // Choices are completed, and stand as the type.
        let values = choices.into_iter().map(PossibleValue::new);
        return vec![arg.value_parser(PossibleValuesParser::new(values))];
    };
    let classes = layout.registry.names(kind);
    let listed =
        format!("{} Classes: {}; --{name}.help CLASS shows their options", described(schema), classes.join(", "));
    let names = plain_names(kind);
    let classes = classes.iter().map(|class| (*class).to_owned()).filter(|class| !names.contains(class));
    let classes: Vec<String> = classes.collect();
    let values = names.into_iter().chain(classes).map(PossibleValue::new);
    let (value_name, long) = match schema.is_class_list() {
        true => ("class", format!("{name}+")),
        false => ("class", name.to_owned()),
    };
    let mut arg = Arg::new(name.to_owned()).long(long).value_name(value_name).hide_possible_values(true).help(listed);
    arg = arg.value_parser(PossibleValuesParser::new(values));
    if schema.is_class_list() {
        arg = arg.require_equals(true);
    }
    let of_classes = Arg::new(format!("{name}.OPTION")).long(format!("{name}.OPTION")).value_name("value");
    vec![arg, of_classes.help(format!("An option of the {} named last", kind.name()))]
}

/// The documentation and default of an option.
fn described(schema: Schema<'_>) -> String {
    match schema.default() {
        Some(default) => format!("{} [default: {}]", schema.doc(), short(default)),
        None => schema.doc(),
    }
}

/// The options of a class; the classes, when none is named.
pub(super) fn class_help(layout: &Layout, option: &str, class: Option<&str>) -> Result<String, Error> {
    let schema = option.split('.').try_fold(layout.schema(), |schema, part| schema.field(part));
    let Some(kind) = schema.and_then(Schema::classes) else {
        let places = Kind::PLACES.map(|(place, _)| place.join("."));
        let near = nearest(option, places.iter().map(String::as_str));
        let advice = near.map_or_else(|| places.join(", "), |near| format!("did you mean `{near}`?"));
        return wrong(format!("--{option}.help: `{option}` does not name a class; {advice}"));
    };
    let Some(class) = class else {
        let names = layout.registry.names(kind);
        return Ok(format!(
            "{}:\n  {}\n--{option}.help CLASS shows the options of one.\n",
            kind.plural(),
            names.join("\n  ")
        ));
    };
    let origin = super::tree::Origin::Arg(format!("--{option}.help").into());
    let found = layout.registry.find(kind, class);
    found.map(|class| describe(class, option)).ok_or_else(|| super::check::unknown_class(layout, &origin, kind, class))
}

fn describe(class: &Class, option: &str) -> String {
    let mut out = format!("{} `{}`\n", class.kind.name(), class.name);
    let mut describe = |name: &str, field: Schema<'_>| {
        out += &format!("\n  --{option}.{name} <{}>\n          {}\n", field.type_text(), described(field));
    };
    class.schema().fields().for_each(|(name, field)| describe(name, field));
    if class.kind == Kind::Scheduler {
        out += "\n  --lr_scheduler.interval <epoch|step>\n          When it is stepped [default: epoch]\n";
        out += "\n  --lr_scheduler.frequency <int>\n          The number of intervals between its steps [default: 1]\n";
        out += "\n  --lr_scheduler.monitor <str|null>\n          The logged value it monitors [default: null]\n";
    }
    out
}
