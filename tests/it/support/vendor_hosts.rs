//! The addresses that vendors have built into their programs, led to a server of the test. All other addresses lead nowhere.

use super::model_api::ModelApi;
use super::tls_terminator::TlsTerminator;
use super::tunnel_proxy::TunnelProxy;

/// A proxy for a program, and certificates that it trusts.
pub struct VendorHosts {
    tls: TlsTerminator,
    proxy: TunnelProxy,
}

impl VendorHosts {
    /// Each of these names is `api`. A tunnel to another name meets a certificate that is not made out to it.
    pub fn served_by(api: &ModelApi, names: &[&str]) -> Self {
        let tls = TlsTerminator::with_names(&api.url, names);
        let proxy = TunnelProxy::start(Some(tls.address()));
        Self { tls, proxy }
    }

    /// The variables by which a program for Node or Bun gets there.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("HTTPS_PROXY", self.proxy.url()),
            ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
            ("NODE_EXTRA_CA_CERTS", self.tls.ca().display().to_string()),
        ]
    }
}
