//! What a chain that is being loaded need not make, since it is there: in the chain before it, or already in itself.

use std::sync::Arc;

use mesh::policy::JwtRule;
use sha2::{Digest as _, Sha256};

use super::{Chain, ChainFilter, NetworkFilter};
use crate::builtin::jwt::keys::Keys;
use crate::module::{Module, hex};
use crate::native::NativePlugin;
use crate::plugin::Plugin;

#[derive(Default)]
pub(super) struct Known {
    modules: Vec<Arc<Module>>,
    plugins: Vec<Arc<Plugin>>,
    natives: Vec<(String, Arc<dyn NativePlugin>)>,
    pub(super) keys: Option<(Vec<JwtRule>, Keys)>,
    /// Certificates to trust, in PEM.
    pub(super) roots: Arc<[String]>,
}

impl Known {
    /// Nothing but certificates to trust.
    pub(super) fn with_roots(roots: Arc<[String]>) -> Self {
        Self { roots, ..Self::default() }
    }

    /// All that a chain has.
    pub(super) fn of(chain: &Chain) -> Self {
        let http = chain.filters.iter().filter_map(|filter| match filter {
            ChainFilter::Wasm(plugin) => Some(plugin),
            ChainFilter::Native(_) => None,
        });
        let network = chain.network.iter().filter_map(|filter| match filter {
            NetworkFilter::Wasm(plugin) => Some(plugin),
            NetworkFilter::Deny { .. } => None,
        });
        let plugins: Vec<_> = http.chain(network).cloned().collect();
        Self {
            modules: plugins.iter().map(|plugin| plugin.module.clone()).collect(),
            plugins,
            natives: chain.natives.clone(),
            keys: Some((chain.rules.clone(), chain.keys.clone())),
            roots: chain.roots.clone(),
        }
    }

    /// Compiled modules, and keys for these rules.
    pub(super) fn with(modules: Vec<Arc<Module>>, rules: &[JwtRule], keys: Keys) -> Self {
        Self { modules, keys: Some((rules.to_vec(), keys)), ..Self::default() }
    }

    pub(super) fn into_modules(self) -> Vec<Arc<Module>> {
        self.modules
    }

    /// The compiled module of these bytes.
    pub(super) fn module<E>(
        &mut self,
        bytes: &[u8],
        compile: impl FnOnce() -> Result<Module, E>,
    ) -> Result<Arc<Module>, E> {
        let known = if self.modules.is_empty() {
            None
        } else {
            let sha256 = hex(&Sha256::digest(bytes));
            self.modules.iter().find(|module| module.sha256() == sha256)
        };
        if let Some(module) = known {
            return Ok(module.clone());
        }
        let module = Arc::new(compile()?);
        self.modules.push(module.clone());
        Ok(module)
    }

    /// A plugin that is the same in everything. Each is given once: two places in a chain are two plugins.
    pub(super) fn plugin(&mut self, plugin: &Plugin) -> Option<Arc<Plugin>> {
        let at = self.plugins.iter().position(|known| known.is_same(plugin))?;
        Some(self.plugins.swap_remove(at))
    }

    /// The native filter that was made from the same, else a new one.
    pub(super) fn native<E>(
        &mut self,
        key: &str,
        make: impl FnOnce() -> Result<Option<Arc<dyn NativePlugin>>, E>,
    ) -> Result<Option<Arc<dyn NativePlugin>>, E> {
        match self.natives.iter().position(|(known, _)| known == key) {
            Some(at) => Ok(Some(self.natives.swap_remove(at).1)),
            None => make(),
        }
    }
}
