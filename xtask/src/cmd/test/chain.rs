//! From a chain suite to what the runner is given: its chains resolved, their modules built or fetched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh::plan::Plan;
use mesh::{Resources, Source};
use packager::reference::Reference;
use suites::chain::model::{ChainTest, Image, Test};
use suites::chain::{Chosen, Planned, Task};

use super::Args;
use super::coverage::Builds;
use crate::cmd::images::with_scheme;
use crate::cmd::registry_flags::RegistryFlags;
use crate::cmd::run::{Talk, Wanted};
use crate::cmd::watch::Watched;
use crate::input;
use crate::report::Failure;

/// Reads a file of suites; nothing when it is not meant to be one. The error has a line for each mistake, with its hint.
pub(crate) fn read(source: &Source) -> Option<Result<Vec<ChainTest>, Vec<String>>> {
    let line = |mistake: &suites::chain::Mistake| match &mistake.hint {
        Some(hint) => format!("{mistake} ({hint})"),
        None => mistake.to_string(),
    };
    Some(suites::chain::read_if_meant(source)?.map_err(|mistakes| mistakes.iter().map(line).collect()))
}

/// Resolves the chains of the tests that are chosen by their names. What is wrong with one chain breaks the tests that
/// have it, and no other.
pub(crate) fn task(suite: ChainTest, file: &Path, args: &Args, builds: &Builds<'_>) -> Result<Task, Failure> {
    let names = suite.tests.iter().map(|test| test.name.as_str());
    let chosen = args.filter.as_ref().map_or_else(|| vec![true; suite.tests.len()], |filter| filter.chosen(names));
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)
        .map_err(|error| Failure::environment(error).context(&format!("failed to find {}", folder.display())))?;
    let (mut asked, mut plans, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    let mut images = None;
    for (index, test) in suite.tests.iter().enumerate().filter(|(index, _)| chosen.get(*index) == Some(&true)) {
        let question = (resources(&suite, test), workload(&suite, test), !test.connections.is_empty());
        let plan = match asked.iter().position(|known| *known == question) {
            Some(known) => known,
            None => {
                // Plugins are built once, and only if a test needs them.
                let images = images.get_or_insert_with(|| {
                    replacements(&suite.images, &folder, builds).map_err(|failure| failure.text())
                });
                let made = match images {
                    Ok(images) => {
                        plan(&suite, question, &folder, images, &args.registry).map_err(|failure| failure.text())
                    }
                    Err(why) => Err(why.clone()),
                };
                asked.push(question);
                plans.push(made.map_or_else(Planned::Failed, |plan| Planned::Ready(Box::new(plan))));
                plans.len() - 1
            }
        };
        tests.push(Chosen { test: index, plan });
    }
    Ok(Task { folder, suite, plans, tests })
}

fn resources<'s>(suite: &'s ChainTest, test: &'s Test) -> &'s [PathBuf] {
    test.resources.as_deref().unwrap_or(&suite.resources)
}

fn workload<'s>(suite: &'s ChainTest, test: &'s Test) -> Option<&'s str> {
    test.workload.as_deref().or(suite.workload.as_deref())
}

fn plan(
    suite: &ChainTest,
    (files, workload, is_tcp): (&[PathBuf], Option<&str>, bool),
    folder: &Path,
    images: &BTreeMap<String, Reference>,
    registry: &RegistryFlags,
) -> Result<Plan, Failure> {
    let files: Vec<PathBuf> = files.iter().map(|file| folder.join(file)).collect();
    let resources = input::quietly(&files).map_err(|failure| failure.context("`resources`"))?;
    unknown_urls(&suite.images, &resources)?;
    let root_namespace = suite.root_namespace.as_deref().unwrap_or("istio-system");
    let wanted = Wanted { workload, root_namespace, is_tcp, explain_fetch: false, talk: Talk::Nothing };
    let (chain, network) = wanted.resolve(&resources)?;
    let options = registry.fetch_options()?;
    let chains = (&chain, network.as_ref());
    let modules = wanted.modules(chains, &resources, images, &options, &mut Watched::default())?;
    Ok(Plan {
        chain,
        network,
        modules,
        host_env: BTreeMap::new(),
        listen: "127.0.0.1:0".to_owned(),
        upstream: None,
        clusters: BTreeMap::new(),
        node: None,
        admin: None,
        ca_certificates: Vec::new(),
        workers: Some(1),
    })
}

/// A url that no resource has is a typing error, unless another test's resources have it.
fn unknown_urls(images: &[Image], resources: &Resources) -> Result<(), Failure> {
    let known: Vec<String> =
        resources.extensions.iter().filter_map(|one| one.wasm()).map(|wasm| with_scheme(&wasm.url)).collect();
    let none_fits = !images.is_empty() && !images.iter().any(|image| known.contains(&with_scheme(&image.url)));
    if none_fits && !known.is_empty() {
        return Err(Failure::bad(format!(
            "`images`: no resource has any of these urls; they have {}",
            known.join(", ")
        )));
    }
    Ok(())
}

/// Where the modules of urls are, by url with its scheme.
fn replacements(images: &[Image], folder: &Path, builds: &Builds<'_>) -> Result<BTreeMap<String, Reference>, Failure> {
    let names: Vec<String> = images.iter().filter_map(|image| image.plugin.clone()).collect();
    let mut built = BTreeMap::new();
    if !names.is_empty() {
        let modules = builds.build(&names).map_err(|failure| failure.context("`images`"))?;
        built.extend(modules.into_iter().map(|built| (built.plugin.name.clone(), built.module)));
    }
    let mut replacements = BTreeMap::new();
    for Image { url, plugin, module, reference } in images {
        let found = match (plugin, module, reference) {
            (Some(plugin), _, _) => {
                let module = built.get(plugin);
                Reference::File(module.cloned().ok_or_else(|| Failure::bad(format!("`{plugin}` was not built")))?)
            }
            (None, Some(module), _) => Reference::File(folder.join(module)),
            (None, None, reference) => {
                let text = reference.as_deref().unwrap_or_default();
                let parsed =
                    Reference::parse(text).map_err(|error| Failure::bad(error).context(&format!("`{text}`")))?;
                match parsed {
                    Reference::Layout(mut layout) => {
                        layout.directory = folder.join(&layout.directory);
                        Reference::Layout(layout)
                    }
                    Reference::File(file) => Reference::File(folder.join(file)),
                    other => other,
                }
            }
        };
        replacements.insert(with_scheme(url), found);
    }
    Ok(replacements)
}
