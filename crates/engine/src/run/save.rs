//! Writing to channels: all the writes of one step, or none.

use super::{
    code,
    machine::Machine,
    merge::{self, Update},
    scope::Extra,
};
use crate::{definition::Step, event::Failure, expression::Template, state::channel::Channel};
use std::collections::BTreeMap;
use troupe_domain::{Json, json::MAX_NESTING};

impl Machine<'_> {
    /// Does what the step's `save` says with the output of the cell.
    pub(crate) fn save(&mut self, step: &Step, place: &[u32], output: &Json) -> Result<(), Failure> {
        if step.save.is_empty() {
            return Ok(());
        }
        let extra = Extra { output: Some(output.clone()), ..Extra::default() };
        let writes = self.render_writes(&step.save, place, &extra)?;
        self.write(writes)
    }

    /// The values of all writes, before any of them is done.
    pub(crate) fn render_writes<'w>(
        &self,
        writes: &'w [(String, Template)],
        place: &[u32],
        extra: &Extra,
    ) -> Result<Vec<(&'w str, Json)>, Failure> {
        writes.iter().map(|(channel, template)| Ok((channel.as_str(), self.render(template, place, extra)?))).collect()
    }

    /// Merges the values into their channels.
    pub(crate) fn write(&mut self, writes: Vec<(&str, Json)>) -> Result<(), Failure> {
        let mut updates = Vec::with_capacity(writes.len());
        for (name, value) in writes {
            let merge = self.definition.channels.get(name).map(|channel| channel.merge).unwrap_or_default();
            let update = merge::prepare(self.state.channels.get_mut(name), merge, value)
                .map_err(|message| Failure::permanent(code::MERGE_FAILED, format!("channel '{name}': {message}")))?;
            updates.push((name, update));
        }
        self.check_size(&updates)?;
        for (name, update) in updates {
            self.commit(name, update);
        }
        Ok(())
    }

    /// Replaces channels, whatever their merge is.
    pub(crate) fn replace_channels(&mut self, values: BTreeMap<String, Json>) -> Result<(), Failure> {
        let updates: Vec<(&str, Update)> = values.iter().map(|(name, value)| (name.as_str(), Update::Replace(value.clone()))).collect();
        self.check_size(&updates)?;
        for (name, update) in updates {
            self.commit(name, update);
        }
        Ok(())
    }

    fn check_size(&self, updates: &[(&str, Update)]) -> Result<(), Failure> {
        let held: usize = self.state.channels.values().map(Channel::bytes).sum();
        let (mut freed, mut added) = (0, 0);
        for (name, update) in updates {
            match update {
                Update::Replace(value) => {
                    check_nesting(name, value)?;
                    freed += self.state.channels.get(*name).map_or(0, Channel::bytes);
                    added += value.len();
                }
                Update::Extend(items) => {
                    items.iter().try_for_each(|item| check_nesting(name, item))?;
                    added += items.iter().map(|item| item.len() + 1).sum::<usize>();
                }
            }
        }
        let max = self.limits.max_state_bytes;
        if (held + added).saturating_sub(freed) > max {
            let message = format!("the channels together would pass {max} bytes (executor.limits.max_state_bytes)");
            return Err(Failure::permanent(code::STATE_TOO_LARGE, message));
        }
        Ok(())
    }

    fn commit(&mut self, name: &str, update: Update) {
        let channel = self.state.channels.get_mut(name);
        match (update, channel) {
            (Update::Replace(value), Some(channel)) => *channel = Channel::Text(value),
            (Update::Replace(value), None) => {
                self.state.channels.insert(name.to_owned(), Channel::Text(value));
            }
            (Update::Extend(new), Some(channel)) => {
                if let Some((items, bytes)) = channel.as_list() {
                    for item in new {
                        *bytes += item.len() + usize::from(!items.is_empty());
                        items.push(item);
                    }
                }
            }
            (Update::Extend(items), None) => {
                self.state.channels.insert(name.to_owned(), Channel::list(items));
            }
        }
    }
}

/// A loop could nest a channel in itself again and again; nothing could read that back.
fn check_nesting(channel: &str, value: &Json) -> Result<(), Failure> {
    if value.nesting() > MAX_NESTING {
        let message = format!("channel '{channel}': the value nests deeper than {MAX_NESTING} levels");
        return Err(Failure::permanent(code::STATE_TOO_LARGE, message));
    }
    Ok(())
}
