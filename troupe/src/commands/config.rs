//! `troupe config`.

use crate::{
    cli::{ConfigCommand, Globals},
    output, settings,
};
use serde_json::{Value, json};

pub(crate) fn execute(globals: &Globals, command: &ConfigCommand) -> anyhow::Result<()> {
    let loaded = settings::load(globals, settings::Flags::default())?;
    match command {
        ConfigCommand::Check => output::say(globals.output, "the settings are good", &json!({ "ok": true, "set": loaded.origins.len() })),
        ConfigCommand::Show => {
            let rows = troupe_service_kit::config::rows(&loaded);
            let items: Vec<_> =
                rows.into_iter().map(|(key, value, origin)| json!({ "key": key, "value": plain(value), "origin": origin })).collect();
            output::print(globals.output, &json!({ "items": items }), &[("SETTING", "/key"), ("VALUE", "/value"), ("FROM", "/origin")])
        }
    }
}

/// Values come as JSON text, masked ones as stars.
fn plain(value: String) -> Value {
    serde_json::from_str(&value).unwrap_or(Value::String(value))
}
