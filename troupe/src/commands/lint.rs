//! `troupe lint`: all faults of all files, with line and column.

use crate::{
    cli::Globals,
    output,
    sources::{self, Kind, Source},
};
use std::path::PathBuf;
use troupe_domain::{Error, Fault};
use troupe_engine::Limits;

pub(crate) fn execute(globals: &Globals, files: &[PathBuf]) -> anyhow::Result<()> {
    let limits = crate::settings::load(globals, crate::settings::Flags::default())?.value.executor.limits;
    let sources = sources::collect(files)?;
    let mut faults = Vec::new();
    for source in &sources {
        if let Err(error) = check(source, &limits) {
            faults.extend(sources::name_file(error, &source.path).faults);
        }
    }
    if faults.is_empty() {
        return output::line(&format!("{} files, no faults", sources.len()));
    }
    let count = faults.len();
    Err(Error::invalid(format!("{count} faults in {} files", sources.len())).with_faults(faults).into())
}

fn check(source: &Source, limits: &Limits) -> Result<(), Error> {
    let faults: Result<(), Vec<Fault>> = match source.kind {
        Kind::Agent => troupe_engine::agent::parse(&source.text, limits).map(|_| ()),
        Kind::Workflow => troupe_engine::language::parse(&source.text, limits).map(|_| ()),
    };
    faults.map_err(|faults| Error::invalid("the file has faults").with_faults(faults))
}
