//! `fulgurite report` and `fulgurite watch`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::machine::Machine;
use super::{fulgurite, said, usual_machine};

fn run(machine: &Machine) {
    let folder = machine.path("logs/version_0");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("metrics.csv"), "loss,step\n0.5,0\n").unwrap();
}

#[test]
fn a_page_is_made_and_named() {
    let machine = usual_machine();
    run(&machine);
    let made = (true, "Open report.html in a browser.\n".to_owned());
    assert_eq!(said(&machine, fulgurite(&machine).args(["report", "logs"])), made);
    assert!(fs::read_to_string(machine.path("report.html")).unwrap().contains("\"name\":\"logs/version_0\""));
    // Again, in its place, and nothing beside it.
    assert_eq!(said(&machine, fulgurite(&machine).args(["report", "logs"])), made);
    let pages = fs::read_dir(machine.path("."))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("report"));
    assert_eq!(pages.count(), 1);
}

#[test]
fn what_cannot_be_is_said() {
    let machine = usual_machine();
    run(&machine);
    let (made, why) = said(&machine, fulgurite(&machine).args(["report", "nowhere"]));
    assert!(!made && why.contains("nowhere holds no run: a run's folder has a metrics.csv"), "{why}");
    let (made, why) = said(&machine, fulgurite(&machine).args(["report", "logs", "-o", "no/such/folder/a.html"]));
    assert!(!made && why.contains("cannot write no/such/folder/a.html: No such file or directory"), "{why}");
}

#[test]
fn a_run_is_watched() {
    let machine = usual_machine();
    run(&machine);
    let (done, text) = said(&machine, fulgurite(&machine).args(["watch", "--once", "logs"]));
    assert!(
        done && text.starts_with("logs/version_0   step 0, written ") && text.contains("loss     0.50000"),
        "{text}"
    );

    let mut watching =
        fulgurite(&machine).args(["watch", "logs", "--interval", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.starts_with("loss     0.50000")));
    fs::write(machine.path("logs/version_0/metrics.csv"), "loss,step\n0.5,0\n0.25,7\n").unwrap();
    assert!(lines.by_ref().any(|line| line.contains("step 7")));
    watching.kill().unwrap();
    watching.wait().unwrap();
}
