//! An approval as databases keep it: the message of the wire.

use crate::{approval::Approval, grpc::convert};
use prost::Message as _;
use troupe_domain::Error;
use troupe_proto::approval::v1 as wire;

pub(super) fn encode(approval: &Approval) -> Vec<u8> {
    convert::to_wire(approval).encode_to_vec()
}

/// What was stored came through the same conversion: failing to read it back means damage.
pub(super) fn decode(body: &[u8]) -> Result<Approval, Error> {
    let damaged = |cause: &dyn std::fmt::Display| {
        tracing::error!(error = %cause, "a stored approval cannot be read");
        Error::internal()
    };
    let message = wire::Approval::decode(body).map_err(|e| damaged(&e))?;
    convert::from_wire(message).map_err(|e| damaged(&e))
}
