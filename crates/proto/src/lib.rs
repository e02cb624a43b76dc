//! Generated messages, clients and servers of every Troupe service. Nothing else lives here.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated code")]

/// Encoded `FileDescriptorSet` of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/troupe.bin"));

pub mod approval {
    pub mod v1 {
        tonic::include_proto!("troupe.approval.v1");
    }
}
pub mod checkpoint {
    pub mod v1 {
        tonic::include_proto!("troupe.checkpoint.v1");
    }
}
pub mod common {
    pub mod v1 {
        tonic::include_proto!("troupe.common.v1");
    }
}
pub mod executor {
    pub mod v1 {
        tonic::include_proto!("troupe.executor.v1");
    }
}
pub mod registry {
    pub mod v1 {
        tonic::include_proto!("troupe.registry.v1");
    }
}
pub mod scheduler {
    pub mod v1 {
        tonic::include_proto!("troupe.scheduler.v1");
    }
}
