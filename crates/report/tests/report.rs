//! Pages of runs, as files and in a browser.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail, and says what it skips")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use fulgurite_report::report;

fn run(root: &Path, name: &str, metrics: &str, hparams: &str) -> PathBuf {
    let folder = root.join("lightning_logs").join(name);
    fs::create_dir_all(folder.join("checkpoints")).unwrap();
    fs::write(folder.join("metrics.csv"), metrics).unwrap();
    fs::write(folder.join("hparams.yaml"), hparams).unwrap();
    fs::write(folder.join("checkpoints").join("epoch=1-step=20.ckpt"), [0; 1500]).unwrap();
    folder
}

fn two_runs(root: &Path) {
    let rows = |scale: f64| {
        let row = |step: usize| {
            let loss = scale * (-(step as f64) / 300.0).exp() + 0.02 * (step as f64 * 1.7).sin();
            format!(",{},{loss},{step},\n", step / 100)
        };
        let rows: String = (0..1000).map(row).collect();
        let epochs: String =
            (0..10).map(|epoch| format!("{},{epoch},,{},0.001\n", epoch as f64 / 12.0, epoch * 100 + 99)).collect();
        format!("val_acc,epoch,train_loss,step,lr-AdamW\n{rows}{epochs}")
    };
    run(root, "version_9", &rows(2.0), "lr: 0.1\nhidden: 64\nname: '<b>&\"</b>'\n");
    run(root, "version_10", &rows(3.0), "lr: 0.01\nhidden: 64\n");
}

/// A browser, if this machine has one.
fn browser() -> Option<&'static str> {
    let has = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(has);
    if found.is_none() {
        println!("skipped: there is no Chromium");
    }
    found
}

fn browse(browser: &str, args: &[&str], page: &Path) -> String {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .args(args)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn runs_are_found_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    two_runs(folder.path());
    let page = report(&[folder.path().to_owned()]).unwrap();
    let (nine, ten) = (page.find("lightning_logs/version_9").unwrap(), page.find("lightning_logs/version_10").unwrap());
    assert!(nine < ten);
    assert!(page.contains(r#"{"name":"lr","differs":true,"values":["0.1","0.01"]}"#));
    assert!(page.contains(r#"{"name":"hidden","differs":false,"values":["64","64"]}"#));
    assert!(page.contains(r#"["epoch=1-step=20.ckpt",1500]"#));
    // What a file says is text, and loads nothing.
    assert!(page.contains(r#"\u003cb>&\"\u003c/b>"#) && !page.contains("<b>"));
    assert!(!page.contains("http://") && !page.contains("https://"));
    let named_twice =
        report(&[folder.path().join("lightning_logs"), folder.path().join("lightning_logs/version_9/metrics.csv")]);
    assert_eq!(named_twice.unwrap(), page);
}

#[test]
fn what_is_no_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = report(&[folder.path().to_owned()]).unwrap_err().to_string();
    assert!(said.contains("holds no run") && said.contains("lightning_logs/version_0"), "{said}");
    let broken = folder.path().join("metrics.csv");
    fs::write(&broken, b"step,loss\n1,2\n\xff\xfe,1\n").unwrap();
    let said = report(&[broken]).unwrap_err().to_string();
    assert!(said.contains("metrics.csv, line 3"), "{said}");
}

#[test]
fn a_browser_shows_it() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    two_runs(folder.path());
    let page = folder.path().join("report.html");
    fs::write(&page, report(&[folder.path().to_owned()]).unwrap()).unwrap();
    let shown = browse(browser, &["--dump-dom"], &page);
    assert!(shown.contains("<title>2 runs</title>"), "{shown}");
    assert_eq!(shown.matches("<canvas").count(), 3, "{shown}");
    assert!(shown.contains("&lt;b&gt;&amp;\"&lt;/b&gt;"));
    assert!(shown.contains("1.5 kB"));
    // A canvas that was drawn has a size of its own.
    assert!(shown.contains("<canvas aria-label=\"curves of train_loss\" width="), "{shown}");
    if let Some(picture) = std::env::var_os("FULGURITE_REPORT_PICTURE") {
        let screenshot = format!("--screenshot={}", Path::new(&picture).display());
        browse(browser, &[&screenshot, "--window-size=1400,1100"], &page);
    }
}

#[test]
fn a_million_rows_make_a_small_page() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..8).map(|n| format!("m{n}")).collect();
    let mut metrics = names.join(",") + ",step\n";
    let cell =
        |step: usize, n: usize| format!("{:.7}", ((step * (n + 1)) as f64 * 1e-4).sin() + (step % 97) as f64 * 1e-3);
    for step in 0..125_000 {
        let cells: Vec<String> = (0..8).map(|n| cell(step, n)).collect();
        metrics += &format!("{},{step}\n", cells.join(","));
    }
    let run = run(folder.path(), "version_0", &metrics, "");
    let page = report(&[run]).unwrap();
    println!("{:.2} MB", page.len() as f64 / 1e6);
    assert!(page.len() < 5_000_000, "{}", page.len());
    let Some(browser) = browser() else { return };
    let path = folder.path().join("report.html");
    fs::write(&path, page).unwrap();
    let begun = Instant::now();
    let shown = browse(browser, &["--dump-dom"], &path);
    println!("shown in {:?}", begun.elapsed());
    assert_eq!(shown.matches("<canvas").count(), 8);
}
