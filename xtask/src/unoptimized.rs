//! What tests are built of without optimization.

/// What tests are built of without optimization: it would take minutes for loops that are generic over hundreds of modules.
/// What these depend on stays as it is built for everything else, and `fulgurite-torch` too, whose tests go through many
/// thousands of damaged files.
const UNOPTIMIZED: [&str; 16] = [
    "fulgurite",
    "fulgurite-callbacks",
    "fulgurite-data",
    "fulgurite-engine",
    "fulgurite-fabric",
    "fulgurite-metrics",
    "fulgurite-nn",
    "fulgurite-object-stores",
    "fulgurite-optim",
    "fulgurite-parity",
    "fulgurite-search",
    "fulgurite-test-support",
    "fulgurite-torture",
    "fulgurite-tracker-tests",
    "fulgurite-trackers",
    "recipes",
];

/// The options of cargo for it.
pub(crate) fn options() -> impl Iterator<Item = String> {
    let options = |package| ["--config".to_owned(), format!("profile.release.package.{package}.opt-level=0")];
    UNOPTIMIZED.into_iter().flat_map(options)
}
