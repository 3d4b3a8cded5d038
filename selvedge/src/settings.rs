//! What each part of Selvedge is set to, from the one configuration. Must never decide anything: what makes no sense was
//! refused before.

use std::path::Path;

use selvedge_datapath::settings::{Others, Rules, Settings};
use selvedge_proxy::api;
use selvedge_registry::name::fnv1a;

use crate::config::Config;

/// What requests are judged and rewritten by.
pub(crate) fn api(config: &Config) -> api::Settings {
    api::Settings {
        compat_mesos: config.compat.mesos,
        api_min: config.compat.api_min,
        domain: config.domain.clone(),
        dns: *config.dns_listen.ip(),
        pool: config.pool,
        pool6: config.pool6,
        vips: config.vips.range,
        runtime_dir: config.runtime_dir.clone(),
        wait_path: config.wait_path.clone(),
        user_networks: config.wire_user_networks,
        tenant_depth: config.policy.tenant_depth,
    }
}

/// What our containers are given.
pub(crate) fn containers(config: &Config) -> selvedge_containers::shared::Settings {
    selvedge_containers::shared::Settings {
        domain: config.domain.clone(),
        mesos: config.dns_style_mesos,
        by_tenant: config.policy.tenants,
        drain: config.vips.drain,
        alone: config.cluster.is_local(),
    }
}

/// What this host's side of the network needs to know.
pub(crate) fn datapath(config: &Config) -> Settings {
    let (policy, cluster) = (&config.policy, &config.cluster);
    Settings {
        group: group(&config.runtime_dir),
        pool: config.pool,
        pool6: config.pool6,
        block: config.block,
        block_size: config.block_size,
        mtu: config.mtu,
        dns: config.dns_listen,
        mesos: config.dns_style_mesos,
        vips: config.vips.range,
        rules: Rules {
            by_tenant: policy.tenants,
            host: policy.host,
            published: policy.published,
            out: policy.out,
            names: policy.dns,
        },
        cluster: Others {
            alone: cluster.is_local(),
            registry: cluster.registry.clone(),
            registry_text: cluster.registry_text.clone(),
            host_name: cluster.host_name.clone(),
            host_address: cluster.host_address,
            way: cluster.datapath,
            free_after: cluster.free_after,
            peer_port: cluster.peer_port,
            vxlan_port: cluster.vxlan_port,
            vxlan_id: cluster.vxlan_id,
        },
    }
}

// Tells the interfaces of several Selvedges in one network namespace apart. Not 0, which is every interface's group,
// and below 2^30.
pub(crate) fn group(runtime_dir: &Path) -> u32 {
    (fnv1a(runtime_dir.as_os_str().as_encoded_bytes()) >> 2) | 1
}
