//! `troupe config`.

use crate::{
    cli::{ConfigCommand, Globals},
    output, settings,
};
use serde_json::json;

pub(crate) fn execute(globals: &Globals, command: &ConfigCommand) -> anyhow::Result<()> {
    let loaded = settings::load(globals, settings::Flags::default())?;
    match command {
        ConfigCommand::Check => output::line("the settings are good"),
        ConfigCommand::Show => {
            let rows = troupe_service_kit::config::rows(&loaded);
            let items: Vec<_> =
                rows.into_iter().map(|(key, value, origin)| json!({ "key": key, "value": value, "origin": origin })).collect();
            output::print(globals.output, &json!({ "items": items }), &[("SETTING", "/key"), ("VALUE", "/value"), ("FROM", "/origin")])
        }
    }
}
