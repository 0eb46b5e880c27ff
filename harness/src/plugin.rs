//! One wasm extension as Envoy's `PluginConfig` and `VmConfig` describe it.

use std::sync::Arc;

use bytes::Bytes;
use mesh::model::FailStrategy;

use crate::module::Module;

/// Envoy's `VmConfig`: with the code, what identifies a VM.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct VmConfig {
    /// Always empty under Istio.
    pub vm_id: String,
    /// What `on_vm_start` reads; Istio has none.
    pub configuration: Bytes,
    /// The environment, in the order of the resource.
    pub env: Vec<(String, String)>,
}

/// Everything a VM and a root context are created from.
#[derive(Debug)]
pub struct Plugin {
    /// `<namespace>.<name>`: in log lines and as the property `plugin_name`.
    pub name: String,
    /// Envoy's root id, from `pluginName`.
    pub root_id: String,
    /// The VM it runs in.
    pub vm: Arc<VmConfig>,
    /// Plugin configuration; empty when the resource has none.
    pub configuration: Bytes,
    /// What a crash means for traffic.
    pub fail_strategy: FailStrategy,
    /// The compiled module.
    pub module: Arc<Module>,
}

impl Plugin {
    /// Whether both run in one VM per worker.
    pub fn shares_vm_with(&self, other: &Self) -> bool {
        self.module.sha256() == other.module.sha256() && self.vm == other.vm
    }

    /// Whether nothing tells them apart.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self { name, root_id, vm: _, configuration, fail_strategy, module: _ } = self;
        self.shares_vm_with(other)
            && (name, root_id, configuration, fail_strategy)
                == (&other.name, &other.root_id, &other.configuration, &other.fail_strategy)
    }
}
